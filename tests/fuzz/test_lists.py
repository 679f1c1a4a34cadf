"""Damaged and hostile lists of names: read, or refused; no name leads out of any folder."""

import pathlib

import numpy as np
import pytest

from jaxprop.data.davis import davis_names
from jaxprop.data.jhmdb import jhmdb_names
from jaxprop.data.sequences import check_name
from jaxprop.data.vip import vip_instance_classes, vip_names, vip_sequence
from tests.fuzz.mutations import classify, count, mutate
from tests.layouts import write_vip

TEXTS = {
    'davis': 'bear\nblackswan\n\ndog-agility\n',
    'davis 2016': '/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png \n' * 3,
    'vip': 'videos1\nvideos22\nvideos333\n',
    'jhmdb': 'clip_wave_u_nm_np1_fr_goo_0.avi 2 \ntraining clip.avi 1 \nanother.avi 2\n',
    'pairs': '/data/Rename_Images/wave/clip1 /data/joint_positions/wave/clip1/joint_positions.mat\n'
    * 2,
}
PLACES = {
    'davis': 'ImageSets/2017/val.txt',
    'davis 2016': 'ImageSets/2016/val.txt',
    'vip': 'lists/val_videos.txt',
    'jhmdb': 'splits/wave_test_split1.txt',
    'pairs': 'pairs.txt',
}
READERS = {
    'davis': davis_names,
    'davis 2016': lambda root: davis_names(root, '2016'),
    'vip': vip_names,
    'jhmdb': jhmdb_names,
    'pairs': lambda root: jhmdb_names(root, list_path=root / 'pairs.txt'),
}
PARTS = [
    '..',
    '.',
    '',
    '/',
    '\\',
    '\0',
    '\x1b',
    'precious',
    'x' * 300,
    ' ',
    '%00',
    '~',
    'ü',
    '$HOME',
]


def hostile(text, number):
    """Makes lists in which one name has parts that lead to another folder."""
    generator = np.random.default_rng(0)
    for index in range(number):
        parts = generator.choice(PARTS, generator.integers(1, 6))
        old = str(generator.choice(text.replace('/', ' ').split()))
        yield f'hostile {index}', text.replace(old, '/'.join(parts), 1).encode()


@pytest.mark.parametrize('kind', TEXTS)
def test_names_stay_inside(tmp_path, kind):
    path, root = tmp_path / PLACES[kind], pathlib.Path('/data/set')
    path.parent.mkdir(parents=True, exist_ok=True)
    found = []
    text = TEXTS[kind]
    for label, data in [
        ('whole', text.encode()),
        *mutate(text.encode(), 70),
        *hostile(text, 70),
    ]:
        path.write_bytes(data)
        # A name that ends in white space is another: a list of no names names its folder.
        kind_of, value = classify(lambda: READERS[kind](tmp_path), path.parent)
        found.append((label, (kind_of, value)))
        for name in value if kind_of == 'ok' else ():
            assert name and '\0' not in name
            # Without looking at the file system: what `..` would do.
            parts = pathlib.PurePosixPath(root, name).parts
            assert parts[:3] == root.parts and len(parts) > 3 and '..' not in parts
            assert check_name(name, path, parts=None) == name
    counts = count(found)
    assert found[0][1][0] == 'ok' and counts['clear'] >= 40


def test_damaged_classes_of_instances(tmp_path):
    write_vip(tmp_path, num_frames=1, size=(48, 64))
    folder = tmp_path / 'Annotations' / 'Instance_ids' / 'videos7'
    (path,) = folder.glob('*.txt')
    text = path.read_text()
    found = []
    for label, data in [
        *mutate(text.encode(), 140),
        ('long', b'9' * 5000 + b' 1\n'),
        ('long class', b'1 ' + b'0' * 5000 + b'\n'),
        ('other digits', '١ ²\n'.encode()),
    ]:
        path.write_bytes(data)
        found.append((label, classify(lambda: vip_instance_classes(tmp_path, 'videos7'), path)))
        found.append(
            (label, classify(lambda: vip_sequence(tmp_path, 'videos7', 'instance'), path)),
        )
    assert count(found)['clear'] >= 100
