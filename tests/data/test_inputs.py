"""Input sizes against the arithmetic of the released pipelines; resizing against plain NumPy."""

import numpy as np
import pytest

from jaxprop.data.inputs import InputConfig, input_size, resize_frame

UVC = InputConfig(size=480, resize='short_side', multiple=64, floored='long')


def uvc_size(height, width, size):
    """The released UVC rule, in its own floating-point steps."""
    if height > width:
        return int(((size * height) / width // 64) * 64), size
    return size, int(((size * width) / height // 64) * 64)


@pytest.mark.parametrize(
    'height, width, config, expected',
    [
        (480, 854, InputConfig(), (480, 854)),
        (480, 854, InputConfig(multiple=8), (480, 848)),
        (480, 854, InputConfig(size=320, resize='square'), (320, 320)),
        (240, 432, InputConfig(size=100, resize='square', multiple=16), (96, 96)),
        (480, 854, UVC, (480, 832)),
        (854, 480, UVC, (832, 480)),
        (240, 432, UVC, (480, 832)),
        (480, 910, UVC, (480, 896)),
        (480, 1152, UVC, (480, 1152)),
        (480, 854, InputConfig(size=480, resize='short_side'), (480, 854)),
        (1080, 1920, InputConfig(size=480, resize='short_side'), (480, 853)),
        (480, 854, InputConfig(size=480, resize='short_side', multiple=64), (448, 832)),
        (480, 854, InputConfig(upsample=2), (960, 1708)),
        (480, 854, InputConfig(multiple=8, upsample=1.5), (720, 1272)),
    ],
)
def test_input_size(height, width, config, expected):
    assert input_size(height, width, config) == expected


def test_uvc_rule_on_many_sizes():
    generator = np.random.default_rng(0)
    for height, width in generator.integers(200, 1300, (200, 2)).tolist() + [[500, 500]]:
        assert input_size(height, width, UVC) == uvc_size(height, width, 480), (height, width)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'resize': 'fit'}, 'fit'),
        ({'floored': 'short'}, 'short'),
        ({'size': 480}, 'native'),
        ({'resize': 'square'}, 'None'),
        ({'size': 7, 'resize': 'square'}, '7'),
        ({'multiple': 0}, '0'),
        ({'upsample': 0}, '0'),
        ({'upsample': float('nan')}, 'nan'),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        InputConfig(**settings)


def test_impossible_frames():
    with pytest.raises(ValueError, match='multiple is 64'):
        input_size(60, 100, InputConfig(multiple=64))
    with pytest.raises(ValueError, match='4 x 100'):
        input_size(4, 100, InputConfig())
    with pytest.raises(ValueError, match='5 x 5'):
        input_size(10, 10, InputConfig(upsample=0.5))


def bilinear(image, height, width):
    """Half-pixel centres, edges repeated, no antialiasing: written out in floating point."""

    def positions(old, new):
        centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(centre).astype(int)
        return low, np.minimum(low + 1, old - 1), centre - low

    top, bottom, down = positions(image.shape[0], height)
    left, right, across = positions(image.shape[1], width)
    image = image.astype(float)
    down, across = down[:, None, None], across[None, :, None]
    rows = image[top] * (1 - down) + image[bottom] * down
    return rows[:, left] * (1 - across) + rows[:, right] * across


@pytest.mark.parametrize('size', [(17, 40), (64, 9), (8, 8)])
def test_resize_frame_is_bilinear(size):
    frame = np.random.default_rng(1).integers(0, 256, (24, 31, 3), np.uint8)
    resized = resize_frame(frame, size)
    assert resized.dtype == np.uint8 and resized.shape == (*size, 3)
    # The fixed-point arithmetic on 8 bits is off by one level at most.
    assert np.abs(resized - bilinear(frame, *size)).max() <= 1


def test_resize_frame_keeps_a_frame_of_that_size():
    frame = np.random.default_rng(2).integers(0, 256, (10, 12, 3), np.uint8)
    np.testing.assert_array_equal(resize_frame(frame, (10, 12)), frame)


@pytest.mark.parametrize('frame', [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)])
def test_resize_frame_refuses_other_arrays(frame):
    with pytest.raises(ValueError, match='uint8'):
        resize_frame(frame, (16, 16))
