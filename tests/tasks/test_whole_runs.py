"""Whole evaluations of JHMDB, VIP and BADJA: predictions, files, scores and resuming."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from jaxprop import keypoints
from jaxprop.data.badja import badja_sequence
from jaxprop.data.image_files import read_mask
from jaxprop.data.inputs import InputConfig, input_size, resize_frame
from jaxprop.data.jhmdb import JOINT_NAMES, jhmdb_names, jhmdb_sequence
from jaxprop.data.sequences import DataError
from jaxprop.data.vip import CLASS_NAMES, vip_names, vip_sequence
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.targets import KeypointTarget, MaskTarget, Sizes
from jaxprop.methods import from_settings
from jaxprop.metrics import parts, pck
from jaxprop.propagation import propagate_video
from jaxprop.tasks.joints import Joints
from jaxprop.tasks.vip import Instances, Parts
from tests.layouts import write_jhmdb, write_vip
from tests.support import shared

CONFIG = from_settings(num_context=2, num_neighbors=3, radius=6)
INPUT = InputConfig(size=96, resize='short_side')  # One size for all: 96 x 128, cells 4 x 4.
NUM_FRAMES = 8


@pytest.fixture(scope='module')
def network():
    untrained = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    return dataclasses.replace(untrained, trained=True)  # No statistics of each video.


@pytest.fixture(scope='module')
def follower(network):
    return runner.Labeller(sources.NetworkFeatures(network, INPUT), CONFIG, KeypointTarget())


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp('jhmdb')
    write_jhmdb(root, num_frames=NUM_FRAMES)
    (name,) = jhmdb_names(root)
    return jhmdb_sequence(root, name)


@pytest.fixture(scope='module')
def video_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('vip')
    write_vip(root, num_frames=NUM_FRAMES)
    return root


@pytest.fixture(scope='module')
def finished(follower, clip, tmp_path_factory):
    output = tmp_path_factory.mktemp('finished')
    return output, run([clip], follower, output, Joints)


def run(sequences, labeller, output, task, measure=None, **settings):
    """Evaluates a kind of task on these sequences."""
    opened = [(s.name, lambda s=s: s) for s in sequences]
    task = task(lambda: opened, **(measure or {}))
    return runner.evaluate(task, labeller, output, title='test', dataset={}, **settings)


def positions_of(output, name):
    written = json.loads((output / 'keypoints' / f'{name}.json').read_text())
    return np.array(
        [
            [(np.nan, np.nan) if joint is None else joint for joint in frame]
            for frame in written['positions']
        ]
    )


def test_joints_are_those_of_the_pure_functions(follower, clip, finished):
    frames = np.stack(
        [resize_frame(clip.read_frame(t), input_size(240, 320, INPUT)) for t in range(NUM_FRAMES)]
    )
    network = follower.source.network
    features = np.concatenate(
        [  # In the batches of the run, so that one compiled program serves.
            sources.extract_features(network.model, network.variables, batch, color_space='rgb')
            for batch in np.split(frames, 2)
        ]
    )
    cell = keypoints.cell_size((240, 320), (96, 128), 4)
    soft = propagate_video(
        features, keypoints.encode_keypoints(clip.positions[0], (24, 32), cell), method=CONFIG
    )
    expected = np.asarray(keypoints.decode_keypoints(soft, cell))
    found = positions_of(finished[0], clip.name)
    np.testing.assert_allclose(found[0], clip.positions[0], atol=1e-4)
    # Another batch size rounds features differently, which can turn a tie and what follows from it.
    assert np.mean(np.abs(found[1:] - expected[1:]).max(axis=-1) < 0.01) > 0.95


def test_joints_of_a_scene_that_shifts_by_whole_cells(follower, clip, tmp_path):
    """If features shift exactly, joints follow, except near cells that are new in the frame."""
    picture = np.random.default_rng(0).integers(0, 256, (96, 190, 3), np.uint8)
    across, down = np.meshgrid(np.linspace(40, 72, 5), np.linspace(30, 66, 3))
    first = np.stack([across.ravel(), down.ravel()], axis=-1)
    steps = 4 * np.arange(NUM_FRAMES)
    shifting = dataclasses.replace(
        clip,
        name='shift',
        size=(96, 128),
        read_frame=lambda t: picture[:, 60 - steps[t] :][:, :128],
        positions=first + np.stack([steps, 0 * steps], axis=-1)[:, None],
    )
    metrics = run([shifting], follower, tmp_path, Joints)
    # A joint is where its cells are: up to half a cell from where it is, in each direction.
    error = np.linalg.norm(positions_of(tmp_path, 'shift') - shifting.positions, axis=-1)
    assert error[1].max() < 3 and np.mean(error < 3) > 0.9
    still = pck.normalized_distances(np.repeat(first[None], NUM_FRAMES, axis=0), shifting.positions)
    assert metrics['summary']['PCK@0.1'] > 0.9 > 0.3 > pck.summarize({'still': still})['PCK@0.1']


def test_scores_are_those_of_the_written_joints(clip, finished):
    output, metrics = finished
    results = {clip.name: pck.normalized_distances(positions_of(output, clip.name), clip.positions)}
    summary = {name: metrics['summary'][name] for name in ('PCK@0.1', 'PCK@0.2')}
    assert summary == pytest.approx(pck.summarize(results))
    assert metrics['per_joint'] == pck.joint_table(results, JOINT_NAMES)
    with (output / 'per_sequence.csv').open() as file:
        (row,) = csv.DictReader(file)
    assert row['sequence'] == clip.name and row['points'] == str(15 * (NUM_FRAMES - 1))
    assert float(row['PCK@0.1']) == pytest.approx(pck.sequence_table(results)[0]['PCK@0.1'])
    report = (output / 'report.html').read_text()
    for shown in (f'{100 * summary["PCK@0.2"]:.1f}', 'left ankle', 'lost joints wrong', clip.name):
        assert shown in report


def test_lost_joints_and_frame_0_are_settings(follower, clip, tmp_path):
    """A joint outside the first frame is lost; it is left out, or counts as wrong."""
    positions = clip.positions.copy()
    positions[:, 4] = -100
    outside = dataclasses.replace(clip, positions=positions)
    found = {}
    for index, measure in enumerate(({}, {'lost': 'wrong'}, {'count_first': True})):
        output = tmp_path / str(index)
        metrics = run([outside], follower, output, Joints, measure)
        found[index] = metrics['summary']
        count_first = measure.get('count_first', False)
        by_joint = {row['joint']: row['PCK@0.2'] for row in metrics['per_joint']}
        expected = float(count_first) if measure else None
        assert by_joint.get(JOINT_NAMES[4]) == expected
        (row,) = metrics['per_sequence']
        joints = 14 + ('lost' in measure)
        given = 15 * count_first
        assert row['points'] == joints * (NUM_FRAMES - 1) + given
        written = positions_of(output, clip.name)
        assert np.isnan(written[1:, 4]).all() and not np.isnan(written[:, :4]).any()
        files = {
            path.relative_to(output).parts[0]: strictly(path) for path in output.rglob('*.json')
        }
        assert len(files) == 4
        for lost, distances in files['sequences']['distances'].items():
            np.testing.assert_array_equal(
                np.array(distances, np.float64),
                pck.normalized_distances(written, positions, lost=lost, count_first=True),
            )
    skip, wrong, first = found.values()
    assert wrong['PCK@0.2'] == skip['PCK@0.2, lost joints wrong']
    assert skip['PCK@0.2'] == wrong['PCK@0.2, lost joints left out'] < first['PCK@0.2']


def test_goes_on_and_lists_what_is_bad(follower, clip, finished, tmp_path):
    """After a kill in the second clip nothing of it is left; then that clip turns out damaged."""

    def sequence(name, fails_with):
        def read(t):
            if t == 6 and fails_with is not None:
                raise fails_with
            return clip.read_frame(t)

        return dataclasses.replace(clip, name=name, read_frame=read)

    good, later = sequence('wave/a', None), 'wave/b'
    with pytest.raises(KeyboardInterrupt):
        run([good, sequence(later, KeyboardInterrupt())], follower, tmp_path, Joints)
    assert not (tmp_path / 'keypoints/wave/b.json').exists()
    record = tmp_path / 'sequences/wave/a.json'
    written = record.stat().st_mtime_ns
    damaged = sequence(later, DataError('00007.png: cut short'))
    with pytest.raises(DataError, match='cut short'):
        run([good, damaged], follower, tmp_path, Joints)
    metrics = run([good, damaged], follower, tmp_path, Joints, skip_bad=True)
    assert metrics['skipped'] == [{'sequence': later, 'reason': '00007.png: cut short'}]
    metrics = run([good, sequence(later, None)], follower, tmp_path, Joints)
    assert record.stat().st_mtime_ns == written and metrics['skipped'] == []
    np.testing.assert_array_equal(
        positions_of(tmp_path, 'wave/a'), positions_of(tmp_path, 'wave/b')
    )
    assert not list(tmp_path.rglob('*.partial'))
    with pytest.raises(ValueError, match='measure/lost'):
        run([good], follower, tmp_path, Joints, {'lost': 'wrong'})


def masks_of(output, name='videos7'):
    return np.stack([read_mask(path) for path in sorted((output / 'masks' / name).iterdir())])


def strictly(path):
    """Reads a file of JSON by the standard, which has no NaN and Infinity."""

    def refuse(name):
        raise AssertionError(f'{path} holds {name}')

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope='module')
def parts_labeller(network):
    target = MaskTarget(decode_at='input', resize_first='nearest')
    return runner.Labeller(sources.NetworkFeatures(network, INPUT), CONFIG, target)


def test_parts(parts_labeller, video_root, tmp_path):
    (name,) = vip_names(video_root)
    video = vip_sequence(video_root, name)
    metrics = run([video], parts_labeller, tmp_path, Parts)
    found = masks_of(tmp_path)
    truth = np.stack([video.read_label(t) for t in range(NUM_FRAMES)])
    np.testing.assert_array_equal(found[0], truth[0])
    results = {name: parts.frame_confusions(found, truth)}
    for count_first, key in ((True, 'mIoU'), (False, 'mIoU, without frame 0')):
        assert metrics['summary'][key] == pytest.approx(
            parts.summarize_parts(results, count_first)['mIoU']
        )
    assert [row['class'] for row in metrics['per_class']] == [
        CLASS_NAMES[index] for index in (0, 4, 13)
    ]
    assert metrics['per_sequence'] == [{'sequence': name, 'mIoU': metrics['summary']['mIoU']}]
    # A scene that stands still keeps its parts, but for their borders; this one moved.
    still = dataclasses.replace(
        video, read_frame=lambda t: video.read_frame(0), read_label=lambda t: video.read_label(0)
    )
    stood = run([still], parts_labeller, tmp_path / 'still', Parts)
    assert stood['summary']['mIoU, without frame 0'] > 0.9 > metrics['summary']['mIoU']
    assert 'upper-clothes' in (tmp_path / 'report.html').read_text()


@pytest.mark.parametrize('task', [Parts, Instances])
def test_frame_0_counts_as_decoded(task, parts_labeller, video_root, tmp_path):
    """As in CRW, the mask of frame 0 is decoded from its labels on the grid, and scored so."""
    target = dataclasses.replace(parts_labeller.target, first_frame='decoded')
    decoded = dataclasses.replace(parts_labeller, target=target)
    video = vip_sequence(video_root, 'videos7', 'instance' if task is Instances else 'category')
    metrics = run([video], decoded, tmp_path, task)
    usual = run([video], parts_labeller, tmp_path / 'usual', task)
    found, truth = masks_of(tmp_path), video.read_label(0)
    assert 0 < np.mean(found[0] != truth) < 0.05
    np.testing.assert_array_equal(found[1:], masks_of(tmp_path / 'usual')[1:])
    record = json.loads((tmp_path / 'sequences/videos7.json').read_text())
    if task is Parts:
        expected = parts.confusion_matrix(found[0], truth).tolist()
        assert record['confusion'][0] == expected
    else:
        scores = dict(zip((1, 2, 3), record['matches'][0]['scores'], strict=True))
        assert all(0.5 < score < 1 for score in scores.values())
    with_frame_0, without = metrics['summary'].items()
    assert with_frame_0[1] < usual['summary'][with_frame_0[0]]
    assert without[1] == usual['summary'][without[0]]
    assert metrics['settings']['labels']['first_frame'] == 'decoded'


def test_instances(parts_labeller, video_root, tmp_path):
    video = vip_sequence(video_root, 'videos7', 'instance')
    metrics = run([video], parts_labeller, tmp_path, Instances)
    found = masks_of(tmp_path)
    record = json.loads((tmp_path / 'sequences/videos7.json').read_text())
    frames = []
    for t, ids in enumerate(found):
        present = [index for index in (1, 2, 3) if (ids == index).any()]
        scores = dict(zip(present, record['matches'][t]['scores'], strict=True))
        assert all(0 < score <= 1 for score in scores.values())
        frames.append(
            parts.match_instances(
                ids, {1: 13, 2: 4, 3: 4}, scores, video.read_label(t), {1: 13, 2: 4, 3: 4}
            )
        )
    summary = metrics['summary']
    assert summary['AP^r_vol'] == pytest.approx(parts.summarize_instances(frames)['AP^r_vol'])
    assert summary['AP^r_vol, without frame 0'] == pytest.approx(
        parts.summarize_instances(frames[1:])['AP^r_vol']
    )
    assert record['matches'][0]['scores'] == [1, 1, 1] and record['matches'][1]['scores'][0] < 1
    still = dataclasses.replace(
        video, read_frame=lambda t: video.read_frame(0), read_label=lambda t: video.read_label(0)
    )
    stood = run([still], parts_labeller, tmp_path / 'still', Instances)['summary']
    assert stood['AP^r_vol, without frame 0'] > 0.9 > summary['AP^r_vol, without frame 0']


def test_void_of_a_first_frame_is_background(parts_labeller, video_root, tmp_path):
    video = vip_sequence(video_root, 'videos7')

    def read_label(t):
        ids = video.read_label(t).copy()
        ids[40:44] = 255
        return ids

    run([dataclasses.replace(video, read_label=read_label)], parts_labeller, tmp_path, Parts)
    found = masks_of(tmp_path)
    assert set(np.unique(found)) == {0, 4, 13} and not found[0, 40:44].any()


def test_ids_resized_as_released_mix_on_borders():
    """Between the ids 0 and 13 bilinear resizing makes other ids; nearest does not."""
    ids = np.zeros((12, 16), np.int32)
    ids[:, 7:] = 13
    sizes = Sizes((12, 16), (24, 32), (6, 8), (2.0, 2.0))
    values = {
        method: MaskTarget(resize_first=method).values(ids, sizes.seen).tolist()
        for method in (None, 'nearest', 'bilinear')
    }
    assert values[None] == values['nearest'] == [0, 13]
    assert len(values['bilinear']) > 2


def test_joints_drawn_and_read_on_the_frame():
    """Drawn and read as in VFS, without propagation, joints come back to within a pixel."""
    rng = np.random.default_rng(0)
    joints = rng.uniform(20, 75, (5, 2)).astype(np.float32)
    joints[2] = np.nan
    sizes = Sizes((96, 128), (192, 256), (24, 32), (4.0, 4.0))
    target = KeypointTarget('gaussian', 4.0, 5, 'frame')
    values = target.values(joints, sizes.seen)
    soft = target.encode(joints, values, sizes)
    assert soft.shape == (24, 32, 6) and values.size == target.num_labels(values) == 6
    found = np.asarray(target.decode(soft, values, sizes))
    assert np.isnan(found[2]).all()
    assert np.nanmax(np.abs(found - joints)) < 1.5


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: KeypointTarget(at='cell'), "at is 'cell'"),
        (lambda: KeypointTarget(encode_by='nearest'), r"\(encode_by\) is 'nearest'"),
        (lambda: MaskTarget(resize_first='area'), "resize_first is 'area'"),
        (lambda: Joints(list, lost='left'), "lost is 'left'"),
        (lambda: Joints(list, average='all'), "average is 'all'"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_badja(network, tmp_path):
    """On half a second of a real sequence, made smaller, scores are better than of still joints."""
    sequence = badja_sequence(shared('data', 'BADJA'), shared('data', 'DAVIS'), 'dog-agility')
    count = 16
    sequence = dataclasses.replace(
        sequence,
        num_frames=count,
        positions=sequence.positions[:count],
        scales=sequence.scales[:count],
        frame_names=sequence.frame_names[:count],
    )
    small = InputConfig(size=120, resize='short_side')
    labeller = runner.Labeller(sources.NetworkFeatures(network, small), CONFIG, KeypointTarget())
    measure = {'lost': 'wrong', 'average': 'sequences'}
    metrics = run([sequence], labeller, tmp_path, Joints, measure)
    still = {
        sequence.name: pck.normalized_distances(
            np.repeat(sequence.positions[:1], count, axis=0),
            sequence.positions,
            sequence.scales,
            'wrong',
        )
    }
    (row,) = metrics['per_sequence']
    assert row['points'] == np.count_nonzero(~np.isnan(still[sequence.name])) > 10
    expected = pck.summarize(still, average='sequences')
    assert metrics['summary']['PCK@0.2'] > expected['PCK@0.2']
