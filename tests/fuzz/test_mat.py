"""Damaged .mat files of JHMDB give numbers, or one line that names the file; never a crash."""

import numpy as np
import pytest
from scipy import io as scipy_io

from jaxprop.data.jhmdb import jhmdb_sequence
from jaxprop.data.mat_file import read_array
from tests.fuzz.mutations import classify, count, mutate
from tests.layouts import write_jhmdb

NAME = 'wave/clip'


@pytest.mark.parametrize('compressed, order', [(True, 1), (False, 1), (True, -1)])
def test_damaged_files(tmp_path, compressed, order):
    path = tmp_path / 'joint_positions.mat'
    values = np.random.default_rng(0).normal(160, 40, (2, 15, 30))
    arrays = {'viewpoint': 'S', 'pos_img': values, 'scale': np.ones((1, 30))}
    scipy_io.savemat(path, dict(list(arrays.items())[::order]), do_compression=compressed)
    found, changed = [], 0
    for label, data in mutate(path.read_bytes(), 280):
        path.write_bytes(data)
        outcome = classify(lambda: read_array(path, 'pos_img'), path)
        found.append((label, outcome))
        if outcome[0] == 'ok':
            changed += outcome[1].shape != values.shape or bool((outcome[1] != values).any())
    assert count(found)['clear'] >= (150 if compressed else 40)
    # A compressed array has a checksum.
    assert not compressed or not changed


def test_damaged_headers_of_arrays(tmp_path):
    """All damage is in lengths and types; in the test above half of it is in the values."""
    path = tmp_path / 'joint_positions.mat'
    scipy_io.savemat(path, {'pos_img': np.zeros((2, 15))})
    data = path.read_bytes()
    found = []
    for label, damaged in mutate(data[124:192], 600, 1, ('flip', 'set', 'zero', 'duplicate')):
        path.write_bytes(data[:124] + damaged + data[192:])
        found.append((label, classify(lambda: read_array(path, 'pos_img'), path)))
    assert count(found)['clear'] >= 300


def test_damaged_clips(tmp_path):
    write_jhmdb(tmp_path, NAME, num_frames=2)
    path = tmp_path / 'joint_positions' / NAME / 'joint_positions.mat'
    found = [('whole', classify(lambda: jhmdb_sequence(tmp_path, NAME), path))]
    assert found[0][1][0] == 'ok'
    for label, data in mutate(path.read_bytes(), 140):
        path.write_bytes(data)
        found.append((label, classify(lambda: jhmdb_sequence(tmp_path, NAME), path)))
    assert count(found)['clear'] >= 20
