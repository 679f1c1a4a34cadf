import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxprop import labels
from tests.support import shared

resize = jax.jit(labels.resize, static_argnames=('size', 'method'))
encode = jax.jit(labels.encode, static_argnames=('grid', 'method'))
decode = jax.jit(labels.decode, static_argnames=('size', 'min_max', 'decode_size'))

SIZES = [(1, 1), (1, 5), (5, 1), (7, 7), (10, 3), (3, 10), (9, 4), (13, 12), (60, 480), (832, 854)]


def _slow_area(source, target):
    """Resizes by area: cuts each pixel into as many pieces as make both sizes whole."""
    pieces = np.repeat(np.eye(source), target, axis=0)
    return pieces.reshape(target, source, source).mean(axis=1)


def _random_ids(shape, values, seed=0):
    return np.random.default_rng(seed).choice(np.asarray(values, np.int32), shape)


@pytest.mark.parametrize('source, target', SIZES)
def test_nearest_matrix_takes_the_pixels_that_pillow_takes(source, target):
    row = np.arange(source, dtype=np.int32)[None]
    expected = np.asarray(Image.fromarray(row).resize((target, 1), Image.Resampling.NEAREST))[0]
    np.testing.assert_array_equal(
        labels.resize_matrix(source, target, 'nearest') @ row[0].astype(np.float32), expected
    )


@pytest.mark.parametrize('source, target', SIZES)
def test_bilinear_matrix_is_opencvs(source, target):
    # A column: OpenCV takes shortcuts on some images one pixel high.
    column = np.random.default_rng(0).random((source, 3), np.float32)
    expected = cv2.resize(column, (3, target), interpolation=cv2.INTER_LINEAR)
    actual = labels.resize_matrix(source, target, 'bilinear') @ column
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize('source, target', SIZES[:-2])
def test_area_matrix_averages_the_overlap(source, target):
    np.testing.assert_allclose(
        labels.resize_matrix(source, target, 'area'), _slow_area(source, target), atol=1e-6
    )


@pytest.mark.parametrize('method', ['area', 'nearest', 'bilinear'])
def test_rows_of_a_matrix_sum_to_one_and_the_same_size_changes_nothing(method):
    for source, target in SIZES:
        matrix = labels.resize_matrix(source, target, method)
        assert matrix.dtype == np.float32 and matrix.shape == (target, source)
        assert matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(labels.resize_matrix(107, 107, method), np.eye(107))


@pytest.mark.parametrize('shape, grid', [((12, 17), (5, 7)), ((5, 7), (12, 17))])
def test_resize_is_opencvs_bilinear(shape, grid):
    array = np.random.default_rng(1).random((*shape, 3), np.float32)
    expected = cv2.resize(array, grid[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resize(array, grid, 'bilinear'), expected, atol=2e-5)


def test_resize_by_area_is_opencvs_and_preserves_mass():
    array = np.random.default_rng(2).random((12, 17, 3), np.float32)
    actual = resize(array, (5, 7), 'area')
    expected = cv2.resize(array, (7, 5), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_allclose(
        np.sum(actual, axis=(0, 1)) / (5 * 7), np.sum(array, axis=(0, 1)) / (12 * 17), rtol=1e-5
    )


def test_resize_takes_leading_axes():
    array = np.random.default_rng(3).random((2, 6, 8, 3), np.float32)
    actual = resize(array, (3, 4), 'bilinear')
    for one, expected in zip(array, actual):
        np.testing.assert_allclose(resize(one, (3, 4), 'bilinear'), expected, atol=1e-6)


@pytest.mark.parametrize(
    'present, expected',
    [
        ([0], [0]),
        ([4], [0, 4]),
        ([7, 2, 0], [0, 2, 7]),
        ([0, 255], [0, 255]),
        ([0, 3, 255], [0, 3]),
        ([3, 255, 300], [0, 3, 300]),
    ],
)
def test_label_values(present, expected):
    ids = np.resize(np.array(present), (2, 3))
    values = labels.label_values(ids)
    assert values.dtype == np.int32
    np.testing.assert_array_equal(values, expected)


def test_label_values_of_booleans_and_bytes():
    np.testing.assert_array_equal(labels.label_values(np.eye(2, dtype=bool)), [0, 1])
    np.testing.assert_array_equal(labels.label_values(np.full((2, 2), 9, np.uint8)), [0, 9])


@pytest.mark.parametrize('method', ['bilinear', 'area', 'nearest'])
def test_encode_is_one_hot_resized(method):
    ids = _random_ids((12, 17), [0, 3, 9])
    one_hot = np.stack([ids == value for value in (0, 3, 9)], axis=-1).astype(np.float32)
    actual = encode(ids, np.array([0, 3, 9]), (4, 6), method)
    if method == 'nearest':
        small = Image.fromarray(ids).resize((6, 4), Image.Resampling.NEAREST)
        expected = np.asarray(small)[..., None] == [0, 3, 9]
    else:
        flag = {'bilinear': cv2.INTER_LINEAR, 'area': cv2.INTER_AREA}[method]
        expected = cv2.resize(one_hot, (6, 4), interpolation=flag)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    np.testing.assert_allclose(np.sum(actual, axis=-1), 1, atol=1e-5)


def test_unknown_ids_and_void_are_background():
    ids = np.array([[0, 2, 5], [255, 9, 2]])
    actual = encode(ids, labels.label_values(np.array([[0, 2, 5, 255]])), (2, 3))
    background = [[1, 0, 0], [1, 1, 0]]
    np.testing.assert_array_equal(actual[..., 0], background)
    np.testing.assert_array_equal(np.sum(actual, axis=-1), np.ones((2, 3)))


@pytest.mark.parametrize('method', ['bilinear', 'area', 'nearest'])
@pytest.mark.parametrize('min_max', [False, True])
def test_encode_then_decode_at_the_same_size_gives_the_ids_back(method, min_max):
    ids = _random_ids((9, 11), [0, 4, 17, 254])
    values = labels.label_values(ids)
    result = decode(encode(ids, values, (9, 11), method), values, (9, 11), min_max)
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, ids)


def _slow_decode(soft, values, size, min_max):
    """Decodes by bilinear interpolation, pixel by pixel."""
    height, width, count = soft.shape
    scores = np.zeros((*size, count))
    for row in range(size[0]):
        y = np.clip((row + 0.5) * height / size[0] - 0.5, 0, height - 1)
        top, low = int(y), min(int(y) + 1, height - 1)
        for column in range(size[1]):
            x = np.clip((column + 0.5) * width / size[1] - 0.5, 0, width - 1)
            left, right = int(x), min(int(x) + 1, width - 1)
            upper = soft[top, left] * (1 - x % 1) + soft[top, right] * (x % 1)
            lower = soft[low, left] * (1 - x % 1) + soft[low, right] * (x % 1)
            scores[row, column] = upper * (1 - y % 1) + lower * (y % 1)
    if min_max:
        scores -= scores.min(axis=(0, 1))
        scores /= scores.max(axis=(0, 1))
    return np.asarray(values)[scores.argmax(axis=-1)]


@pytest.mark.parametrize('min_max', [False, True])
def test_decode_against_slow_interpolation(min_max):
    soft = np.random.default_rng(4).random((4, 5, 3)) * [1, 0.8, 0.2] + [0.2, 0.2, 0]
    values = [0, 6, 2]
    actual = decode(soft.astype(np.float32), values, (30, 43), min_max)
    expected = _slow_decode(soft, values, (30, 43), min_max)
    np.testing.assert_array_equal(actual, expected)
    assert (2 in expected) == min_max


def test_decode_size_decides_first_and_resizes_ids_by_nearest():
    soft = np.random.default_rng(5).random((3, 26, 3), np.float32)
    values = np.array([0, 6, 2], np.int32)
    decided = np.asarray(decode(soft, values, (24, 208)))
    expected = Image.fromarray(decided).resize((427, 31), Image.Resampling.NEAREST)
    actual = decode(soft, values, (31, 427), decode_size=(24, 208))
    np.testing.assert_array_equal(actual, expected)
    assert np.any(actual != decode(soft, values, (31, 427)))


def test_min_max_never_lets_a_vanished_or_constant_label_win():
    rng = np.random.default_rng(6)
    soft = rng.random((7, 9, 4), np.float32)
    soft[..., 1] = 0
    # With weights that round, a constant becomes uneven when it is upsampled.
    soft[..., 3] = 0.7
    result = np.asarray(decode(soft, [0, 1, 2, 3], (61, 83), min_max=True))
    assert set(np.unique(result)) == {0, 2}
    nothing = decode(np.zeros((2, 2, 3), np.float32), [0, 5, 8], (4, 4), min_max=True)
    np.testing.assert_array_equal(nothing, np.zeros((4, 4)))


def test_decode_of_a_video_is_that_of_its_frames():
    soft = np.random.default_rng(7).random((2, 3, 4, 3), np.float32)
    video = decode(soft, [0, 1, 2], (10, 14), True, (9, 12))
    for frame, expected in zip(soft, video):
        np.testing.assert_array_equal(decode(frame, [0, 1, 2], (10, 14), True, (9, 12)), expected)


def test_a_real_mask_goes_through_the_feature_grid_as_with_opencv():
    path = shared('data', 'DAVIS-multi')
    ids = np.array(Image.open(sorted(path.glob('Annotations/*/schoolgirls/*.png'))[0]))
    values = labels.label_values(ids)
    assert values.size == 8
    grid = (ids.shape[0] // 4, ids.shape[1] // 4)
    one_hot = (ids[..., None] == values).astype(np.float32)
    soft = cv2.resize(one_hot, grid[::-1], interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(soft, ids.shape[::-1], interpolation=cv2.INTER_LINEAR).argmax(axis=-1)
    actual = np.asarray(decode(encode(ids, values, grid), values, ids.shape))
    # Rounding may decide a pixel that two labels share equally.
    assert np.mean(actual == values[expected]) > 0.999
    assert np.mean(actual == ids) > 0.97


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: labels.resize_matrix(4, 2, 'cubic'), "'cubic'"),
        (lambda: labels.resize_matrix(0, 2, 'area'), 'at least 1'),
        (lambda: labels.resize(np.zeros((4, 4)), (2, 2), 'area'), 'H, W, L'),
        (lambda: labels.resize(np.zeros((4, 4, 1)), (2, 2, 1), 'area'), 'height, width'),
        (lambda: labels.label_values(np.zeros((2, 2))), 'float64'),
        (lambda: labels.label_values(np.zeros((2, 2, 3), int)), '2, 2, 3'),
        (lambda: labels.label_values(np.full((2, 2), -1)), '-1'),
        (lambda: labels.encode(np.zeros((2, 2, 3), int), [0], (1, 1)), '2, 2, 3'),
        (lambda: labels.encode(np.zeros((2, 2), int), 0, (1, 1)), 'values'),
        (lambda: labels.decode(np.zeros((2, 2, 3)), [0, 1], (4, 4)), '2 values'),
        (lambda: labels.decode(np.zeros((2, 3)), [0, 1, 2], (4, 4)), '2, 3'),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
