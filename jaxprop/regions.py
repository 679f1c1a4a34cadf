"""Restrictions that follow the video: boxes of classes, and windows at predicted places.

Coordinates are (row, column). A box is (top, left, bottom, right), whole numbers of cells, half
open; a class without a box has an empty one of zeros. The background's box is the whole grid.

Shapes: H, W feature cells, N = H * W, C channels, L labels, M context slots, 8 H x 8 W pixels.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxprop import affinity, geometry

# Of UVC's boxes: pixels to a cell, the kernel's width, when a shift is over, and how many are made.
STRIDE = 8
_SIGMA = 4.0
_SMALLEST_MOVE = 0.1
_SHIFTS = 200

# Of MAST's windows: frames further away than this are searched, in steps of at most so many cells.
SEARCH_GAP = 15
_LARGEST_STEP = 4


def first_boxes(classes: jax.Array, num_labels: int) -> jax.Array:
    """The box of each class in the first frame: of all its pixels, 0.3 times larger on each side.

    Args:
      classes: `[8 H, 8 W]`, the number of each pixel's class; others than these are left out.
      num_labels: L.

    Returns:
      int32 boxes `[L, 4]`.

    Raises:
      ValueError: sides that are not multiples of 8.

    Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence",
    NeurIPS 2019, as released.
    """
    size = np.array(classes.shape)
    if classes.ndim != 2 or np.any(size % STRIDE):
        raise ValueError(
            f'classes are {list(classes.shape)}; they must be [{STRIDE} H, {STRIDE} W], '
            f'{STRIDE} pixels to a cell of the features'
        )
    low, high, present = [], [], None
    for axis in (0, 1):
        is_there = jnp.any(classes[..., None] == jnp.arange(num_labels), axis=1 - axis)
        present = jnp.any(is_there, axis=0)
        low.append(jnp.argmax(is_there, axis=0))
        high.append(size[axis] - 1 - jnp.argmax(is_there[::-1], axis=0))
    # The last pixel counts as the end, as released.
    boxes = jnp.stack(low + high, axis=-1).astype(jnp.int32)
    return _complete(_expand(boxes, 3, size) // STRIDE, present, size // STRIDE)


def next_boxes(classes: jax.Array, before: jax.Array, signed_stop: bool = False) -> jax.Array:
    """The box of each class in a frame that has been labelled, see `_box_around`.

    Its middle is found by mean shift within 20 pixels over the class's pixels, it is 0.3 times
    larger on each side, and its size is a tenth of this and nine tenths of the one before.

    Args:
      classes: `[8 H, 8 W]`, the number of each pixel's class.
      before: boxes `[L, 4]` of the frame before.
      signed_stop: see `PropagationConfig.as_released`.

    Returns:
      int32 boxes `[L, 4]`.

    Source: Li et al., NeurIPS 2019, as released.
    """
    bandwidth = 20
    size = np.array(classes.shape)
    side = np.minimum(2 * bandwidth + 1, size)
    rows, columns = (jnp.arange(length, dtype=jnp.float32) for length in size)

    def box(label):
        is_label = classes == label
        row_counts, column_counts = (jnp.sum(is_label, axis=axis) for axis in (1, 0))
        total = jnp.maximum(jnp.sum(row_counts), 1)
        mean = jnp.stack([jnp.sum(row_counts * rows), jnp.sum(column_counts * columns)]) / total
        distances = jnp.square(rows - mean[0])[:, None] + jnp.square(columns - mean[1])
        nearest = _nearest(distances.reshape(-1), is_label.reshape(-1))
        start = jnp.stack(jnp.divmod(nearest, size[1])).astype(jnp.float32)

        def neighbors(center):
            # All pixels that are near enough lie in this window.
            corner = jnp.clip(jnp.floor(center).astype(jnp.int32) - bandwidth, 0, size - side)
            points = corner + jnp.asarray(np.indices(side).reshape(2, -1).T)
            return points, jax.lax.dynamic_slice(is_label, corner, side).reshape(-1)

        center = _mean_shift(start, neighbors, bandwidth, signed_stop)
        spread = (
            jnp.stack(
                [
                    jnp.sum(row_counts * jnp.abs(rows - center[0])),
                    jnp.sum(column_counts * jnp.abs(columns - center[1])),
                ]
            )
            / total
        )
        return _box_around(center, spread, size), jnp.any(is_label)

    boxes, present = jax.vmap(box)(jnp.arange(len(before)))
    boxes = _expand(boxes, 3, size) // STRIDE
    return _complete(_smooth(boxes, before, size // STRIDE), present, size // STRIDE)


def target_boxes(
    coordinates: jax.Array,
    label: jax.Array,
    before: jax.Array,
    size: tuple[int, int],
    signed_stop: bool = False,
) -> jax.Array:
    """The box of each class in a frame that has not been labelled yet, from the frame before.

    Its middle is found by mean shift within 5 cells over the places to which the class's cells go,
    see `_box_around`, it is half its size larger on each side, and its size is a tenth of this and
    nine tenths of the one before. Classes of less than 2 cells, or without a box, have none.

    Args:
      coordinates: `[N, 2]`, where each cell of the frame before goes to.
      label: one-hot `[N, L]` of the frame before.
      before: boxes `[L, 4]` of the frame before.
      size: (H, W).
      signed_stop: see `PropagationConfig.as_released`.

    Returns:
      int32 boxes `[L, 4]`.

    Source: Li et al., NeurIPS 2019, as released.
    """
    size = np.array(size)

    def box(is_label):
        total = jnp.maximum(jnp.sum(is_label), 1)
        mean = jnp.sum(jnp.where(is_label[:, None], coordinates, 0), axis=0) / total
        distances = jnp.sum(jnp.square(coordinates - mean), axis=-1)
        start = coordinates[_nearest(distances, is_label)]
        center = _mean_shift(start, lambda _: (coordinates, is_label), 5, signed_stop)
        deviations = jnp.where(is_label[:, None], jnp.abs(coordinates - center), 0)
        return _box_around(center, jnp.sum(deviations, axis=0) / total, size), total >= 2

    boxes, present = jax.vmap(box)(label.T > 0)
    present &= ~_is_empty(before)
    return _complete(_smooth(_expand(boxes, 5, size), before, size), present, size)


def is_lost(labels: jax.Array, sources: jax.Array, target: jax.Array) -> jax.Array:
    """Whether boxes are of no use for a context frame: some class of the video has vanished.

    Its labels sum to less than 3, or its box there or in the target frame has a side below 3 cells.

    Args:
      labels: `[M, N, L]`; classes that the first of these frames, the video's first, does not have
        do not matter.
      sources: boxes `[M, L, 4]` of the context frames.
      target: boxes `[L, 4]`.

    Returns:
      `[M]` boolean.
    """

    def is_small(boxes):
        return jnp.any(boxes[..., 2:] - boxes[..., :2] < 3, axis=-1)

    mass = jnp.sum(labels, axis=1)
    vanished = (mass < 3) | is_small(sources) | is_small(target)
    return jnp.any(vanished & (mass[0] > 0), axis=-1)


def inside(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Which cells of a grid lie in boxes `[..., 4]`: `[..., N]` boolean."""
    cells = np.indices(size).reshape(2, -1).T
    boxes = boxes[..., None, :]
    return jnp.all((boxes[..., :2] <= cells) & (cells < boxes[..., 2:]), axis=-1)


def corner_cells(size: tuple[int, int]) -> np.ndarray:
    """Coordinates `[N, 2]` of cells whose first and last are at the grid's edges: i H / (H - 1)."""
    scale = [side / max(side - 1, 1) for side in size]
    return (np.indices(size).reshape(2, -1).T * scale).astype(np.float32)


def center_cells(size: tuple[int, int]) -> np.ndarray:
    """Coordinates `[N, 2]` of cells' centres: i + 1/2."""
    return geometry.cell_centers(*size).reshape(-1, 2)


def _nearest(squared, counts):
    """The number of the nearest of the points that count; the first one of those equally near.

    Of two points both are always equally near to their mean: rounding must not choose.
    """
    squared = jnp.where(counts, squared, jnp.inf)
    return jnp.argmax(squared <= jnp.min(squared) + 1e-3)


def _mean_shift(start, neighbors, bandwidth, signed_stop):
    """A place of high density: from `start` on, again and again, the weighted mean of neighbours.

    Weights are exp(-d^2 / (2 4^2)) for distances d up to the bandwidth. It ends with a move of
    less than 0.1; the steps after that are masked, so that their number is fixed.

    Args:
      start: `[2]`.
      neighbors: a function of a place that gives points `[P, 2]`, and which of them count, `[P]`;
        all within the bandwidth among them.
    """

    def move(_, state):
        center, is_over = state
        points, counts = neighbors(center)
        squared = jnp.sum(jnp.square(points - center), axis=-1)
        weights = jnp.where(
            counts & (squared <= bandwidth**2), jnp.exp(-squared / (2 * _SIGMA**2)), 0
        )
        total = jnp.sum(weights)
        moved = jnp.sum(weights[:, None] * points, axis=0) / jnp.where(total > 0, total, 1)
        step = moved - center
        length = jnp.sum(step if signed_stop else jnp.abs(step))
        return jnp.where(is_over, center, moved), is_over | (length < _SMALLEST_MOVE)

    center, _ = jax.lax.fori_loop(0, _SHIFTS, move, (start, jnp.asarray(False)))
    return center


def _box_around(center, spread, size):
    """The box that reaches twice the mean distance from its middle each way, cut to the grid."""
    low, high = jnp.maximum(center - 2 * spread, 0), jnp.minimum(center + 2 * spread, size)
    return jnp.concatenate([low, high]).astype(jnp.int32)


def _expand(boxes, tenths, size):
    """Boxes larger by tenths of their size on each side, cut to the grid; in whole numbers."""
    low, high = boxes[..., :2], boxes[..., 2:]
    margin = tenths * (high - low)
    low, high = (10 * low - margin) // 10, (10 * high + margin) // 10
    return jnp.concatenate([jnp.maximum(low, 0), jnp.minimum(high, size)], axis=-1)


def _smooth(boxes, before, size):
    """Boxes around their middles with a tenth of their sizes and nine tenths of those before.

    In whole numbers: a size that stays the same must not grow by rounding. Where there was no box
    before it stays as it is.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    total, ten_sides = low + high, high - low + 9 * (before[..., 2:] - before[..., :2])
    low, high = (10 * total - ten_sides) // 20, -((-10 * total - ten_sides) // 20)
    smoothed = jnp.concatenate([jnp.maximum(low, 0), jnp.minimum(high, size)], axis=-1)
    return jnp.where(_is_empty(before)[..., None], boxes, smoothed)


def _complete(boxes, present, size):
    """Boxes of zeros for classes that are not present, the whole grid for the background."""
    boxes = jnp.where(present[:, None], boxes, 0)
    return boxes.at[0].set(jnp.array([0, 0, *size], boxes.dtype)).astype(jnp.int32)


def _is_empty(boxes):
    return jnp.all(boxes == 0, axis=-1)


def search_steps(gaps: jax.Array) -> jax.Array:
    """How coarsely a context frame so many frames away is searched, in cells; 0: not at all.

    min(4, gap // 15 + 1) for gaps above 15. Source: Lai et al., CVPR 2020, as released.
    """
    return jnp.where(gaps > SEARCH_GAP, jnp.minimum(_LARGEST_STEP, gaps // SEARCH_GAP + 1), 0)


def predict_offsets(
    queries: jax.Array, cells: jax.Array, frame: jax.Array, step: jax.Array, config
) -> jax.Array:
    """Where cells come from, roughly: the mean offset under a softmax over a coarse window.

    o = q sum_d softmax_d(<g_j, f_{j + q d}> / T) d, d in the square of `config.radius`.

    Args:
      queries: features `[Q, C]` of target cells.
      cells: `[Q, 2]`, where these are.
      frame: features `[H, W, C]` of the context frame.
      step: q, in cells.
      config: the factors.

    Returns:
      `[Q, 2]`, in cells, fractions too.

    Source: Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020,
    section 3.3.
    """
    offsets = _square(config.radius)
    places = cells[:, None] + step * offsets
    logits = _affinities(queries, frame, places) / config.temperature
    outside = ~_is_inside(places, frame)
    logits = jnp.where(outside, 0 if 'zero_outside' in config.as_released else -jnp.inf, logits)
    return step * affinity.soft_copy(jax.nn.softmax(logits), offsets.astype(np.float32))


def attend_predicted(
    queries: jax.Array,
    cells: jax.Array,
    frame: jax.Array,
    label: jax.Array,
    offset: jax.Array,
    label_offset: jax.Array,
    config,
) -> tuple[jax.Array, jax.Array]:
    """Attention of target cells to windows of a context frame around places between its cells.

    Features and labels there are interpolated bilinearly. Outside the frame there is nothing.

    Args:
      queries: features `[Q, C]` of target cells.
      cells: `[Q, 2]`, where these are.
      frame: features `[H, W, C]` of the context frame.
      label: its labels `[H, W, L]`.
      offset: `[Q, 2]`, from each target cell to the middle of its window, in cells.
      label_offset: `[Q, 2]`, the same for the labels.
      config: the factors.

    Returns:
      The logarithms of the softmax's denominators, `[Q]`, and the labels, `[Q, L]`.

    Source: Lai et al., CVPR 2020, section 3.3.
    """
    as_zeros = 'zero_outside' in config.as_released
    offsets = _square(config.radius)
    side = math.isqrt(len(offsets))
    corners, fraction = _corners(cells, offset, config.radius)
    # Affinities are linear in features: interpolated they are those of interpolated features.
    values = _affinities(queries, frame, corners)
    if as_zeros:
        values = jnp.where(_is_inside(corners, frame), values, 0)
    logits = _interpolate(values.reshape(-1, side + 1, side + 1), fraction) / config.temperature
    logits = logits.reshape(len(queries), -1)
    if not as_zeros:
        nearest = jnp.round(cells[:, None] + offset[:, None] + offsets).astype(jnp.int32)
        logits = jnp.where(_is_inside(nearest, frame), logits, -jnp.inf)
    log_sums = jax.nn.logsumexp(logits, axis=-1)
    weights = jnp.exp(logits - log_sums[:, None])

    corners, fraction = _corners(cells, label_offset, config.radius)
    # The transpose of interpolation: what each cell gives to the places around it.
    weights = jax.linear_transpose(
        lambda x: _interpolate(x, fraction), values.reshape(-1, side + 1, side + 1)
    )(weights.reshape(-1, side, side))[0].reshape(len(queries), -1)
    if as_zeros:
        weights = jnp.where(_is_inside(corners, frame), weights, 0)
    copied = _take(label, corners)
    return log_sums, affinity.soft_copy(weights[:, None], copied)[:, 0]


def _square(radius):
    """Offsets `[P, 2]` with both sides below the radius."""
    reach = math.ceil(radius) - 1
    return np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T


def _corners(cells, offset, radius):
    """The cells `[Q, P, 2]` around all places of a window, and where between them, `[Q, 2]`."""
    whole = jnp.floor(offset)
    reach = math.ceil(radius) - 1
    around = np.mgrid[-reach : reach + 2, -reach : reach + 2].reshape(2, -1).T
    return (cells + whole.astype(jnp.int32))[:, None] + around, offset - whole


def _interpolate(values, fraction):
    """Between neighbouring rows and columns: `[Q, h + 1, w + 1]` -> `[Q, h, w]`."""
    row, column = rearrange(fraction, 'q side -> side q 1 1')
    values = (1 - row) * values[:, :-1] + row * values[:, 1:]
    return (1 - column) * values[:, :, :-1] + column * values[:, :, 1:]


def _affinities(queries, frame, places):
    """`[Q, P]`: <g, f> of queries `[Q, C]` with the cells at `[Q, P, 2]`."""
    return affinity.affinity(queries[:, None], _take(frame, places))[:, 0]


def _take(frame, places):
    """What a frame `[H, W, any]` has at cells `[..., 2]`; of those outside it, the nearest one."""
    row, column = (jnp.clip(places[..., axis], 0, frame.shape[axis] - 1) for axis in (0, 1))
    return frame[row, column]


def _is_inside(places, frame):
    return jnp.all((places >= 0) & (places < np.array(frame.shape[:2])), axis=-1)
