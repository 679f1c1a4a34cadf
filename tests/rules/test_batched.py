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


@pytest.mark.parametrize('name', ['disk', 'everywhere', 'sums'])
def test_parts_equal_all(name, monkeypatch):
    # Two frames at once, or 80 target cells.
    monkeypatch.setattr(batched, '_BYTES', 2**20)
    found = propagate_video(*_video(), METHODS[name], execution=BATCHED)
    np.testing.assert_allclose(found, _dense(name), atol=1e-5)


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
