"""Input sizes against the arithmetic of the released pipelines; resizing against plain NumPy."""

import cv2
import numpy as np
import pytest

from jaxprop.data.inputs import InputConfig, input_size, prepare_frame, resize_frame

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
        ({'precision': 'float16'}, "'float16'"),
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


@pytest.mark.parametrize('size', [(17, 40), (64, 9)])
def test_float_frames_are_bilinear_without_rounding(size):
    frame = np.random.default_rng(1).integers(0, 256, (24, 31, 3), np.uint8)
    prepared = prepare_frame(frame, size, 'float32')
    assert prepared.dtype == np.float32 and prepared.shape == (*size, 3)
    np.testing.assert_allclose(prepared, bilinear(frame, *size), atol=1e-3)
    # As CRW has it: the frame is divided by 255 before it is resized.
    released = cv2.resize(np.float32(frame) / 255, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(prepared / 255, released, atol=1e-6)
    np.testing.assert_array_equal(prepare_frame(frame, size), resize_frame(frame, size))


def test_lightness_is_taken_before_floats_are_resized():
    """As UVC has it on JHMDB: L of 8-bit Lab, (L - 128) / 128, to [0, 1], and then resized."""
    frame = np.random.default_rng(2).integers(0, 256, (24, 31, 3), np.uint8)
    lightness = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)[..., :1].astype(np.float32)
    unit = ((lightness - 128) / 128 + 1) / 2
    prepared = prepare_frame(frame, (32, 16), 'float32', lightness=True)
    assert prepared.dtype == np.float32 and prepared.shape == (32, 16, 1)
    np.testing.assert_allclose(prepared / 256, bilinear(unit, 32, 16), atol=1e-6)


@pytest.mark.parametrize('lightness', [False, True])
def test_a_frame_of_that_size_keeps_its_8_bits(lightness):
    frame = np.random.default_rng(3).integers(0, 256, (10, 12, 3), np.uint8)
    prepared = prepare_frame(frame, (10, 12), 'float32', lightness)
    assert prepared.dtype == np.uint8
    np.testing.assert_array_equal(prepared, frame)
    with pytest.raises(ValueError, match='uint8'):
        prepare_frame(frame.astype(np.float32), (5, 6), 'float32', lightness)
