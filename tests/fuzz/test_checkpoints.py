"""Every file of a checkpoint is damaged in turn: the saved state is restored, or none is."""

import shutil

import jax
import numpy as np
import pytest

from jaxprop.training import checkpoint
from tests.fuzz.mutations import classify, count, mutate
from tests.training.test_checkpoint import save, state

DAMAGE = {
    'removed': lambda data: None,
    'empty': lambda data: b'',
    'halved': lambda data: data[: len(data) // 2],
    'zeros': lambda data: data[: len(data) // 3] + bytes(32) + data[len(data) // 3 + 32 :],
    **{
        f'flipped {seed}': lambda data, seed=seed: next(mutate(data, 1, seed, ['flip']))[1]
        for seed in range(3)
    },
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('checkpoints')
    save(folder, {2: 1.0, 4: 1.0})
    return folder


def damaged_copies(whole, copy, step):
    """Damages one file of a step in the copy at a time, and yields the file and the damage."""
    paths = [path for path in (whole / str(step)).rglob('*') if path.is_file()]
    assert len(paths) > 10
    shutil.copytree(whole, copy)
    for path in sorted(path.relative_to(whole) for path in paths):
        for name, damage in DAMAGE.items():
            data = damage((whole / path).read_bytes())
            (copy / path).unlink()
            if data is not None:
                (copy / path).write_bytes(data)
            yield f'{path} {name}'
            shutil.copy(whole / path, copy / path)


def step_of(variables):
    """Finds the step whose parameters these are, and checks that all of them are."""
    step = int(variables['params']['backbone']['kernel'][0, 0])
    expected = {'params': state(step).params, 'state': state(step).state}
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    return step


def test_damage_to_the_newest_of_two(whole, tmp_path, capsys):
    found = []

    def outcomes():
        for label in damaged_copies(whole, tmp_path / 'run', 4):
            kind, value = classify(
                lambda: checkpoint.restore_variables(tmp_path / 'run'), tmp_path, ValueError
            )
            if kind == 'ok':
                found.append(step_of(value))
                said = capsys.readouterr().err
                assert (f'{tmp_path}/run: checkpoint 4' in said) == (found[-1] == 2), label
                assert found[-1] in (2, 4)
            yield label, (kind, value)

    assert count(outcomes()).keys() == {'ok'}
    assert found.count(2) > 0.7 * len(found)


def test_damage_to_the_only_one(whole, tmp_path):
    shutil.copytree(whole / '4', tmp_path / 'one/4')

    def outcomes():
        for label in damaged_copies(tmp_path / 'one', tmp_path / 'run', 4):
            outcome = classify(
                lambda: checkpoint.restore_variables(tmp_path / 'run'), tmp_path, ValueError
            )
            if outcome[0] == 'ok':
                assert step_of(outcome[1]) == 4, label
            yield label, outcome

    assert count(outcomes())['clear'] > 50
