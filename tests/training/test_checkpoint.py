"""Checkpoints of a tiny state: which are kept and verified, and which is read after damage."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxprop.training import checkpoint
from jaxprop.training.state import TrainState


def state(step, size=3):
    """Makes a state in which every value says its step."""
    return TrainState(
        step=np.int32(step),
        params={'backbone': {'kernel': np.full((size, 40), step, np.float32)}},
        state={'backbone': {'batch_stats': {'mean': np.full(5, step, np.float32)}}},
        opt_state=({'trace': np.full((size, 40), -step, np.float32)}, ()),
        rng=np.arange(2, dtype=np.uint32),
    )


def save(folder, losses, keep=3):
    """Saves steps with their losses, by one manager."""
    with checkpoint.open_manager(folder, keep) as manager:
        for step, loss in losses.items():
            checkpoint.save(manager, state(step), {'position': step}, loss)


def restored(folder):
    with checkpoint.open_manager(folder) as manager:
        return checkpoint.restore(manager, state(0))


def assert_is_step(found, step):
    found, data = found
    jax.tree.map(np.testing.assert_array_equal, found, state(step))
    assert data == {'position': step}


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def test_a_checkpoint_has_digests_of_its_files(tmp_path):
    save(tmp_path, {1: 0.5})
    digests = json.loads((tmp_path / '1/integrity.json').read_text())['sha256']
    files = {
        path.relative_to(tmp_path / '1').as_posix()
        for path in (tmp_path / '1').rglob('*')
        if path.is_file()
    }
    assert files - set(digests) <= {'_CHECKPOINT_METADATA', 'integrity.json', 'commit_success.txt'}
    assert any(name.startswith('state/') for name in digests) and 'data/metadata' in digests
    assert_is_step(restored(tmp_path), 1)


def test_the_rule_of_what_stays_covers_what_earlier_processes_wrote(tmp_path):
    save(tmp_path, {2: 5.0, 4: 1.0, 6: 3.0})
    save(tmp_path, {8: 2.0, 10: 2.0})
    assert steps(tmp_path) == [4, 6, 8, 10]
    save(tmp_path, {12: 0.5})
    assert steps(tmp_path) == [8, 10, 12]
    save(tmp_path, {14: 2.0, 16: 2.0, 18: 2.0}, keep=1)
    assert steps(tmp_path) == [12, 18]


def test_a_damaged_newest_one_is_named_and_an_older_one_used(tmp_path, capsys):
    save(tmp_path, {2: 1.0, 4: 1.0, 6: 1.0})
    for step in (4, 6):
        path = next(path for path in (tmp_path / f'{step}/state').rglob('*') if path.is_file())
        path.write_bytes(path.read_bytes() + b'x')
    found = checkpoint.restore_variables(tmp_path)
    assert found['params']['backbone']['kernel'][0, 0] == 2 and steps(tmp_path) == [2, 4, 6]
    said = capsys.readouterr().err
    assert 'checkpoint 6 is damaged: state/' in said and 'checkpoint 4 is damaged' in said
    assert 'checkpoint 2 is used' in said
    assert_is_step(restored(tmp_path), 2)
    assert steps(tmp_path) == [2]  # The run that goes on writes the others anew.
    save(tmp_path, {4: 1.0})
    assert_is_step(restored(tmp_path), 4)


def test_no_whole_one_is_an_error_with_a_remedy(tmp_path):
    save(tmp_path, {2: 1.0, 4: 1.0})
    for step in (2, 4):
        shutil.rmtree(tmp_path / f'{step}/state')
    for read in (restored, checkpoint.restore_variables):
        with pytest.raises(ValueError, match=r'(?s)none .* is whole: checkpoint 4 .*backup, or re'):
            read(tmp_path)
    assert steps(tmp_path) == [2, 4]


def test_one_without_digests_is_used_where_no_other_is_whole(tmp_path, capsys):
    save(tmp_path, {2: 1.0, 4: 1.0})
    (tmp_path / '4/integrity.json').unlink()
    assert checkpoint.restore_variables(tmp_path)['params']['backbone']['kernel'][0, 0] == 2
    assert 'checkpoint 4 has no integrity.json' in capsys.readouterr().err
    for path in (tmp_path / '4/loss', tmp_path / '2/loss'):
        shutil.rmtree(path)
    (tmp_path / '2/integrity.json').unlink()  # As earlier versions wrote them.
    assert_is_step(restored(tmp_path), 4)
    assert 'checkpoint 4, which cannot be verified, is used' in capsys.readouterr().err


def test_another_network_is_no_damage(tmp_path):
    save(tmp_path, {2: 1.0, 4: 1.0})
    with checkpoint.open_manager(tmp_path) as manager:
        with pytest.raises(ValueError, match=r'kernel: \(3, 40\) there, \(4, 40\) here'):
            checkpoint.restore(manager, state(0, size=4))
    assert steps(tmp_path) == [2, 4]


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    with checkpoint.open_manager(tmp_path / 'run') as manager:

        def full(*_, **__):
            raise ValueError('RESOURCE_EXHAUSTED: write: No space left on device')

        monkeypatch.setattr(manager, 'save', full)
        with pytest.raises(OSError, match=r'run: a checkpoint cannot be written: .*No space'):
            checkpoint.save(manager, state(1), {}, 0.0)
    with pytest.raises(ValueError, match='keep is 0'):
        checkpoint.open_manager(tmp_path, keep=0)
