"""Converts coordinates of joints to soft labels of feature cells, and back.

Positions are (x, y) in pixels of the frame: (0, 0) is the centre of the first pixel. A joint that
is not there is NaN. Cell i of the features lies at pixel i times the cell's size, as the output of
convolutions with odd kernels and symmetric padding does.

Shapes: H, W feature cells, J joints, L = J + 1 labels, the background first.
"""

import math

import jax
import jax.numpy as jnp

METHODS = ('gaussian', 'stamp', 'cell')


def cell_size(
    frame_size: tuple[int, int], input_size: tuple[int, int], stride: int
) -> tuple[float, float]:
    """Computes (height, width) of a feature cell in pixels of the frame: stride * frame / input.

    Args:
      frame_size: (height, width) of the frame.
      input_size: (height, width) at which the network sees it.
      stride: of the network, in pixels of its input.
    """
    (height, width), (input_height, input_width) = frame_size, input_size
    return stride * height / input_height, stride * width / input_width


def encode_keypoints(
    positions: jax.Array,
    grid: tuple[int, int],
    cell: tuple[float, float],
    method: str = 'stamp',
    sigma: float = 0.5,
) -> jax.Array:
    """Draws joints as soft labels of feature cells: one map for each joint, and the background.

    With p = position / cell size, the map of a joint is

        'gaussian'  exp(-|c - p|^2 / (2 sigma^2)) at every cell c
        'stamp'     the Gaussian around a whole cell near p, as CRW and UVC released it, in a window
                    of 6 sigma + 1 cells from int(p - 3 sigma) to int(p + 3 sigma + 1). For sigma
                    1/2 these are 4 x 4 cells around p rounded, halves up; but int() cuts towards
                    zero, so the centre lies one cell further on for p below 1.5
        'cell'      1 at the cell int(p), which is CRW's map for sigma = 0

    A map is zero where the joint is NaN, and where all of the window is outside the grid. The
    background is 1 where all joints are exactly 0, else 0; for 'gaussian' it is 1 - the largest
    joint. Labels of a cell do not sum to 1. VFS draws Gaussians of 4 pixels on the frame instead:
    `grid` the frame's size, `cell` (1, 1), `sigma` 4, then `jaxprop.labels.resize`.

    Args:
      positions: `[J, 2]` (x, y) in pixels.
      grid: (H, W), that of the features.
      cell: (height, width) of a cell in pixels, see `cell_size`.
      method: 'gaussian', 'stamp' or 'cell'.
      sigma: in cells.

    Returns:
      float32 `[H, W, J + 1]`.

    Raises:
      ValueError: an unknown method, a sigma or cell size that is not above 0, or positions of
        another shape.

    Source: the JHMDB evaluations of Li et al., NeurIPS 2019 (UVC), and Jabri et al., NeurIPS 2020
    (CRW), as released.
    """
    positions = jnp.asarray(positions, jnp.float32)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise ValueError(f'positions are {list(positions.shape)}; they must be [J, 2]')
    if method not in METHODS:
        raise ValueError(f'method is {method!r}; it must be one of {METHODS}')
    if not (0 < sigma < math.inf):
        raise ValueError(f'sigma is {sigma}; it must be above 0')
    _check_cell(cell)

    rows, columns = (
        _profile(positions[:, axis] / side, length, method, sigma)
        for axis, side, length in ((1, cell[0], grid[0]), (0, cell[1], grid[1]))
    )
    joints = jnp.einsum('jy,jx->yxj', rows, columns, precision=jax.lax.Precision.HIGHEST)
    largest = jnp.max(joints, axis=-1, keepdims=True, initial=0)
    background = 1 - largest if method == 'gaussian' else (largest == 0).astype(jnp.float32)
    return jnp.concatenate([background, joints], axis=-1)


def decode_keypoints(labels: jax.Array, cell: tuple[float, float], num_cells: int = 3) -> jax.Array:
    """Finds the positions of joints in soft labels: the mean of each joint's strongest cells.

    x = cell width * sum_c w_c x_c / sum_c w_c over the `num_cells` cells with the largest values
    w_c; likewise y. A joint whose strongest cells sum to 0 is lost: NaN.

    CRW takes 3 cells, UVC 5 after `jaxprop.labels.min_max_normalize`. VFS takes 5 pixels of
    maps at the frame's size, which `jaxprop.labels.resize` gives; `cell` is then (1, 1).

    Args:
      labels: `[..., H, W, J + 1]`, the background first; not negative.
      cell: (height, width) of a cell in pixels, see `cell_size`.
      num_cells: 1 for the largest cell alone.

    Returns:
      float32 `[..., J, 2]` (x, y) in pixels.

    Raises:
      ValueError: labels of another shape, a cell size that is not above 0, or `num_cells` outside
        1 to H * W.

    Source: as `encode_keypoints`.
    """
    labels = jnp.asarray(labels)
    if labels.ndim < 3 or labels.shape[-1] < 2:
        raise ValueError(f'labels are {list(labels.shape)}; they must be [..., H, W, J + 1]')
    height, width = labels.shape[-3:-1]
    if not 1 <= num_cells <= height * width:
        raise ValueError(
            f'num_cells is {num_cells}; it must be 1 to {height * width}, the cells of the grid'
        )
    _check_cell(cell)
    joints = jnp.moveaxis(labels[..., 1:], -1, -3)
    values, cells = jax.lax.top_k(joints.reshape(*joints.shape[:-2], height * width), num_cells)
    total = jnp.sum(values, axis=-1, keepdims=True)
    weights = values / jnp.where(total > 0, total, jnp.nan)
    position = jnp.stack([cells % width, cells // width], axis=-1)
    return jnp.sum(weights[..., None] * position, axis=-2) * jnp.asarray(cell[::-1], jnp.float32)


def _profile(position, length, method, sigma):
    """The maps along one axis, `[J, length]`. A joint's map is the product of its two profiles."""
    index = jnp.arange(length)
    position = position[:, None]
    if method == 'gaussian':
        profile = _bell(index - position, sigma)
    elif method == 'stamp':
        start, end = jnp.trunc(position - 3 * sigma), jnp.trunc(position + 3 * sigma + 1)
        centre = (6 * sigma + 1) // 2
        inside = (index >= start) & (index < end)
        profile = jnp.where(inside, _bell(index - start - centre, sigma), 0)
    else:
        # Truncation, as int() does it, brings a position just outside the frame to its first cell.
        profile = (index == jnp.trunc(position)).astype(jnp.float32)
    return jnp.where(jnp.isnan(position), 0, profile)


def _bell(distance, sigma):
    return jnp.exp(-(distance**2) / (2 * sigma**2))


def _check_cell(cell):
    if len(cell) != 2 or not all(0 < side < math.inf for side in cell):
        raise ValueError(f'cell is {cell}; it must be (height, width) in pixels, above 0')
