"""Released networks: the names and shapes in their files, and their outputs for an image.

reference/vit.json and vit.npz hold them. The weights follow from a rule, so no file holds them; the
outputs are those of the released PyTorch code with these weights.
"""

import json
import re

import numpy as np

from tests import rule
from tests.support import REFERENCE

ENTRIES = json.loads((REFERENCE / 'vit.json').read_text())
NAMES = tuple(ENTRIES)


def released_state(name, num_blocks=None):
    """The arrays of a network's file, by name and without prefix, in PyTorch's layout.

    With num_blocks only those of the first blocks, of a smaller network then.
    """
    entry = ENTRIES[name]
    shapes = {}
    for key, shape in entry['shapes'].items():
        block = re.match(r'blocks\.(\d+)\.', key)
        if num_blocks is None or block is None or int(block[1]) < num_blocks:
            shapes[key] = shape
    return rule.weights(shapes, entry['seed']) | _arrays(f'{name}/buffer/')


def released_outputs(name):
    """The input `[B, h, w, 3]`, and by name the outputs, `[B, H, W, C]` or `[B, C]`."""
    entry = ENTRIES[name]
    outputs = {key: _arrays(f'{name}/')[key] for key in entry['outputs']}
    return rule.images(entry['input'], entry['input_seed']), {
        key: np.moveaxis(value, 1, -1) for key, value in outputs.items()
    }


def _arrays(start):
    with np.load(REFERENCE / 'vit.npz') as arrays:
        return {key.removeprefix(start): arrays[key] for key in arrays if key.startswith(start)}
