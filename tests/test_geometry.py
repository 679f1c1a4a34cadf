import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jaxprop import geometry


def test_cell_centers():
    centers = geometry.cell_centers(2, 3)
    assert centers.tolist() == [
        [[0.5, 0.5], [0.5, 1.5], [0.5, 2.5]],
        [[1.5, 0.5], [1.5, 1.5], [1.5, 2.5]],
    ]


def test_box_of_size():
    coordinates = jnp.asarray(
        [
            [[3.0, 5.0], [5.0, 6.0]],  # inside
            [[0.5, 9.5], [0.5, 9.5]],  # in a corner: moved, not made smaller
        ]
    )
    boxes = geometry.box_of_size(coordinates, (4, 3), (8, 10))
    np.testing.assert_allclose(boxes, [[2, 4, 6, 7], [0, 7, 4, 10]])
    with pytest.raises(ValueError, match=r'size is \(9, 3\)'):
        geometry.box_of_size(coordinates, (9, 3), (8, 10))


def test_box_of_spread():
    coordinates = np.array([[[2.0, 4.0], [4.0, 5.0]], [[1.0, 1.0], [4.0, 9.0]]], np.float32)
    boxes = geometry.box_of_spread(jnp.asarray(coordinates), (8, 10))
    for box, points in zip(boxes, coordinates):
        center = points.mean(axis=0)
        half = 2 * np.abs(points - center).mean(axis=0)
        expected = [*np.maximum(center - half, 0), *np.minimum(center + half, (8, 10))]
        np.testing.assert_allclose(box, expected, atol=1e-6)
    # The size has no gradient: both edges move with the centre.
    gradient = jax.jacobian(lambda x: geometry.box_of_spread(x, (8, 10)))(coordinates[0])
    np.testing.assert_allclose(gradient[:, :, 0], [[0.5, 0.5], [0, 0], [0.5, 0.5], [0, 0]])


def slow_crop(image, box, size):
    result = np.zeros((*size, image.shape[-1]))
    for i in range(size[0]):
        for j in range(size[1]):
            y = box[0] + (i + 0.5) * (box[2] - box[0]) / size[0] - 0.5
            x = box[1] + (j + 0.5) * (box[3] - box[1]) / size[1] - 0.5
            y, x = min(max(y, 0), image.shape[0] - 1), min(max(x, 0), image.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            v, u = y - top, x - left
            result[i, j] = (1 - v) * ((1 - u) * image[top, left] + u * image[top, right]) + v * (
                (1 - u) * image[bottom, left] + u * image[bottom, right]
            )
    return result


def test_crop_against_loop():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(4, 7, 9, 2)).astype(np.float32)
    boxes = np.array(
        [[0, 0, 7, 9], [1.3, 2.6, 5.3, 7.1], [-1, -2, 4, 3.5], [3.2, 4.1, 3.2, 4.1]], np.float32
    )
    result = geometry.crop(jnp.asarray(images), jnp.asarray(boxes), (5, 4))
    for image, box, cropped in zip(images, boxes, result):
        np.testing.assert_allclose(cropped, slow_crop(image, box, (5, 4)), atol=1e-5)


def test_crop_identities():
    images = jax.random.normal(jax.random.key(0), (1, 6, 8, 3))
    whole = jnp.asarray([[0.0, 0, 6, 8]])
    np.testing.assert_allclose(geometry.crop(images, whole, (6, 8)), images, atol=1e-6)
    part = jnp.asarray([[1.0, 3, 5, 8]])
    np.testing.assert_allclose(geometry.crop(images, part, (4, 5)), images[:, 1:5, 3:8], atol=1e-6)
    # A ramp knows where it is sampled: the gradient of its mean is the mean of the box's edges.
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, None, :, None], (1, 6, 8, 1))
    gradient = jax.jit(jax.grad(lambda box: jnp.mean(geometry.crop(ramp, box, (3, 3)))))(
        jnp.asarray([[1.2, 2.3, 4.1, 6.4]])
    )
    np.testing.assert_allclose(gradient, [[0, 0.5, 0, 0.5]], atol=1e-5)


def test_crop_gradients():
    images = jax.random.normal(jax.random.key(0), (2, 5, 6, 2))
    boxes = jnp.asarray([[0.3, 1.1, 4.2, 5.3], [1.4, 0.6, 3.7, 4.9]])
    jax.test_util.check_grads(
        jax.jit(lambda *arguments: geometry.crop(*arguments, (3, 4))),
        (images, boxes),
        order=1,
        modes=['rev'],
        eps=1e-3,
        atol=2e-2,
        rtol=2e-2,
    )


@pytest.mark.parametrize(
    'shape, rows, columns',
    [((12, 24), slice(4, 12), slice(0, 16)), ((30, 15), slice(0, 16), slice(4, 12))],
)
def test_resize_and_pad(shape, rows, columns):
    images = jax.random.uniform(jax.random.key(0), (2, *shape, 3))
    result = geometry.resize_and_pad(images, 16)
    assert result.shape == (2, 16, 16, 3)
    middle = result[:, rows, columns]
    np.testing.assert_allclose(middle, jax.image.resize(images, middle.shape, 'linear'), atol=1e-6)
    # A mirror at the outermost row or column.
    if shape[0] < shape[1]:
        np.testing.assert_array_equal(result[:, 3], result[:, 5])
        np.testing.assert_array_equal(result[:, 12], result[:, 10])
    else:
        np.testing.assert_array_equal(result[:, :, 3], result[:, :, 5])
        np.testing.assert_array_equal(result[:, :, 12], result[:, :, 10])


def test_affine_places_of_a_third_in_the_middle():
    places_of = jax.jit(geometry.affine_places, static_argnums=(1, 2, 3))
    theta = jnp.asarray([[[1 / 3, 0, 0], [0, 1 / 3, 0]]])
    places = places_of(theta, 10, 30, True)
    # Corner aligned: the outermost centres are a third of 29 cells apart, around the middle.
    expected = 15 + np.linspace(-1, 1, 10) * 29 / 6
    np.testing.assert_allclose(places[0, :, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(places[0, 0, :, 1], expected, rtol=1e-5)
    # Else they are the centres of the ten cells in the middle.
    places = places_of(theta, 10, 30, False)
    np.testing.assert_allclose(places[0, :, 0, 0], np.arange(10) + 10.5, rtol=1e-5)
    # A quarter turn takes x to y; the shift is of x and y.
    theta = jnp.asarray([[[0, -1, 0.5], [1, 0, 0]]])
    places = places_of(theta, 3, 3, False)
    np.testing.assert_allclose(places[0, 0, 0], [0.5, 3.25], rtol=1e-5)
    np.testing.assert_allclose(places[0, 0, 2], [2.5, 3.25], rtol=1e-5)


def test_sample_interpolates_and_fades_to_zero():
    rows, columns = np.meshgrid(np.arange(4.0), np.arange(5.0), indexing='ij')
    images = jnp.asarray(np.stack([rows, columns, np.ones_like(rows)], axis=-1)[None], jnp.float32)
    places = jnp.asarray(
        [[[1.75, 2.5], [0.5, 4.5], [0.25, 3.0], [3.5, 5.25], [-0.6, 2.0], [1e12, -1e12]]]
    )
    sample = jax.jit(geometry.sample)
    expected = [[1.25, 2, 1], [0, 4, 1], [0, 1.875, 0.75], [0.75, 1, 0.25], [0] * 3, [0] * 3]
    np.testing.assert_allclose(sample(images, places)[0], expected, rtol=1e-5)
    # Between centres, where it is smooth.
    places = jnp.asarray([[[1.75, 2.3], [0.3, 3.1], [3.7, 5.3]]])
    jax.test_util.check_grads(
        sample, (images, places), order=1, modes=['rev'], eps=1e-2, atol=2e-2, rtol=2e-2
    )
