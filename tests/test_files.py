"""Files are whole or not there, and a folder holds results of one set of settings."""

import csv
import errno
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxprop import files
from jaxprop.files import (
    claim,
    digest,
    locked,
    move,
    partial_path,
    read_json,
    remove_partial,
    replacing,
    write_csv,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with replacing(path) as temporary:
        temporary.write_text('old')
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text('half')
        raise KeyError
    assert path.read_text() == 'old'
    assert list(path.parent.iterdir()) == [path]


def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    (tmp_path / 'partial').mkdir()
    (tmp_path / 'partial' / 'mask.png').write_bytes(b'mask')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='partial'):
        files.move(tmp_path / 'partial', tmp_path / 'masks')
    assert not (tmp_path / 'masks').exists()


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


def test_what_is_not_known_to_be_a_result_is_left_alone(tmp_path):
    (tmp_path / 'masks').mkdir()
    claim(tmp_path / 'settings.json', {'a': 1}, owned=('masks', 'metrics.json'))
    # There is no result yet: other settings do.
    claim(tmp_path / 'settings.json', {'a': 2}, owned=('masks', 'metrics.json'))
    (tmp_path / 'masks' / '0.png').touch()
    with pytest.raises(ValueError, match='a is 3, was 2'):
        claim(tmp_path / 'settings.json', {'a': 3}, owned=('masks', 'metrics.json'))
    (tmp_path / 'settings.json').unlink()
    with pytest.raises(ValueError, match='holds masks, but no settings.json'):
        claim(tmp_path / 'settings.json', {'a': 1}, owned=('masks', 'metrics.json'))
    assert [path.name for path in tmp_path.iterdir()] == ['masks']


@pytest.mark.parametrize('content', ['', '{"a": ', '[1]', '"a"', '[' * 10**5])
def test_damaged_settings_are_named_unless_the_results_tell(tmp_path, content):
    path = tmp_path / 'settings.json'
    path.write_text(content)
    (tmp_path / 'result').touch()
    for owned in ((), ('result',)):
        with pytest.raises(ValueError, match='settings.json: is damaged'):
            claim(path, {'a': 1}, owned=owned)
    assert path.read_text() == content
    claim(path, {'a': 1}, owned=('result',), are_ours=lambda: True)
    assert read_json(path) == {'a': 1}


def test_no_cell_of_a_csv_is_a_formula(tmp_path):
    rows = [['sequence', 'J'], ['=cmd()', -0.5], ['-3.5', '@x'], ['dog', None]]
    write_csv(tmp_path / 'a.csv', rows)
    with (tmp_path / 'a.csv').open() as file:
        found = list(csv.reader(file))
    assert found == [['sequence', 'J'], ["'=cmd()", '-0.5'], ['-3.5', "'@x"], ['dog', '']]


def test_changeable_is_a_name_or_all_below_it(tmp_path):
    path = tmp_path / 'settings.json'
    claim(path, {'a': 1, 'made': {'by': 'x', 'on': 1}})
    claim(path, {'a': 1, 'made': {'by': 'y'}}, changeable=('made',))
    with pytest.raises(ValueError, match='made/by is z, was y'):
        claim(path, {'a': 1, 'made': {'by': 'z'}}, changeable=('a',))


def test_digest_is_of_names_and_contents(tmp_path):
    first, second = tmp_path / 'x' / 'a', tmp_path / 'y' / 'a'
    for folder in (first, second):
        (folder / 'in').mkdir(parents=True)
        (folder / 'in' / '1').write_bytes(b'one')
        (folder / '2').write_bytes(b'two')
    assert digest([first]) == digest([second]) != digest([first / '2'])
    lines = b''.join(
        b'%d:%s %s\n' % (len(name), name, hashlib.sha256(content).hexdigest().encode())
        for name, content in ((b'a/2', b'two'), (b'a/in/1', b'one'))
    )
    assert digest([first]) == hashlib.sha256(lines).hexdigest()
    os.utime(second / '2', (1, 1))
    assert digest([first]) == digest([second])
    (second / '2').write_bytes(b'twO')
    assert digest([first]) != digest([second])
    (second / '2').rename(second / '3')
    (second / '3').write_bytes(b'two')
    assert digest([first]) != digest([second])


def test_a_folder_comes_to_its_place_whole(tmp_path):
    place = tmp_path / 'masks' / 'dog'
    for text in ('old', 'new'):
        partial = partial_path(place)
        partial.mkdir(parents=True)
        (partial / text).write_text(text)
        move(partial, place)
    assert [path.name for path in place.iterdir()] == ['new']
    assert list(place.parent.iterdir()) == [place]


def test_what_a_killed_process_left_is_removed(tmp_path):
    names = ('kept/.hidden', 'kept/a.png', 'masks/x/.b.png', 'elsewhere/.c.partial-0.png')
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    partial = [partial_path(tmp_path / name) for name in ('a.json', 'masks/x/b.png', 'masks/y')]
    partial[0].touch()
    partial[1].touch()
    partial[2].mkdir()
    (partial[2] / 'c.png').touch()
    remove_partial(tmp_path, ('masks', 'missing'))
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if p.is_file())
    assert left == sorted(names)


def test_without_locks_a_folder_is_used_with_a_warning(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(files.fcntl, 'flock', refuse)
    with pytest.warns(UserWarning, match='no locks .No locks available'), locked(tmp_path):
        assert (tmp_path / '.lock').exists()
    assert not list(tmp_path.iterdir())


HOLD = """
import sys
from jaxprop.files import locked
with locked(sys.argv[1]):
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize('end', ['exit', 'kill'])
def test_one_process_at_a_time_writes_to_a_folder(tmp_path, end):
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == 'held\n'
    with pytest.raises(ValueError, match=f'is being written by process {holder.pid} on '):
        with locked(tmp_path):
            pass
    if end == 'kill':
        holder.kill()
    holder.communicate()
    with locked(tmp_path):
        with pytest.raises(ValueError, match=f'process {os.getpid()} on '), locked(tmp_path):
            pass
    assert not list(tmp_path.iterdir())
