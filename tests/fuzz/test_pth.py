"""Damaged and hostile files of PyTorch weights are read unchanged, or named in an error."""

import contextlib
import functools
import pickle
import sys

import jax
import numpy as np
import pytest

from jaxprop.checkpoints.published import read_arrays
from jaxprop.checkpoints.torch_file import load_torch_weights
from tests.checkpoints.test_torch_file import (
    TAR,
    Call,
    Name,
    Persistent,
    Raw,
    encode,
    old_bytes,
    program,
    storage,
    tensor,
    write_tar,
    write_zip,
)
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


@pytest.mark.parametrize('kind', ['zip', 'old', 'tar'])
def test_damaged_files(kind, tmp_path):
    path = tmp_path / 'weights.pth'
    if kind == 'zip':
        write_zip(path, STATE, NUMBERS)
    elif kind == 'tar':
        write_tar(path, **TAR)
        # Most of an archive is padding, damage to which is none.
        path.write_bytes(path.read_bytes()[:5120])
    else:
        path.write_bytes(old_bytes(STATE, {key: (4, data) for key, data in NUMBERS.items()}))
    expected = load_torch_weights(path)

    def outcomes():
        for label, damaged in mutate(path.read_bytes(), 300, seed=len(kind)):
            other = tmp_path / 'damaged.pth'
            other.write_bytes(damaged)
            outcome, value = classify(lambda: load_torch_weights(other), other, ValueError)
            # The older formats have no checksum.
            if outcome == 'ok' and kind == 'zip':
                assert jax.tree.structure(value) == jax.tree.structure(expected), label
                jax.tree.map(np.testing.assert_array_equal, value, expected)
            yield label, (outcome, value)

    assert count(outcomes())['clear'] > (40 if kind == 'tar' else 100)


def test_random_programs(tmp_path):
    """Programs are instructions that the reader knows, in a random order, with random numbers."""
    rng = np.random.default_rng(0)
    path = tmp_path / 'weights.pth'
    known = b'()}].0NKMJGXUILhqjrtsuaeRQbc\n' + bytes(range(0x80, 0x96))

    def outcomes():
        for index in range(300):
            program = bytes(rng.choice(list(known), 200))
            path.write_bytes(old_bytes({'weight': tensor()})[:60] + program)
            yield index, classify(lambda: load_torch_weights(path), path, ValueError)

    assert count(outcomes())['clear'] == 300


WATCHED = ('os.', 'subprocess.', 'exec', 'compile', 'pickle.', 'marshal.', 'shutil.', 'socket.')
NOTES: list[list[str]] = []


@functools.cache
def add_hook():
    """Makes the interpreter tell what it runs; this cannot be undone."""

    def note(event, _):
        if NOTES and event.startswith(WATCHED):
            NOTES[-1].append(event)

    sys.addaudithook(note)


@contextlib.contextmanager
def watched():
    """Yields a list that gets the names of all functions that run meanwhile."""
    add_hook()
    NOTES.append([])
    try:
        yield NOTES[-1]
    finally:
        NOTES.pop()


def hostile(rng, depth):
    """Makes a random value with calls, in every place of a pickle, that no reader may make."""
    names = ['os system', 'posix system', 'builtins eval', 'builtins exec', 'subprocess Popen',
             'torch load', 'pickle loads', 'argparse Namespace', 'collections Counter',
             'collections OrderedDict', 'torch._utils _rebuild_parameter']  # fmt: skip
    name = Name(str(rng.choice(names)))
    if depth == 0:
        return [tensor(), 'touch made', 3, name, {}][rng.integers(5)]
    parts = [hostile(rng, depth - 1) for _ in range(rng.integers(1, 4))]
    arguments = encode(tuple(parts))
    return [
        Call(name, tuple(parts)),
        {f'key{index}': part for index, part in enumerate(parts)},
        parts,
        tuple(parts),
        Raw(encode(name) + arguments + b'\x81' + encode(parts[0]) + b'b'),
        Raw(encode(name) + arguments + encode({}) + b'\x92'),
        Raw(encode(name) + arguments + b'R(' + b''.join(map(encode, parts)) + b'e'),
        Raw(encode(name) + arguments + b'R(' + 2 * encode(parts[0]) + b'u'),
        Persistent(('storage', name, '0', 'cpu', 4)),
        tensor(Raw(encode(parts[0]))),
    ][rng.integers(10)]


@pytest.mark.parametrize('kind', ['zip', 'old', 'tar'])
def test_nothing_of_hostile_files_runs(kind, tmp_path):
    rng = np.random.default_rng(len(kind))
    path = tmp_path / 'weights.pth'

    def outcomes():
        for index in range(300):
            value = {'weight': Persistent('7') if kind == 'tar' else tensor()}
            value |= {'more': hostile(rng, 3)}
            if kind == 'tar':
                write_tar(path, **{**TAR, 'value': value})
            else:
                path.write_bytes(old_bytes(value)) if kind == 'old' else write_zip(path, value)
            with watched() as events:
                outcome = classify(lambda: read_arrays(path), path, ValueError)
            assert events == [], value
            yield index, outcome
            if outcome[0] == 'ok':
                left_out.extend(outcome[1][1])

    left_out: list[str] = []
    load_torch_weights(write_zip(path, {'weight': tensor()}))  # Imports what the reader needs.
    found = count(outcomes())
    assert found['ok'] > 20 and found['clear'] > 20 and len(left_out) > 20
    # The hook does see such calls.
    with watched() as events:
        pickle.loads(program(Call(Name('builtins exec'), ('1 + 1',))))
    assert {'pickle.find_class', 'exec'} <= set(events)
