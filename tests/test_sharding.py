"""Propagation in a user's own JAX code: eight simulated devices give the labels of one."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RULES = {
    'dense': {'radius': 3.0, 'implementation': 'dense'},
    'windowed': {'radius': 3.0, 'implementation': 'windowed'},
    'screened': {'radius': 3.0, 'implementation': 'screened'},
    'attention': {'radius': 3.0, 'num_neighbors': None},
    'predicted': {
        'restriction': 'predicted',
        'radius': 3.0,
        'num_neighbors': None,
        'softmax': 'region',
        'restrict_first': True,
    },
    'tracked': {'restriction': 'track', 'aggregation': 'per_frame', 'restrict_first': True},
}
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
import jaxprop
from jaxprop import methods
from jaxprop.rules import screened

flat = {'num_context': 3, 'num_neighbors': 4, **json.loads(sys.argv[1])}
method, execution = methods.from_settings(**flat), methods.execution_from_settings(**flat)
features = jax.random.normal(jax.random.key(0), (8, 4, 12, 14, 8))
if flat.get('implementation') == 'screened':
    screened._WORTHWHILE = screened._MOST_COPIES = 2.0  # Screen even where it saves nothing.
    screened._SIZES = 3  # Fewer programs to compile.
labels = jax.nn.softmax(3 * jax.random.normal(jax.random.key(1), (8, 12, 14, 3)))

def label(features, first):
    return jaxprop.propagate_video(features, first, method, execution=execution)

def loss(features, first):
    return jnp.sum(label(features, first)[-1, ..., 1])

mesh = jax.make_mesh((8,), ('videos',))
sharding = NamedSharding(mesh, P('videos'))
inputs = jax.device_put((features, labels), sharding)
same_first = jax.device_put(labels[0], NamedSharding(mesh, P()))
one_by_one = np.stack([label(*video) for video in zip(features, labels)])
one_first = np.stack([label(video, labels[0]) for video in features])
same_video = jax.device_put(features[0], NamedSharding(mesh, P()))
one_video = np.stack([label(features[0], first) for first in labels])
in_map = jax.shard_map(
    lambda f, y: label(f[0], y[0])[None], mesh=mesh, in_specs=P('videos'), out_specs=P('videos'))
in_map_one_first = jax.shard_map(
    lambda f, y: label(f[0], y)[None], mesh=mesh, in_specs=(P('videos'), P()),
    out_specs=P('videos'))
in_map_one_video = jax.shard_map(
    lambda f, y: label(f, y[0])[None], mesh=mesh, in_specs=(P(), P('videos')),
    out_specs=P('videos'))

def on_sharded(function):
    compiled = jax.jit(jax.vmap(function))
    try:
        return compiled(*inputs)
    except ValueError as error:
        # JAX 0.12 wants the mesh to be set where a compiled function is inside, 0.10 does not.
        if jax.__version_info__ < (0, 11) or 'not found in mesh' not in str(error):
            raise
    with jax.set_mesh(mesh):
        return compiled(*inputs)

found = {
    'pmap': (jax.pmap(label)(features, labels), one_by_one),
    'vmap': (jax.vmap(label)(features, labels), one_by_one),
    'jit of sharded arrays': (on_sharded(label), one_by_one),
    'shard_map': (jax.jit(in_map)(*inputs), one_by_one),
    'shard_map, one first label': (jax.jit(in_map_one_first)(inputs[0], same_first), one_first),
    'shard_map, one video': (jax.jit(in_map_one_video)(same_video, inputs[1]), one_video),
    'grad': (
        # JAX 0.12 cannot transpose slices under explicit meshes.
        jax.jit(jax.vmap(jax.grad(loss)))(
            *(inputs if jax.__version_info__ < (0, 11) else (features, labels))),
        np.stack([jax.grad(loss)(*video) for video in zip(features, labels)])),
}
print(json.dumps({name: float(np.abs(np.asarray(a) - b).max()) for name, (a, b) in found.items()}))
"""


@pytest.mark.parametrize('name', RULES)
def test_labels_on_eight_devices_are_those_of_one(name):
    environment = {
        **os.environ,
        'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
        'JAX_PLATFORMS': 'cpu',
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, json.dumps(RULES[name])],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    differences = json.loads(done.stdout)
    assert len(differences) == 7
    for way, difference in differences.items():
        assert difference < 1e-5, way
