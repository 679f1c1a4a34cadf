"""Keypoint labels against loops in NumPy, and there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import labels
from jaxprop.keypoints import cell_size, decode_keypoints, encode_keypoints
from jaxprop.methods import from_settings
from jaxprop.propagation import propagate_video

GRID = (12, 16)
CELL = (6.0, 8.0)
# In cells: inside, at the borders and outside, where rounding and cutting towards zero differ, and
# a joint that is not there.
CELLS = np.array(
    [
        (5.2, 7.9),
        (5.5, 3.5),
        (1.49, 0.4),
        (0.6, 0.5),
        (0.0, 0.0),
        (-0.4, 1.5),
        (-1.2, 4.0),
        (15.4, 11.2),
        (15.6, 6.0),
        (16.2, 6.0),
        (17.6, 3.0),
        (3.0, 14.0),
        (-3.7, 2.0),
        (np.nan, np.nan),
    ]
)
encode = jax.jit(encode_keypoints, static_argnames=('grid', 'cell', 'method', 'sigma'))


def slow_labels(cells, grid, method, sigma):
    """Draws labels cell by cell, with Python's int() and integer window coordinates."""
    maps = np.zeros((*grid, len(cells)))
    for joint, (px, py) in enumerate(cells):
        if np.isnan(px):
            continue
        for y in range(grid[0]):
            for x in range(grid[1]):
                if method == 'gaussian':
                    square = (x - px) ** 2 + (y - py) ** 2
                elif method == 'stamp':
                    left, right = int(px - 3 * sigma), int(px + 3 * sigma + 1)
                    top, bottom = int(py - 3 * sigma), int(py + 3 * sigma + 1)
                    if not (left <= x < right and top <= y < bottom):
                        continue
                    middle = (6 * sigma + 1) // 2
                    square = (x - left - middle) ** 2 + (y - top - middle) ** 2
                else:
                    square = 0 if (x, y) == (int(px), int(py)) else np.inf
                maps[y, x, joint] = np.exp(-square / (2 * sigma**2))
    return maps


@pytest.mark.parametrize(
    'method, sigma', [('stamp', 0.5), ('stamp', 0.8), ('cell', 0.5), ('gaussian', 0.7)]
)
def test_labels_equal_a_slow_computation(method, sigma):
    encoded = encode(CELLS * CELL[::-1], GRID, CELL, method, sigma)
    expected = slow_labels(CELLS, GRID, method, sigma)
    assert encoded.shape == (*GRID, len(CELLS) + 1) and encoded.dtype == jnp.float32
    np.testing.assert_allclose(encoded[..., 1:], expected, rtol=1e-4, atol=1e-6)
    if method == 'gaussian':
        np.testing.assert_allclose(encoded[..., 0], 1 - expected.max(-1), atol=1e-6)
    else:
        np.testing.assert_array_equal(encoded[..., 0], (expected == 0).all(-1))


def test_the_stamp_of_the_released_code():
    """The stamp has the values, and the shift near the border, of the released evaluations."""
    maps = encode(np.array([[40.0, 44.0], [9.0, 44.0]]), GRID, (8.0, 8.0))[..., 1:]
    np.testing.assert_allclose(maps[6, 5, 0], 1)  # 44 / 8 is 5.5, rounded up
    np.testing.assert_allclose(maps[6, [4, 6, 3, 7], 0], [np.exp(-2), np.exp(-2), np.exp(-8), 0])
    np.testing.assert_allclose(maps[5, 4, 0], np.exp(-4), rtol=1e-5)
    np.testing.assert_array_equal(np.argmax(maps[6, :, 1]), 2)  # 9 / 8 would round to 1


def slow_decode(maps, cell, num_cells):
    positions = np.full((maps.shape[-1] - 1, 2), np.nan)
    for joint in range(1, maps.shape[-1]):
        cells = [
            (maps[y, x, joint], x, y) for y in range(maps.shape[0]) for x in range(maps.shape[1])
        ]
        best = sorted(cells, reverse=True)[:num_cells]
        total = sum(value for value, _, _ in best)
        if total > 0:
            positions[joint - 1] = [
                sum(c[0] * c[1] for c in best) / total * cell[1],
                sum(c[0] * c[2] for c in best) / total * cell[0],
            ]
    return positions


@pytest.mark.parametrize('num_cells', [1, 3])
def test_positions_equal_a_slow_computation(num_cells):
    maps = np.random.default_rng(0).random((2, 5, 7, 4)).astype(np.float32)
    maps[0, ..., 2] = 0
    maps[1, ..., 3] = 0
    maps[1, 4, 6, 3] = 0.1
    positions = jax.jit(decode_keypoints, static_argnums=(1, 2))(maps, CELL, num_cells)
    expected = [slow_decode(frame, CELL, num_cells) for frame in maps]
    np.testing.assert_allclose(positions, expected, rtol=1e-5)
    assert np.isnan(positions[0, 1]).all() and np.isfinite(positions[1]).all()


def test_there_and_back_is_near():
    positions = np.random.default_rng(1).uniform((14, 10), (110, 60), (9, 2))
    for method, limit in (('stamp', 0.75), ('gaussian', 0.5)):
        back = decode_keypoints(encode(positions, GRID, CELL, method), CELL)
        assert np.max(np.abs(back - positions) / CELL[::-1]) < limit


def test_joints_follow_features_that_move():
    """Each frame is the one before, shifted by a cell to the right and one down."""
    features = np.random.default_rng(2).normal(size=(*GRID, 8))
    video = np.stack([np.roll(features, (step, step), (0, 1)) for step in range(4)])
    start = np.array([[32.0, 24.0], [61.0, 20.0], [80.0, 30.0], [np.nan, np.nan]])
    config = from_settings(num_neighbors=1, num_context=2, radius=4)
    video = jnp.asarray(video, jnp.float32)
    maps = propagate_video(video, encode(start, GRID, CELL), method=config)
    tracks = decode_keypoints(maps, CELL)
    steps = np.arange(4)[:, None, None] * np.array([8.0, 6.0])
    np.testing.assert_allclose(tracks, tracks[0] + steps, atol=1e-3)
    assert np.isnan(tracks[:, 3]).all()
    np.testing.assert_allclose(tracks[0, 0], start[0], atol=1.5)


def test_labels_and_positions_of_the_whole_frame():
    """As in VFS, Gaussians on the frame are resized to the grid and back."""
    positions = np.array([[40.3, 28.9], [70.0, 33.2]])
    size = (GRID[0] * 6, GRID[1] * 8)
    maps = labels.resize(encode(positions, size, (1, 1), 'gaussian', 4.0), GRID, 'bilinear')
    back = decode_keypoints(labels.resize(maps, size, 'bilinear'), (1, 1), 5)
    np.testing.assert_allclose(back, positions, atol=4)


def test_cell_size():
    assert cell_size((240, 320), (320, 320), 8) == (6, 8)
    assert cell_size((480, 854), (480, 854), 8) == (8, 8)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: encode_keypoints(np.zeros((2, 3)), GRID, CELL), r'positions are \[2, 3\]'),
        (lambda: encode_keypoints(np.zeros((2, 2)), GRID, CELL, 'disc'), "method is 'disc'"),
        (lambda: encode_keypoints(np.zeros((2, 2)), GRID, CELL, sigma=0), 'sigma is 0'),
        (lambda: encode_keypoints(np.zeros((2, 2)), GRID, (8, 0)), r'cell is \(8, 0\)'),
        (lambda: decode_keypoints(np.zeros((5, 2)), CELL), r'labels are \[5, 2\]'),
        (lambda: decode_keypoints(np.zeros((5, 2, 3)), CELL, 11), 'num_cells is 11'),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
