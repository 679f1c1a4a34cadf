"""Input sizes against the arithmetic of the released pipelines; resizing against plain NumPy."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from jaxprop.data.inputs import InputConfig, input_size, prepare_frame, resize_frame

UVC = InputConfig(size=480, resize='short_side', multiple=64, floored='long')
DINOV3 = InputConfig(size=960, resize='short_side', multiple=16, rounding='ceil')


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
        # DINOv3's: 960 * 854 / 480 = 1708 pixels are 106.75 patches of 16; its own video's frames.
        (480, 854, DINOV3, (960, 1712)),
        (854, 480, DINOV3, (1712, 960)),
        (1440, 1920, DINOV3, (960, 1280)),
        # The short side is rounded up first, 950 to 952, and the long side follows it.
        (100, 151, dataclasses.replace(DINOV3, size=950, multiple=14), (952, 1442)),
        (480, 854, InputConfig(multiple=16, rounding='ceil'), (480, 864)),
        (
            480,
            854,
            InputConfig(size=100, resize='square', multiple=16, rounding='ceil'),
            (112, 112),
        ),
        (480, 854, InputConfig(resize='fixed', height=480, width=880), (480, 880)),
        (854, 480, InputConfig(resize='fixed', height=480, width=880), (480, 880)),
        (480, 854, InputConfig(resize='fixed', height=60, width=90, multiple=16), (48, 80)),
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


def test_dinov3_rule_on_many_sizes():
    generator = np.random.default_rng(1)
    for height, width in generator.integers(200, 1300, (200, 2)).tolist() + [[500, 500]]:
        short, long = sorted((height, width))
        for size, multiple in ((960, 16), (500, 14)):
            # Its own floating-point steps.
            new_short = math.ceil(size / multiple) * multiple
            new_long = math.ceil(long * new_short / short / multiple) * multiple
            config = dataclasses.replace(DINOV3, size=size, multiple=multiple)
            found = input_size(height, width, config)
            assert found == ((new_short, new_long) if width >= height else (new_long, new_short))


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'resize': 'fit'}, 'fit'),
        ({'rounding': 'round'}, "'round'"),
        ({'interpolation': 'cubic'}, "'cubic'"),
        ({'resize': 'fixed', 'height': 480}, 'width is None'),
        ({'resize': 'fixed', 'height': 4, 'width': 880}, 'height is 4'),
        ({'resize': 'fixed', 'size': 480, 'height': 480, 'width': 880}, 'size is 480.*fixed'),
        ({'width': 880}, "width is 880.*'native'.*'fixed'"),
        ({'resize': 'square', 'size': 480, 'height': 480}, "height is 480.*'fixed'"),
        ({'rounding': 'ceil', 'floored': 'long'}, "floored is 'long'.*ceil"),
        ({'interpolation': 'bicubic', 'precision': 'float32'}, "'float32'.*bicubic"),
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
    """Resizes bilinearly in floating point: half-pixel centres, repeated edges, no antialiasing."""

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


def bicubic(image, height, width):
    """Resizes by Keys's cubic kernel, a = -1/2, which is as wide as a step if a side shrinks."""

    def weight(x):
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0

    def columns(image, new):
        old = image.shape[1]
        step = old / new
        result = np.zeros((len(image), new, 3))
        for column in range(new):
            centre = (column + 0.5) * step
            weights = [weight((x + 0.5 - centre) / max(step, 1)) for x in range(old)]
            result[:, column] = np.tensordot(image, np.array(weights) / sum(weights), ((1,), (0,)))
        return result

    return columns(columns(image.astype(float), width).swapaxes(0, 1), height).swapaxes(0, 1)


@pytest.mark.parametrize('size', [(17, 40), (64, 9), (30, 31)])
def test_bicubic_frames_are_antialiased(size):
    # No value overshoots: Pillow clips and rounds after each of the two axes.
    frame = np.random.default_rng(1).integers(64, 192, (24, 31, 3), np.uint8)
    resized = prepare_frame(frame, size, interpolation='bicubic')
    assert resized.dtype == np.uint8 and resized.shape == (*size, 3)
    assert np.abs(resized - bicubic(frame, *size)).max() < 1.5  # Rounded twice.
    assert resize_frame(frame, (24, 31), 'bicubic') is frame


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
    """As in UVC on JHMDB: (L - 128) / 128 of 8-bit Lab, scaled to [0, 1], and then resized."""
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
