import colorsys
import functools

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from jaxprop import augment

NUM = 64
HEIGHT, WIDTH = 40, 60


def _compiled(function, num_settings):
    """`jax.jit` with quick compilation, which takes nearly all of the time of these tests."""
    return jax.jit(
        function,
        static_argnums=range(2, 2 + num_settings),
        compiler_options={'xla_backend_optimization_level': 0},
    )


color_jitter = _compiled(augment.color_jitter, 4)


def _keys(num=NUM, seed=0):
    return jax.random.split(jax.random.key(seed), num)


def _random_images(num=NUM, size=(8, 10), seed=0):
    return np.random.default_rng(seed).uniform(size=(num, *size, 3)).astype(np.float32)


def _ramps(num=NUM, height=HEIGHT, width=WIDTH):
    """Makes images whose pixels hold their own place: row and column of the centre, over 100."""
    rows, columns = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing='ij')
    image = np.stack([rows, columns, rows], axis=-1) / 100
    return np.repeat(image[None], num, axis=0).astype(np.float32)


def _fit(patches, margin):
    """The affine map of each patch of `_ramps` from its pixels, centre 0, to the image's.

    Rows and columns within `margin` of the border are left out of the fit. Returns the matrices
    `[B, 2, 2]`, the centres `[B, 2]` and the largest deviation.
    """
    size = patches.shape[1]
    steps = np.arange(margin, size - margin) + 0.5 - size / 2
    down, right = np.meshgrid(steps, steps, indexing='ij')
    inputs = np.stack([down, right, np.ones_like(down)], axis=-1).reshape(-1, 3)
    inner = slice(margin, size - margin)
    outputs = 100 * np.asarray(patches, np.float64)[:, inner, inner, :2]
    outputs = np.moveaxis(outputs, 0, 2).reshape(len(inputs), -1)
    solution, *_ = np.linalg.lstsq(inputs, outputs, rcond=None)
    deviation = np.abs(inputs @ solution - outputs).max()
    solution = solution.reshape(3, -1, 2)
    return np.moveaxis(solution[:2], 0, 2), solution[2], deviation


def test_resized_crops_are_upright_boxes_within_bounds():
    size = 24
    crop = _compiled(augment.random_resized_crop, 1)
    patches = crop(_keys(), _ramps(), size)
    # Antialiasing follows a ramp to a tenth of a pixel, and not at the image's border.
    matrices, centres, deviation = _fit(patches, margin=3)
    assert deviation < 0.15
    np.testing.assert_allclose(matrices[:, 0, 1], 0, atol=1e-3)
    np.testing.assert_allclose(matrices[:, 1, 0], 0, atol=1e-3)
    height, width = size * matrices[:, 0, 0], size * matrices[:, 1, 1]
    share = height * width / (HEIGHT * WIDTH)
    assert 0.199 < share.min() < 0.3 and 0.7 < share.max() < 1.001
    ratio = width / height
    assert 0.749 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.334
    for centre, extent, length in ((centres[:, 0], height, HEIGHT), (centres[:, 1], width, WIDTH)):
        start, end = centre - extent / 2, centre + extent / 2
        assert start.min() > -0.1 and end.max() < length + 0.1
        # Uniform over where there is room.
        position = (start / (length - extent))[length - extent > 2]
        assert position.min() < 0.2 and position.max() > 0.8
        assert abs(position.mean() - 0.5) < 0.15


def test_crop_of_everything_is_pillows_bilinear_resize():
    images = _random_images(2, (12, 12))
    crop = _compiled(augment.random_resized_crop, 3)
    actual = crop(_keys(2), images, 5, (1.0, 1.0), (1.0, 1.0))
    for image, result in zip(images, actual):
        expected = [
            Image.fromarray(image[..., channel]).resize((5, 5), Image.Resampling.BILINEAR)
            for channel in range(3)
        ]
        np.testing.assert_allclose(result, np.stack(expected, axis=-1), atol=1e-5)


def test_crop_that_never_fits_is_the_largest_in_the_centre():
    images = _ramps(2, 12, 60)
    crop = _compiled(augment.random_resized_crop, 2)
    patches = crop(_keys(2), images, 8, (0.9, 1.0))
    matrices, centres, _ = _fit(patches, margin=2)
    np.testing.assert_allclose(centres, [[6, 30]] * 2, atol=1e-2)
    np.testing.assert_allclose(matrices[:, 0, 0], 12 / 8, atol=0.05)
    np.testing.assert_allclose(matrices[:, 1, 1], 16 / 8, atol=0.05)


def test_a_clip_is_cropped_in_one_place():
    clips = np.stack([_ramps(), 1 - _ramps()], axis=1)
    result = np.asarray(_compiled(augment.random_crop, 1)(_keys(), clips, 24))
    assert result.shape == (NUM, 2, 24, 24, 3)
    corners = np.round(100 * result[:, 0, 0, 0, :2] - 0.5).astype(int)
    for clip, crop, (top, left) in zip(clips, result, corners):
        np.testing.assert_array_equal(crop, clip[:, top : top + 24, left : left + 24])
    for places, room in zip(corners.T, (HEIGHT - 24, WIDTH - 24)):
        assert places.min() <= 2 and places.max() >= room - 2


def test_flip_mirrors_about_half_of_the_images():
    images = _random_images()
    result = np.asarray(augment.random_flip(_keys(), images))
    same = (result == images).all(axis=(1, 2, 3))
    mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_grayscale_is_opencvs_for_the_share_of_images():
    images = _random_images()
    result = np.asarray(augment.random_grayscale(_keys(), images, 0.3))
    gray = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])
    changed = (result != images).any(axis=(1, 2, 3))
    assert 8 < changed.sum() < 32
    expected = np.where(changed[:, None, None, None], gray[..., None], images)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_choice_is_of_whole_examples():
    clips = np.zeros((NUM, 2, 3, 3, 3), np.float32)
    result = np.asarray(augment.random_choice(_keys(), 0.3, clips + 1, clips))
    shares = result.mean(axis=(1, 2, 3, 4))
    assert set(shares) == {0, 1} and 8 < shares.sum() < 32


def test_brightness_contrast_and_saturation_are_affine_within_the_strength():
    # Away from the bounds, so that nothing is clipped.
    images = 0.4 + 0.2 * _random_images()
    luma = images @ [0.299, 0.587, 0.114]
    for index, base in enumerate(
        (
            np.zeros_like(images),
            np.broadcast_to(luma.mean(axis=(1, 2))[:, None, None, None], images.shape),
            np.broadcast_to(luma[..., None], images.shape),
        )
    ):
        strengths = [0.0] * 4
        strengths[index] = 0.4
        result = np.asarray(color_jitter(_keys(), images, *strengths))
        change, direction = result - base, images - base
        factor = np.sum(change * direction, axis=(1, 2, 3)) / np.sum(direction**2, axis=(1, 2, 3))
        assert 0.6 - 1e-4 < factor.min() < 0.7 and 1.3 < factor.max() < 1.4 + 1e-4
        expected = base + factor[:, None, None, None] * direction
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_hue_turns_as_in_hsv():
    num = 16
    images = _random_images(num, (4, 4))
    # A colour without hue, and the primaries.
    images[:, 0] = [[0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    result = np.asarray(color_jitter(_keys(num), images, 0, 0, 0, 0.4))
    turns = []
    for image, turned in zip(images, result):
        turn = colorsys.rgb_to_hsv(*turned[0, 1])[0]
        turns.append((turn + 0.5) % 1 - 0.5)
        for pixel, actual in zip(image.reshape(-1, 3), turned.reshape(-1, 3)):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel.tolist())
            expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert -0.401 < min(turns) < -0.2 and 0.2 < max(turns) < 0.401


def test_jitter_stays_in_range():
    result = color_jitter(_keys(), _random_images(), 2.0, 2.0, 2.0, 0.5)
    assert result.min() >= 0 and result.max() <= 1


def test_affine_crops_are_similarities_within_bounds():
    size = 24
    crop = _compiled(augment.random_affine_crop, 3)
    matrices, centres, deviation = _fit(crop(_keys(), _ramps(), size, 10.0, 1.2), margin=0)
    # Reflected nowhere, else it would not be affine; but for the border's own half pixel, of which
    # a patch's outermost centres can reach a tenth.
    assert deviation < 0.1
    mirror = np.sign(np.linalg.det(matrices))
    assert 16 < (mirror < 0).sum() < 48
    matrices[:, :, 1] *= mirror[:, None]
    scale = 1 / np.sqrt(np.linalg.det(matrices))
    assert 1 - 1e-3 < scale.min() < 1.05 and 1.15 < scale.max() < 1.2 + 1e-3
    # A rotation over the scale.
    rotation = matrices * scale[:, None, None]
    identity = np.broadcast_to(np.eye(2), rotation.shape)
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), identity, atol=1e-3)
    angle = np.rad2deg(np.arctan2(rotation[:, 0, 1], rotation[:, 0, 0]))
    assert -10.1 < angle.min() < -7 and 7 < angle.max() < 10.1
    for position, length in zip(centres.T, (HEIGHT, WIDTH)):
        assert position.min() < length * 0.4 and position.max() > length * 0.6


def test_equal_keys_give_equal_shapes_from_places_of_their_own():
    size = 20

    @functools.partial(_compiled, num_settings=0)
    def crop(keys, place_keys):
        images = _ramps()
        return augment.random_affine_crop(
            keys, images, size, min_scale=1 / 1.2, place_keys=place_keys
        )

    fits = [_fit(crop(_keys(), _keys(seed=seed)), margin=0) for seed in (1, 2)]
    (matrices, centres, _), (other_matrices, other_centres, _) = fits
    np.testing.assert_allclose(matrices, other_matrices, atol=2e-3)
    assert np.abs(centres - other_centres).mean() > 2
    scale = 1 / np.sqrt(np.abs(np.linalg.det(matrices)))
    assert 1 / 1.2 - 1e-3 < scale.min() < 0.87 and 1.15 < scale.max() < 1.2 + 1e-3


def test_affine_crop_continues_a_small_image_by_reflection():
    images = _random_images(2, (6, 8))
    actual = _compiled(augment.random_affine_crop, 4)(_keys(2), images, 10, 0.0, 1.0, False)
    expected = np.pad(images, ((0, 0), (2, 2), (1, 1), (0, 0)), mode='symmetric')
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_an_image_depends_on_its_own_key_alone():
    images, keys = _random_images(4, (16, 16)), _keys(4)
    view = _compiled(augment.random_view, 4)
    settings = (8, 0.2, 0.5, (0.4, 0.4, 0.4, 0.4))
    together = view(keys, images, *settings)
    others = _keys(4, seed=1).at[1].set(keys[3])
    alone = view(others, np.roll(images, 2, axis=0), *settings)
    np.testing.assert_allclose(alone[1], together[3], atol=1e-6)
    for index in (0, 2, 3):
        assert np.abs(alone[index] - together[index - 2]).max() > 0.01


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda k, x: augment.random_resized_crop(k, x, 4, area=(0.0, 1.0)), 'area is'),
        (lambda k, x: augment.random_resized_crop(k, x, 4, aspect=(2.0, 1.0)), 'aspect is'),
        (lambda k, x: augment.random_grayscale(k, x, 1.5), 'probability is 1.5'),
        (lambda k, x: augment.random_choice(k, -0.5, x, x), 'probability is -0.5'),
        (lambda k, x: augment.color_jitter(k, x, hue=0.6), '0.6'),
        (lambda k, x: augment.color_jitter(k, x, contrast=-1.0), '-1.0'),
        (lambda k, x: augment.random_affine_crop(k, x, 4, max_scale=0.5), '0.5'),
        (lambda k, x: augment.random_affine_crop(k, x, 4, min_scale=1.3), '1.2 and 1.3'),
        (lambda k, x: augment.random_flip(k, (255 * x).astype(np.uint8)), 'uint8'),
        (lambda k, x: augment.random_flip(k, x[0]), r'\[8, 10, 3\]'),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(_keys(2), _random_images(2))
