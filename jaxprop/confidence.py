"""Confidence in propagated labels, cell by cell, without knowing the truth.

Shapes: H, W feature cells, C channels, L labels.
"""

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


def round_trip(features: jax.Array, reference: jax.Array, chunk: int = 1024) -> jax.Array:
    """Measures how far a cell's best match in another frame, matched back, lies from the cell.

    Cell q's match is m(q) = argmax_p <g_q, f_p>, and that of a cell p of the other frame is
    b(p) = argmax_q <g_q, f_p>. The distance |q - b(m(q))| is 0 where the two frames agree, and
    large where q is hidden in the other frame or looks like many cells of it.

    Args:
      features: g, `[H, W, C]` of the frame.
      reference: f, `[H, W, C]` of the other frame, both normalised where affinities are cosines.
      chunk: cells of the frame that are compared at once, which bounds memory.

    Returns:
      float32 `[H, W]`, in cells. Of equally good matches the first in reading order counts.

    Raises:
      ValueError: the two differ in shape.
    """
    _check_frames(features, reference)
    height, width, _ = features.shape
    num_cells = height * width
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
    place, returned = (
        jnp.stack(jnp.divmod(cells, width), -1) for cells in (jnp.arange(num_cells), back[match])
    )
    distances = jnp.linalg.norm((place - returned).astype(jnp.float32), axis=-1)
    return distances.reshape(height, width)


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
