"""Seconds a frame of label propagation: windowed, dense, and a plain dense PyTorch version.

    python benchmarks/propagation.py [--height=60 --width=107 --frames=3]

CRW's factors on random features, every path on the same inputs in one run, beside the floor: the
arithmetic that the restriction leaves, at the matrix rate measured here. PyTorch is used if it is
installed by hand. Ratios are what to read; seconds depend on the machine and what else it does.
"""

import importlib.util
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jaxprop import PropagationConfig, affinity, init_context, propagate_step

HEIGHT = flags.DEFINE_integer('height', 60, 'Rows of the feature grid.')
WIDTH = flags.DEFINE_integer('width', 107, 'Columns of the feature grid.')
FRAMES = flags.DEFINE_integer('frames', 3, 'Timed frames; the least time counts.')
CHANNELS, LABELS = 256, 2


def least_seconds(function, repeats):
    """The least time of a call, after one that compiles or warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def matrix_rate():
    """Multiplications and additions a second in a large float32 matrix product."""
    size = 2048
    matrix = jnp.ones((size, size))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision='highest'))
    return 2 * size**3 / least_seconds(lambda: product(matrix).block_until_ready(), 5)


def floor_operations(config, height, width):
    """Operations of the affinities that the restriction allows, the free frame 0 included."""
    cells = jnp.asarray(np.indices((height, width)).reshape(2, -1).T)
    allowed = int(jnp.sum(affinity.distance_mask(
        cells, cells, config.radius, config.restriction)))
    free = config.free_slots * (height * width) ** 2
    return 2 * CHANNELS * ((config.num_slots - config.free_slots) * allowed + free)


def jax_seconds(features, label, config):
    step = jax.jit(propagate_step, static_argnames='config', donate_argnums=0)
    context = init_context(features[0], label, config=config)

    def run():
        nonlocal context
        context, predicted = step(context, features[1], config=config)
        predicted.block_until_ready()

    return least_seconds(run, FRAMES.value)


def torch_seconds(features, label, config, chunk=128):
    """The whole affinity of a chunk of targets with all context frames, masked, then top-k."""
    import torch

    height, width = features.shape[1:3]
    num_slots = config.num_slots
    frames = torch.nn.functional.normalize(
        torch.tensor(np.array(features)).reshape(2, -1, CHANNELS), dim=-1)
    target = frames[1]
    keys = frames[:1].expand(num_slots, -1, -1).reshape(-1, CHANNELS).contiguous()
    labels = torch.tensor(np.array(label)).reshape(-1, LABELS).repeat(num_slots, 1)
    cells = torch.tensor(np.indices((height, width)).reshape(2, -1).T.copy()).float()

    def run():
        for start in range(0, height * width, chunk):
            part = slice(start, start + chunk)
            logits = target[part] @ keys.T
            far = torch.cdist(cells[part], cells) >= config.radius
            logits = logits.reshape(len(far), num_slots, -1)
            logits[:, 1:].masked_fill_(far[:, None], -math.inf)
            values, chosen = logits.reshape(len(far), -1).topk(config.num_neighbors, dim=-1)
            weights = torch.softmax(values / config.temperature, dim=-1)
            (weights[..., None] * labels[chosen]).sum(1)

    with torch.no_grad():
        return least_seconds(run, FRAMES.value)


def main(_):
    height, width = HEIGHT.value, WIDTH.value
    features = jax.nn.relu(jax.random.normal(jax.random.key(0), (2, height, width, CHANNELS)))
    label = jax.nn.one_hot(
        jax.random.randint(jax.random.key(1), (height, width), 0, LABELS), LABELS)
    config = PropagationConfig(num_context=20, num_neighbors=10, radius=12.0)
    floor = floor_operations(config, height, width) / matrix_rate()
    seconds = {}
    for name in ('windowed', 'dense'):
        chosen = PropagationConfig(
            num_context=20, num_neighbors=10, radius=12.0, implementation=name)
        seconds[name] = jax_seconds(features, label, chosen)
    if importlib.util.find_spec('torch'):
        seconds['dense PyTorch'] = torch_seconds(features, label, config)
    print(f'grid {height}x{width}, {CHANNELS} channels, n=20, k=10, radius 12; '
          f'floor {floor:.2f} s at {matrix_rate() / 1e9:.0f} GFLOP/s')
    for name, value in seconds.items():
        print(f'{name:14} {value:6.2f} s   {value / floor:5.1f} x floor   '
              f'{value / seconds["windowed"]:5.1f} x windowed')


if __name__ == '__main__':
    app.run(main)
