"""Confidence in propagated labels, cell by cell, without knowing the truth.

Shapes: H, W feature cells, C channels, L labels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from jaxprop import affinity


def certainty(label: jax.Array) -> jax.Array:
    """Measures how far a soft label is from a tie: 1 - H(y) / log L, H(y) = -sum_l y_l log y_l.

    1 where one label has everything, 0 where all have the same share. Labels are first divided by
    their sum over l; where that is 0 the certainty is 0.

    Args:
      label: `[..., L]`, at least two labels, none negative.

    Returns:
      float32 `[...]`, from 0 to 1.

    Raises:
      ValueError: there are fewer than two labels.
    """
    if label.shape[-1] < 2:
        raise ValueError(f'label is {list(label.shape)}; certainty needs [..., L] with L of 2 on')
    total = jnp.sum(label, axis=-1, keepdims=True)
    share = jnp.where(total > 0, label / jnp.where(total > 0, total, 1), 1 / label.shape[-1])
    # xlogy would do, but for its gradient at 0.
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0), -1)
    return jnp.clip(1 - entropy / jnp.log(label.shape[-1]), 0, 1)


def best_matches(
    features: jax.Array, reference: jax.Array, chunk: int = 1024
) -> tuple[jax.Array, jax.Array]:
    """Finds each cell's best match in another frame, for the cells of both frames.

    Cell q's match is m(q) = argmax_p <g_q, f_p>, and that of a cell p of the other frame is
    b(p) = argmax_q <g_q, f_p>. Of equally good matches the first in reading order counts.

    Args:
      features: g, `[H, W, C]` of the frame.
      reference: f, `[H, W, C]` of the other frame, both normalised where affinities are cosines.
      chunk: cells of the frame that are compared at once, which bounds memory.

    Returns:
      m and b, int32 `[N]` each, N = H W: numbers of cells in reading order.

    Raises:
      ValueError: the two differ in shape.
    """
    _check_frames(features, reference)
    num_cells = features.shape[0] * features.shape[1]
    queries, others = (rearrange(x, 'h w c -> (h w) c') for x in (features, reference))
    chunk = min(chunk, num_cells)
    num_chunks = -(-num_cells // chunk)
    # The last chunk begins earlier, so that all have one size. Cells seen twice do no harm.
    starts = jnp.minimum(jnp.arange(num_chunks) * chunk, num_cells - chunk)

    def compare(best, start):
        # The match of each cell of the chunk, and the best cell so far of each other cell.
        part = jax.lax.dynamic_slice_in_dim(queries, start, chunk)
        values = affinity.affinity(part, others)
        largest, cells = jnp.max(values, axis=0), start + jnp.argmax(values, axis=0)
        is_better = largest > best[0]
        best = tuple(jnp.where(is_better, new, old) for new, old in zip((largest, cells), best))
        return best, jnp.argmax(values, axis=1)

    nothing = jnp.full_like(others[:, 0], -jnp.inf, dtype=affinity.at_least_float32(others))
    (_, back), matches = jax.lax.scan(compare, (nothing, jnp.zeros(num_cells, int)), starts)
    match = jnp.zeros(num_cells, int).at[starts[:, None] + jnp.arange(chunk)].set(matches)
    return match, back


def round_trip(features: jax.Array, reference: jax.Array, chunk: int = 1024) -> jax.Array:
    """Measures how far a cell's best match in another frame, matched back, lies from the cell.

    The distance |q - b(m(q))|, with the matches m and b of `best_matches`, is 0 where the two
    frames agree, and large where q is hidden in the other frame or looks like many cells of it.

    Args:
      features, reference, chunk: as for `best_matches`.

    Returns:
      float32 `[H, W]`, in cells.

    Raises:
      ValueError: the two differ in shape.
    """
    match, back = best_matches(features, reference, chunk)
    return _distances(back[match], features.shape[:2])


def _distances(cells, grid):
    """How far each cell of a grid lies from the cell numbered `cells[q]`, `[H, W]`."""
    place, other = (
        jnp.stack(jnp.divmod(numbers, grid[1]), -1) for numbers in (jnp.arange(len(cells)), cells)
    )
    return jnp.linalg.norm((place - other).astype(jnp.float32), axis=-1).reshape(grid)


class Confidence(NamedTuple):
    """How much a propagated label can be trusted, from 0 to 1.

    Attributes:
      cells: of each cell, `[H, W]`.
      objects: of each label, `[L]`; 0 where no cell of the frame or of the reference has it.
    """

    cells: jax.Array
    objects: jax.Array


def of_frame(
    label: jax.Array,
    features: jax.Array,
    reference_label: jax.Array,
    reference: jax.Array,
    scale: float = 0.13,
) -> Confidence:
    """Judges a propagated label by itself, and by a frame whose label was given.

    A cell q with soft label y_q has the match m(q) in the given frame, with label x and matches b
    back, see `best_matches`. Its confidence is the product of three numbers from 0 to 1:

        certainty(y_q),    exp(-|q - b(m(q))| / s),    agreement sum_l y_ql x_{m(q) l}.

    That of a label l is the geometric mean of four: the means of certainty and of the round trip
    over the label's cells (`of_objects`), and the shares of the label that are matched to the same
    label, of the frame's cells and of the given frame's:

        sum_q y_ql x_{m(q) l} / sum_q y_ql,    sum_p x_pl y_{b(p) l} / sum_p x_pl.

    Args:
      label: y, `[H, W, L]`, at least two labels.
      features: `[H, W, C]` of the frame.
      reference_label: x, `[H, W, L]`, of the given frame.
      reference: `[H, W, C]`, features of the given frame. Both are normalised where affinities are
        cosines.
      scale: s, as a share of the grid's shorter side.

    Raises:
      ValueError: shapes that do not fit.
    """
    grid = label.shape[:2]
    match, back = best_matches(features, reference)
    sure = certainty(label)
    stays = jnp.exp(-_distances(back[match], grid) / (scale * min(grid)))
    labels = jnp.asarray(label), jnp.asarray(reference_label)
    soft, given = (rearrange(x, 'h w l -> (h w) l') for x in labels)
    same, found = soft * given[match], given * soft[back]
    shares = [
        jnp.where(total > 0, jnp.sum(part, axis=0) / jnp.where(total > 0, total, 1), 0)
        for part, total in ((same, jnp.sum(soft, axis=0)), (found, jnp.sum(given, axis=0)))
    ]
    parts = jnp.stack([of_objects(label, sure), of_objects(label, stays), *shares])
    cells = sure * stays * jnp.sum(same, axis=-1).reshape(grid)
    return Confidence(jnp.clip(cells, 0, 1), jnp.clip(jnp.prod(parts, axis=0), 0, 1) ** 0.25)


def tracked_back(
    features: jax.Array, reference: jax.Array, places: jax.Array, origins: jax.Array
) -> jax.Array:
    """Measures how far points of a frame, matched with the frame of their origin, miss the origin.

    The feature g at a point's place, interpolated between cells, is compared with all cells of the
    reference frame: the distance is |origin - argmax_p <g, f_p>|. It is small where the point is
    seen, and large where something else is in its place.

    Args:
      features: `[H, W, C]` of the frame.
      reference: f, `[H, W, C]` of the origins' frame, normalised where affinities are cosines.
      places: `[J, 2]`, (row, column) of the points in the frame, in cells.
      origins: `[J, 2]`, (row, column) of the points in the reference frame, in cells.

    Returns:
      float32 `[J]`, in cells; NaN where a place or an origin is NaN.

    Raises:
      ValueError: shapes that do not fit.
    """
    _check_frames(features, reference)
    if places.ndim != 2 or places.shape[1] != 2 or places.shape != origins.shape:
        raise ValueError(
            f'places are {list(places.shape)} and origins {list(origins.shape)}; both must be '
            '[J, 2]'
        )
    height, width, _ = features.shape
    # Read the features at the places, from the four cells around each.
    largest = jnp.array([height - 1, width - 1])
    inside = jnp.clip(jnp.nan_to_num(places), 0, largest)
    low = jnp.floor(inside).astype(jnp.int32)
    high, share = jnp.minimum(low + 1, largest), inside - low
    rows, columns = (jnp.stack([low[:, axis], high[:, axis]], axis=-1) for axis in (0, 1))
    weights = (jnp.stack([1 - share[:, axis], share[:, axis]], axis=-1) for axis in (0, 1))
    around = features[rows[:, :, None], columns[:, None]]
    found = jnp.einsum('jy,jx,jyxc->jc', *weights, around)
    # Match them with the reference.
    values = affinity.affinity(found, rearrange(reference, 'h w c -> (h w) c'))
    matches = jnp.stack(jnp.divmod(jnp.argmax(values, axis=1), width), -1)
    distances = jnp.linalg.norm((matches - origins).astype(jnp.float32), axis=-1)
    return jnp.where(jnp.any(jnp.isnan(places), axis=-1), jnp.nan, distances)


def of_objects(label: jax.Array, confidence: jax.Array) -> jax.Array:
    """The mean confidence of the cells of each label: c_l = sum_q y_ql c_q / sum_q y_ql.

    Args:
      label: `[H, W, L]`, the soft label.
      confidence: `[H, W]`.

    Returns:
      `[L]`; 0 where no cell has the label.
    """
    weight = jnp.sum(label, axis=(0, 1))
    total = jnp.einsum('hwl,hw->l', label, confidence)
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)


def _check_frames(features, reference):
    if features.ndim != 3 or features.shape != reference.shape:
        raise ValueError(
            f'features are {list(features.shape)} and reference {list(reference.shape)}; both must '
            'be [H, W, C]'
        )
