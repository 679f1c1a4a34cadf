"""Damaged and hostile files of PyTorch weights: each is read as it was, or named in an error."""

import jax
import numpy as np
import pytest

from jaxprop.checkpoints.torch_file import load_torch_weights
from tests.checkpoints.test_torch_file import old_bytes, storage, tensor, write_zip
from tests.fuzz.mutations import classify, count, mutate

STATE = {
    'state_dict': {
        'conv1.weight': tensor(storage(key='weight')),
        'conv1.bias': tensor(storage(key='bias'), shape=(4,), strides=(1,)),
    },
    'optimizer': {'state': {0: {'step': 5}}, 'param_groups': [{'lr': 0.1, 'params': [0, 1]}]},
    'epoch': 3,
}
NUMBERS = {key: np.arange(4, dtype='<f4').tobytes() for key in ('weight', 'bias')}


@pytest.mark.parametrize('kind', ['zip', 'old'])
def test_damaged_files(kind, tmp_path):
    path = tmp_path / 'weights.pth'
    if kind == 'zip':
        write_zip(path, STATE, NUMBERS)
    else:
        path.write_bytes(old_bytes(STATE, {key: (4, data) for key, data in NUMBERS.items()}))
    expected = load_torch_weights(path)

    def outcomes():
        for label, damaged in mutate(path.read_bytes(), 300, seed=kind == 'old'):
            other = tmp_path / 'damaged.pth'
            other.write_bytes(damaged)
            outcome, value = classify(lambda: load_torch_weights(other), other, ValueError)
            # The older format has no checksum.
            if outcome == 'ok' and kind == 'zip':
                assert jax.tree.structure(value) == jax.tree.structure(expected), label
                jax.tree.map(np.testing.assert_array_equal, value, expected)
            yield label, (outcome, value)

    assert count(outcomes())['clear'] > 100


def test_random_programs(tmp_path):
    """Instructions that the reader knows, in a random order with random numbers between them."""
    rng = np.random.default_rng(0)
    path = tmp_path / 'weights.pth'
    known = b'()}].0NKMJGXUhqjrtsuaeRQbc\x85\x86\x87\x88\x89\x8c\x93\x94\x80\x95'

    def outcomes():
        for index in range(300):
            program = bytes(rng.choice(list(known), 200))
            path.write_bytes(old_bytes({'weight': tensor()})[:60] + program)
            yield index, classify(lambda: load_torch_weights(path), path, ValueError)

    assert count(outcomes())['clear'] == 300
