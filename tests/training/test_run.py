"""Whole runs of train.py, which a user starts, kills and resumes."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest

from configs.train import small_rotation
from jaxprop import color, files
from jaxprop.checkpoints.native import describe_pretrained, load_pretrained
from jaxprop.data.clips import list_videos
from jaxprop.data.pipeline import DatasetConfig, make_iterator
from jaxprop.models import ResNet
from jaxprop.training import checkpoint, setup

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMINGS = ('examples_per_second', 'wait_share')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Makes data, and a cache so that each program is compiled once."""
    folder = tmp_path_factory.mktemp('runs')
    rng = np.random.default_rng(0)
    for video in range(4):
        (folder / f'data/{video}').mkdir(parents=True)
        for frame in range(6):
            coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
            cv2.imwrite(str(folder / f'data/{video}/{frame:05d}.jpg'), cv2.resize(coarse, (40, 40)))
    return folder


def start(folder, name, *arguments, devices=1):
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
    }
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / 'train.py'),
            f'--config={ROOT}/configs/train/small_rotation.py',
            f'--config.data.root={folder}/data',
            f'--workdir={folder / name}',
            '--config.backbone.output=res1',
            '--config.objective.size=24',
            '--config.data.size=(24,24)',
            '--config.data.batch_size=8',
            '--config.log_every=1',
            *arguments,
        ],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return output


def metrics(run):
    path = run / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith('\n')]


def wait_for_step(process, run, step):
    while len(metrics(run)) < step:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def assert_same_run(run, expected):
    for entry, other in zip(metrics(run), metrics(expected), strict=True):
        for name in TIMINGS:
            del entry[name], other[name]
        assert entry == other
    found, wanted = (checkpoint.restore_variables(path / 'checkpoints') for path in (run, expected))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    files = [path / 'backbone.safetensors' for path in (run, expected)]
    assert files[0].read_bytes() == files[1].read_bytes()


STEPS = ('--config.steps=40', '--config.checkpoint_every=4')


@pytest.fixture(scope='module')
def whole(folder):
    finish(start(folder, 'whole', *STEPS))
    return folder / 'whole'


def test_a_run_leaves_a_backbone_and_the_last_and_best_checkpoints(whole):
    model, variables = load_pretrained(whole / 'backbone')
    assert model.output == 'res1' and model.norm_axis_name is None
    entries = metrics(whole)
    assert [entry['step'] for entry in entries] == list(range(1, 41))
    assert variables['params']['stem_conv']['kernel'].std() > 0
    assert list(whole.glob('events.*'))
    losses = {
        last: np.mean([e['loss'] for e in entries[last - 4 : last]]) for last in range(4, 41, 4)
    }
    kept = {int(path.name) for path in (whole / 'checkpoints').iterdir()}
    assert kept == {32, 36, 40, min(losses, key=losses.get)}


def test_killed_and_resumed_is_bit_identical(folder, whole):
    step = random.randrange(5, 30)
    process = start(folder, 'killed', *STEPS)
    wait_for_step(process, folder / 'killed', step)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # Closes its pipe too.
    assert process.returncode == -signal.SIGKILL
    finish(start(folder, 'killed', *STEPS))
    assert_same_run(folder / 'killed', whole)


def test_sigterm_saves_and_resumed_is_bit_identical(folder, whole):
    process = start(folder, 'terminated', *STEPS)
    wait_for_step(process, folder / 'terminated', random.randrange(5, 30))
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    last = metrics(folder / 'terminated')[-1]['step']
    assert f'stopped at step {last};' in output
    assert (folder / f'terminated/checkpoints/{last}').is_dir()
    finish(start(folder, 'terminated', *STEPS))
    for entry in metrics(folder / 'terminated'):
        other = metrics(whole)[entry['step'] - 1]
        assert entry['loss'] == other['loss']
    found, wanted = (
        checkpoint.restore_variables(run / 'checkpoints') for run in (folder / 'terminated', whole)
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize('step', [0, 5])
def test_an_interrupted_run_leaves_a_network(step, folder):
    run = folder / f'interrupted_{step}'
    process = start(folder, run.name, *STEPS)
    if step:
        wait_for_step(process, run, step)
    while not (run / 'config.json').exists():  # At step 0: while it compiles, or before.
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert 'Traceback' not in output and 'Ctrl-C again stops at once' in output
    if not metrics(run):
        assert 'stopped at step 0;' in output and not (run / 'backbone.json').exists()
        return
    last = metrics(run)[-1]['step']
    assert f'stopped at step {last};' in output and f'so far: {run}/backbone' in output
    described = describe_pretrained(run / 'backbone')['description']
    assert described['steps'] == last and described['finished'] is False
    model, variables = load_pretrained(run / 'backbone')
    saved = checkpoint.restore_variables(run / 'checkpoints')
    jax.tree.map(np.testing.assert_array_equal, variables['params'], saved['params']['backbone'])


def test_other_settings_are_refused(folder, whole):
    process = start(folder, 'whole', *STEPS, '--config.optimizer.momentum=0.5')
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and 'optimizer/momentum is 0.5, was 0.9' in output
    assert output.count('\n') == 1


# Small steps: with larger ones the differences of rounding grow.
FEW = ('--config.steps=20', '--config.schedule.learning_rate=0.002')


@pytest.fixture(scope='module')
def one_device(folder):
    finish(start(folder, 'one', *FEW))
    return folder / 'one'


def assert_close_runs(run, expected):
    losses, wanted = ([entry['loss'] for entry in metrics(path)] for path in (run, expected))
    assert len(wanted) == 20 and np.ptp(wanted) > 0.05
    np.testing.assert_allclose(losses[:2], wanted[:2], rtol=2e-6)
    np.testing.assert_allclose(losses, wanted, rtol=1e-3)
    parameters, wanted = (load_pretrained(path / 'backbone')[1] for path in (run, expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), parameters, wanted
    )


@pytest.mark.slow
def test_four_devices_train_as_one(folder, one_device):
    finish(start(folder, 'four', *FEW, devices=4))
    assert_close_runs(folder / 'four', one_device)


@pytest.mark.slow
def test_two_processes_train_as_one(folder, one_device):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        coordinator = f'--coordinator=localhost:{free.getsockname()[1]}'
    finish(
        *(
            start(folder, 'two', *FEW, coordinator, '--num_processes=2', f'--process_id={index}')
            for index in range(2)
        )
    )
    assert_close_runs(folder / 'two', one_device)


def test_exported_statistics_of_fewer_frames_than_asked_for(folder):
    """Small data have fewer frames in an epoch: a run must not fail at its end."""
    config = small_rotation.get_config()
    config.data.root = str(folder / 'data')
    config.data.examples_per_video = 2
    backbone, found = ResNet(output='res1'), []
    variables = backbone.init(jax.random.key(0), np.zeros((1, 24, 32, 3), np.float32))
    for frames in (2 * len(list_videos(config.data.root)), 1000):
        config.statistics = {'frames': frames, 'size': (24, 32), 'color': 'rgb'}
        found.append(setup.data_statistics(config, backbone, variables))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_exported_statistics_are_those_of_frames_of_the_data(folder):
    config = small_rotation.get_config()
    config.data.root = str(folder / 'data')
    config.statistics = {'frames': 6, 'size': (24, 32), 'color': 'lightness'}
    backbone = ResNet(output='res1')
    variables = backbone.init(jax.random.key(0), np.zeros((1, 24, 32, 3), np.float32))
    result = setup.data_statistics(config, backbone, variables)

    data = DatasetConfig(**{**config.data, 'size': (24, 32), 'batch_size': 6})
    images = color.lightness_input(next(make_iterator(data, config.seed))['image'])
    expected, _ = backbone.apply(variables, images, train=True, mutable=['batch_stats'])
    # A norm divides by the batch's own deviation in both.
    np.testing.assert_allclose(backbone.apply(result, images), expected, atol=1e-4)
    assert not np.allclose(backbone.apply(variables, images), expected, atol=1e-2)


def test_what_is_refused_claims_no_folder_and_two_runs_share_none(folder):
    process = start(folder, 'refused', '--config.data.batch_size=5000')
    assert 'less than a batch' in process.communicate(timeout=300)[0] and process.returncode == 1
    assert not list((folder / 'refused').iterdir())
    with files.locked(folder / 'taken'):
        process = start(folder, 'taken', '--config.steps=1')
        assert 'is being written by process' in process.communicate(timeout=300)[0]
    assert process.returncode == 1 and not list((folder / 'taken').iterdir())
