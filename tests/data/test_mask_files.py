"""Masks that are named after the frames of a video."""

import numpy as np
import pytest
from PIL import Image

from jaxprop.data.image_files import write_mask
from jaxprop.data.mask_files import frame_number, read_masks
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_video

SIZE = (24, 32)


def make_video(folder, names):
    folder.mkdir()
    for name in names:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / f'{name}.png')
    return open_video(folder)


@pytest.fixture
def video(tmp_path):
    return make_video(tmp_path / 'frames', [f'{number:05d}' for number in range(1, 9)])


def squares(**places):
    """Ids with a square for each object, `o3=(2, 4)`: object 3 at row 2, column 4."""
    ids = np.zeros(SIZE, np.uint8)
    for name, (row, column) in places.items():
        ids[row : row + 8, column : column + 8] = int(name[1:])
    return ids


def coloured(path, ids, colours):
    Image.fromarray(np.array(colours, np.uint8)[ids]).save(path)


def test_names_of_frames(video, tmp_path):
    assert [frame_number(name, video) for name in ('00001', '8', '008', '0', '9', 'x')] == [
        0, 7, 7, None, None, None,
    ]  # fmt: skip
    named = make_video(tmp_path / 'named', ['f1', 'f2', 'f10'])
    assert [frame_number(name, named) for name in ('f10', '2', '3', 'f3')] == [2, 2, None, None]


def test_a_folder_and_files_in_any_order(video, tmp_path):
    late, early = squares(o2=(0, 0)), squares(o1=(8, 8), o2=(0, 0))
    write_mask(tmp_path / 'masks' / '6.png', late)
    write_mask(tmp_path / 'masks' / '00002.png', early)
    for paths in ([tmp_path / 'masks'], [tmp_path / 'masks/6.png', tmp_path / 'masks/00002.png']):
        found = read_masks(paths, video)
        assert list(found.ids) == list(found.paths) == [1, 5] and found.notes == ()
        np.testing.assert_array_equal(found.ids[1], early)
        np.testing.assert_array_equal(found.ids[5], late)


def test_one_mask_may_have_any_name(video, tmp_path):
    for name, number, note in (
        ('first', 3, ''),
        ('00004', 3, ''),
        ('00006', 5, 'is the mask of frame 00006'),
        ('99', 3, 'there is no frame 99'),
    ):
        path = tmp_path / f'{name}.png'
        write_mask(path, squares(o1=(0, 0)))
        found = read_masks([path], video, first=3)
        assert list(found.ids) == [number]
        assert note in ''.join(found.notes) and len(found.notes) == bool(note)


def test_colours_mean_the_same_in_all_masks(video, tmp_path):
    """Object 1 is the largest of the first mask, also where it is the smallest one later."""
    red, green, blue = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    early, late = squares(o1=(0, 0), o2=(16, 16)), squares(o1=(0, 0), o2=(8, 8), o3=(12, 12))
    early[:14, :14] = 1
    late[:4] = 0
    paths = tmp_path / '1.png', tmp_path / '5.png'
    coloured(paths[0], early, [(0, 0, 0), red, green])
    coloured(paths[1], late, [(0, 0, 0), red, green, blue])
    found = read_masks(paths, video)
    np.testing.assert_array_equal(found.ids[0], early)
    np.testing.assert_array_equal(found.ids[4], late)
    assert found.palette[[1, 2, 3]].tolist() == [[*red], [*green], [*blue]]
    # A mask in these colours as the command writes it, and that mask saved as RGB.
    write_mask(paths[0], early, found.palette)
    again = read_masks(paths, video)
    np.testing.assert_array_equal(again.ids[4], late)
    # Numbers first, and then colours that say nothing about numbers.
    write_mask(paths[0], early)
    with pytest.raises(DataError, match='5.png: has colours of its own'):
        read_masks(paths, video)


def test_255_means_what_it_means_in_the_first_mask(video, tmp_path):
    paths = tmp_path / '1.png', tmp_path / '5.png'
    write_mask(paths[1], 255 * squares(o1=(0, 0)))
    write_mask(paths[0], 255 * squares(o1=(8, 8)))
    assert np.unique(read_masks(paths, video).ids[4]).tolist() == [0, 1]
    write_mask(paths[1], squares(o1=(0, 0)) * 255 + squares(o1=(8, 8)))
    found = read_masks(paths, video)
    assert np.unique(found.ids[4]).tolist() == [0, 1]
    assert '5.png: 255 is object 1, as in the first mask' in found.notes[0]
    write_mask(paths[1], 255 * squares(o1=(0, 0)))
    write_mask(paths[0], squares(o1=(8, 8), o3=(0, 0)))
    found = read_masks(paths, video)
    assert not found.ids[4].any()
    assert '5.png: 255 is void' in found.notes[0]


def test_wrong_masks_are_named(video, tmp_path):
    for name in ('00002', '2', 'late'):
        write_mask(tmp_path / f'{name}.png', squares(o1=(0, 0)))
    with pytest.raises(DataError, match='late.png: its name is that of no frame'):
        read_masks([tmp_path / '2.png', tmp_path / 'late.png'], video)
    with pytest.raises(DataError, match='2.png: is of the same frame as .*00002.png'):
        read_masks([tmp_path / '00002.png', tmp_path / '2.png'], video)
    write_mask(tmp_path / '1.png', np.zeros(SIZE, np.uint8))
    with pytest.raises(DataError, match='1.png: the mask has no object'):
        read_masks([tmp_path / '1.png', tmp_path / '2.png'], video)
