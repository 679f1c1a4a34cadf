"""Confidence against loops in NumPy, and on frames whose matches are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import confidence


def test_certainty_of_known_labels():
    labels = jnp.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0]])
    np.testing.assert_allclose(confidence.certainty(labels), [1, 0, 0.5, 0, 1], atol=1e-6)
    gradient = jax.grad(lambda x: confidence.certainty(x).sum())(labels)
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match='L of 2 on'):
        confidence.certainty(labels[:, :1])


@pytest.mark.parametrize('chunk', [1, 7, 30, 1000])
def test_round_trip_is_that_of_loops(chunk):
    height, width, channels = 5, 6, 4
    frame, other = np.random.default_rng(0).standard_normal((2, height, width, channels))
    cells = [(row, column) for row in range(height) for column in range(width)]
    expected = np.zeros((height, width))
    for q in cells:
        match = max(cells, key=lambda p: frame[q] @ other[p])
        back = max(cells, key=lambda p: frame[p] @ other[match])
        expected[q] = np.hypot(q[0] - back[0], q[1] - back[1])
    found = confidence.round_trip(jnp.array(frame), jnp.array(other), chunk)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert expected.max() > 0


def test_round_trip_finds_what_has_no_match():
    """A frame shifted by two cells: those that have left come back elsewhere, the others do not."""
    wide = np.random.default_rng(1).standard_normal((6, 12, 32))
    wide /= np.linalg.norm(wide, axis=-1, keepdims=True)
    found = confidence.round_trip(jnp.array(wide[:, :10]), jnp.array(wide[:, 2:]))
    np.testing.assert_array_equal(found[:, 2:], 0)
    assert (np.asarray(found[:, :2]) > 0).all()


def test_points_tracked_back():
    rng = np.random.default_rng(2)
    frame, other = rng.standard_normal((2, 5, 7, 32)).astype(np.float32)
    other[1:, 2:] = frame[:-1, :-2]  # All but the edges of `frame` has moved by (1, 2).
    other[3, 4] = rng.standard_normal(32)
    places = np.array([[2.0, 3.0], [4.2, 5.9], [3.0, 4.0], [np.nan, 1.0]])
    origins = np.array([[1.0, 1.0], [3.0, 4.0], [2.0, 2.0], [1.0, 1.0]])
    found = np.asarray(confidence.tracked_back(*map(jnp.array, (other, frame, places, origins))))
    expected = []
    for place, origin in zip(places[:2], origins):
        row, column = np.floor(place).astype(int)
        down, right = place - (row, column)
        feature = sum(
            weight * other[min(row + y, 4), column + x]
            for y, x, weight in (
                (0, 0, (1 - down) * (1 - right)), (0, 1, (1 - down) * right),
                (1, 0, down * (1 - right)), (1, 1, down * right),
            )
        )  # fmt: skip
        match = np.unravel_index(np.argmax(frame @ feature), (5, 7))
        expected.append(np.linalg.norm(np.array(match) - origin))
    np.testing.assert_allclose(found[:2], expected, atol=1e-6)
    assert found[0] == 0 and found[2] > 0 and np.isnan(found[3])


def test_confidence_of_objects():
    label = np.zeros((2, 2, 3), np.float32)
    label[0, 0, 0], label[0, 1, :2], label[1, 0, 1] = 1, 0.5, 1
    cells = np.array([[0.2, 0.8], [0.4, 1]], np.float32)
    found = confidence.of_objects(jnp.array(label), jnp.array(cells))
    wanted = [(0.2 + 0.4) / 1.5, (0.4 + 0.4) / 1.5, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_refuses_frames_of_two_sizes():
    with pytest.raises(ValueError, match=r'\[2, 3, 4\] and reference \[3, 2, 4\]'):
        confidence.round_trip(jnp.zeros((2, 3, 4)), jnp.zeros((3, 2, 4)))


def test_confidence_of_a_frame_is_that_of_loops():
    height, width, channels, num_labels, scale = 4, 5, 6, 3, 0.5
    rng = np.random.default_rng(2)
    frame, other = rng.standard_normal((2, height * width, channels))
    label, given = rng.dirichlet(np.ones(num_labels), (2, height * width))
    label[:, 2] = 0  # The frame has lost this label.
    cells = range(height * width)
    match = [max(cells, key=lambda p: frame[q] @ other[p]) for q in cells]
    back = [max(cells, key=lambda q: frame[q] @ other[p]) for p in cells]
    sure = np.asarray(confidence.certainty(jnp.array(label)))
    stays, agrees = np.zeros((2, height * width))
    for q in cells:
        rows, columns = np.divmod([q, back[match[q]]], width)
        distance = np.hypot(rows[0] - rows[1], columns[0] - columns[1])
        stays[q] = np.exp(-distance / (scale * height))
        agrees[q] = label[q] @ given[match[q]]
    objects = np.zeros(num_labels)
    for o in range(num_labels):
        mass = label[:, o].sum()
        if mass > 0:
            parts = [
                sum(label[q, o] * sure[q] for q in cells) / mass,
                sum(label[q, o] * stays[q] for q in cells) / mass,
                sum(label[q, o] * given[match[q], o] for q in cells) / mass,
                sum(given[p, o] * label[back[p], o] for p in cells) / given[:, o].sum(),
            ]
            objects[o] = np.prod(parts) ** (1 / 4)
    shaped = (jnp.array(x).reshape(height, width, -1) for x in (label, frame, given, other))
    found = jax.jit(confidence.of_frame)(*shaped, scale)
    expected = (sure * stays * agrees).reshape(height, width)
    np.testing.assert_allclose(found.cells, expected, atol=1e-5)
    np.testing.assert_allclose(found.objects, objects, atol=1e-5)
    assert objects[2] == 0 < objects[0]


def test_a_frame_that_is_its_own_reference_is_trusted():
    features = np.random.default_rng(3).standard_normal((5, 6, 16))
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    label = jax.nn.one_hot(jnp.arange(30).reshape(5, 6) % 3, 3)
    found = confidence.of_frame(label, jnp.array(features), label, jnp.array(features))
    np.testing.assert_allclose(found.cells, 1, atol=1e-6)
    np.testing.assert_allclose(found.objects, 1, atol=1e-6)
