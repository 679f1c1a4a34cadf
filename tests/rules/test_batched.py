"""The search in batches, for GPUs, finds the cells that the dense search finds."""

import functools
import re

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
}
BATCHED = Execution(implementation='batched')


def _video():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 13, 17, 32)).astype(np.float32)
    return features, rng.random((13, 17, 3)).astype(np.float32)


@functools.cache
def _dense(name):
    dense = Execution(implementation='dense')
    return np.asarray(propagate_video(*_video(), METHODS[name], execution=dense))


@pytest.mark.parametrize('name', METHODS)
def test_equals_dense(name):
    found = propagate_video(*_video(), METHODS[name], execution=BATCHED)
    np.testing.assert_allclose(found, _dense(name), atol=1e-5)
    assert np.all(np.max(found, axis=(1, 2)) > 0.1)


def test_a_gpu_takes_it_unless_it_is_not_possible(monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert batched.is_used('neighbors', 'overall', Execution())
    assert not batched.is_used('frame', 'overall', Execution())
    per_frame = Propagation(rule=TopK(k=5, aggregation='per_frame'))
    with pytest.raises(ValueError, match="'batched' needs aggregation='overall'.*'per_frame'"):
        propagate_video(*_video(), per_frame, execution=BATCHED)


def test_parts_of_the_tiles_equal_all(monkeypatch):
    monkeypatch.setattr(batched, '_BYTES', 2**20)
    found = propagate_video(*_video(), METHODS['disk'], execution=BATCHED)
    np.testing.assert_allclose(found, _dense('disk'), atol=1e-5)


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


def test_under_vmap_top_k_is_of_a_matrix():
    values = np.random.default_rng(0).random((3, 4, 50)).astype(np.float32)
    find = jax.vmap(functools.partial(batched.top_k, k=6))
    np.testing.assert_array_equal(find(values), np.argsort(-values, axis=-1)[..., :6])
    text = jax.jit(find).lower(values).as_text()
    assert re.search(r'top_k\(.*tensor<12x1024xf32>', text)
