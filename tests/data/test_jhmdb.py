"""JHMDB's layout, written from a rendered scene, whole and with one fault each."""

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io

from jaxprop.data.jhmdb import JOINT_NAMES, jhmdb_names, jhmdb_sequence
from jaxprop.data.sequences import DataError
from tests.layouts import moving_disc, write_jhmdb

NAME = 'wave/clip_wave_u_nm_np1_fr_goo_0'


@pytest.fixture
def root(tmp_path):
    write_jhmdb(tmp_path)
    return tmp_path


def test_clip(tmp_path):
    points = write_jhmdb(tmp_path)
    sequence = jhmdb_sequence(tmp_path, NAME)
    assert (sequence.name, sequence.num_frames, sequence.size) == (NAME, 4, (240, 320))
    assert sequence.frame_names == ('00001', '00002', '00003', '00004')
    assert sequence.joint_names == JOINT_NAMES and sequence.scales is None
    np.testing.assert_allclose(sequence.positions, points, atol=1e-9)
    scene, _ = moving_disc((240, 320), 4)
    np.testing.assert_array_equal(sequence.read_frame(2), scene.frame(2))
    # The joints lie on the disc, whose mask knows nothing of how they were computed.
    for index, joints in enumerate(np.rint(sequence.positions).astype(int)):
        assert scene.label(index)[joints[:, 1], joints[:, 0]].all()


def test_names_of_the_official_split(root):
    assert jhmdb_names(root) == (NAME,)
    (root / 'splits' / 'clap_test_split1.txt').write_text(
        'one.avi 2\nsome two.avi 2\nthree.avi 1\n'
    )
    (root / 'splits' / 'clap_test_split2.txt').write_text('three.avi 2\n')
    assert jhmdb_names(root) == ('clap/one', 'clap/some two', NAME)
    assert jhmdb_names(root, split=2) == ('clap/three',)


@pytest.mark.parametrize('order', [1, -1])
def test_names_of_a_list_of_pairs(root, order):
    """UVC's list has the .mat file first, CRW's the images; paths are of another machine."""
    pair = [
        f'/data/JHMDB/joint_positions/{NAME}/joint_positions.mat',
        f'/data/JHMDB/Rename_Images/{NAME}',
    ]
    path = root / 'list.txt'
    path.write_text(f'{" ".join(pair[::order])}\n\n')
    assert jhmdb_names(root, list_path=path) == (NAME,)


def test_frames_without_positions_are_left_out(root):
    frames = root / 'Rename_Images' / NAME
    (frames / '00005.png').write_bytes((frames / '00004.png').read_bytes())
    assert jhmdb_sequence(root, NAME).num_frames == 4


def save_positions(root, positions, key='pos_img'):
    scipy_io.savemat(root / 'joint_positions' / NAME / 'joint_positions.mat', {key: positions})


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda root: (root / 'Rename_Images' / NAME / '00002.png').unlink(), '00003.png'),
        (lambda root: (root / 'Rename_Images' / NAME / '00004.png').unlink(), 'positions.mat: has'),
        (lambda root: (root / 'Rename_Images' / NAME / '00003.png').write_text(''), '00003.png'),
        (
            lambda root: Image.new('RGB', (320, 200)).save(
                root / 'Rename_Images' / NAME / '00003.png'
            ),
            '00003.png: is 200 x 320',
        ),
        (lambda root: (root / 'Rename_Images').rename(root / 'moved'), 'no such folder'),
        (lambda root: (root / 'joint_positions').rename(root / 'moved'), 'positions.mat: there is'),
        (
            lambda root: (root / 'joint_positions' / NAME / 'joint_positions.mat').write_text('x'),
            'joint_positions.mat: cannot be read',
        ),
        (lambda root: save_positions(root, np.zeros((2, 15, 4)), 'pos'), 'no pos_img'),
        (lambda root: save_positions(root, np.zeros((2, 13, 4))), r'pos_img is \[2, 13, 4\]'),
        (lambda root: save_positions(root, np.full((2, 15, 4), np.nan)), 'not finite'),
    ],
)
def test_refuses_what_is_not_jhmdb(root, spoil, message):
    spoil(root)
    with pytest.raises(DataError, match=message):
        jhmdb_sequence(root, NAME)


def test_refuses_lists_that_are_none(root):
    path = root / 'list.txt'
    with pytest.raises(DataError, match='list.txt: there is no such list'):
        jhmdb_names(root, list_path=path)
    path.write_text(f'/data/Rename_Images/{NAME}\n')
    with pytest.raises(DataError, match='list.txt: the line'):
        jhmdb_names(root, list_path=path)
    with pytest.raises(DataError, match='no list ACTION_test_split3.txt'):
        jhmdb_names(root, split=3)
    (root / 'splits' / 'wave_test_split1.txt').write_text('clip.avi\n')
    with pytest.raises(DataError, match='wave_test_split1.txt: the line'):
        jhmdb_names(root)
