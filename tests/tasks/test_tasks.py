"""Tasks are found by their names, each in one module; and they read files only once."""

import collections
import dataclasses
import json
import types

import numpy as np
import pytest

from jaxprop import tasks
from jaxprop.data import davis, image_files
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.targets import KeypointTarget
from jaxprop.methods import from_settings
from jaxprop.study import comparison
from jaxprop.tasks.joints import Joints
from jaxprop.tasks.objects import Objects
from jaxprop.tasks.vip import Instances, Parts
from tests.layouts import write_jhmdb, write_vip

NEW_MODULE = '''
"""Foreground against background: intersection over union."""

import dataclasses

import numpy as np

from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.tasks import masks
from jaxprop.tasks.task import Measure, SequenceView, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Foreground(Task):
    count_first: bool = False
    printed = ('IoU',)

    def take(self, path, start, index, prediction):
        masks.write(path, start.sequence, index, prediction)
        found, truth = prediction > 0, start.label(index) > 0
        return float((found & truth).sum() / (found | truth).sum())

    def record(self, path, start, taken):
        return {'iou': taken}

    def results(self, records):
        means = {
            name: float(np.mean(record['iou'][0 if self.count_first else 1 :]))
            for name, record in records.items()
        }
        return {
            'summary': {'IoU': float(np.mean(list(means.values())))},
            'per_sequence': [{'sequence': name, 'IoU': mean} for name, mean in means.items()],
            'per_half': [{'half': 'first', 'IoU': 0.5}],
        }

    def shown(self, path, sequence, record, chosen):
        line = (('foreground', (200, 0, 0)),)
        measure = Measure('IoU', 'of the foreground', np.array([record['iou']]), line)
        frames = masks.pictures(path, sequence, chosen)
        return SequenceView(sequence.name, sequence.num_frames, line, (measure,), frames, chosen)


def open_task(measure, *, num_frames):
    def sequences():
        made = synthetic_sequences(num_sequences=2, num_frames=num_frames, size=(64, 80))
        return [(s.name, lambda s=s: s) for s in made]

    return Foreground(sequences, **measure)
'''


@pytest.fixture(scope='module')
def labeller():
    network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    source = sources.NetworkFeatures(dataclasses.replace(network, trained=True))
    return runner.Labeller(source, from_settings(num_context=2, num_neighbors=3, radius=3))


def test_a_task_in_one_new_module_is_found(labeller, tmp_path, monkeypatch):
    """The task is opened, evaluated, reported and compared by its name; nothing else names it."""
    (tmp_path / 'foreground.py').write_text(NEW_MODULE)
    monkeypatch.setattr(tasks, '__path__', [*tasks.__path__, str(tmp_path)])
    dataset, measure = {'kind': 'foreground', 'num_frames': 4}, {'count_first': True}
    for name in ('a', 'b'):
        task = tasks.open_task(dataset, measure)
        metrics = runner.evaluate(task, labeller, tmp_path / name, title='new', dataset=dataset)
    (record,) = [
        json.loads(path.read_text())
        for path in (tmp_path / 'a/sequences').glob(f'{task.sequences()[0][0]}.json')
    ]
    assert record['iou'][0] == 1 and 0 < record['iou'][1] <= 1
    assert metrics['per_sequence'][0]['IoU'] == pytest.approx(np.mean(record['iou']))
    assert metrics['settings']['measure'] == measure
    report = (tmp_path / 'a/report.html').read_text()
    assert 'of the foreground' in report and 'By half' in report
    compared = comparison.compare([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'c')
    assert compared['tables']['summary'] == [
        {'measure': 'IoU', 'values': [metrics['summary']['IoU']] * 2, 'differences': [0]}
    ]
    assert [row['half'] for row in compared['tables']['per_half']] == ['first']
    header = (tmp_path / 'c/comparison.csv').read_text().splitlines()[0]
    assert header == 'table,sequence,half,measure,a,b,b - a'


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(tasks.SettingsError) as caught:
        tasks.open_task({'kind': 'jhdmb'})
    message = str(caught.value)
    assert "'jhdmb'; did you mean 'jhmdb'?" in message and '\n' not in message
    known = 'badja davis jhmdb lvos mose synthetic tapvid vip youtube_vos'
    assert str(tuple(known.split())) in message
    # A module that all tasks share is none.
    with pytest.raises(tasks.SettingsError, match="'objects'; did you mean"):
        tasks.open_task({'kind': 'objects'})


def test_what_a_module_lacks_is_no_unknown_name(tmp_path, monkeypatch):
    (tmp_path / 'needs.py').write_text('import no_such_library\n')
    monkeypatch.setattr(tasks, '__path__', [*tasks.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match='no_such_library'):
        tasks.open_task({'kind': 'needs'})


@pytest.mark.parametrize('kind, name', [('davis', 'root'), ('vip', 'root'), ('badja', 'folder')])
def test_a_missing_folder_is_named(kind, name):
    folders = {'root': 'R', 'folder': 'F'} if kind == 'badja' else {'root': 'R'}
    with pytest.raises(tasks.SettingsError, match=f'--config.dataset.{name}=FOLDER, the folder'):
        tasks.open_task({'kind': kind, **folders, name: ''})


def test_settings_choose_the_task(tmp_path):
    write_jhmdb(tmp_path / 'jhmdb')
    write_vip(tmp_path / 'vip')
    vip = {'kind': 'vip', 'root': str(tmp_path / 'vip')}
    opened = [
        tasks.open_task({'kind': 'synthetic', 'num_sequences': 2, 'num_frames': 3}),
        tasks.open_task({'kind': 'jhmdb', 'root': str(tmp_path / 'jhmdb')}, {'lost': 'wrong'}),
        tasks.open_task(vip),
        tasks.open_task({**vip, 'annotation': 'instance'}),
        tasks.open_task({'kind': 'davis', 'root': 'D', 'names': ('b', 'a')}),
    ]
    assert [type(task) for task in opened] == [Objects, Joints, Parts, Instances, Objects]
    assert [len(task.sequences()) for task in opened] == [2, 1, 1, 1, 2]
    assert [name for name, _ in opened[-1].sequences()] == ['b', 'a']
    for task in opened[:4]:
        name, open_sequence = task.sequences()[0]
        assert open_sequence().name == name
    assert [task.settings() for task in opened[:3]] == [
        {},
        {'measure': {'lost': 'wrong', 'count_first': False, 'average': 'joints'}},
        {'measure': {'count_first': True}},
    ]
    with pytest.raises(tasks.SettingsError, match='dataset.last is no setting'):
        tasks.open_task({'kind': 'davis', 'root': 'D', 'last': 1})


def test_the_first_mask_is_read_once(labeller, tmp_path, monkeypatch):
    """It is read once in a whole evaluation of DAVIS's files, from opening to the report."""
    (made,) = synthetic_sequences(num_sequences=1, num_frames=4, size=(64, 80), num_objects=2)
    (tmp_path / 'JPEGImages/480p/a').mkdir(parents=True)
    for t in range(4):
        frame = tmp_path / f'JPEGImages/480p/a/{t:05d}.jpg'
        frame.write_bytes(image_files.encode_jpeg(made.read_frame(t)))
        image_files.write_mask(tmp_path / f'Annotations/480p/a/{t:05d}.png', made.read_label(t))
    counts, read_ids = collections.Counter(), davis.read_ids
    monkeypatch.setattr(
        davis, 'read_ids', lambda path: counts.update([path.name]) or read_ids(path)
    )
    task = tasks.open_task({'kind': 'davis', 'root': str(tmp_path), 'names': ('a',)})
    metrics = runner.evaluate(task, labeller, tmp_path / 'out', title='', dataset={})
    # The others once for the scores, and once for the report, which outlines them.
    assert metrics['unscored'] == [] and counts == {f'{t:05d}.png': 1 + (t > 0) for t in range(4)}


def test_a_first_label_is_asked_for_once(labeller, tmp_path):
    """For any task, a user's reader is asked once for the first label."""
    write_vip(tmp_path / 'vip', size=(64, 80))
    for kind in ('category', 'instance'):
        task = tasks.open_task({'kind': 'vip', 'root': str(tmp_path / 'vip'), 'annotation': kind})
        ((name, open_sequence),) = task.sequences()
        sequence, counts = open_sequence(), collections.Counter()
        counted = dataclasses.replace(
            sequence,
            read_label=lambda t: counts.update([t]) or sequence.read_label(t),
        )
        task = dataclasses.replace(task, sequences=lambda: [(name, lambda: counted)])
        runner.evaluate(task, labeller, tmp_path / kind, title='', dataset={})
        assert counts == {0: 1, 1: 2, 2: 2}  # The others for the report once more.


def test_features_from_another_source(labeller, tmp_path):
    """A source is three methods. Features that are read and not computed give the same masks."""
    sequences = synthetic_sequences(num_sequences=3, num_frames=6, size=(64, 80), num_objects=2)
    task = Objects(lambda: [(s.name, lambda s=s: s) for s in sequences])
    network = labeller.source

    class Stored:
        network, color, description, trained = None, 'rgb', {'name': 'stored'}, True
        batch, warnings = 4, ()
        missing = 0

        def settings(self):
            return {}

        def sizes(self, video):
            return network.sizes(video)

        def open(self, video, frames):
            kept = sources.KeptFeatures(network).open(video, frames)
            count = video.num_frames - self.missing
            return sources.OpenedVideo(array for array, _ in zip(kept.arrays, range(count)))

    stored = Stored()
    runner.evaluate(task, labeller, tmp_path / 'network', title='', dataset={})
    other = dataclasses.replace(labeller, source=stored)
    metrics = runner.evaluate(
        task, other, tmp_path / 'stored', title='', dataset={}, videos_per_device=2
    )
    assert metrics['network'] == {'trained': True, 'name': 'stored'}
    for path in (tmp_path / 'network/masks').rglob('*.png'):
        same = tmp_path / 'stored' / path.relative_to(tmp_path / 'network')
        assert path.read_bytes() == same.read_bytes()
    stored.missing = 1
    with pytest.raises(ValueError, match='the source gives 5 arrays for 6 frames'):
        runner.evaluate(task, other, tmp_path / 'short', title='', dataset={})


def test_joints_start_from_their_first_positions():
    positions = np.arange(12.0).reshape(2, 3, 2)
    start = Joints(list).start(types.SimpleNamespace(positions=positions))
    np.testing.assert_array_equal(start.first, positions[0])
    assert KeypointTarget().values(start.first, (8, 8)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    'skip, wrong, measure, reason',
    [
        ([[0.0], [0.1]], [[0.0], [0.1]], {}, ''),
        ([[0.0]], [[0.0]], {}, 'with fewer than 2 frames'),
        ([[0.0]], [[0.0]], {'count_first': True}, ''),
        ([[0.0], [None]], [[0.0], ['Infinity']], {}, 'with all joints lost'),
        ([[0.0], [None]], [[0.0], ['Infinity']], {'lost': 'wrong'}, ''),
        ([[0.0], [None]], [[0.0], [None]], {}, 'for lack of annotations'),
    ],
)
def test_why_joints_are_not_scored(skip, wrong, measure, reason):
    task = Joints(list, **measure)
    record = {'distances': {'skip': skip, 'wrong': wrong}}
    assert task.unscored(record) == reason and task.is_scored(record) == (not reason)
