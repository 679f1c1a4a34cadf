"""A step against plain gradient descent on a tiny objective, and how a run ends badly."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.train import small_rotation
from jaxprop import parallel
from jaxprop.checkpoints.native import load_pretrained, save_pretrained
from jaxprop.models import ResNet
from jaxprop.objectives.objective import Objective
from jaxprop.training import checkpoint, loop, setup
from jaxprop.training.state import TrainState, create_state
from jaxprop.training.step import make_train_step


def line(nan_at=None):
    """Least squares of a line, counting its calls; 'slope' is NaN from a step on."""

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

        return Objective(init, line().loss)

    monkeypatch.setattr(setup, 'make_objective', wider)
    with pytest.raises(ValueError, match=r'backbone/slope: \(\) there, \(2,\) here'):
        loop.train(config, tmp_path / 'run')


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
