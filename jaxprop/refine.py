"""Sharpens soft labels at the edges of the frame: the guided filter.

Source: He, Sun, Tang, "Guided Image Filtering", ECCV 2010, equations 5, 6 and 8 for a grey guide,
14 to 16 for a colour guide; and He, Sun, "Fast Guided Filter", arXiv 1505.00996, for values of
fewer pixels than the guide.

Shapes: h, w pixels of the guide, C its channels, H, W cells of the values, L labels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import labels

# Along each side of a cell, the fit has so many points: the edges of labels lie between cells.
_POINTS = 2


def enlarge_guided(
    label: jax.Array, frame: jax.Array, radius: float = 1.5, eps: float = 1e-5
) -> jax.Array:
    """Enlarges soft labels to a frame, so that their edges follow the colours of the frame.

    Args:
      label: `[H, W, L]`.
      frame: uint8 RGB `[h, w, 3]`.
      radius: of the boxes in which labels are fitted by colours, in cells of the label.
      eps: see `guided_filter`.

    Returns:
      float32 `[h, w, L]`.

    Raises:
      ValueError: as `guided_filter`.
    """
    height, width = (side * _POINTS for side in label.shape[:2])
    values = labels.resize(label, (height, width), 'bilinear')
    reach = max(1, round(radius * _POINTS))
    return guided_filter(frame.astype(jnp.float32) / 255, values, (reach, reach), eps)


def guided_filter(
    guide: jax.Array, values: jax.Array, radius: tuple[int, int], eps: float
) -> jax.Array:
    """Smooths values, but not across the edges of a guide: their edges move to those of the guide.

    In each box of cells the values are fitted by a linear function of the guide's colours. A pixel
    gets the mean of these functions over the boxes around it, applied to its own colour. So values
    of few cells become sharp at the pixels of the guide. The filter is linear in the values and
    keeps constants: labels that sum to 1 do so afterwards, though single ones may leave [0, 1].

    Args:
      guide: `[h, w, C]` the picture, from 0 to 1; C is 1 for grey, 3 for colours.
      values: `[H, W, L]`. If the guide has another size, its colours are averaged over each cell
        for the fit, and the functions are interpolated between the cells.
      radius: (rows, columns) in cells: a box has (2 rows + 1) x (2 columns + 1) cells, fewer at the
        border.
      eps: a variance of colours. A box whose colours vary less gives its mean value, a box whose
        colours vary more follows them.

    Returns:
      float32 `[h, w, L]`.

    Raises:
      ValueError: shapes that do not fit, a negative radius, or an `eps` that is not above 0.

    >>> import jax.numpy as jnp
    >>> from jaxprop.refine import guided_filter
    >>> guide = jnp.array([[0.0, 0, 0, 0, 1, 1, 1, 1]])[..., None]  # An edge in the middle.
    >>> blurred = jnp.array([[0.0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1]])[..., None]
    >>> sharp = guided_filter(guide, blurred, radius=(0, 2), eps=1e-4)
    >>> bool(sharp[0, 4, 0] - sharp[0, 3, 0] > 0.5)  # It was 0.2.
    True
    """
    if guide.ndim != 3 or values.ndim != 3:
        raise ValueError(
            f'the guide is {list(guide.shape)}, the values are {list(values.shape)}; they must be '
            '[h, w, C] and [H, W, L]'
        )
    if min(radius) < 0:
        raise ValueError(f'radius is {radius}; both numbers of cells must be 0 or more')
    if not eps > 0:
        raise ValueError(f'eps is {eps}; it must be above 0')
    # Colours relative to their mean have smaller squares, which lose less by rounding.
    guide = jnp.asarray(guide, jnp.float32)
    guide -= jnp.mean(guide, axis=(0, 1))
    height, width = guide.shape[:2]
    rows, columns = values.shape[:2]
    is_smaller = (rows, columns) != (height, width)
    small = labels.resize(guide, (rows, columns), 'area') if is_smaller else guide
    *slopes, offset = _fit(_planes(small), _planes(values), radius, eps)
    # Apply the functions to the colours of the pixels.
    functions = jnp.moveaxis(jnp.stack([*slopes, offset]), 1, -1)  # [C + 1, H, W, L]
    if is_smaller:
        functions = labels.resize(functions, (height, width), 'bilinear')
    *slopes, offset = functions
    return offset + sum(slope * guide[..., i, None] for i, slope in enumerate(slopes))


def _fit(guide, values, radius, eps):
    """Fits linear functions of the colours `[C, H, W]` to values `[L, H, W]` in boxes of cells.

    Returns:
      The slopes for each channel and the offset, each `[L, H, W]`, as means over the boxes that
      hold a cell.
    """
    channels = len(guide)
    # Means over boxes: of all planes, and of the products that make a covariance.
    rows, columns = np.triu_indices(channels)
    crossed = (guide[:, None] * values).reshape(-1, *guide.shape[1:])
    means = box_mean(
        jnp.concatenate([guide, values, guide[rows] * guide[columns], crossed]), radius
    )
    sizes = channels, len(values), len(rows)
    mean_guide, mean_values, squares, crossed = jnp.split(means, np.cumsum(sizes))
    crossed = crossed.reshape(channels, *values.shape)
    # The function of each box.
    matrix = {}
    for square, i, j in zip(squares, rows.tolist(), columns.tolist()):
        covariance = square - mean_guide[i] * mean_guide[j]
        matrix[i, j] = matrix[j, i] = covariance + eps * (i == j)
    slopes = _solve(matrix, list(crossed - mean_guide[:, None] * mean_values))
    offset = mean_values - sum(slope * mean for slope, mean in zip(slopes, mean_guide))
    # The mean over the boxes that hold a cell.
    means = box_mean(jnp.concatenate([*slopes, offset]), radius)
    return jnp.split(means, channels + 1)


def box_mean(planes: jax.Array, radius: tuple[int, int]) -> jax.Array:
    """Takes the mean over a box around each cell, by differences of cumulative sums.

    The work does not depend on the radius.

    Args:
      planes: `[L, H, W]`.
      radius: of the box, (rows, columns) in cells; at the border the box holds fewer.

    Returns:
      `[L, H, W]`.
    """

    def along_first(array, reach):
        size = len(array)
        padded = jnp.pad(array, [(reach + 1, reach), (0, 0), (0, 0)])
        # On a CPU this loop is several times faster than `jnp.cumsum`, which takes log2(size)
        # passes over the array. The first row is zero.
        _, sums = jax.lax.scan(_add, padded[0], padded)
        index = np.arange(size)
        count = np.minimum(index + reach, size - 1) - np.maximum(index - reach, 0) + 1
        return (sums[2 * reach + 1 :] - sums[:size]) / count[:, None, None].astype(np.float32)

    rows = along_first(planes.swapaxes(0, 1), radius[0])  # [H, L, W]
    columns = along_first(rows.swapaxes(0, 2), radius[1])  # [W, L, H]
    return columns.transpose(1, 2, 0)


def _add(total, row):
    return total + row, total + row


def _planes(array):
    return jnp.moveaxis(jnp.asarray(array, jnp.float32), -1, 0)


def _solve(matrix, right):
    """Solves symmetric positive definite equations, the same ones for every label, by elimination.

    Args:
      matrix: {(row, column): `[H, W]`}; it is used up.
      right: for each row `[L, H, W]`; it is used up.

    Returns:
      For each unknown `[L, H, W]`.
    """
    size = len(right)
    for i in range(size):
        for j in range(i + 1, size):
            factor = matrix[j, i] / matrix[i, i]
            for k in range(i, size):
                matrix[j, k] = matrix[j, k] - factor * matrix[i, k]
            right[j] = right[j] - factor * right[i]
    for i in reversed(range(size)):
        known = sum(matrix[i, k] * right[k] for k in range(i + 1, size))
        right[i] = (right[i] - known) / matrix[i, i]
    return right
