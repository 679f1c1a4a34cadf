"""Many videos at a time, on devices and in processes, get the masks of one video at a time."""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxprop import labels
from jaxprop.data.image_files import read_mask
from jaxprop.data.sequences import DataError
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks, targets
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.features import extract_features
from jaxprop.methods import from_settings
from jaxprop.propagation import init_context, propagate_step
from jaxprop.rules import tracked
from jaxprop.tasks.objects import Objects

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = from_settings(num_context=2, num_neighbors=3, radius=3)


def sequences():
    """Six sequences of several lengths, five of one size, with two or three objects."""
    wide = [
        *synthetic_sequences(num_sequences=3, num_frames=12, size=(64, 80), num_objects=2),
        *synthetic_sequences(num_sequences=5, num_frames=12, size=(64, 80), num_objects=3)[3:],
    ]
    tall = synthetic_sequences(num_sequences=6, num_frames=12, size=(80, 64), num_objects=2)[5:]
    lengths = (12, 8, 10, 9, 11, 8)  # Eight at least: one program for all the statistics.
    return [
        dataclasses.replace(s, num_frames=length, frame_names=s.frame_names[:length])
        for s, length in zip([*wide, *tall], lengths)
    ]


@functools.cache
def make_labeller():
    network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    return runner.Labeller(sources.NetworkFeatures(network, batch=3), CONFIG)


def task(sequences):
    return Objects(lambda: [(s.name, lambda s=s: s) for s in sequences])


def run(sequences, output, labeller=None, **settings):
    labeller = labeller or make_labeller()
    return runner.evaluate(task(sequences), labeller, output, title='test', dataset={}, **settings)


def with_network(**changes):
    """Makes the labeller with another network."""
    labeller = make_labeller()
    network = dataclasses.replace(labeller.source.network, **changes)
    return dataclasses.replace(
        labeller, source=dataclasses.replace(labeller.source, network=network)
    )


def masks(output):
    return {
        str(path.relative_to(output)): path.read_bytes() for path in output.rglob('masks/*/*.png')
    }


def assert_same_results(output, expected):
    """Asserts that two folders have the same files of masks, and the same scores."""
    assert masks(output) == masks(expected)
    found, wanted = (json.loads((path / 'metrics.json').read_text()) for path in (output, expected))
    assert found['summary'] == wanted['summary']
    assert found['per_sequence'] == wanted['per_sequence']
    assert not list(output.rglob('.*'))


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    output = tmp_path_factory.mktemp('alone')
    run(sequences(), output)
    assert len(masks(output)) == sum(s.num_frames for s in sequences())
    return output


def test_batches_give_the_masks_of_single_videos(alone, tmp_path):
    run(sequences(), tmp_path, videos_per_device=3)
    assert_same_results(tmp_path, alone)


def test_bad_sequences_leave_the_others_as_they_are(alone, tmp_path):
    """Bad frames: the first one, and a later one; bad labels: the first one, and a later one."""
    good = sequences()

    def failing(sequence, what, index):
        def read(t):
            if t == index:
                raise DataError(f'{sequence.name}/{t}.jpg: cut short')
            return getattr(sequence, what)(t)

        return dataclasses.replace(sequence, name=f'bad_{what}_{index}', **{what: read})

    bad = [failing(good[0], 'read_frame', index) for index in (0, 4)]
    bad += [failing(good[0], 'read_label', index) for index in (0, 7)]
    metrics = run([*bad[:2], *good, *bad[2:]], tmp_path, videos_per_device=3, skip_bad=True)
    assert [skipped['sequence'] for skipped in metrics['skipped']] == [s.name for s in bad]
    for skipped in metrics['skipped']:
        assert skipped['reason'].endswith('cut short')
    found = masks(tmp_path)
    assert found == masks(alone)
    assert metrics['summary'] == json.loads((alone / 'metrics.json').read_text())['summary']
    # With the files whole again, these alone are done.
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / 'sequences').iterdir()}
    whole = [dataclasses.replace(good[0], name=s.name) for s in bad]
    metrics = run([*whole[:2], *good, *whole[2:]], tmp_path, videos_per_device=3)
    assert metrics['skipped'] == []
    assert all(path.stat().st_mtime_ns == time for path, time in records.items())
    for name in (s.name for s in whole):
        for path in (tmp_path / 'masks' / name).iterdir():
            assert path.read_bytes() == found[f'masks/{good[0].name}/{path.name}']


def test_an_interrupted_batch_is_gone_on_with(alone, tmp_path):
    """A run is killed while it labels three videos: finished ones stay, the others are redone."""
    good = sequences()

    def dies(t):
        if t == 8:
            raise KeyboardInterrupt
        return good[3].read_frame(t)

    broken = [*good[:3], dataclasses.replace(good[3], read_frame=dies), *good[4:]]
    whole = with_network(trained=True)  # No statistics of the end.
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path / 'a', whole, videos_per_device=3)
    finished = [path.stem for path in (tmp_path / 'a/sequences').iterdir()]
    assert good[2].name in finished and good[3].name not in finished
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / 'a/sequences').iterdir()}
    for output in (tmp_path / 'a', tmp_path / 'b'):
        run(good, output, whole, videos_per_device=3)
    assert all(path.stat().st_mtime_ns == time for path, time in records.items())
    assert_same_results(tmp_path / 'a', tmp_path / 'b')


def test_features_that_are_not_finite_are_refused_by_name(tmp_path):
    variables = {**make_labeller().source.network.variables}
    variables['params'] = {
        **variables['params'],
        'stem_conv': {'kernel': variables['params']['stem_conv']['kernel'] * np.nan},
    }
    broken = with_network(variables=variables, trained=True)
    sequence = sequences()[1]
    with pytest.raises(ValueError, match=f'{sequence.name}: features hold values that are not fin'):
        run([sequence], tmp_path, broken)


@pytest.mark.parametrize('min_max', [False, True])
def test_labels_of_padding_never_win(min_max):
    """With more labels than objects no padding label wins, also where no label has any weight."""
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.full(3, 0.3), (2, 5, 7)).astype(np.float32)
    soft[:, :3, :4] = 0
    values = np.array([0, 7, 2])
    padded = np.pad(soft, [(0, 0)] * 3 + [(0, 1)])
    expected = np.asarray(labels.decode(soft, values, (20, 28), min_max))
    found = labels.decode(padded, np.append(values, 99), (20, 28), min_max)
    np.testing.assert_array_equal(found, expected)
    assert set(np.unique(expected)) == {0, 2, 7}


def test_boxes_of_a_video_begin_with_those_of_its_first_label_map():
    """The boxes cover single pixels far from their objects, which soft labels do not show."""
    sequence = sequences()[1]
    config = from_settings(
        aggregation='per_frame',
        num_neighbors=3,
        num_context=2,
        restriction='track',
        restrict_first=True,
        softmax='frame',
    )
    tracker = dataclasses.replace(make_labeller(), propagation=config)
    frames = np.stack([sequence.read_frame(t) for t in range(6)])
    variables = tracker.source.variables(sequence)
    ids = sequence.read_label(0).copy()
    ids[2, 2], ids[-3, -3] = 1, 2
    found = np.stack(list(runner.label_frames(frames, ids, tracker, variables)))

    network = tracker.source.network.model
    features = np.concatenate(
        [
            extract_features(network, variables, batch, color_space='rgb')
            for batch in np.split(frames, 2)
        ]
    )
    values = labels.label_values(ids)
    # A cell is four pixels here, and boxes are of labels with eight.
    classes = np.searchsorted(values, ids).repeat(2, axis=0).repeat(2, axis=1)
    exact = tracked.first_boxes(classes, values.size)
    step = jax.jit(functools.partial(propagate_step, method=config))

    def label(entry):
        context = init_context(
            features[0], labels.encode(ids, values, (16, 20)), method=config, entry=entry
        )
        predictions = [ids]
        for frame in features[1:]:
            context, soft = step(context, frame)
            predictions.append(labels.decode(soft, values, (64, 80)))
        return np.stack(predictions)

    assert np.mean(found != label(exact)) < 1e-3 < 1e-2 < np.mean(found != label(None))
    void = np.where(ids == 0, 255, ids)
    for first in (ids, void):
        boxes = config.rule.init_from_ids(first, values, (16, 20), values.size)
        np.testing.assert_array_equal(boxes, exact)


def test_no_video_at_a_time_is_refused(tmp_path):
    with pytest.raises(ValueError, match='videos_per_device is 0'):
        run([], tmp_path, videos_per_device=0)


def test_number_of_padded_labels():
    numbers = [targets.padded_labels(n) for n in (1, 2, 3, 4, 5, 11)]
    assert numbers == [1, 2, 4, 4, 8, 16]


def start(arguments, cache, devices=1):
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
    }
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_four_devices_give_the_masks_of_one(alone, tmp_path):
    finish(
        start(
            ['-m', 'tests.evaluation.test_stream', tmp_path / 'four'], tmp_path / 'cache', devices=4
        )
    )
    assert '4 x' in json.loads((tmp_path / 'four/metrics.json').read_text())['provenance']['device']
    if jax.__version_info__ < (0, 11):
        assert_same_results(tmp_path / 'four', alone)
    # JAX 0.12 compiles for the CPU otherwise where it simulates four devices: nearly tied labels
    # may turn, one pixel here.
    pairs = [(path, tmp_path / 'four' / path.relative_to(alone)) for path in alone.rglob('*/*.png')]
    differing = [np.mean(read_mask(one) != read_mask(other)) for one, other in pairs]
    assert len(pairs) == 58 and np.mean(differing) < 2e-5


@pytest.mark.slow
def test_two_processes_share_the_sequences(tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        coordinator = f'localhost:{free.getsockname()[1]}'
    dataset = {'num_sequences': 3, 'num_frames': 5}
    changed = {
        'dataset': dataset,
        'network': {'output': 'res1', 'strides': (1, 1, 1, 1)},
        'input': {'resize': 'short_side', 'size': 64},
        'propagation': {'num_context': 2, 'num_neighbors': 3, 'radius': 3.0},
    }
    config = importlib.import_module('configs.eval.synthetic').get_config()
    for part, settings in changed.items():
        config[part].update(settings)
    arguments = ['evaluate.py', f'--output={tmp_path / "two"}', f'--coordinator={coordinator}']
    for part, settings in changed.items():
        arguments += [f'--config.{part}.{name}={value}' for name, value in settings.items()]
    processes = [
        start([*arguments, '--num_processes=2', f'--process_id={index}'], tmp_path / 'cache')
        for index in range(2)
    ]
    printed = [finish(process) for process in processes]
    assert '10/10' in printed[0] and 'report:' in printed[0]  # Two sequences of five frames.
    assert '5/5' in printed[1] and 'report:' not in printed[1]
    whole = synthetic_sequences(**dataset)
    run(whole, tmp_path / 'one', runner.Labeller.from_config(config))
    assert_same_results(tmp_path / 'two', tmp_path / 'one')
    assert len(masks(tmp_path / 'two')) == 15
    report = (tmp_path / 'two/report.html').read_text()
    assert all(s.name in report for s in whole)


if __name__ == '__main__':
    run(sequences(), pathlib.Path(sys.argv[1]))
