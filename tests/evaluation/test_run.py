"""Whole evaluations of tiny rendered videos: results, resuming, wrong folders, bad sequences."""

import contextlib
import csv
import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

from jaxprop import Execution, files, labels
from jaxprop.checkpoints.native import save_pretrained
from jaxprop.data.image_files import read_mask
from jaxprop.data.inputs import InputConfig
from jaxprop.data.sequences import DataError
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.results import Folder, read_sealed
from jaxprop.evaluation.targets import MaskTarget
from jaxprop.methods import from_settings
from jaxprop.metrics import davis
from jaxprop.models import ResNet
from jaxprop.propagation import propagate_video
from jaxprop.tasks.objects import Objects

IMAGES = np.zeros((1, 32, 32, 3), np.float32)
CONFIG = from_settings(num_context=2, num_neighbors=3, radius=4)


@pytest.fixture(scope='module')
def sequences():
    return synthetic_sequences(num_sequences=2, num_frames=6, size=(96, 128))


@pytest.fixture(scope='module')
def labeller():
    network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    return runner.Labeller(sources.NetworkFeatures(network), CONFIG)


@pytest.fixture(scope='module')
def finished(sequences, labeller, tmp_path_factory):
    output = tmp_path_factory.mktemp('evaluation')
    return output, run(sequences, labeller, output)


def run(sequences, labeller, output, **settings):
    opened = [(s.name, lambda s=s: s) for s in sequences]
    dataset = {'kind': 'synthetic'}
    task = Objects(lambda: opened)
    return runner.evaluate(task, labeller, output, title='test', dataset=dataset, **settings)


def test_masks_are_those_of_the_pure_functions(sequences, labeller, finished):
    """The streamed, batched run equals `propagate_video` on the features of all frames."""
    output, _ = finished
    sequence = sequences[0]
    frames = np.stack([sequence.read_frame(t) for t in range(sequence.num_frames)])
    features = sources.extract_features(
        labeller.source.network.model,
        labeller.source.variables(sequence),
        frames,
        color_space='rgb',
    )
    first = sequence.read_label(0)
    values = labels.label_values(first)
    soft = propagate_video(
        features, labels.encode(first, values, features.shape[1:3]), method=CONFIG
    )
    for t in range(1, sequence.num_frames):
        written = read_mask(output / 'masks' / sequence.name / f'{sequence.frame_names[t]}.png')
        expected = np.asarray(labels.decode(soft[t], values, sequence.size))
        # Another batch size rounds features differently, which can turn a tie.
        assert np.mean(written != expected) < 2e-3


def test_scores_are_those_of_the_written_masks(sequences, finished):
    output, metrics = finished
    results = {}
    for s in sequences:
        prediction = np.stack(
            [read_mask(output / 'masks' / s.name / f'{name}.png') for name in s.frame_names]
        )
        truth = np.stack([s.read_label(t) for t in range(s.num_frames)])
        results[s.name] = davis.evaluate_sequence(prediction, truth)
    assert metrics['summary'] == pytest.approx(davis.summarize(results))
    with (output / 'per_sequence.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row['J-Mean']) for row in rows] == pytest.approx(
        [row['J-Mean'] for row in davis.sequence_table(results)]
    )
    assert read_sealed(output / 'metrics.json') == json.loads(json.dumps(metrics))


def test_says_that_the_network_is_untrained(finished):
    output, metrics = finished
    assert metrics['network']['trained'] is False
    assert 'untrained' in (output / 'report.html').read_text()
    assert 'untrained' in (output / 'per_sequence.csv').read_text()
    assert metrics['settings']['propagation']['num_neighbors'] == 3


def test_goes_on_where_it_stopped(sequences, labeller, finished, tmp_path):
    """A run killed in its second sequence: the first is not redone, the second is whole."""
    output, metrics = finished

    def dies(t):
        if t == 4:
            raise KeyboardInterrupt
        return sequences[1].read_frame(t)

    broken = dataclasses.replace(sequences[1], read_frame=dies)
    with pytest.raises(KeyboardInterrupt):
        run([sequences[0], broken], labeller, tmp_path)
    assert not (tmp_path / 'masks' / broken.name).exists()
    record = tmp_path / 'sequences' / f'{sequences[0].name}.json'
    written = record.stat().st_mtime_ns
    again = run(sequences, labeller, tmp_path)
    assert record.stat().st_mtime_ns == written
    assert again['summary'] == metrics['summary']
    assert not list(tmp_path.rglob('.*'))


def test_other_weights_under_the_same_name_are_refused(sequences, tmp_path):
    model = ResNet(output='res1', strides=(1, 1, 1, 1))
    for seed in (0, 1):
        save_pretrained(tmp_path / 'net', model, model.init(jax.random.key(seed), IMAGES))
        network = networks.load_network(str(tmp_path / 'net'))
        labeller = runner.Labeller(sources.NetworkFeatures(network), CONFIG)
        if seed == 0:
            run(sequences[:1], labeller, tmp_path / 'out')
    with pytest.raises(ValueError, match='network/sha256 is [0-9a-f]{64}, was [0-9a-f]{64}'):
        run(sequences[:1], labeller, tmp_path / 'out')


def test_a_sequence_whose_files_changed_is_labelled_again(sequences, labeller, tmp_path):
    one, two = (dataclasses.replace(s, identity=lambda s=s: s.name) for s in sequences)
    run([one, two], labeller, tmp_path)
    records = [tmp_path / 'sequences' / f'{s.name}.json' for s in (one, two)]
    before = [record.stat().st_mtime_ns for record in records]
    first = sequences[1].read_label(0)
    changed = dataclasses.replace(
        two,
        identity=lambda: 'changed',
        read_label=lambda t: np.roll(first, 8, axis=1) if t == 0 else sequences[1].read_label(t),
    )
    again = run([one, changed], labeller, tmp_path)
    assert [record.stat().st_mtime_ns > time for record, time in zip(records, before)] == [
        False,
        True,
    ]
    assert again['summary'] == run([one, changed], labeller, tmp_path / 'new')['summary']


def test_damaged_results_are_made_again(sequences, labeller, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / 'out')
    (tmp_path / 'out/settings.json').write_text('{"data')
    (tmp_path / f'out/sequences/{sequences[0].name}.json').write_text('')
    shutil.rmtree(tmp_path / 'out/masks' / sequences[1].name)
    again = run(sequences, labeller, tmp_path / 'out')
    assert again['summary'] == finished[1]['summary']


def test_damaged_settings_are_no_leave_to_replace_results(sequences, labeller, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / 'out')
    (tmp_path / 'out/settings.json').write_text('// mine')
    other = dataclasses.replace(labeller, propagation=from_settings(num_neighbors=2))
    (tmp_path / 'mine/masks/dog').mkdir(parents=True)
    (tmp_path / 'mine/settings.json').write_text('// mine')
    (tmp_path / 'mine/masks/dog/0.png').touch()
    for one, name in ((other, 'out'), (labeller, 'mine')):
        before = sorted(tmp_path.rglob('*'))
        with pytest.raises(ValueError, match='settings.json: is damaged'):
            run(sequences, one, tmp_path / name)
        assert sorted(tmp_path.rglob('*')) == before


def test_sequences_whose_results_would_mix_are_refused(sequences, labeller, tmp_path):
    for names in (('a', 'a'), ('a', 'a/b')):
        same = [dataclasses.replace(s, name=name) for s, name in zip(sequences, names)]
        with pytest.raises(DataError, match="'a'"):
            run(same, labeller, tmp_path)


def test_two_runs_do_not_share_a_folder(sequences, labeller, tmp_path):
    def meets_another(t):
        with pytest.raises(ValueError, match='is being written by process'):
            run(sequences, labeller, tmp_path)
        return sequences[0].read_frame(t)

    metrics = run([dataclasses.replace(sequences[0], read_frame=meets_another)], labeller, tmp_path)
    assert metrics['timing']['frames labelled'] == 5


def test_refuses_a_folder_of_other_settings(sequences, labeller, finished):
    other = dataclasses.replace(
        labeller, propagation=from_settings(num_context=2, num_neighbors=2, radius=4)
    )
    with pytest.raises(ValueError, match='propagation.num_neighbors'):
        run(sequences, other, finished[0])


def test_settings_that_label_nothing_claim_no_folder(sequences, labeller, tmp_path):
    def fails():
        raise DataError('lost.jpg: cut short')

    many = dataclasses.replace(labeller, propagation=from_settings(num_neighbors=10**6))
    task = Objects(lambda: [('lost', fails), (sequences[0].name, lambda: sequences[0])])
    for one, error in ((many, ValueError), (labeller, None)):
        with contextlib.nullcontext() if error is None else pytest.raises(error, match='neighbors'):
            runner.evaluate(task, one, tmp_path, title='test', dataset={}, skip_bad=True)
    assert len(list((tmp_path / 'sequences').iterdir())) == 1


def test_a_refused_folder_stays_as_it_is(sequences, labeller, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / 'out')
    mine = tmp_path / 'out' / 'masks' / files.partial_path('mine.png')
    mine.touch()
    (tmp_path / 'out' / 'masks' / sequences[0].name / '.DS_Store').touch()
    other = dataclasses.replace(labeller, propagation=from_settings(num_neighbors=2))
    with pytest.raises(ValueError, match='results of other settings'):
        run(sequences, other, tmp_path / 'out')
    assert mine.exists()
    times = [p.stat().st_mtime_ns for p in sorted((tmp_path / 'out' / 'sequences').iterdir())]
    run(sequences, labeller, tmp_path / 'out')
    assert times == [
        p.stat().st_mtime_ns for p in sorted((tmp_path / 'out' / 'sequences').iterdir())
    ]


def test_another_execution_goes_on(sequences, labeller, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / 'out')
    (tmp_path / f'out/sequences/{sequences[1].name}.json').unlink()
    execution = Execution(implementation='dense', query_chunk=7)
    again = run(sequences, dataclasses.replace(labeller, execution=execution), tmp_path / 'out')
    assert again['settings']['execution'] == dataclasses.asdict(execution)
    assert again['summary'] == finished[1]['summary']


def test_bad_sequence_is_listed_or_stops(sequences, labeller, tmp_path):
    def fails():
        raise DataError('lost.jpg: cut short')

    task = Objects(lambda: [('lost', fails), (sequences[0].name, lambda: sequences[0])])
    settings = {'title': 'test', 'dataset': {}}
    with pytest.raises(DataError, match='lost.jpg'):
        runner.evaluate(task, labeller, tmp_path / 'stop', **settings)
    metrics = runner.evaluate(task, labeller, tmp_path / 'skip', skip_bad=True, **settings)
    assert metrics['skipped'] == [{'sequence': 'lost', 'reason': 'lost.jpg: cut short'}]
    assert {row['sequence'] for row in metrics['per_sequence']} == {sequences[0].name}
    assert 'lost.jpg: cut short' in (tmp_path / 'skip' / 'report.html').read_text()


def test_a_sequence_that_cannot_be_drawn_is_listed_or_stops(sequences, labeller, tmp_path):
    def fails(index):
        raise DataError('00003.jpg: cut short')

    names = ('a', 'b', 'c')
    whole = [dataclasses.replace(sequences[0], name=name) for name in names]
    damaged = [whole[0], dataclasses.replace(whole[1], read_frame=fails), whole[2]]
    run(whole, labeller, tmp_path)
    with pytest.raises(DataError, match='00003.jpg'):
        run(damaged, labeller, tmp_path)
    metrics = run(damaged, labeller, tmp_path, skip_bad=True)
    assert metrics['skipped'] == [{'sequence': 'b', 'reason': '00003.jpg: cut short'}]
    assert list(dict.fromkeys(row['sequence'] for row in metrics['per_sequence'])) == ['a', 'c']
    report = (tmp_path / 'report.html').read_text()
    assert re.findall('<h3>([abc])<', report) == ['a', 'c']


def test_masks_reach_the_disk_before_their_record(sequences, labeller, tmp_path, monkeypatch):
    synced, sync, finish = [], files._sync, Folder.finish

    def note(path):
        # The record must not be there yet when a mask is synced.
        record = tmp_path / 'sequences' / f'{sequences[0].name}.json'
        synced.append((path.name, record.exists()))
        sync(path)

    def finish_noted(self, partial, record, data):
        assert not any(name.endswith('.png') for name, _ in synced)  # Threads do not wait.
        finish(self, partial, record, data)

    monkeypatch.setattr(files, '_sync', note)
    monkeypatch.setattr(Folder, 'finish', finish_noted)
    run(sequences[:1], labeller, tmp_path)
    early = [name for name, is_late in synced if not is_late]
    assert {f'{name}.png' for name in sequences[0].frame_names} <= set(early)
    assert early.index('masks') > max(early.index(f'{n}.png') for n in sequences[0].frame_names)


def test_frames_without_annotation_are_not_scored(sequences, labeller, tmp_path):
    first_only = dataclasses.replace(
        sequences[0], read_label=lambda t: sequences[0].read_label(0) if t == 0 else None
    )
    metrics = run([first_only], labeller, tmp_path)
    assert metrics['unscored'] == [first_only.name]
    assert f'Not scored, for lack of annotations: {first_only.name}.' in metrics['warnings']
    assert metrics['summary'] == {}
    assert len(list((tmp_path / 'masks' / first_only.name).glob('*.png'))) == 6


def test_short_videos_are_not_scored_for_their_length(sequences, labeller, tmp_path):
    short = dataclasses.replace(
        sequences[0], name='short', num_frames=2, frame_names=sequences[0].frame_names[:2]
    )
    bare = dataclasses.replace(
        sequences[0],
        name='bare',
        read_label=lambda t: None if t == 1 else sequences[0].read_label(t),
    )
    metrics = run([short, bare, sequences[0]], labeller, tmp_path)
    assert metrics['unscored'] == ['short', 'bare']
    assert [text for text in metrics['warnings'] if 'Not scored' in text] == [
        'Not scored, for lack of annotations: bare.',
        'Not scored, with fewer than 3 frames: short.',
    ]
    recorded = {
        name: json.loads((tmp_path / f'sequences/{name}.json').read_text()).get('unscored')
        for name in ('short', 'bare', sequences[0].name)
    }
    assert recorded == {
        'short': 'with fewer than 3 frames',
        'bare': 'for lack of annotations',
        sequences[0].name: None,
    }
    assert {row['sequence'] for row in metrics['per_sequence']} == {sequences[0].name}


def test_decoding_at_the_input_then_nearest(sequences, labeller):
    """All pixels of the frame that one pixel of the network's input covers have the same id."""
    half = runner.Labeller(
        dataclasses.replace(labeller.source, input=InputConfig(size=48, resize='short_side')),
        CONFIG,
        MaskTarget(decode_at='input'),
    )
    frames = [sequences[0].read_frame(t) for t in range(2)]
    ids = list(runner.label_frames(frames, sequences[0].read_label(0), half))[1]
    blocks = ids.reshape(48, 2, 64, 2)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_frame_of_another_size_is_refused(sequences, labeller):
    frames = [sequences[0].read_frame(0), sequences[0].read_frame(1)[:-8]]
    with pytest.raises(ValueError, match='88'):
        list(runner.label_frames(frames, sequences[0].read_label(0), labeller))


def test_features_that_are_not_finite_are_refused(sequences, labeller):
    broken = jax.tree.map(lambda x: x * np.nan, labeller.source.network.variables)
    frames = [sequences[0].read_frame(t) for t in range(2)]
    with pytest.raises(ValueError, match='features hold values that are not finite'):
        list(runner.label_frames(frames, sequences[0].read_label(0), labeller, broken))
