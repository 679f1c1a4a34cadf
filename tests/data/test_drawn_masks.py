"""Masks as people draw them: what is meant is known, as each is drawn from hard ids."""

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxprop.data.drawn_masks import read_drawn_mask
from jaxprop.data.image_files import write_mask
from jaxprop.data.sequences import DataError, davis_palette

SIZE = (96, 128)
CIRCLES = {1: ((30, 30), 20), 2: ((90, 40), 16), 3: ((52, 76), 12)}


def hard_ids(size=SIZE):
    ids = np.zeros(size, np.uint8)
    for number, (centre, radius) in CIRCLES.items():
        cv2.circle(ids, centre, radius, number, -1)
    return ids


def read(folder, values, size=SIZE):
    Image.fromarray(values).save(folder / 'mask.png')
    return read_drawn_mask(folder / 'mask.png', size)


def shares_wrong(found, wanted):
    """Of each id the share of its pixels that are another's."""
    return [np.mean(found[wanted == number] != number) for number in np.unique(wanted)]


def test_what_is_exact_stays(tmp_path):
    ids = hard_ids()
    write_mask(tmp_path / 'palette.png', ids)
    Image.fromarray(ids).save(tmp_path / 'grey.png')
    Image.fromarray(davis_palette()[ids]).save(tmp_path / 'davis.png')
    for name in ('palette.png', 'grey.png', 'davis.png'):
        found = read_drawn_mask(tmp_path / name, SIZE)
        np.testing.assert_array_equal(found.ids, ids)
        assert found.ids.dtype == np.int32 and found.notes == ()


def test_greys_saved_as_rgb_are_values(tmp_path):
    values = np.array([0, 50, 100, 150], np.uint8)[hard_ids()]
    found = read(tmp_path, np.stack([values] * 3, axis=-1))
    np.testing.assert_array_equal(found.ids, values)
    assert found.notes == ()


@pytest.mark.parametrize('shape', [SIZE, (*SIZE, 3), (*SIZE, 4)])
def test_white_is_one_object(tmp_path, shape):
    ids = hard_ids() > 0
    white = np.full(shape, 255, np.uint8)
    white[~ids] = 0
    found = read(tmp_path, white)
    np.testing.assert_array_equal(found.ids, ids)
    assert found.notes == ()


@pytest.mark.parametrize('background', [(0, 0, 0), (250, 250, 250)])
def test_colours_are_objects_from_the_largest(tmp_path, background):
    colours = np.array([background, (10, 200, 30), (255, 0, 128), (1, 2, 3)], np.uint8)
    found = read(tmp_path, colours[hard_ids()])
    np.testing.assert_array_equal(found.ids, hard_ids())
    np.testing.assert_array_equal(found.palette[1:4], colours[1:])
    (note,) = found.notes
    assert 'object 1 is #0ac81e, object 2 is #ff0080, object 3 is #010203' in note
    assert 'background is #{:02x}{:02x}{:02x}'.format(*background) in note


def test_transparent_is_background(tmp_path):
    pixels = np.full((*SIZE, 4), (9, 8, 7, 0), np.uint8)
    pixels[hard_ids() > 0] = (200, 100, 50, 255)
    np.testing.assert_array_equal(read(tmp_path, pixels).ids, hard_ids() > 0)


@pytest.mark.parametrize('sigma', [0.7, 1.5, 3.0])
def test_smoothed_edges_of_grey_objects(tmp_path, sigma):
    """Rings around the brightest one, as bright as the others, become none of these."""
    levels = np.array([0, 255, 160, 80], np.uint8)
    smooth = cv2.GaussianBlur(levels[hard_ids()], (0, 0), sigma)
    found = read(tmp_path, smooth)
    numbers = np.zeros(256, int)
    numbers[[160, 80, 255]] = 2, 3, 1
    # 255 beside other values would be void; blurring keeps it in the middle of an object.
    assert set(np.unique(found.ids)) <= {0, 80, 160, 255, 1}
    mapped = numbers[found.ids]
    for number in (2, 3):
        assert np.mean(mapped[hard_ids() == number] != number) < 0.12
        outside = (mapped == number) & (cv2.dilate(hard_ids(), np.ones((5, 5))) != number)
        assert not outside.any()
    assert 'smoothed edges' in found.notes[0]


def test_smoothed_edges_in_colour(tmp_path):
    colours = np.array([(0, 0, 0), (10, 200, 30), (255, 0, 128), (90, 90, 255)], np.uint8)
    wide = cv2.resize(colours[hard_ids()], None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    smooth = cv2.resize(cv2.GaussianBlur(wide, (0, 0), 4), SIZE[::-1], interpolation=cv2.INTER_AREA)
    found = read(tmp_path, smooth)
    assert max(shares_wrong(found.ids, hard_ids())) < 0.1
    assert 'smoothed edges' in found.notes[0] and 'object 3 is' in found.notes[1]


@pytest.mark.parametrize('size', [(192, 256), (48, 64), (190, 254)])
def test_another_size_of_the_same_shape(tmp_path, size):
    found = read(tmp_path, hard_ids(), size)
    assert found.ids.shape == size
    rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in zip(size, SIZE))
    nearest = hard_ids()[rows.astype(int)[:, None], columns.astype(int)]
    assert np.mean(found.ids != nearest) < 0.01  # Where two pixels are as near, either will do.
    assert f'{size[0]} x {size[1]}' in found.notes[0]


def test_refuses(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    with pytest.raises(DataError, match='mask.png: is a picture and no mask'):
        read(tmp_path, picture)
    with pytest.raises(DataError, match='mask.png: the mask has no object'):
        read(tmp_path, np.zeros(SIZE, np.uint8))
    with pytest.raises(DataError, match='mask.png: is 96 x 128 .*80 x 128: another shape'):
        read(tmp_path, hard_ids(), (80, 128))
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / 'mask.jpg')
    with pytest.raises(DataError, match='a JPEG does not keep ids exactly'):
        read_drawn_mask(tmp_path / 'mask.jpg', SIZE)
