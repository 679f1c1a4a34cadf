"""Damaged annotations of BADJA: read, or refused with one line that names the file."""

import json

import pytest

from jaxprop.data.badja import NUM_JOINTS, badja_sequence
from tests.fuzz.mutations import classify, count, mutate
from tests.layouts import write_davis


@pytest.fixture
def read(tmp_path):
    """Makes a function that reads annotations of this text, for four frames of a small DAVIS."""
    write_davis(tmp_path, 4)
    path = tmp_path / 'cat.json'

    def classified(data):
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return classify(lambda: badja_sequence(tmp_path, tmp_path, 'cat'), path)

    return classified


def entry(frame=1, **changes):
    joints = [[frame + index, 2 * index] for index in range(NUM_JOINTS)]
    return {
        'image_path': f'DAVIS/JPEGImages/Full-Resolution/cat/{frame:05d}.jpg',
        'visibility': [index % 2 == 0 for index in range(NUM_JOINTS)],
        'joints': joints,
        **changes,
    }


def test_damaged_text(read):
    text = json.dumps([entry(1), entry(3)])
    assert read(text)[0] == 'ok'
    counts = count((label, read(data)) for label, data in mutate(text.encode(), 350))
    assert counts['clear'] >= 200


VALUES = [
    None, True, 0, -1, 1e308, 10**400, 'x', 'x' * 10**5, '', '\ud800', '../../x.jpg', 'a\0b', [],
    {}, [[]], [[1, 2]] * 37, [[1, 2]] * 36, [[1, 2, 3]] * 37, [[10**400, 1]] * 37,
    [['1', '2']] * 37, [['x' * 10**5, 1]] * 37, [True] * 37, [None] * 37, [[None, 1]] * 37,
    [[float('nan'), 1]] * 37, [[float('inf'), 1]] * 37, [[[[1]]]] * 37, {'0': [1, 2]},
]  # fmt: skip


@pytest.mark.parametrize('field', ['image_path', 'visibility', 'joints'])
def test_wrong_values(read, field):
    found = [
        (f'{field} {index}', read(json.dumps([entry(1, **{field: value}), entry(3)])))
        for index, value in enumerate(VALUES)
    ]
    assert count(found)['clear'] >= len(VALUES) - 2


@pytest.mark.parametrize('field', ['image_path', 'visibility', 'joints'])
def test_missing_fields(read, field):
    broken = entry()
    del broken[field]
    assert read(json.dumps([broken]))[0] == 'clear'


def test_wrong_documents(read):
    deep = 100_000
    documents = {
        'lists in lists': '[' * deep + ']' * deep,
        'objects in objects': '{"a":' * deep + '1' + '}' * deep,
        'lists in joints': json.dumps([entry(joints='@')]).replace('"@"', '[' * 900 + ']' * 900),
        'a large integer': f'[{"9" * 400}]',
        'a larger integer': f'[{"9" * 5000}]',
        'a large exponent': '[1e999999999]',
        'nothing': '',
        'null': 'null',
        'a number': '5',
        'a text': '"cat"',
        'an object': '{}',
        'numbers': '[1, 2]',
        'other bytes': b'\xff\xfe\x00[',
        'with a mark of its order': b'\xef\xbb\xbf[]',
    }
    counts = count((label, read(text)) for label, text in documents.items())
    assert counts == {'clear': len(documents)}
