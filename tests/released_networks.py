"""Released networks: the names and shapes in their files, and what they give for an image.

reference/vit.json and vit.npz hold them. The weights follow from a rule, so no file holds them; the
outputs are those of the released PyTorch code with these weights.
"""

import json
import re
import zlib

import numpy as np

from tests.support import REFERENCE

ENTRIES = json.loads((REFERENCE / 'vit.json').read_text())
NAMES = tuple(ENTRIES)


def released_state(name, num_blocks=None):
    """The arrays of a network's file, by name and without prefix, in PyTorch's layout.

    With num_blocks only those of the first blocks, of a smaller network then.
    """
    entry = ENTRIES[name]
    state = {}
    for key, shape in entry['shapes'].items():
        block = re.match(r'blocks\.(\d+)\.', key)
        if num_blocks is None or block is None or int(block[1]) < num_blocks:
            state[key] = _weights(key, shape, entry['seed'])
    return state | _arrays(f'{name}/buffer/')


def released_outputs(name):
    """The input `[B, h, w, 3]`, and by name the outputs, `[B, H, W, C]` or `[B, C]`."""
    entry = ENTRIES[name]
    outputs = {key: _arrays(f'{name}/')[key] for key in entry['outputs']}
    images = _image(entry['input'], entry['input_seed'])
    return np.moveaxis(images, 1, -1), {
        key: np.moveaxis(value, 1, -1) for key, value in outputs.items()
    }


def _arrays(start):
    with np.load(REFERENCE / 'vit.npz') as arrays:
        return {key.removeprefix(start): arrays[key] for key in arrays if key.startswith(start)}


def _weights(name, shape, seed):
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    if name.endswith(('weight', 'gamma')) and len(shape) == 1:
        array = random.uniform(0.5, 1.5, shape)  # Scales of norms, LayerScale.
    elif any(part in name for part in ('token', 'pos_embed')):
        array = 0.2 * random.standard_normal(shape)
    elif len(shape) >= 2:
        array = random.standard_normal(shape) * np.sqrt(1.5 / np.prod(shape[1:]))
    else:
        array = 0.1 * random.standard_normal(shape)  # Biases.
    return array.astype(np.float32)


def _image(shape, seed):
    """Smooth waves and noise `[B, C, h, w]`, about in [-2, 2]."""
    random = np.random.RandomState(seed)
    batch, channels, height, width = shape
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    result = np.zeros(shape)
    for plane in np.ndindex(batch, channels):
        for _ in range(6):
            y, x, phase = random.uniform(0, 6, 3)
            result[plane] += 0.5 * np.sin(2 * np.pi * (y * rows + x * columns) + phase)
    return (result + 0.3 * random.standard_normal(shape)).astype(np.float32)
