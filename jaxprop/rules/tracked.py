"""A rule that copies labels within boxes, which follow each class through the video: UVC.

Each class has a box in each frame. A class is copied only from the cells of its box in a context
frame, and only to the cells of its box in the target frame. That box is predicted from the frame
before. When the target frame has its label, its boxes are found anew in its label map.

Coordinates are (row, column). A box is (top, left, bottom, right) in whole cells, without the
bottom row and the right column. A class without a box has a box of zeros. The background's box is
the whole grid.

Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence", NeurIPS 2019,
as released.

Shapes: H, W feature cells, N = H * W, C channels, L labels, M context slots, 8 H x 8 W pixels.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxprop import affinity, geometry, labels
from jaxprop.memory import ContextFrames, Memory, vary_like
from jaxprop.rules.neighbors import check_choice, check_k, check_temperature
from jaxprop.rules.rule import Execution, Rule

STRIDE = 8  # Pixels to a cell.
_SIGMA = 4.0  # The width of mean shift's kernel, in pixels or cells.
_SMALLEST_MOVE = 0.1  # Mean shift ends with a move smaller than this.
_SHIFTS = 200  # Mean shift makes at most so many moves.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackedBoxes(Rule):
    """Copies each class from its box in each context frame into its box in the target frame.

    k cells are selected in each context frame, and the labels of the frames are averaged. A context
    frame in which a class is lost is searched without boxes, see `is_lost`; frame 0 always has its
    boxes. The memory must keep frame 0.

    The released code has four errors, which published numbers contain. `stop`, `cells`, `limit` and
    `lost` each choose between the error and a corrected version.

    Attributes:
      k: how many neighbours a target cell has in a context frame.
      temperature: T in softmax(A / T).
      softmax: which cells the softmax's denominator sums, see `jaxprop.TopK`; 'region' is the box.
      stop: when mean shift ends. 'absolute': when the absolute components of a move have a small
        sum; 'signed' (the error): when the components have a small sum, as they have with any move
        up or to the left.
      cells: where cell i of n lies. 'center': at i + 1/2; 'corner' (the error): at i n / (n - 1).
      limit: where boxes of a labelled frame end. 'grid': at the grid's edges; 'pixels' (the error):
        at as many cells as the frame has pixels, so that boxes stick out at the bottom and at the
        right, and are remembered too large.
      lost: whether a class without a pixel in a labelled frame can come back. 'sought': it gets a
        box again when it has pixels again; 'gone' (the error): it never does.

    Raises:
      ValueError: a value out of its range.
    """

    k: int = 5
    temperature: float = 1.0
    softmax: str = 'frame'
    stop: str = 'absolute'
    cells: str = 'center'
    limit: str = 'grid'
    lost: str = 'sought'

    def __post_init__(self):
        check_k(self.k)
        check_temperature(self.temperature)
        check_choice('softmax', self.softmax, affinity.SOFTMAX_OVER)
        check_choice('stop', self.stop, _MOVE_LENGTH)
        check_choice('cells', self.cells, _CELL_COORDINATES)
        check_choice('limit', self.limit, ('grid', 'pixels'))
        check_choice('lost', self.lost, ('sought', 'gone'))

    def check(self, memory: Memory) -> None:
        if not memory.keep_first or memory.num_frames < 1:
            raise ValueError(
                'TrackedBoxes needs a memory with keep_first=True and num_frames (num_context) of '
                f'at least 1; this is {memory}'
            )

    def check_grid(self, grid: tuple[int, int], memory: Memory, execution: Execution) -> None:
        super().check_grid(grid, memory, execution)
        if self.k > grid[0] * grid[1]:
            raise ValueError(
                f'k (num_neighbors) is {self.k}, but a frame has {grid[0] * grid[1]} cells; use '
                'fewer'
            )

    def init(self, features: jax.Array, label: jax.Array) -> jax.Array:
        return first_boxes(_pixel_classes(label), label.shape[-1])

    def init_from_ids(
        self, ids: np.ndarray, values: np.ndarray, grid: tuple[int, int], num_labels: int
    ) -> jax.Array:
        # Resize the ids to the size of a network's input that has such a grid, by nearest pixels.
        rows, columns = (
            labels.resize_matrix(side, STRIDE * cells, 'nearest').argmax(axis=1)
            for side, cells in zip(ids.shape, grid)
        )
        ids = np.asarray(ids)[rows][:, columns]
        classes = np.where(np.isin(ids, values), np.searchsorted(values, ids), 0)
        return first_boxes(jnp.asarray(classes), num_labels)

    def entry(self, context: ContextFrames, features: jax.Array, label: jax.Array) -> jax.Array:
        before = context.entries[_latest(context)]
        return next_boxes(_pixel_classes(label), before, self.stop, self.limit, self.lost)

    def label(self, context: ContextFrames, features: jax.Array, execution: Execution) -> jax.Array:
        grid, boxes = context.grid, context.entries
        queries = rearrange(features, 'h w c -> (h w) c')
        frames = rearrange(context.features, 'm h w c -> m (h w) c')
        soft = rearrange(context.labels, 'm h w l -> m (h w) l')

        # Find where each cell of the frame before goes to in the target frame.
        before = _latest(context)
        coordinates = jnp.asarray(_CELL_COORDINATES[self.cells](grid))

        def follow(cell, _):
            weights = jax.nn.softmax(affinity.affinity(cell, queries) / self.temperature)
            return affinity.expected_coordinates(weights, coordinates)

        goes_to = affinity.map_queries(follow, frames[before], execution.query_chunk)
        # Predict the boxes of the target frame from these places.
        target = target_boxes(goes_to, labels.harden(soft[before]), boxes[before], grid, self.stop)
        # Search context frames without boxes where a class was lost, but never frame 0.
        is_free = is_lost(soft, boxes, target).at[0].set(False)

        def copy_slot(slot):
            frame = frames[slot]
            sources = inside(boxes[slot], grid) | is_free[slot]
            has_source = jnp.any(sources, axis=-1, keepdims=True)
            targets = (inside(target, grid) | is_free[slot]) & has_source
            # A class without a source cell is copied to no target. Its sources are still set to all
            # cells: a softmax over nothing would be NaN, in gradients too.
            sources |= ~has_source

            def copy(query, index):
                logits = affinity.affinity(query, frame) / self.temperature

                def copy_class(source_target_label):
                    source, is_target, label = source_target_label
                    allowed = jnp.where(source, logits, -jnp.inf)
                    found = affinity.select_neighbors(logits, allowed, self.k, self.softmax)
                    weights = affinity.neighbor_weights(found)
                    copied = jnp.sum(weights * label[found.cells], axis=-1)
                    return jnp.where(is_target[index], copied, 0)

                return jax.lax.map(copy_class, (sources, targets, soft[slot].T)).T

            return affinity.map_queries(copy, queries, execution.query_chunk)

        # Copy each class from its box in each context frame into its box in the target frame, and
        # average over the valid frames.
        copied = jax.lax.map(copy_slot, jnp.arange(context.num_slots))
        shares = context.valid / jnp.sum(context.valid)
        label = jnp.einsum('m,mnl->nl', shares, copied)
        return rearrange(label, '(h w) l -> h w l', h=grid[0])


def _latest(context):
    """The slot of the frame before the target frame."""
    return context.num_kept + jnp.argmax(context.numbers[context.num_kept :])


def _pixel_classes(label):
    """Decides the class of each pixel, `[8 H, 8 W]`, of a soft label `[H, W, L]`, as UVC does."""
    height, width, num_labels = label.shape
    # Upsampling rounds, so a constant class would vary a little, see `labels.decode`.
    label = jnp.where(jnp.ptp(label, axis=(0, 1)) == 0, 0, label)
    size = height * STRIDE, width * STRIDE, num_labels
    label = jax.image.resize(label, size, 'linear')
    return jnp.argmax(labels.min_max_normalize(label), axis=-1)


def first_boxes(classes: jax.Array, num_labels: int) -> jax.Array:
    """Finds the box of each class in the first frame.

    It is the smallest box around all pixels of the class, enlarged by 0.3 of its size on each side.

    Args:
      classes: `[8 H, 8 W]`, the number of each pixel's class. Pixels of a class that is not from 0
        to L - 1 are left out.
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
    # Find the first and the last row and column of each class.
    low, high, present = [], [], None
    for axis in (0, 1):
        is_there = jnp.any(classes[..., None] == jnp.arange(num_labels), axis=1 - axis)
        present = jnp.any(is_there, axis=0)
        low.append(jnp.argmax(is_there, axis=0))
        high.append(size[axis] - 1 - jnp.argmax(is_there[::-1], axis=0))
    # As in the released code, the last pixel itself is taken as the end of the box.
    boxes = jnp.stack(low + high, axis=-1).astype(jnp.int32)
    return _complete(_expand(boxes, 3, size) // STRIDE, present, size // STRIDE)


def next_boxes(
    classes: jax.Array,
    before: jax.Array,
    stop: str = 'absolute',
    limit: str = 'grid',
    lost: str = 'sought',
) -> jax.Array:
    """Finds the box of each class in a frame that has been labelled.

    Mean shift within 20 pixels over the class's pixels finds the middle of the box. The box reaches
    twice the pixels' mean distance from there to each side, and is enlarged by 0.3 of its size on
    each side. Its final size is a tenth of this and nine tenths of the one in the frame before.

    Args:
      classes: `[8 H, 8 W]`, the number of each pixel's class.
      before: boxes `[L, 4]` of the frame before.
      stop, limit, lost: see `TrackedBoxes`.

    Returns:
      int32 boxes `[L, 4]`.

    Source: Li et al., NeurIPS 2019, as released.
    """
    bandwidth = 20
    size = np.array(classes.shape)
    side = tuple(min(2 * bandwidth + 1, length) for length in classes.shape)
    rows, columns = (jnp.arange(length, dtype=jnp.float32) for length in size)

    def box(label):
        # Start at the pixel of the class that is nearest to their mean.
        is_label = classes == label
        row_counts, column_counts = (jnp.sum(is_label, axis=axis) for axis in (1, 0))
        total = jnp.maximum(jnp.sum(row_counts), 1)
        mean = jnp.stack([jnp.sum(row_counts * rows), jnp.sum(column_counts * columns)]) / total
        distances = jnp.square(rows - mean[0])[:, None] + jnp.square(columns - mean[1])
        nearest = _nearest(distances.reshape(-1), is_label.reshape(-1))
        start = jnp.stack(jnp.divmod(nearest, size[1])).astype(jnp.float32)

        # Shift from there to where the pixels are dense.
        def neighbors(center):
            # All pixels within the bandwidth lie in this window.
            corner = jnp.clip(
                jnp.floor(center).astype(jnp.int32) - bandwidth, 0, size - np.array(side)
            )
            points = corner + jnp.asarray(np.indices(side).reshape(2, -1).T)
            return points, jax.lax.dynamic_slice(is_label, corner, side).reshape(-1)

        center = _mean_shift(start, neighbors, bandwidth, stop)
        # Measure the mean distance of the pixels from there, and make the box.
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

    # Bring the boxes of all classes from pixels to cells, and smooth their sizes over time.
    boxes, present = jax.vmap(box)(jnp.arange(len(before)))
    boxes, grid = _expand(boxes, 3, size) // STRIDE, size // STRIDE
    if lost == 'gone':
        present &= ~_is_empty(before)
    return _complete(_smooth(boxes, before, size if limit == 'pixels' else grid), present, grid)


def target_boxes(
    coordinates: jax.Array,
    label: jax.Array,
    before: jax.Array,
    size: tuple[int, int],
    stop: str = 'absolute',
) -> jax.Array:
    """Predicts the box of each class in a frame that has not been labelled yet.

    Mean shift within 5 cells over the places to which the class's cells go finds the middle of the
    box. The box reaches twice these places' mean distance from there to each side, and is enlarged
    by half of its size on each side. Its final size is a tenth of this and nine tenths of the one
    in the frame before. A class of less than 2 cells, or without a box before, gets no box.

    Args:
      coordinates: `[N, 2]`, where each cell of the frame before goes to.
      label: one-hot `[N, L]` of the frame before.
      before: boxes `[L, 4]` of the frame before.
      size: (H, W).
      stop: see `TrackedBoxes`.

    Returns:
      int32 boxes `[L, 4]`.

    Source: Li et al., NeurIPS 2019, as released.
    """
    grid = np.array(size)

    def box(is_label):
        total = jnp.maximum(jnp.sum(is_label), 1)
        mean = jnp.sum(jnp.where(is_label[:, None], coordinates, 0), axis=0) / total
        distances = jnp.sum(jnp.square(coordinates - mean), axis=-1)
        start = coordinates[_nearest(distances, is_label)]
        center = _mean_shift(start, lambda _: (coordinates, is_label), 5, stop)
        deviations = jnp.where(is_label[:, None], jnp.abs(coordinates - center), 0)
        return _box_around(center, jnp.sum(deviations, axis=0) / total, grid), total >= 2

    boxes, present = jax.vmap(box)(label.T > 0)
    present &= ~_is_empty(before)
    return _complete(_smooth(_expand(boxes, 5, grid), before, grid), present, grid)


def is_lost(labels: jax.Array, sources: jax.Array, target: jax.Array) -> jax.Array:
    """Marks the context frames in which a class was lost, so that boxes are of no use.

    A class is lost where its soft labels sum to less than 3, or where its box in the context frame
    or in the target frame has a side below 3 cells. So a class that is too small for any
    cell of frame 0, and has only a box there, is lost in every frame. Classes absent from frame 0
    are ignored. As in the released code, such small classes are also ignored if they come after the
    last class that has a cell.

    Args:
      labels: `[M, N, L]`; `labels[0]` must be frame 0's.
      sources: boxes `[M, L, 4]` of the context frames, of frame 0 first.
      target: boxes `[L, 4]`.

    Returns:
      `[M]` boolean.
    """

    def is_small(boxes):
        return jnp.any(boxes[..., 2:] - boxes[..., :2] < 3, axis=-1)

    mass = jnp.sum(labels, axis=1)
    vanished = (mass < 3) | is_small(sources) | is_small(target)
    has_cell = mass[0] > 0
    # A class counts if it, or one after it, has a cell of frame 0.
    is_counted = jnp.flip(jax.lax.cummax(jnp.flip(has_cell.astype(jnp.int32)))) > 0
    exists = is_counted & (has_cell | ~_is_empty(sources[0]))
    return jnp.any(vanished & exists, axis=-1)


def inside(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Marks the cells of a grid of `size` (H, W) that lie in boxes `[..., 4]`: `[..., N]`."""
    cells = np.indices(size).reshape(2, -1).T
    boxes = boxes[..., None, :]
    return jnp.all((boxes[..., :2] <= cells) & (cells < boxes[..., 2:]), axis=-1)


def corner_cells(size: tuple[int, int]) -> np.ndarray:
    """Places of cells `[N, 2]`, the first and the last at the grid's edges: i H / (H - 1)."""
    scale = [side / max(side - 1, 1) for side in size]
    return (np.indices(size).reshape(2, -1).T * scale).astype(np.float32)


def center_cells(size: tuple[int, int]) -> np.ndarray:
    """Places of cells `[N, 2]` at their centres: i + 1/2."""
    return geometry.cell_centers(*size).reshape(-1, 2)


# The length of a move of mean shift, for each `stop`.
_MOVE_LENGTH = {'absolute': lambda step: jnp.sum(jnp.abs(step)), 'signed': jnp.sum}
_CELL_COORDINATES = {'center': center_cells, 'corner': corner_cells}


def _nearest(squared, counts):
    """The number of the nearest point among those that count, the first one of equally near ones.

    Two points are always equally far from their mean. The tolerance makes the first one win, so
    that rounding does not decide.
    """
    squared = jnp.where(counts, squared, jnp.inf)
    return jnp.argmax(squared <= jnp.min(squared) + 1e-3)


def _mean_shift(start, neighbors, bandwidth, stop):
    """Moves from `start` to the weighted mean of the points around, again and again.

    So it finds a place of high density. Weights are exp(-d^2 / (2 4^2)) for distances d up to the
    bandwidth. The search ends with a move of less than 0.1. The steps after that are computed and
    masked, so that the number of steps is fixed.

    Args:
      start: `[2]`.
      neighbors: a function of a place that returns points `[P, 2]`, all those within the bandwidth
        among them, and a mask `[P]` of the points that count.
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
        length = _MOVE_LENGTH[stop](step)
        return jnp.where(is_over, center, moved), is_over | (length < _SMALLEST_MOVE)

    points, counts = neighbors(start)
    is_over = vary_like(jnp.asarray(False), start, points, counts)
    start = vary_like(start, points, counts)
    center, _ = jax.lax.fori_loop(0, _SHIFTS, move, (start, is_over))
    return center


def _box_around(center, spread, size):
    """Makes the box that reaches twice `spread` from its middle each way, cut to the grid."""
    low, high = jnp.maximum(center - 2 * spread, 0), jnp.minimum(center + 2 * spread, size)
    return jnp.concatenate([low, high]).astype(jnp.int32)


def _expand(boxes, tenths, size):
    """Enlarges boxes by `tenths` of their size on each side, in whole numbers, cut to the grid."""
    low, high = boxes[..., :2], boxes[..., 2:]
    margin = tenths * (high - low)
    low, high = (10 * low - margin) // 10, (10 * high + margin) // 10
    return jnp.concatenate([jnp.maximum(low, 0), jnp.minimum(high, size)], axis=-1)


def _smooth(boxes, before, size):
    """Changes the sizes of boxes to a tenth of their own and nine tenths of those before.

    Middles stay. The arithmetic is in whole numbers, so that a size that stays the same does not
    grow by rounding. A box stays as it is where there was none before.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    total, ten_sides = low + high, high - low + 9 * (before[..., 2:] - before[..., :2])
    low, high = (10 * total - ten_sides) // 20, -((-10 * total - ten_sides) // 20)
    smoothed = jnp.concatenate([jnp.maximum(low, 0), jnp.minimum(high, size)], axis=-1)
    return jnp.where(_is_empty(before)[..., None], boxes, smoothed)


def _complete(boxes, present, size):
    """Gives classes that are not present a box of zeros, and the background the whole grid."""
    boxes = jnp.where(present[:, None], boxes, 0)
    return boxes.at[0].set(jnp.array([0, 0, *size], boxes.dtype)).astype(jnp.int32)


def _is_empty(boxes):
    return jnp.all(boxes == 0, axis=-1)
