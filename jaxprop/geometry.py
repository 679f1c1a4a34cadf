"""Coordinates of cells, boxes around them, and crops and samples of images.

Coordinates are (row, column), in cells from the top left corner of the grid: its edges are at 0
and at its size, and cell (i, j) has its centre at (i + 1/2, j + 1/2). In these coordinates a
feature map and its image differ by the stride alone. A box is (top, left, bottom, right).
"""

import jax
import jax.numpy as jnp
import numpy as np


def cell_centers(height: int, width: int) -> np.ndarray:
    """The centres `[height, width, 2]`, float32, of a grid's cells: (i + 1/2, j + 1/2)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns], axis=-1).astype(np.float32) + 0.5


def box_of_size(
    coordinates: jax.Array, size: tuple[int, int], frame_size: tuple[int, int]
) -> jax.Array:
    """Places a box of a given size around the mean of coordinates, moved into the frame if needed.

    Args:
      coordinates: `[..., N, 2]`, in cells.
      size: height and width of the box, in cells.
      frame_size: height and width of the frame, in cells.

    Returns:
      Boxes `[..., 4]`.

    Raises:
      ValueError: the frame is smaller than the box.

    Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence",
    NeurIPS 2019, section 3.2.
    """
    if any(side > frame for side, frame in zip(size, frame_size)):
        raise ValueError(f'size is {size}; it must not be larger than the frame, {frame_size}')
    sides, frame_sides = jnp.asarray(size, jnp.float32), jnp.asarray(frame_size, jnp.float32)
    corner = jnp.mean(coordinates, axis=-2) - sides / 2
    corner = jnp.clip(corner, 0, frame_sides - sides)
    return jnp.concatenate([corner, corner + sides], axis=-1)


def box_of_spread(coordinates: jax.Array, frame_size: tuple[int, int]) -> jax.Array:
    """Places a box around coordinates, as large as they are spread.

    The box is around their mean c and reaches 2 mean|x - c| to each side. It is cut off at the
    edges of the frame. Gradients flow through its centre, not its size.

    Args:
      coordinates: `[..., N, 2]`, in cells.
      frame_size: height and width of the frame, in cells.

    Returns:
      Boxes `[..., 4]`.

    Source: Li et al., NeurIPS 2019, as released.
    """
    center = jnp.mean(coordinates, axis=-2)
    deviation = jnp.mean(jnp.abs(coordinates - center[..., None, :]), axis=-2)
    half = 2 * jax.lax.stop_gradient(deviation)
    sides = jnp.asarray(frame_size, jnp.float32)
    return jnp.concatenate(
        [jnp.clip(center - half, 0, sides), jnp.clip(center + half, 0, sides)], axis=-1
    )


def crop(images: jax.Array, boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Crops boxes of images and resamples them bilinearly to a given size.

    Cell i of n in the result is at top + (i + 1/2) (bottom - top) / n. Places beyond the centres of
    the outermost cells have these cells' values. Nothing is smoothed where a box is made smaller.
    Differentiable in images and boxes.

    Args:
      images: `[B, H, W, C]`, images or features, floating point.
      boxes: `[B, 4]`, in cells of `images`.
      size: height and width of the result.

    Returns:
      `[B, height, width, C]`.

    Source: Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015, for boxes.
    """
    rows = _interpolation(boxes[:, 0], boxes[:, 2], size[0], images.shape[1])
    columns = _interpolation(boxes[:, 1], boxes[:, 3], size[1], images.shape[2])
    # A box is a product of two intervals, so a crop is two products of matrices. Accelerators
    # compute these faster than they gather single cells.
    precision = jax.lax.Precision.HIGHEST
    images = jnp.einsum('bhi,biwc->bhwc', rows, images, precision=precision)
    return jnp.einsum('bwj,bhjc->bhwc', columns, images, precision=precision)


def _interpolation(start: jax.Array, end: jax.Array, size: int, cells: int) -> jax.Array:
    """Weights `[B, size, cells]` of linear interpolation at `size` places from start to end."""
    places = (jnp.arange(size) + 0.5) / size
    places = start[:, None] + (end - start)[:, None] * places - 0.5
    places = jnp.clip(places, 0, cells - 1)
    return jnp.maximum(0, 1 - jnp.abs(places[..., None] - jnp.arange(cells)))


def affine_places(
    theta: jax.Array, size: int, frame_size: int, corner_aligned: bool = True
) -> jax.Array:
    """Finds where the pixels of a square patch lie in a square frame, by an affine map.

    The map takes (x, y) in the patch to (x, y) in the frame, both from -1 to 1: columns first, as
    in Spatial Transformer Networks.

    Args:
      theta: `[B, 2, 3]`, a 2 x 2 matrix and, in the last column, the shift.
      size: of the patch, in pixels or cells.
      frame_size: of the frame.
      corner_aligned: -1 and 1 are the centres of the outermost pixels, as in PyTorch up to 1.2;
        else they are the borders.

    Returns:
      `[B, size, size, 2]`: row and column in the frame, in this module's coordinates.

    Source: Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015.
    """
    if corner_aligned:
        steps = jnp.linspace(-1, 1, size)
    else:
        steps = (2 * jnp.arange(size) + 1) / size - 1
    x, y = jnp.meshgrid(steps, steps)
    matrix, shift = theta[:, None, None, :, :2], theta[:, None, None, :, 2]
    places = matrix[..., 0] * x[..., None] + matrix[..., 1] * y[..., None] + shift
    share = (places[..., ::-1] + 1) / 2
    return share * (frame_size - 1) + 0.5 if corner_aligned else share * frame_size


def sample(images: jax.Array, places: jax.Array) -> jax.Array:
    """Reads images at any places, interpolated bilinearly.

    Outside the image everything is 0, so values fade to 0 within one cell beyond the outermost
    centres. Differentiable in images and places.

    Args:
      images: `[B, H, W, C]`, images or features, floating point.
      places: `[B, ..., 2]`, in cells of `images`.

    Returns:
      `[B, ..., C]`.
    """
    size = jnp.asarray(images.shape[1:3])
    positions = places - 0.5
    corner = jnp.floor(positions)
    share = (positions - corner)[..., None, :]
    # The four cells around each place. The clip keeps places far away from overflowing integers.
    corner = jnp.clip(corner, -2, size + 1).astype(jnp.int32)[..., None, :]
    offsets = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
    cells = corner + offsets
    weights = jnp.where(offsets == 1, share, 1 - share)
    inside = jnp.all((cells >= 0) & (cells < size), axis=-1)
    weights = jnp.where(inside, weights[..., 0] * weights[..., 1], 0)
    cells = jnp.clip(cells, 0, size - 1)
    values = jax.vmap(lambda image, cell: image[cell[..., 0], cell[..., 1]])(images, cells)
    return jnp.sum(weights[..., None] * values, axis=-2)


def resize_and_pad(images: jax.Array, size: int) -> jax.Array:
    """Makes images square: resizes the longer side to `size` and pads the shorter one to it.

    The image is in the middle; the padding mirrors it at its outermost pixels.

    Args:
      images: `[B, H, W, C]`, floating point.
      size: of both sides of the result.

    Returns:
      `[B, size, size, C]`.

    Source: Li et al., NeurIPS 2019, as released.
    """
    batch, height, width, channels = images.shape
    longer = max(height, width)
    height, width = (max(1, round(size * side / longer)) for side in (height, width))
    images = jax.image.resize(images, (batch, height, width, channels), 'linear')
    padding = [((size - side) // 2, size - side - (size - side) // 2) for side in (height, width)]
    return jnp.pad(images, ((0, 0), *padding, (0, 0)), mode='reflect')
