"""The guided filter against the formulas, box by box, in NumPy in float64."""

import functools

import jax
import numpy as np
import pytest

from jaxprop import labels
from jaxprop.refine import enlarge_guided, guided_filter

filtered = jax.jit(guided_filter, static_argnames=('radius', 'eps'))
enlarged = jax.jit(enlarge_guided)


def picture(size, channels=3, seed=0):
    """Makes a picture of regions of one colour each, with a little noise."""
    random = np.random.default_rng(seed)
    regions = np.kron(random.integers(0, 4, (3, 4)), np.ones((5, 6), int))[: size[0], : size[1]]
    colours = random.random((4, channels))
    return (colours[regions] + random.normal(0, 0.02, (*size, channels))).astype(np.float32)


def boxes(size, radius):
    """Lists the boxes around all cells, as slices."""
    return [
        [
            tuple(slice(max(i - r, 0), i + r + 1) for i, r in zip((row, column), radius))
            for column in range(size[1])
        ]
        for row in range(size[0])
    ]


def slow_fit(guide, values, radius, eps):
    """The linear function of each cell, slopes and offset, `[H, W, C + 1, L]`."""
    guide, values = guide.astype(np.float64), values.astype(np.float64)
    channels, found = guide.shape[-1], []
    for row in boxes(guide.shape[:2], radius):
        for box in row:
            colours, wanted = (
                guide[box].reshape(-1, channels),
                values[box].reshape(-1, values.shape[-1]),
            )
            # Ridge regression: the sum over the box of squared errors, and eps for the slopes.
            apart, away = colours - colours.mean(0), wanted - wanted.mean(0)
            scatter = apart.T @ apart / len(colours) + eps * np.eye(channels)
            slopes = np.linalg.solve(scatter, apart.T @ away / len(colours))
            found.append(np.vstack([slopes, wanted.mean(0) - colours.mean(0) @ slopes]))
    found = np.reshape(found, (*guide.shape[:2], channels + 1, -1))
    means = [[found[box].mean((0, 1)) for box in row] for row in boxes(guide.shape[:2], radius)]
    return np.array(means)


def applied(functions, guide):
    *slopes, offset = np.moveaxis(functions, 2, 0)
    return offset + sum(slope * guide[..., i, None] for i, slope in enumerate(slopes))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('radius', [(2, 3), (0, 1), (20, 4)], ids=str)
def test_the_filter_at_the_size_of_the_guide(channels, radius):
    guide = picture((13, 17), channels)
    values = np.random.default_rng(1).random((13, 17, 2), np.float32)
    for eps in (1e-5, 1e-2):
        expected = applied(slow_fit(guide, values, radius, eps), guide.astype(np.float64))
        found = filtered(guide, values, radius=radius, eps=eps)
        np.testing.assert_allclose(found, expected, atol=2e-4 if eps < 1e-4 else 1e-5)


def test_values_of_fewer_cells_than_the_guide_has_pixels():
    guide, size = picture((15, 24)), (5, 8)
    values = np.random.default_rng(2).random((*size, 3), np.float32)
    small = guide.reshape(5, 3, 8, 3, 3).mean((1, 3))
    functions = slow_fit(small, values, (1, 2), 1e-3).astype(np.float32)
    functions = np.moveaxis(functions, 2, 0)  # [C + 1, H, W, L]
    large = np.moveaxis(np.asarray(labels.resize(functions, (15, 24), 'bilinear')), 0, 2)
    found = filtered(guide, values, radius=(1, 2), eps=1e-3)
    np.testing.assert_allclose(found, applied(large, guide), atol=1e-5)


def test_what_is_linear_in_the_colours_stays_and_sums_stay():
    guide = picture((12, 16))
    values = np.concatenate([guide @ np.array([[0.5], [-1], [2]]), np.ones((12, 16, 1))], axis=-1)
    found = filtered(guide, values.astype(np.float32), radius=(2, 2), eps=1e-7)
    np.testing.assert_allclose(found, values, atol=2e-3)
    soft = np.random.default_rng(3).dirichlet(np.ones(2), (12, 16)).astype(np.float32)
    frame = np.random.default_rng(4).integers(0, 256, (96, 128, 3), np.uint8)
    np.testing.assert_allclose(enlarged(soft, frame).sum(-1), 1, atol=1e-4)


def test_labels_take_the_edges_of_the_frame():
    """A disc whose mask comes from a coarse grid: bilinear edges are off, guided ones hardly."""
    rows, columns = np.mgrid[:96, :128]
    ids = ((rows - 45) ** 2 + (columns - 70) ** 2 < 27**2).astype(np.int32)
    noise = np.random.default_rng(5).normal(0, 4, (96, 128, 3))
    frame = (np.array([[60, 120, 80], [150, 90, 140]])[ids] + noise).astype(np.uint8)
    soft = labels.encode(ids, [0, 1], (12, 16))
    wrong = [
        np.sum(np.asarray(labels.decode(soft, [0, 1], (96, 128), enlarge=enlarge)) != ids)
        for enlarge in (None, functools.partial(enlarged, frame=frame))
    ]
    assert wrong[1] < wrong[0] / 3


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        ((np.zeros((4, 4)), np.zeros((4, 4, 1)), (1, 1), 1e-3), r'\[4, 4\]'),
        ((np.zeros((4, 4, 3)), np.zeros((4, 4, 1)), (1, -1), 1e-3), r'\(1, -1\)'),
        ((np.zeros((4, 4, 3)), np.zeros((4, 4, 1)), (1, 1), 0.0), 'eps is 0.0'),
    ],
)
def test_rejects(arguments, named):
    with pytest.raises(ValueError, match=named):
        guided_filter(*arguments)
    with pytest.raises(ValueError, match=r'enlarge makes labels of \[4, 4, 1\]'):
        labels.decode(np.zeros((2, 2, 1)), [0], (6, 6), enlarge=lambda soft: np.zeros((4, 4, 1)))
