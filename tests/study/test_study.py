"""Studies and tuning on tiny rendered videos: a cell has the results of its evaluation."""

import csv
import importlib
import json
import pathlib
import sys
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxprop import tasks
from jaxprop.checkpoints.native import save_pretrained
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import features
from jaxprop.evaluation import run as runner
from jaxprop.models import ResNet
from jaxprop.study import study, tuning
from jaxprop.tasks.objects import Objects
from tests.evaluation.test_stream import finish, masks, start

SPLITS = {'train': slice(2), 'val': slice(1, 3), 'other': slice(3, 4)}


def open_task(measure, *, split):
    """The task 'rendered'."""
    sequences = synthetic_sequences(num_sequences=4, num_frames=8, size=(64, 80), num_objects=2)
    return Objects(lambda: [(s.name, lambda s=s: s) for s in sequences[SPLITS[split]]], **measure)


sys.modules['jaxprop.tasks.rendered'] = types.SimpleNamespace(open_task=open_task)


def base():
    config = importlib.import_module('configs.eval.synthetic').get_config()
    config.dataset = ConfigDict({'kind': 'rendered', 'split': 'val'})
    config.network.update(name='untrained', output='res1', strides=(1, 1, 1, 1))
    config.input.color = 'rgb'
    config.propagation.update(num_context=2, num_neighbors=3, radius=3.0)
    config.feature_batch = 3
    config.report_frames = 2
    return config


def cell(temperature, aggregation='overall', network='known', **rest):
    return {
        'labels': {'method': network, 'T': temperature, 'aggregation': aggregation},
        'network': network,
        'changes': {'propagation.temperature': temperature, 'propagation.aggregation': aggregation},
        'published': {'J-Mean': 50.0},
        'chosen_on': '',
        **rest,
    }


def study_config():
    config = base()
    config.networks = ConfigDict({'known': 'untrained', 'lost': ''})
    config.own, config.own_factors = ('untrained',), 'known'
    own = {
        'labels': {'T': 0.05, 'aggregation': 'overall'},
        'changes': {'propagation.temperature': 0.05},
        'chosen_on': 'rendered/val',
    }
    config.study = ConfigDict(
        {
            'kind': 'table',
            'measures': (('J-Mean', 'JM'), ('F-Mean', 'FM')),
            'pivot': '',
            'columns': ('method', 'T', 'aggregation'),
            'cells': (
                cell(0.05),
                cell(0.05, 'per_frame'),
                cell(0.05, network='lost'),
                cell(1.0, chosen_on='rendered/val', published={}),
            ),
            'own_cells': ({**own, 'factors': 'known'}, {**own, 'factors': 'another'}),
        }
    )
    return config


@pytest.fixture
def computed(monkeypatch):
    """Records the number of frames in each call of the network."""
    counts, compute = [], features.compute_features
    monkeypatch.setattr(
        features,
        'compute_features',
        lambda source, frames, *others: (
            counts.append(len(frames)) or compute(source, frames, *others)
        ),
    )
    return counts


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp('study')
    return output, study.run(study_config(), output)


def test_cells_are_evaluations(finished, tmp_path):
    """Cells that share features have the files and scores of separate evaluations."""
    output, rows = finished
    for index, settings in ((0, {}), (1, {'aggregation': 'per_frame'})):
        config = base()
        config.propagation.update(settings)
        alone = runner.evaluate(
            tasks.open_task(config.dataset),
            runner.Labeller.from_config(config),
            tmp_path / str(index),
            title='alone',
            dataset={},
        )
        report = output / rows[index]['report']
        assert report.exists()
        assert masks(report.parent) == masks(tmp_path / str(index))
        assert rows[index]['measured'] == alone['summary']
        assert rows[index]['sequences'] == 2 and rows[index]['frames'] == 14
    assert rows[0]['measured'] != rows[1]['measured']


def test_rows_say_what_was_not_run_and_what_was_chosen_here(finished):
    output, rows = finished
    assert [row['labels']['method'] for row in rows] == [
        'known',
        'known',
        'lost',
        'known',
        'untrained',
    ]
    assert [row['marked'] for row in rows] == [False, False, False, True, True]
    assert rows[2]['measured'] is None and '--config.networks.lost=FILE' in rows[2]['note']
    assert rows[4]['published'] == {}
    # The same settings: one run for the two rows.
    assert rows[4]['report'] == rows[0]['report']
    assert len(list((output / 'cells').iterdir())) == 3
    with (output / 'table.csv').open() as file:
        assert len(list(csv.DictReader(file))) == 5
    assert '--config.networks.lost=FILE' in (output / 'table.md').read_text()


def test_goes_on_cell_by_cell(finished, computed):
    output, rows = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob('cells/*/metrics.json')}
    redone = (output / rows[1]['report']).parent
    (redone / 'metrics.json').unlink()
    next((redone / 'sequences').iterdir()).unlink()
    again = study.run(study_config(), output)
    assert again == rows
    assert computed == [3, 3, 2]  # One sequence of eight frames.
    after = {path: path.stat().st_mtime_ns for path in output.rglob('cells/*/metrics.json')}
    assert {path for path in before if before[path] != after[path]} == {redone / 'metrics.json'}


def test_features_are_computed_once(tmp_path, computed):
    study.run(study_config(), tmp_path)
    assert sum(computed) == 16  # Of two sequences, for three runs.


def test_unknown_changes_are_refused():
    config = study_config()
    config.study.cells = ({**cell(1.0), 'changes': {'propagation.temprature': 1.0}},)
    with pytest.raises(ValueError, match="'propagation.temprature', which the config does not"):
        study.resolve(config)


def test_a_section_can_be_replaced():
    changed = study.with_changes(
        {'network': {'name': 'a', 'depth': 18}, 'input': {'size': 1}},
        {'network': {'name': '', 'output': 'conv10'}, 'input.size': 3},
        'file',
    )
    assert changed == {'network': {'name': 'file', 'output': 'conv10'}, 'input': {'size': 3}}


def tuning_config():
    config = base()
    config.tuning = importlib.import_module('configs.study.tune').get_config().tuning
    config.tuning.update(
        on={'split': 'train'}, report={'split': 'other'}, order=('num_neighbors', 'radius')
    )
    config.tuning.candidates = ConfigDict({'num_neighbors': (1, 5), 'radius': (2.0, 3.0, 6.0)})
    return config


def test_tuning_chooses_the_best_and_reports_on_others(tmp_path):
    result = tuning.run(tuning_config(), tmp_path)

    def score(split, **settings):
        config = base()
        config.propagation.update(settings)
        config.dataset.split = split
        return runner.evaluate(
            tasks.open_task(config.dataset),
            runner.Labeller.from_config(config),
            tmp_path / f'alone-{split}-{sorted(settings.items())}',
            title='',
            dataset={},
        )['summary']['J&F-Mean']

    # Of the start, and of the chosen values, on both splits; and one factor after the other.
    neighbors = {k: score('train', num_neighbors=k) for k in (3, 1, 5)}
    best = max(neighbors, key=neighbors.get)
    radii = {r: score('train', num_neighbors=best, radius=r) for r in (3.0, 2.0, 6.0)}
    assert result['chosen'] == {'num_neighbors': best, 'radius': max(radii, key=radii.get)}
    assert result['scores'] == {
        'rendered/train': {'before': neighbors[3], 'chosen': max(radii.values())},
        'rendered/other': {'before': score('other'), 'chosen': score('other', **result['chosen'])},
    }
    assert len(set(radii.values())) == 3 and result == json.loads(
        (tmp_path / 'chosen.json').read_text()
    )
    with (tmp_path / 'table.csv').open() as file:
        marks = [row['marked'] for row in csv.DictReader(file)]
    # What was chosen on `train` is marked there; no setting was chosen on `other`.
    assert len(set(marks[2:])) == 1 and marks[1] != marks[3] and marks[0] == marks[3]
    assert (tmp_path / 'search/figure.png').exists()


def test_tuning_refuses_to_report_what_it_chose_on(tmp_path):
    config = tuning_config()
    config.tuning.report.split = 'val'
    with pytest.raises(ValueError, match='share sequences: '):
        tuning.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_cells_on_four_devices_are_those_on_one(finished, tmp_path):
    output, rows = finished
    finish(
        start(['-m', 'tests.study.test_study', tmp_path / 'four'], tmp_path / 'cache', devices=4)
    )
    for row in rows:
        if row['report']:
            expected, found = (
                (folder / row['report']).parent for folder in (output, tmp_path / 'four')
            )
            assert masks(found) == masks(expected)
            metrics = json.loads((found / 'metrics.json').read_text())
            assert metrics['summary'] == row['measured']
            assert '4 x' in metrics['provenance']['device']


if __name__ == '__main__':
    study.run(study_config(), pathlib.Path(sys.argv[1]))


def test_other_weights_under_the_same_path_are_another_cell(tmp_path):
    model, folders = ResNet(output='res1', strides=(1, 1, 1, 1)), []
    config = base().to_dict()
    config['network']['name'] = str(tmp_path / 'net')
    for seed in (0, 1, 0):
        images = np.zeros((1, 32, 32, 3), np.float32)
        save_pretrained(tmp_path / 'net', model, model.init(jax.random.key(seed), images))
        folders.append(study.Cell({}, config).folder)
    assert folders[0] == folders[2] != folders[1]
