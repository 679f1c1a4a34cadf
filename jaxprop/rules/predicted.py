"""A rule that copies labels by attention to a window around a predicted place: MAST.

In context frames more than 15 frames away, a coarse search in steps of several cells predicts where
a target cell comes from. The label then comes by attention from the window around that place, which
may lie between cells.

Source: Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020, section 3.3,
and its released code.

Shapes: H, W feature cells, N = H * W, C channels, L labels, M context slots, P places in a window.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxprop import affinity
from jaxprop.memory import ContextFrames, vary_like
from jaxprop.rules.neighbors import (
    AGGREGATIONS,
    check_choice,
    check_temperature,
    combine_slots,
)
from jaxprop.rules.regions import check_radius
from jaxprop.rules.rule import Execution, Rule

SEARCH_GAP = 15  # Context frames more than so many frames away are searched coarsely,
_LARGEST_STEP = 4  # in steps of at most so many cells.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictedWindow(Rule):
    """Copies the labels of all cells of a window around a predicted place.

    In context frames at most 15 frames away the window is around the target cell itself.

    Attributes:
      radius: of the window: rows and columns less than this away, in cells.
      temperature: T in softmax(A / T).
      aggregation: 'overall': one softmax over the windows of all context frames; 'per_frame': one
        for each frame, the resulting labels averaged.
      outside: how places outside the frame count. 'nothing': they have no part in the softmax;
        'zero': they compete with affinity 0, as in the released code.
      label_offset: where labels are read. 'own': at the place predicted for each context frame;
        'latest': for all frames far away at the place predicted for the latest of them. The
        released code has this error, and published numbers contain it.

    Raises:
      ValueError: a value out of its range.
    """

    radius: float = 13.0
    temperature: float = 1.0
    aggregation: str = 'overall'
    outside: str = 'nothing'
    label_offset: str = 'own'

    def __post_init__(self):
        check_radius(self.radius)
        check_temperature(self.temperature)
        check_choice('aggregation', self.aggregation, AGGREGATIONS)
        check_choice('outside', self.outside, ('nothing', 'zero'))
        check_choice('label_offset', self.label_offset, ('own', 'latest'))

    def label(self, context: ContextFrames, features: jax.Array, execution: Execution) -> jax.Array:
        grid, slots = context.grid, jnp.arange(context.num_slots)
        queries = rearrange(features, 'h w c -> (h w) c')
        cells = jnp.asarray(np.indices(grid).reshape(2, -1).T)
        steps = search_steps(jnp.abs(context.time - context.numbers))
        dtype = affinity.at_least_float32(features, context.features)

        # Predict, for the frames far away, where each target cell comes from.
        def predict_slot(slot):
            def predict(query, index):
                def search():
                    return predict_offsets(
                        query, cells[index], context.features[slot], steps[slot], self
                    )

                def stay():
                    return vary_like(jnp.zeros((len(index), 2), dtype), query, context.features)

                return jax.lax.cond(steps[slot] > 0, search, stay)

            return affinity.map_queries(predict, queries, execution.query_chunk)

        offsets = jax.lax.map(predict_slot, slots)
        label_offsets = offsets
        if self.label_offset == 'latest':
            is_before = context.numbers < context.time
            searched = (steps > 0) & context.valid & is_before
            latest = jnp.argmax(jnp.where(searched, context.numbers, -1))
            label_offsets = jnp.where(searched[:, None, None], offsets[latest], offsets)

        # Attend to the windows around these places.
        def attend_slot(slot):
            def attend(query, index):
                return attend_predicted(
                    query,
                    cells[index],
                    context.features[slot],
                    context.labels[slot],
                    offsets[slot][index],
                    label_offsets[slot][index],
                    self,
                )

            return affinity.map_queries(attend, queries, execution.query_chunk)

        log_sums, copied = jax.lax.map(attend_slot, slots)
        label = combine_slots(log_sums, copied, context.valid, self.aggregation)
        return rearrange(label, '(h w) l -> h w l', h=grid[0])


def search_steps(gaps: jax.Array) -> jax.Array:
    """The step, in cells, with which context frames `gaps` frames away are searched.

    It is min(4, gap // 15 + 1) for gaps above 15, else 0: no search. Source: Lai et al., CVPR 2020,
    as released.
    """
    return jnp.where(gaps > SEARCH_GAP, jnp.minimum(_LARGEST_STEP, gaps // SEARCH_GAP + 1), 0)


def predict_offsets(
    queries: jax.Array,
    cells: jax.Array,
    frame: jax.Array,
    step: jax.Array,
    rule: PredictedWindow,
) -> jax.Array:
    """Predicts where cells come from: the mean offset under a softmax over a coarse window.

    o = q sum_d softmax_d(<g_j, f_{j + q d}> / T) d, with d in the square of `rule.radius`.

    Args:
      queries: features `[Q, C]` of target cells.
      cells: `[Q, 2]`, where these are.
      frame: features `[H, W, C]` of the context frame.
      step: q, in cells.
      rule: its radius, temperature and `outside` count.

    Returns:
      `[Q, 2]`, in cells and fractions of cells.

    Source: Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020,
    section 3.3.
    """
    offsets = _square(rule.radius)
    places = cells[:, None] + step * offsets
    logits = _affinities(queries, frame, places) / rule.temperature
    outside = ~_is_inside(places, frame)
    logits = jnp.where(outside, 0 if rule.outside == 'zero' else -jnp.inf, logits)
    return step * affinity.soft_copy(jax.nn.softmax(logits), jnp.asarray(offsets, jnp.float32))


def attend_predicted(
    queries: jax.Array,
    cells: jax.Array,
    frame: jax.Array,
    label: jax.Array,
    offset: jax.Array,
    label_offset: jax.Array,
    rule: PredictedWindow,
) -> tuple[jax.Array, jax.Array]:
    """Copies labels by attention to windows of a context frame, which may lie between its cells.

    Features and labels between cells are interpolated bilinearly.

    Args:
      queries: features `[Q, C]` of target cells.
      cells: `[Q, 2]`, where these are.
      frame: features `[H, W, C]` of the context frame.
      label: its labels `[H, W, L]`.
      offset: `[Q, 2]`, from each target cell to the middle of its window, in cells.
      label_offset: `[Q, 2]`, the same for the labels.
      rule: its radius, temperature and `outside` count.

    Returns:
      The logarithms of the softmax's denominators, `[Q]`, and the labels, `[Q, L]`.

    Source: Lai et al., CVPR 2020, section 3.3.
    """
    as_zeros = rule.outside == 'zero'
    offsets = _square(rule.radius)
    side = math.isqrt(len(offsets))
    corners, fraction = _corners(cells, offset, rule.radius)
    # Affinities at the places of the window. They are linear in the features, so affinities of
    # cells are interpolated in place of features.
    values = _affinities(queries, frame, corners)
    if as_zeros:
        values = jnp.where(_is_inside(corners, frame), values, 0)
    logits = _interpolate(values.reshape(-1, side + 1, side + 1), fraction) / rule.temperature
    logits = logits.reshape(len(queries), -1)
    if not as_zeros:
        nearest = jnp.round(cells[:, None] + offset[:, None] + offsets).astype(jnp.int32)
        logits = jnp.where(_is_inside(nearest, frame), logits, -jnp.inf)
    log_sums = jax.nn.logsumexp(logits, axis=-1)
    weights = jnp.exp(logits - log_sums[:, None])

    corners, fraction = _corners(cells, label_offset, rule.radius)
    # Copy the labels. The transpose of interpolation turns weights of places into weights of cells,
    # so that labels are read at cells alone.
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
    """The cells `[Q, P, 2]` around all places of a window, and the fractions between, `[Q, 2]`."""
    whole = jnp.floor(offset)
    reach = math.ceil(radius) - 1
    around = np.mgrid[-reach : reach + 2, -reach : reach + 2].reshape(2, -1).T
    return (cells + whole.astype(jnp.int32))[:, None] + around, offset - whole


def _interpolate(values, fraction):
    """Interpolates between neighbouring rows and columns: `[Q, h + 1, w + 1]` -> `[Q, h, w]`."""
    row, column = rearrange(fraction, 'q side -> side q 1 1')
    values = (1 - row) * values[:, :-1] + row * values[:, 1:]
    return (1 - column) * values[:, :, :-1] + column * values[:, :, 1:]


def _affinities(queries, frame, places):
    """Affinities `[Q, P]` of queries `[Q, C]` with the cells at `places [Q, P, 2]`."""
    return affinity.affinity(queries[:, None], _take(frame, places))[:, 0]


def _take(frame, places):
    """Reads a frame `[H, W, any]` at cells `[..., 2]`; outside it, at the nearest cell."""
    row, column = (jnp.clip(places[..., axis], 0, frame.shape[axis] - 1) for axis in (0, 1))
    return frame[row, column]


def _is_inside(places, frame):
    return jnp.all((places >= 0) & (places < np.array(frame.shape[:2])), axis=-1)
