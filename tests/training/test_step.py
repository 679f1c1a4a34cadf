"""A step against plain gradient descent on a tiny objective, and runs that fail."""

import errno
import json
import os
import signal
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.train import corrflow, small_crw_plus, small_rotation
from jaxprop import parallel
from jaxprop.checkpoints.native import load_pretrained, save_pretrained
from jaxprop.models import ResNet
from jaxprop.objectives.objective import Objective
from jaxprop.training import checkpoint, loop, setup
from jaxprop.training.log import Log
from jaxprop.training.state import TrainState, create_state
from jaxprop.training.step import make_train_step


def line(nan_at=None):
    """An objective: least squares of a line. It counts calls; 'slope' is NaN from a step on."""

    def init(rng, batch):
        del rng, batch
        return {
            'params': {'backbone': {'slope': jnp.float32(0.5)}},
            'state': {'backbone': {}, 'step': jnp.int32(0)},
        }

    def loss(params, state, batch, rng):
        del rng
        x = batch['image'][:, 0, 0, 0].astype(jnp.float32) / 255
        value = jnp.mean((params['backbone']['slope'] * x - 3 * x) ** 2)
        term = jnp.float32(1)
        if nan_at is not None:
            term = jnp.where(state['step'] >= nan_at, jnp.nan, term)
        state = {**state, 'step': state['step'] + 1}
        return value * term, (state, {'square': value, 'slope': term})

    return Objective(init, loss)


@pytest.mark.parametrize('accumulate', [1, 4])
def test_a_step_is_gradient_descent_on_the_whole_batch(accumulate):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 1, 3), np.uint8)
    batch = {'image': pixels}
    optimizer = optax.sgd(0.1)
    state = parallel.replicate(create_state(line(), optimizer, batch, seed=0))
    step = make_train_step(line(), optimizer, accumulate)
    x, slope = pixels[:, 0, 0, 0] / 255, 0.5
    for _ in range(3):
        state, metrics = step(state, parallel.shard(batch))
        metrics = parallel.unreplicate(metrics)
        gradient = np.mean(2 * (slope - 3) * x**2)
        np.testing.assert_allclose(metrics['loss'], np.mean(((slope - 3) * x) ** 2), rtol=1e-5)
        np.testing.assert_allclose(metrics['gradient_norm'], abs(gradient), rtol=1e-5)
        slope -= 0.1 * gradient
    final = parallel.unreplicate(state)
    np.testing.assert_allclose(final.params['backbone']['slope'], slope, rtol=1e-5)
    assert final.step == 3 and final.state['step'] == 3 * accumulate


def test_gradients_of_two_losses_are_metrics_where_the_config_wants_them(monkeypatch):
    module = types.SimpleNamespace(objective=lambda **settings: line())
    monkeypatch.setattr(setup, 'find_objective', lambda name: module)
    config = small_crw_plus.get_config()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 1, 1, 3), np.uint8)
    batch = {name: {'image': part} for name, part in zip(('video', 'image'), pixels)}
    found = []
    for wanted in (False, True):
        config.image_gradient_norms = wanted
        objective = setup.make_objective(config, None, steps_per_epoch=1.0)
        state = parallel.replicate(create_state(objective, optax.sgd(0.1), batch, seed=0))
        _, metrics = make_train_step(objective, optax.sgd(0.1))(state, parallel.shard(batch))
        found.append(parallel.unreplicate(metrics))
    assert set(found[1]) - set(found[0]) == {'video/gradient_norm', 'image/gradient_norm'}
    for name, part in zip(('video', 'image'), pixels):
        expected = np.mean(2 * (3 - 0.5) * (part[:, 0, 0, 0] / 255) ** 2)
        np.testing.assert_allclose(found[1][f'{name}/gradient_norm'], expected, rtol=1e-5)
    config.image_objective = None
    with pytest.raises(ValueError, match='image_gradient_norms is True, but .* image_objective'):
        setup.make_objective(config, None, steps_per_epoch=1.0)


@pytest.mark.parametrize('accumulate', [1, 4])
def test_epochs_of_an_objective_are_calls_of_its_loss(accumulate, monkeypatch):
    given = {}
    module = types.SimpleNamespace(objective=lambda **settings: given.update(settings))
    monkeypatch.setattr(setup, 'find_objective', lambda name: module)
    config = corrflow.get_config()
    config.accumulate = accumulate
    setup.make_objective(config, None, steps_per_epoch=2.5)
    assert given['truth_steps'] == 25 * accumulate and 'truth_steps_epoch' not in given


def test_an_uneven_batch_is_refused():
    batch = {'image': np.zeros((6, 1, 1, 3), np.uint8)}
    optimizer = optax.sgd(0.1)
    state = parallel.replicate(create_state(line(), optimizer, batch, seed=0))
    with pytest.raises(ValueError, match='accumulate is 4'):
        make_train_step(line(), optimizer, accumulate=4)(state, parallel.shard(batch))


@pytest.fixture
def config(tmp_path):
    import cv2

    for video in range(2):
        (tmp_path / f'data/{video}').mkdir(parents=True)
        for frame in range(3):
            cv2.imwrite(
                str(tmp_path / f'data/{video}/{frame}.png'),
                np.full((8, 8, 3), 40 * (video + frame), np.uint8),
            )
    config = small_rotation.get_config()
    config.data.update(root=str(tmp_path / 'data'), batch_size=4, size=(8, 8), examples_per_video=8)
    config.update(steps=20, checkpoint_every=3, log_every=2)
    config.schedule = {'name': 'constant', 'learning_rate': 0.01}
    return config


def test_a_loss_that_is_not_finite_stops_and_leaves_good_checkpoints(tmp_path, config, monkeypatch):
    monkeypatch.setattr(setup, 'make_objective', lambda *_: line(nan_at=7))
    with pytest.raises(FloatingPointError, match=r'step 8: not finite: .*slope = nan') as error:
        loop.train(config, tmp_path / 'run')
    assert 'square' not in str(error.value)
    found = checkpoint.restore_variables(tmp_path / 'run/checkpoints')
    assert found['state']['step'] == 6 and np.isfinite(found['params']['backbone']['slope'])
    entries = (tmp_path / 'run/metrics.jsonl').read_text().splitlines()
    assert [json.loads(entry)['step'] for entry in entries] == [2, 3, 4, 6]


def test_a_checkpoint_of_another_objective_is_refused(tmp_path, config, monkeypatch):
    monkeypatch.setattr(setup, 'make_objective', lambda *_: line(nan_at=4))
    with pytest.raises(FloatingPointError):
        loop.train(config, tmp_path / 'run')

    def wider(*_):
        def init(rng, batch):
            variables = line().init(rng, batch)
            return {**variables, 'params': {'backbone': {'slope': jnp.zeros(2)}}}

        def loss(params, *rest):
            return line().loss({'backbone': {'slope': params['backbone']['slope'][0]}}, *rest)

        return Objective(init, loss)

    monkeypatch.setattr(setup, 'make_objective', wider)
    with pytest.raises(ValueError, match=r'backbone/slope: \(\) there, \(2,\) here'):
        loop.train(config, tmp_path / 'run')


@pytest.fixture
def tiny(config, monkeypatch):
    """Makes a run that takes a second: no network, a loss of one parameter."""
    monkeypatch.setattr(setup, 'make_objective', lambda *_: line())
    config.backbone = None
    return config


@pytest.mark.parametrize('epochs, noted', [(2.0, True), (5.0, False)])
def test_a_learning_rate_that_ends_before_the_run_is_noted(epochs, noted, tiny, tmp_path, capsys):
    tiny.schedule = {'name': 'cosine', 'learning_rate': 0.01, 'epochs': epochs}
    loop.train(tiny, tmp_path / 'run')  # 20 steps are 5 epochs.
    said = capsys.readouterr().err
    assert ('note: the learning rate falls to 0 before the last of 20 steps' in said) == noted
    assert ('--config.schedule.epochs=5 is as long as the run' in said) == noted


def stop_at(monkeypatch, step, number):
    """Sends this process a signal during a given step."""
    add = Log.add

    def add_and_stop(self, done, metrics):
        if done == step:
            os.kill(os.getpid(), number)
        add(self, done, metrics)

    monkeypatch.setattr(Log, 'add', add_and_stop)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_the_resumed_run_is_the_same(number, tmp_path, tiny, monkeypatch, capfd):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert loop.train(tiny, tmp_path / 'whole')['finished']
    with monkeypatch.context() as patch:
        stop_at(patch, 8, number)
        result = loop.train(tiny, tmp_path / 'run')
    assert not result['finished'] and result['step'] == 8
    assert ('Ctrl-C again' in capfd.readouterr().err) == (number == signal.SIGINT)
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert (tmp_path / 'run/checkpoints/8').is_dir()
    assert loop.train(tiny, tmp_path / 'run')['step'] == 20
    found, wanted = (
        checkpoint.restore_variables(tmp_path / name / 'checkpoints') for name in ('run', 'whole')
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_after_damage_the_run_ends_the_same(tmp_path, tiny, capsys):
    loop.train(tiny, tmp_path / 'whole')
    tiny.steps = 12
    loop.train(tiny, tmp_path / 'run')
    tiny.steps = 20
    data = next(tmp_path.glob('run/checkpoints/12/state/d/*'))
    data.write_bytes(bytes(len(data.read_bytes())))
    assert loop.train(tiny, tmp_path / 'run')['finished']
    said = capsys.readouterr().err
    assert 'checkpoint 12 is damaged: state/d/' in said and 'checkpoint 9 is used' in said
    found, wanted = (
        checkpoint.restore_variables(tmp_path / name / 'checkpoints') for name in ('run', 'whole')
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    steps = [int(path.name) for path in tmp_path.glob('run/checkpoints/*')]
    assert len(steps) <= tiny.keep + 1 and max(steps) == 20


def test_a_second_interrupt_ends_the_process_at_once():
    code = """import os, signal, time
from jaxprop.training.loop import _stop_signals
with _stop_signals() as stopped:
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    print('goes on', flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print('still here')
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and done.stdout == 'goes on\n'
    assert 'Ctrl-C again stops at once' in done.stderr


def test_zeros_at_the_end_of_the_metrics_are_cut_off(tmp_path, tiny, capsys):
    tiny.steps = 6
    loop.train(tiny, tmp_path / 'run')
    path = tmp_path / 'run/metrics.jsonl'
    whole = path.read_text()
    path.write_bytes(whole.encode() + b'{"ste' + bytes(1000))
    loop.train(tiny, tmp_path / 'run')
    assert path.read_text() == whole
    assert f'{path}: 1000 zero bytes' in capsys.readouterr().err
    # What a power cut has lost is said.
    path.write_bytes(whole.encode()[:30] + bytes(100))
    loop.train(tiny, tmp_path / 'run')
    assert 'entries between steps 0 and 6 are missing' in capsys.readouterr().err
    path.unlink()
    loop.train(tiny, tmp_path / 'run')
    assert f'{path}: is missing' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['', '{"name": "small', '[]', '\x00' * 100, '[' * 100_000])
def test_damaged_files_of_a_run_are_named(text, tmp_path, tiny):
    tiny.steps = 6
    loop.train(tiny, tmp_path / 'run')
    path = tmp_path / 'run/metrics.jsonl'
    first, rest = path.read_text().split('\n', 1)
    path.write_text('\n'.join((first, text, rest)))
    with pytest.raises(ValueError, match=r'metrics\.jsonl: line 2 is damaged'):
        loop.train(tiny, tmp_path / 'run')
    (tmp_path / 'run/config.json').write_text(text)
    with pytest.raises(ValueError, match=r'config\.json: is damaged.*Name another folder'):
        loop.train(tiny, tmp_path / 'run')
    with pytest.raises(ValueError, match=r'config\.json is a file; a run needs a folder'):
        loop.train(tiny, tmp_path / 'run/config.json')


def test_a_full_disk_names_the_file(tmp_path, tiny, monkeypatch):
    class Full:
        name = str(tmp_path / 'run/metrics.jsonl')

        def write(self, text):
            raise OSError(errno.ENOSPC, 'No space left on device')

        def close(self):
            pass

    init = Log.__init__

    def init_full(self, *arguments):
        init(self, *arguments)
        self._file.close()
        self._file = Full()

    monkeypatch.setattr(Log, '__init__', init_full)
    with pytest.raises(OSError, match=r'No space left on device: .*run/metrics\.jsonl'):
        loop.train(tiny, tmp_path / 'run')


def test_start_from_takes_the_backbone_of_a_file(tmp_path):
    model = ResNet(output='res1')
    shapes = jax.eval_shape(model.init, jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(lambda value: np.full(value.shape, 2.0, np.float32), shapes)
    save_pretrained(tmp_path / 'other', model, variables)
    finer = ResNet(output='res1', strides=(1, 1, 1, 1), frozen_until='res1')

    zeros = jax.tree.map(lambda value: jnp.zeros(value.shape), shapes)
    fresh = TrainState(
        step=jnp.int32(0),
        params={'backbone': zeros['params'], 'head': {'bias': jnp.ones(3)}},
        state={
            'backbone': {'batch_stats': zeros['batch_stats']},
            'step': jnp.int32(0),
            'empty': {},
        },
        opt_state=(),
        rng=None,
    )
    state = setup.start_from(fresh, tmp_path / 'other.safetensors', finer)
    expected = load_pretrained(tmp_path / 'other')[1]
    jax.tree.map(np.testing.assert_array_equal, state.params['backbone'], expected['params'])
    statistics = state.state['backbone']['batch_stats']
    jax.tree.map(np.testing.assert_array_equal, statistics, expected['batch_stats'])
    np.testing.assert_array_equal(state.params['head']['bias'], np.ones(3))
    deeper = ResNet(output='res2')
    with pytest.raises(ValueError, match='res2'):
        setup.start_from(fresh, tmp_path / 'other.safetensors', deeper)


def test_unreadable_files_are_listed_in_the_run(tmp_path, config, monkeypatch):
    for path in (tmp_path / 'data/1').iterdir():
        path.write_bytes(b'junk')
    config.data.max_unreadable = 0.5
    monkeypatch.setattr(setup, 'make_objective', lambda *_: line(nan_at=4))
    with pytest.raises(FloatingPointError):
        loop.train(config, tmp_path / 'run')
    listed = json.loads((tmp_path / 'run/unreadable.0.json').read_text())
    assert list(listed) == [str(tmp_path / 'data/1')]
    entry = json.loads((tmp_path / 'run/metrics.jsonl').read_text().splitlines()[-1])
    assert entry['unreadable'] == 1
