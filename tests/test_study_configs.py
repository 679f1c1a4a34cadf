"""The study's configs: every cell is an evaluation that can be run, with the published numbers."""

import collections
import importlib
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from configs.study import common
from jaxprop import tasks
from jaxprop.evaluation import labeller, networks, sources
from jaxprop.models import VGG16, ResNet, find_network
from tests.checkpoints.test_published import NETWORKS
from tests.support import shared

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = sorted(
    path.stem
    for path in (ROOT / 'configs/study').glob('*.py')
    if path.stem not in ('common', 'tune')
)
TABLES = [name for name in NAMES if name.startswith('table')]
RECORDS = {
    'davis': {'objects': [1], 'J': [[0.5] * 3], 'F': [[0.5] * 3]},
    'category': {'confusion': [np.eye(20).tolist()] * 2},
    'instance': {
        'matches': [
            {'classes': [1], 'scores': [0.5], 'overlaps': [0.5], 'num_true': [0, 1] + [0] * 18}
        ]
        * 2
    },
    'jhmdb': {
        'joint_names': ['face'],
        'distances': {lost: [[0.1]] * 2 for lost in ('skip', 'wrong')},
    },
}


def load(name):
    return importlib.import_module(f'configs.study.{name}').get_config()


def resolved(config, changes):
    """Makes the evaluation of a cell. A change that the base doesn't have is an error."""
    config = ConfigDict(
        {name: value for name, value in config.items() if name not in ('study', 'networks')}
    )
    config = config.copy_and_resolve_references().lock()
    for name, value in changes.items():
        if isinstance(value, dict):
            assert name in config
            config[name] = ConfigDict(value)
        else:
            config.update_from_flattened_dict({name: value})
    return config


def without_weights(
    name, *, architecture=None, seed, untrained=None, layout=None, prefix=None, **attributes
):
    attributes = {key: value for key, value in attributes.items() if value is not None}
    model = find_network(architecture or 'resnet')(**attributes)
    return networks.Network(model, {}, False, {'name': name})


def summary_keys(config):
    """Lists the keys in the summary of an evaluation's results."""
    task = tasks.open_task({**config.dataset, 'root': 'some folder'}, config.get('measure'))
    record = RECORDS[config.dataset.get('annotation', config.dataset.kind)]
    return set(task.results({'video': record})['summary'])


@pytest.mark.parametrize('name', NAMES)
def test_every_cell_can_be_run(name, monkeypatch):
    monkeypatch.setattr(sources, 'load_network', without_weights)
    config = load(name)
    study = config.study
    assert config.name == name and study.kind in name
    measures = set(dict(study.measures))
    needed = {*study.columns, *study.curves, *filter(None, [study.pivot])}
    needed |= {'panel', 'x'} if study.kind == 'figure' else set()
    summaries, seen = {}, []
    for cell in (*study.cells, *study.own_cells):
        changed = resolved(config, cell['changes'])
        labeller.Labeller.from_config(changed)
        key = (changed.dataset.kind, changed.dataset.get('annotation'))
        if key not in summaries:
            summaries[key] = summary_keys(changed)
        assert set(cell.get('published', ())) <= measures & summaries[key]
        assert measures & summaries[key]
        labels = dict(cell['labels'])
        if study.kind == 'figure':
            x = labels.pop('x')
            assert isinstance(x, (int, float))
            [panel] = [panel for panel in study.panels if panel['label'] == labels['panel']]
            stands_for = {
                '1/T': 1 / changed.propagation.temperature,
                'n': changed.propagation.num_context,
                'k': changed.propagation.num_neighbors,
            }
            assert stands_for[panel['x']] == pytest.approx(x)
        assert all(isinstance(text, str) and text for text in labels.values())
        own = 'network' not in cell
        assert set(cell['labels']) == needed - ({'method'} if own else set())
        if own:
            assert set(cell) == {'labels', 'changes', 'chosen_on', 'factors'}
        else:
            assert set(cell) == {'labels', 'network', 'changes', 'published', 'chosen_on'}
            assert config.networks[cell['network']] == ''
        seen.append((cell.get('factors'), *sorted(cell['labels'].items())))
    assert measures == set().union(*summaries.values()) & measures
    # A row for each network and cell.
    assert len(set(seen)) == len(seen)
    assert {cell['network'] for cell in study.cells} == set(config.networks)


@pytest.mark.parametrize('name', NAMES)
def test_own_networks_take_what_the_command_line_says(name):
    config = load(name)
    config.input.update(resize='short_side', size=240)
    config.propagation.radius = 6.0
    config.dataset.names = ('dog',)
    own_cells = [cell for cell in config.study.own_cells if cell['factors'] == config.own_factors]
    assert own_cells
    for cell in own_cells:
        changed = resolved(config, cell['changes'])
        assert changed.propagation.radius == 6 and changed.dataset.names == ('dog',)
        # Table 1 is about sizes.
        assert (changed.input.size == 240) == (name != 'table1')
        # A network is what its card says, but for Table 2's layers.
        assert changed.network.output in (('res2', 'res3') if name == 'table2' else (None,))
        rest = ('architecture', 'depth', 'strides', 'max_pool', 'padding')
        assert all(changed.network[attribute] is None for attribute in rest)
        assert changed.input.color is None


def test_a_slip_in_a_change_is_an_error():
    config = common.davis('table', 'Table')
    cell = common.cell({'method': 'CRW'}, 'crw', {'propagation.temprature': 1.0}, {})
    with pytest.raises(KeyError, match='temprature'):
        common.add_study(config, [cell], [])


def test_factors_of_released_systems():
    config = load('table6')
    for start, name in (
        ('UVC', 'davis_uvc_track'),
        ('CRW', 'davis_crw'),
        ('VFS', 'davis_vfs'),
        ('MAST', 'davis_mast'),
        ('CorrFlow', 'davis_corrflow'),
    ):
        expected = importlib.import_module(f'configs.eval.{name}').get_config()
        [cell] = [
            cell
            for cell in config.study.cells
            if cell['labels']['method'].split()[0] == start
            and ('upsampled' not in cell['labels']['method'])
            and cell['labels']['localization'] != 'none'
        ]
        changed = resolved(config, cell['changes'])
        for section in ('propagation', 'labels'):
            for key, value in expected[section].items():
                assert changed[section][key] == value, (name, key)
        released = expected.network.untrained.to_dict()
        if 'projection' in released:
            released['output'] = None  # The file's own.
        assert released.items() <= changed.network.to_dict().items()
        assert changed.network.max_pool == released.get('max_pool', True)
        assert changed.input.color == expected.input.color
        assert changed.input.multiple == expected.input.multiple


def cells_of(name, method, **labels):
    config = load(name)
    return [
        resolved(config, cell['changes'])
        for cell in config.study.cells
        if cell['labels']['method'] == method and labels.items() <= cell['labels'].items()
    ]


def test_factors_of_single_rows():
    """Single rows have factors of released code that no other row of their tables has."""
    eval_crw = importlib.import_module('configs.eval.vip_crw').get_config()
    for cell in cells_of('table7', 'CRW', localization='none'):
        assert cell.labels.to_dict() == eval_crw.labels.to_dict()
        assert cell.input.precision == 'float32' and cell.network.padding == 'reflect'
        changed = {'restriction': 'none', 'num_context': 1}
        assert cell.propagation.to_dict() == {**eval_crw.propagation.to_dict(), **changed}
    [cell] = [c for c in load('table7').study.cells if c['labels']['method'] == 'CRW'][:1]
    assert cell['chosen_on'] == ''
    [cell] = cells_of('table8', 'ImageNet, reported by UVC')
    assert cell.propagation.normalize_features and cell.propagation.temperature == 512**-0.5
    assert cell.propagation.num_neighbors == 20 and cell.keypoints.num_cells == 5
    assert cell.network.output == 'res3' and cell.input.color is None
    [cell] = cells_of('table6', 'CRW', localization='none')
    assert (cell.propagation.num_neighbors, cell.propagation.num_context) == (10, 7)
    [cell] = cells_of('table5', 'UVC (Li et al.)')
    uvc = importlib.import_module('configs.eval.davis_uvc').get_config()
    assert cell.propagation.to_dict() == uvc.propagation.to_dict()
    assert cell.network.output == 'res4'
    for cell in cells_of('table5', 'UVC+'):
        assert (cell.propagation.num_neighbors, cell.propagation.num_context) == (5, 7)
        assert cell.propagation.restriction == 'none' and cell.propagation.temperature == 1
        assert cell.network.output == 'res3' and cell.input.color == 'lightness'


TIMECYCLE = ResNet(50, projection=512, projection_relu=True)
CORRFLOW = ResNet(
    output='res4', max_pool=False, widths=(64, 128, 256, 256), projection=64, projection_kernel=3,
    projection_bias=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ('system', 'cells', 'model', 'color'),
    [
        ('torchvision_resnet18', [('table6', 'vfs'), ('table3', 'imagenet')], ResNet(), 'rgb'),
        ('torchvision_resnet18', [('table6', 'crw')], ResNet(padding='reflect'), 'rgb'),
        ('moco_resnet18', [('table3', 'moco'), ('table8', 'moco_finetuned')], ResNet(), 'rgb'),
        ('crw_resnet18', [('table4', 'crw'), ('table8', 'crw')], ResNet(padding='reflect'), 'rgb'),
        ('uvc_resnet18', [('table1', 'uvc'), ('table8', 'uvc')], ResNet(output='res4'),
         'lightness'),
        ('timecycle_resnet50', [('table6', 'timecycle'), ('table7', 'timecycle'),
                                ('table8', 'timecycle')], TIMECYCLE, 'rgb'),
        ('corrflow_resnet18', [('table6', 'corrflow'), ('table8', 'corrflow')], CORRFLOW,
         'rgb_unit'),
        ('mast_resnet18', [('table6', 'mast')], CORRFLOW, 'lab'),
        ('deepcluster_vgg16', [('table2', 'deepcluster')], VGG16(output='conv13'), 'rgb'),
    ],
)  # fmt: skip
def test_published_files_are_the_networks_of_cells(system, cells, model, color, tmp_path):
    """They have the layer that the release evaluates, and no note that they could be another."""
    entry, path = NETWORKS[system], tmp_path / 'file'
    shapes = {entry['prefix'] + name: shape for name, shape in entry['shapes'].items()}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    for table, name in cells:
        found = [cell for cell in load(table).study.cells if cell['network'] == name]
        settings = resolved(load(table), found[0]['changes']).network
        network = networks.load_network(**{**settings, 'name': str(path)})
        assert (network.model, network.color, network.warnings) == (model, color, [])


def test_a_file_of_another_depth_is_none_of_a_cell(tmp_path):
    shapes = NETWORKS['torchvision_resnet50']['shapes']
    path = tmp_path / 'file'
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    settings = resolved(load('table4'), load('table4').study.cells[0]['changes']).network
    with pytest.raises(ValueError, match='network.depth is 18, .*file holds a ResNet50$'):
        networks.load_network(**{**settings, 'name': str(path)})


def published_rows(name):
    """Reads the rows of a published table: dicts of texts by their headings."""
    text = shared('reference', 'published_tables.md').read_text(encoding='utf-8')
    _, _, text = text.partition(f'## Table {name.removeprefix("table")}:')
    lines = [line for line in text.split('\n## ')[0].splitlines() if line.startswith('|')]
    heading, _, *rows = ([part.strip() for part in line.strip('|').split('|')] for line in lines)
    assert all(len(row) == len(heading) for row in rows)
    return [dict(zip(heading, (text.replace('*', '') for text in row))) for row in rows]


@pytest.mark.parametrize('name', TABLES)
def test_published_values(name):
    def item(labels, more=None):
        # Only the first row of a part says its grid.
        return sorted(
            (key, text[0] if key == 'part' else text)
            for key, text in {**labels, **(more or {})}.items()
        )

    study = load(name).study
    headings = {heading: key for key, heading in study.measures}
    expected = collections.Counter()
    for row in published_rows(name):
        if name == 'table4':  # Headings are values of a label here.
            numbers = [
                ({'aggregation': heading}, 'J&F-Mean', row.pop(heading))
                for heading in ('per-frame', 'overall')
            ]
        elif name == 'table7':
            numbers = [
                ({'annotation': annotation}, key, row.pop(key))
                for annotation, key in (('parts', 'mIoU'), ('instances', 'AP^r_vol'))
            ]
        else:
            numbers = [({}, key, row.pop(heading)) for heading, key in headings.items()]
        labels = {
            {'model': 'method', 'network': 'method'}.get(heading, heading): text
            for heading, text in row.items()
        }
        for more, key, number in numbers:
            if number != '-':
                expected[(*item(labels, more), key, float(number))] += 1
    found = collections.Counter()
    for cell in study.cells:
        for key, number in cell['published'].items():
            found[(*item(cell['labels']), key, number)] += 1
    assert found == expected
    assert sum(found.values()) > 10
