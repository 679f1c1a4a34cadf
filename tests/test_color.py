import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import color
from tests.support import shared

rgb_to_lab8 = jax.jit(color.rgb_to_lab8)
lab8_to_rgb = jax.jit(color.lab8_to_rgb)


def _colours():
    """Makes colours uint8 `[H, 3, 3]`: a dense grid with both ends, all dark ones, random ones."""
    steps = np.unique(np.append(np.arange(0, 256, 5), 255))
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing='ij'), axis=-1).reshape(-1, 3)
    dark = np.indices((24, 24, 24)).reshape(3, -1).T
    random = np.random.default_rng(0).integers(0, 256, (50_000, 3))
    colours = np.concatenate([grid, dark, random]).astype(np.uint8)
    return colours[: len(colours) // 3 * 3].reshape(-1, 3, 3)


def _frame():
    path = shared('data', 'DAVIS', 'JPEGImages', '480p', 'bear', '00000.jpg')
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def _check_lab(images):
    expected = cv2.cvtColor(images, cv2.COLOR_RGB2LAB).astype(int)
    actual = np.asarray(rgb_to_lab8(images))
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, np.rint(actual))
    difference = np.abs(actual - expected)
    assert difference.max() <= 1
    assert np.mean(difference == 0) > 0.98


def test_lab_is_opencvs_to_one_level():
    _check_lab(_colours())


def test_lab_of_a_real_frame_is_opencvs_to_one_level():
    _check_lab(_frame())


def test_float_lab_is_opencvs_but_for_its_tables():
    images = _colours()
    expected = cv2.cvtColor(np.float32(images) / 255, cv2.COLOR_RGB2LAB)
    found = np.asarray(color.rgb_to_lab(images))
    assert found.dtype == np.float32
    difference = np.abs(found - expected).reshape(-1, 3)
    assert (difference.max(axis=0) < [0.25, 0.6, 0.4]).all()
    assert difference.mean() < 0.1
    np.testing.assert_allclose(color.rgb_to_lab(images.astype(np.float32)), found, atol=1e-4)


def test_float_lab_is_the_formula_of_cie():
    """The formula is written out in double precision, one colour after the other."""

    def curve(ratio):
        return ratio ** (1 / 3) if ratio > (6 / 29) ** 3 else ratio / (3 * (6 / 29) ** 2) + 4 / 29

    images = _colours()[::400]
    found = np.asarray(color.rgb_to_lab(images))
    to_xyz = [(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169)]
    to_xyz.append((0.019334, 0.119193, 0.950227))
    for place in np.ndindex(*images.shape[:2]):
        unit = images[place] / 255
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in unit]
        x, y, z = (
            curve(np.dot(row, linear) / white)
            for row, white in zip(to_xyz, (0.950456, 1, 1.088754), strict=True)
        )
        expected = 116 * y - 16, 500 * (x - y), 200 * (y - z)
        np.testing.assert_allclose(found[place], expected, atol=2e-3)


def test_lab_input_follows_masts_steps():
    images = _frame()[::7, ::7]
    lab = cv2.cvtColor(np.float32(images) / 255, cv2.COLOR_RGB2LAB)
    expected = np.stack([(lab[..., 0] - 50) / 50, lab[..., 1] / 127, lab[..., 2] / 127], axis=-1)
    found = color.network_input(images, 'lab')
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.min(found) < -0.9 and np.max(found) > 0.9


def test_gradients_of_float_lab_are_finite():
    images = np.array([[0, 0, 0], [255, 255, 255], [0, 10, 250]], np.float32)
    gradient = jax.grad(lambda x: jnp.sum(color.rgb_to_lab(x)))(images)
    assert np.isfinite(gradient).all() and np.abs(gradient).min(axis=1).max() > 0


def test_lab_of_known_colours():
    # Lightness and the two axes of white, black and the primaries (D65), from CIE's tables.
    rgb = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    cie = np.array(
        [
            [100, 0, 0],
            [0, 0, 0],
            [53.24, 80.09, 67.20],
            [87.73, -86.18, 83.18],
            [32.30, 79.19, -107.86],
        ]
    )
    expected = cie * [2.55, 1, 1] + [0, 128, 128]
    np.testing.assert_allclose(rgb_to_lab8(rgb), expected, atol=1)


def test_rgb_of_lab_is_opencvs_to_two_levels():
    # Lab values that some RGB colour has.
    lab = cv2.cvtColor(_colours(), cv2.COLOR_RGB2LAB)
    expected = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(int)
    actual = np.asarray(lab8_to_rgb(lab))
    assert actual.min() >= 0 and actual.max() <= 255
    difference = np.abs(np.rint(actual) - expected)
    assert difference.max() <= 2
    assert np.mean(difference <= 1) > 0.999


def test_a_real_frame_survives_lab():
    frame = _frame()
    back = np.asarray(lab8_to_rgb(rgb_to_lab8(frame)))
    # Whole levels of a and b are coarser than those of RGB: OpenCV's own way back errs as much.
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    opencv = np.abs(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(int) - frame)
    error = np.abs(back - frame)
    assert error.mean() < opencv.mean() + 0.1
    assert error.max() <= opencv.max() + 1


def test_lab_outside_srgb_is_clipped_with_finite_gradients():
    lab = np.array([[0, 0, 255], [255, 255, 0], [0, 128, 128], [255, 128, 128]], np.float32)
    total, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(color.lab8_to_rgb(x))))(lab)
    assert np.isfinite(total) and np.all(np.isfinite(gradient))
    rgb = np.asarray(lab8_to_rgb(lab))
    assert rgb.min() >= 0 and rgb.max() <= 255


def test_scaled_lab():
    lab = np.array([[0, 128, 255]], np.uint8)
    scaled = color.scale_lab(lab)
    np.testing.assert_array_equal(scaled, np.array([[-1, 0, 127 / 128]], np.float32))
    np.testing.assert_array_equal(color.unscale_lab(scaled), lab)


def test_normalized_rgb():
    images = _colours()
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    expected = (images.astype(np.float64) / 255 - mean) / std
    actual = color.normalize_rgb(images)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_array_equal(color.normalize_rgb(images.astype(np.float32)), actual)


def test_lightness_input_follows_the_released_steps():
    images = _colours()
    lightness = np.asarray(rgb_to_lab8(images))[..., [0, 0, 0]]
    unit = ((lightness.astype(np.float64) - 128) / 128 + 1) / 2
    expected = (unit - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(color.lightness_input(images), expected, atol=1e-5)


def test_lab_is_cies():
    primaries = np.array([[255, 0, 0], [0, 128, 255], [255, 255, 255], [0, 0, 0]], np.uint8)
    expected = [[53.2406, 80.0942, 67.2015], [54.7145, 18.7751, -70.9183], [100, 0, 0], [0, 0, 0]]
    lab = color.rgb_to_lab(primaries)
    np.testing.assert_allclose(lab, expected, atol=2e-3)
    scaled = np.asarray(color.network_input(primaries, 'lab'))
    np.testing.assert_allclose(50 * scaled[:, 0] + 50, lab[:, 0], atol=1e-4)
    np.testing.assert_allclose(127 * scaled[:, 1:], lab[:, 1:], atol=1e-4)
    # The 8-bit version is within a level or so of it.
    images = _colours()
    lab8 = np.asarray(color.rgb_to_lab(images)) * [2.55, 1, 1] + [0, 128, 128]
    assert np.abs(lab8 - np.asarray(rgb_to_lab8(images))).max() < 3.5


def test_network_input():
    images = _colours()
    np.testing.assert_array_equal(color.network_input(images, 'rgb'), color.normalize_rgb(images))
    np.testing.assert_array_equal(
        color.network_input(images, 'lightness'), color.lightness_input(images)
    )
    np.testing.assert_allclose(
        color.network_input(images, 'rgb_unit'), images / np.float32(255), atol=1e-6
    )


def test_network_input_of_floats():
    """Whole levels give the same input as floats and as 8 bits."""
    images = _colours()
    np.testing.assert_allclose(
        color.network_input(images, 'rgb_half'), images / np.float32(127.5) - 1, atol=1e-6
    )
    for name in ('rgb', 'rgb_unit', 'rgb_half', 'lab'):
        np.testing.assert_array_equal(
            color.network_input(images.astype(np.float32), name), color.network_input(images, name)
        )
    lightness = np.asarray(rgb_to_lab8(images))[..., :1]
    np.testing.assert_array_equal(
        color.network_input(lightness, 'lightness'), color.lightness_input(images)
    )


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: color.network_input(np.zeros((2, 2, 3), np.uint8), 'bgr'), "'bgr'"),
        (lambda: color.network_input(np.zeros((2, 2, 1), np.uint8), 'rgb_unit'), '2, 2, 1'),
        (lambda: color.network_input(np.zeros((2, 2, 1), np.float32), 'lab'), '2, 2, 1'),
        (lambda: color.normalize_rgb(np.zeros((3, 2, 2), np.uint8)), '3, 2, 2'),
        (lambda: color.rgb_to_lab(np.zeros((2, 2, 1), np.uint8)), '2, 2, 1'),
        (lambda: color.rgb_to_lab8(np.zeros((2, 2, 3), np.float32)), 'float32'),
        (lambda: color.lightness_input(np.zeros((2, 2, 4), np.uint8)), '2, 2, 4'),
        (lambda: color.lightness_input(np.zeros((2, 2, 3), np.float32)), 'float32'),
        (lambda: color.lightness_input(np.zeros((2, 2, 1), np.uint8)), '2, 2, 1'),
        (lambda: color.lab8_to_rgb(np.zeros((2, 2))), '2, 2'),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
