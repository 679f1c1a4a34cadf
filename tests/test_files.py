"""Files that are whole or not there, and folders of one set of settings."""

import json

import numpy as np
import pytest

from jaxprop.files import claim, replacing, write_json


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with replacing(path) as temporary:
        temporary.write_text('old')
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text('half')
        raise KeyError
    assert path.read_text() == 'old'
    assert list(path.parent.iterdir()) == [path]


def test_json_round_trip(tmp_path):
    write_json(tmp_path / 'a.json', {'a': [1, None]})
    assert json.loads((tmp_path / 'a.json').read_text()) == {'a': [1, None]}


def test_numbers_that_json_does_not_have(tmp_path):
    def refuse(name):
        raise AssertionError(f'{name} is not JSON')

    values = np.array([[np.nan, np.inf], [-np.inf, 0.1]])
    write_json(tmp_path / 'a.json', {'a': (values.tolist(), values[0, 0]), 'b': {'c': np.inf}})
    (found, nothing), inner = json.loads(
        (tmp_path / 'a.json').read_text(), parse_constant=refuse
    ).values()
    assert nothing is None and inner == {'c': 'Infinity'}
    np.testing.assert_array_equal(np.array(found, np.float64), values)
    claim(tmp_path / 'b.json', {'a': np.nan, 'b': -np.inf})
    claim(tmp_path / 'b.json', {'a': np.nan, 'b': -np.inf})


def test_a_folder_is_claimed_once(tmp_path):
    path = tmp_path / 'settings.json'
    settings = {'data': {'root': 'here', 'size': (2, 3)}, 'steps': 5}
    claim(path, settings, write=False)
    assert not path.exists()
    claim(path, settings)
    claim(path, settings)  # Tuples are lists in JSON, and no difference.
    with pytest.raises(ValueError, match=r'data/root is there, was here; steps is None, was 5'):
        claim(path, {'data': {'root': 'there', 'size': (2, 3)}})
    other = {'data': {'root': 'there', 'size': (2, 3)}, 'steps': 5}
    claim(path, other, changeable={'data/root'})
    assert json.loads(path.read_text())['data']['root'] == 'there'
