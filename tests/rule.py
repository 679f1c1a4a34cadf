"""Makes weights and images by a fixed rule; reference/ has released code's outputs for them.

The weights of a network are too large to be kept, so each array follows from its name, its shape
and a seed. RandomState's numbers are the same in every version of NumPy.
"""

import zlib

import numpy as np


def weights(shapes, seed):
    """Makes arrays by the names of PyTorch's state dicts, for `{name: shape}`."""
    return {name: _weight(name, tuple(shape), seed) for name, shape in shapes.items()}


def _weight(name, shape, seed):
    if name.endswith('num_batches_tracked'):
        return np.array(1000, np.int64)
    rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    is_scale = len(shape) == 1 and name.endswith(('weight', 'gamma'))
    if is_scale or name.endswith('running_var'):
        value = rng.uniform(0.5, 1.5, shape)
    elif 'token' in name or 'pos_embed' in name:
        value = 0.2 * rng.standard_normal(shape)
    elif len(shape) > 1:
        value = rng.standard_normal(shape) * np.sqrt(1.5 / np.prod(shape[1:]))
    else:
        value = 0.1 * rng.standard_normal(shape)
    return value.astype(np.float32)


def images(shape, seed):
    """Makes a smooth input `[B, H, W, C]` of a network, for the shape `[B, C, H, W]`."""
    rng = np.random.RandomState(seed)
    result = np.zeros(shape)
    rows, columns = (np.linspace(0, 1, size) for size in shape[2:])
    for plane in result.reshape(-1, *shape[2:]):
        for _ in range(6):
            y, x, phase = rng.uniform(0, 6, 3)
            plane += 0.5 * np.sin(2 * np.pi * (y * rows[:, None] + x * columns[None]) + phase)
    result += 0.3 * rng.standard_normal(shape)
    return result.astype(np.float32).transpose(0, 2, 3, 1)
