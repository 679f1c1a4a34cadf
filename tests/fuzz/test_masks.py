"""Masks as people make them are read exactly, or refused with advice; ids never change."""

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxprop.data.image_files import read_ids, read_mask, write_mask
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import video_sequence
from tests.fuzz.mutations import classify, count, mutate
from tests.support import shared

SIZE = (240, 320)


def ellipse(smooth):
    """Draws an object, 0 to 255, whose edge is `smooth` times as soft as one pixel."""
    row, column = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot((row - 120) / 0.7, column - 160) - 80
    return np.clip(127.5 - 255 * distance / smooth, 0, 255).astype(np.uint8)


def blobs(number, side):
    """Draws solid objects of ids 1 ... number, `side` pixels wide, which touch each other."""
    columns = SIZE[1] // side
    ids = np.arange(number).reshape(-1, columns) + 1
    grid = np.zeros((SIZE[0] // side, columns), np.uint8)
    grid[: ids.shape[0]] = ids
    mask = np.zeros(SIZE, np.uint8)
    mask[: grid.shape[0] * side, : columns * side] = np.kron(grid, np.ones((side, side), np.uint8))
    return mask


@pytest.mark.parametrize('smooth', [8, 30, 120])
@pytest.mark.parametrize('full', [255, 200])
@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA'])
def test_soft_brushes_are_refused(tmp_path, smooth, full, mode):
    path = tmp_path / 'mask.png'
    values = (ellipse(smooth).astype(int) * full // 255).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(path)
    with pytest.raises(
        DataError, match='mask.png: .*grey values.*without anti-aliasing.*threshold'
    ):
        read_mask(path)


def test_smoothed_text_blur_and_resizing_are_refused(tmp_path):
    path = tmp_path / 'mask.png'
    hard = np.where(ellipse(0.001) > 127, 255, 0).astype(np.uint8)
    three = np.zeros(SIZE, np.uint8)
    for value, (x, y) in ((80, (60, 60)), (160, (160, 120)), (255, (250, 180))):
        cv2.circle(three, (x, y), 40, value, -1, cv2.LINE_AA)
    for values in (
        cv2.GaussianBlur(hard, (0, 0), 2),
        cv2.resize(cv2.resize(hard, (97, 71)), SIZE[::-1], interpolation=cv2.INTER_CUBIC),
        cv2.GaussianBlur(three, (0, 0), 1),
    ):
        Image.fromarray(values).save(path)
        with pytest.raises(DataError, match='smoothed edges'):
            read_mask(path)


@pytest.mark.parametrize('radius', [3, 6, 12])
def test_small_smoothed_objects_are_refused(tmp_path, radius):
    values = np.zeros((48, 64), np.uint8)
    cv2.circle(values, (30, 20), radius, 255, -1, cv2.LINE_AA)
    Image.fromarray(values).save(tmp_path / 'mask.png')
    with pytest.raises(DataError, match='smoothed edges'):
        read_mask(tmp_path / 'mask.png')


@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
def test_grey_values_saved_as_rgb_are_ids(tmp_path, mode):
    """Editors save what is painted in grey over a colour image with three equal channels."""
    ids = blobs(20, 16) * 12
    Image.fromarray(ids).convert(mode).save(tmp_path / 'mask.png')
    np.testing.assert_array_equal(read_mask(tmp_path / 'mask.png'), ids)
    pixels = np.array(Image.fromarray(ids).convert('RGB'))
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(tmp_path / 'mask.png')
    with pytest.raises(DataError, match='not in the DAVIS palette'):
        read_mask(tmp_path / 'mask.png')


def test_thin_void_between_small_objects_passes(tmp_path):
    ids = np.zeros((48, 64), np.uint8)
    ids[10:20, 10:20], ids[10:20, 21:23], ids[10:20, 20], ids[9, 10:23] = 1, 2, 255, 255
    Image.fromarray(ids).save(tmp_path / 'mask.png')
    np.testing.assert_array_equal(read_mask(tmp_path / 'mask.png'), np.where(ids == 255, 0, ids))


@pytest.mark.parametrize('number, side', [(200, 16), (240, 8), (240, 4)])
def test_many_solid_objects_pass(tmp_path, number, side):
    mask = blobs(number, side)
    for name in ('grey.png', 'palette.png'):
        if name == 'grey.png':
            Image.fromarray(mask).save(tmp_path / name)
        else:
            write_mask(tmp_path / name, mask)
        np.testing.assert_array_equal(read_mask(tmp_path / name), mask)


def test_200_round_objects_and_stripes_pass(tmp_path):
    scattered, path = np.zeros(SIZE, np.uint8), tmp_path / 'mask.png'
    for index in range(200):
        centre = 12 + 15 * (index % 20), 12 + 23 * (index // 20)
        cv2.circle(scattered, centre, 6, index + 1, -1)
    stripes = np.repeat(np.arange(SIZE[1] // 4, dtype=np.uint8), 4)[None].repeat(SIZE[0], 0)
    for mask in (scattered, stripes):
        Image.fromarray(mask).save(path)
        np.testing.assert_array_equal(read_mask(path), mask)


def test_palette_masks_keep_soft_values(tmp_path):
    """The indices of a palette image are ids, even if they look like smoothed edges."""
    values = np.where(ellipse(30) == 255, 254, ellipse(30))
    write_mask(tmp_path / 'mask.png', values)
    np.testing.assert_array_equal(read_ids(tmp_path / 'mask.png'), values)


def test_a_soft_first_mask_of_a_video_is_made_hard_with_a_note(tmp_path):
    (tmp_path / 'frames').mkdir()
    Image.new('RGB', SIZE[::-1]).save(tmp_path / 'frames' / '0.png')
    Image.fromarray(ellipse(30)).save(tmp_path / 'mask.png')
    sequence = video_sequence(tmp_path / 'frames', tmp_path / 'mask.png')
    np.testing.assert_array_equal(np.unique(sequence.read_label(0)), [0, 1])
    assert 'mask.png: smoothed edges' in sequence.notes[0]


@pytest.mark.parametrize('value', [256, 300, 65534])
def test_ids_above_255_are_refused(tmp_path, value):
    ids = np.zeros((24, 40), np.uint16)
    ids[5:15, 5:15] = value
    Image.fromarray(ids).save(tmp_path / 'mask.png')
    with pytest.raises(DataError, match=f'mask.png: holds the id {value}; ids are 0 to 255'):
        read_mask(tmp_path / 'mask.png')


def test_damaged_masks(tmp_path):
    path, ids = tmp_path / 'mask.png', blobs(20, 16)
    write_mask(path, ids)
    found = []
    for label, data in mutate(path.read_bytes(), 150):
        path.write_bytes(data)
        kind, detail = classify(lambda: read_mask(path), path)
        found.append((label, (kind, detail)))
        if kind == 'ok':
            np.testing.assert_array_equal(detail, ids)
    assert count(found)['clear'] > 100


def test_real_masks_pass():
    paths = sorted(shared('data').rglob('Annotations/**/*.png'))
    for path in paths[::10]:
        assert read_ids(path).max() <= 255
    assert len(paths) > 500
