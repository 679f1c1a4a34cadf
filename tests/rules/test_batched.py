"""The search in batches, for GPUs, finds the cells that the dense search finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import Disk, Everywhere, Execution, Memory, Propagation, Square, TopK
from jaxprop.propagation import propagate_video
from jaxprop.rules import batched

METHODS = {
    'disk': Propagation(rule=TopK(k=5, region=Disk(4)), memory=Memory(num_frames=3)),
    'square': Propagation(
        rule=TopK(k=7, region=Square(3, bind_first=True)),
        memory=Memory(num_frames=2, padding='mask'),
    ),
    'everywhere': Propagation(
        rule=TopK(k=4, region=Everywhere()), memory=Memory(num_frames=2, padding='first_once')
    ),
    # A cell has one candidate in each frame but the first.
    'one': Propagation(rule=TopK(k=12, region=Disk(1)), memory=Memory(num_frames=2)),
    'sums': Propagation(
        rule=TopK(k=5, region=Disk(4), softmax='region'), memory=Memory(num_frames=2)
    ),
    # A window around a tile covers more than half of the grid.
    'large': Propagation(
        rule=TopK(k=5, region=Disk(7, bind_first=True)), memory=Memory(num_frames=2)
    ),
    'per frame': Propagation(
        rule=TopK(k=5, region=Disk(4), aggregation='per_frame', softmax='region'),
        memory=Memory(num_frames=3, padding='mask'),
    ),
    # Near the border fewer cells are allowed than are selected.
    'few': Propagation(
        rule=TopK(k=8, region=Disk(2), softmax='region'), memory=Memory(num_frames=4)
    ),
    'few per frame': Propagation(
        rule=TopK(k=8, region=Disk(2), aggregation='per_frame'), memory=Memory(num_frames=3)
    ),
    'few, bound': Propagation(
        rule=TopK(k=9, region=Square(2, bind_first=True)),
        memory=Memory(num_frames=2, padding='mask'),
    ),
    # So many neighbours are sorted.
    'many': Propagation(rule=TopK(k=30, region=Disk(4)), memory=Memory(num_frames=3)),
}
BATCHED = Execution(implementation='batched')


def _video():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 25, 33, 32)).astype(np.float32)
    return features, rng.random((25, 33, 3)).astype(np.float32)


@functools.cache
def _dense(name):
    dense = Execution(implementation='dense')
    return np.asarray(propagate_video(*_video(), METHODS[name], execution=dense))


@pytest.mark.parametrize('precision', ['float32', 'float16x3'])
@pytest.mark.parametrize('name', METHODS)
def test_equals_dense(name, precision):
    execution = Execution(implementation='batched', precision=precision)
    found = propagate_video(*_video(), METHODS[name], execution=execution)
    np.testing.assert_allclose(found, _dense(name), atol=1e-5)
    assert np.all(np.max(found, axis=(1, 2)) > 0.1)


def test_a_gpu_takes_it_unless_it_is_not_possible(monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert batched.is_used('neighbors', Execution())
    assert not batched.is_used('frame', Execution())
    over_frame = Propagation(rule=TopK(k=5, softmax='frame'))
    with pytest.raises(ValueError, match="'batched' needs a softmax over 'neighbors' or 'region'"):
        propagate_video(*_video(), over_frame, execution=BATCHED)


@pytest.mark.parametrize(
    ('platform', 'dtype', 'taken'),
    [('gpu', 'float32', 'float16x3'), ('gpu', 'float64', 'float32'), ('cpu', 'float32', 'float32')],
)
def test_gpus_multiply_in_float16_parts(platform, dtype, taken, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: platform)
    rule = METHODS['disk'].rule

    def search(precision):
        features = jnp.asarray(_video()[0], dtype)
        return batched.search(
            features[0],
            features,
            jnp.ones(len(features), bool),
            per_frame=False,
            region=rule.region,
            k=rule.k,
            temperature=rule.temperature,
            softmax=rule.softmax,
            precision=precision,
        ).logits

    with jax.enable_x64(dtype == 'float64'):
        found = {
            precision: np.asarray(search(precision))
            for precision in ('auto', 'float32', 'float16x3')
        }
    np.testing.assert_array_equal(found['auto'], found[taken])
    assert np.any(found['float32'] != found['float16x3'])


@pytest.mark.parametrize(('name', 'frames_at_once'), [('disk', 2), ('sums', 1), ('everywhere', 0)])
def test_parts_equal_all(name, frames_at_once, monkeypatch):
    method, shape = METHODS[name], _video()[0].shape[1:]
    each, together = 0, 2**20
    if frames_at_once:
        each, together = batched._bytes(shape, method.rule.region)
    monkeypatch.setattr(batched, '_BYTES', frames_at_once * each + together)
    found = propagate_video(*_video(), method, execution=BATCHED)
    np.testing.assert_allclose(found, _dense(name), atol=1e-5)


def test_what_does_not_fit_is_searched_by_windows(monkeypatch):
    region = METHODS['disk'].rule.region
    assert batched.fits((25, 33, 32), region, 'neighbors')
    monkeypatch.setattr(batched, '_BYTES', 2**20)
    assert not batched.fits((25, 33, 32), region, 'neighbors')
    assert batched.fits((25, 33, 32), None, 'neighbors')
    found = propagate_video(*_video(), METHODS['disk'], execution=BATCHED)
    np.testing.assert_allclose(found, _dense('disk'), atol=1e-5)


def test_of_equal_cells_those_of_dense_are_selected():
    features, label = _video()
    # Half of the frame is black, as bars are.
    features[:, :12] = features[0, 0, 0]
    for name in ('disk', 'everywhere', 'per frame'):
        found, wanted = (
            propagate_video(
                features, label, METHODS[name], execution=Execution(implementation=implementation)
            )
            for implementation in ('batched', 'dense')
        )
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_best_of_finds_no_place_twice():
    values = jnp.asarray([[3, -jnp.inf, 1], [-jnp.inf, -jnp.inf, -jnp.inf]])
    largest, places = batched.best_of(values, 3)
    np.testing.assert_array_equal(largest, -np.sort(-values, axis=-1))
    np.testing.assert_array_equal(np.sort(places, axis=-1), [[0, 1, 2], [0, 1, 2]])


def test_a_precision_that_has_no_effect_is_refused():
    with pytest.raises(ValueError, match="precision is 'float16x3'; implementation='windowed'"):
        Execution(implementation='windowed', precision='float16x3')


def test_a_region_of_ones_own_that_is_not_symmetric():
    class Above:
        bind_first = True
        reach = (4, 2)

        def allows(self, offsets):
            row, column = offsets[..., 0], offsets[..., 1]
            return (row >= 1) & (row <= 4) & (column >= -2) & (column <= 1)

    method = Propagation(rule=TopK(k=3, region=Above()), memory=Memory(num_frames=2))
    found, wanted = (
        propagate_video(*_video(), method, execution=Execution(implementation=name))
        for name in ('batched', 'dense')
    )
    # The first row has no cell above it, so no label.
    np.testing.assert_allclose(found[:, 1:], wanted[:, 1:], atol=1e-5)


def test_gradients_equal_those_of_dense():
    features, label = _video()
    features = features[:2]

    def total(features, execution):
        labels = propagate_video(features, label, METHODS['disk'], execution=execution)
        return jnp.sum(labels[..., 0] * labels[..., 1])

    executions = BATCHED, Execution(implementation='dense')
    found, wanted = (jax.grad(total)(features, execution) for execution in executions)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted).max() > 0.1
