"""Finds neighbours in a region with few large operations, for devices that compute much at once.

`windowed` goes through tiles of target cells, one after another. Here all tiles are compared with
their windows in one batched matrix product, and the selection is made of operations for which XLA
has fast GPU kernels: its own kernel for top-k takes matrices with rows of 1,024 values or more, for
up to 16 neighbours. Anything else is sorted.

Shapes: H, W feature cells, N = H * W, C channels, M context frames, t tiles of q cells, windows of
w cells.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.scipy.special import logsumexp

from jaxprop import affinity
from jaxprop.rules import windowed
from jaxprop.rules.rule import Execution, Region

# The fewest columns that XLA's GPU kernel for top-k takes.
_COLUMNS = 1024
# What the windows and the affinities of the tiles that are searched at once may take.
_BYTES = 4 * 2**30


def is_possible(softmax: str, aggregation: str) -> bool:
    """Whether neighbours can be searched in batches."""
    return softmax != 'frame' and aggregation == 'overall'


def is_used(softmax: str, aggregation: str, execution: Execution) -> bool:
    """Whether neighbours are searched in batches: for 'batched', and on GPUs for 'auto'."""
    if execution.implementation == 'auto':
        return jax.default_backend() == 'gpu' and is_possible(softmax, aggregation)
    return execution.implementation == 'batched'


def check(softmax: str, aggregation: str, execution: Execution) -> None:
    """Raises ValueError where a search in batches is asked for and not possible."""
    if execution.implementation == 'batched' and not is_possible(softmax, aggregation):
        raise ValueError(
            "implementation='batched' needs aggregation='overall' and a softmax over 'neighbors' "
            f"or 'region'; these are {aggregation!r} and {softmax!r}"
        )


def search(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    *,
    is_bound: bool,
    region: Region,
    k: int,
    temperature: float,
    softmax: str,
) -> affinity.Neighbors:
    """Selects each target cell's neighbours among the cells of all frames.

    Args:
      features: `[H, W, C]` of the targets.
      frames: `[M, H, W, C]` of the context.
      valid: `[M]`, the frames from which cells may be selected.
      is_bound: whether the region restricts the cells.
      region, k, temperature, softmax: see `jaxprop.TopK`; softmax is not 'frame'.

    Returns:
      `Neighbors` `[1, N, k]`, of cells numbered through all M frames.
    """
    search_frames = (
        functools.partial(_search_windows, region=region) if is_bound else _search_everywhere
    )
    sums = affinity.SOFTMAX_OVER[softmax] is not None
    found = search_frames(features, frames, valid, k=k, temperature=temperature, sums=sums)
    return jax.tree.map(lambda x: x[None], found)


def _search_everywhere(features, frames, valid, *, k, temperature, sums):
    """Selects among all cells of the frames, a chunk of targets at once."""
    num_frames, height, width, _ = frames.shape
    keys = rearrange(frames, 'm h w c -> (m h w) c')
    is_valid = jnp.repeat(valid, height * width)
    # As many blocks as the kernel needs, and no more.
    size = max(d for d in range(1, max(len(keys) // _COLUMNS, 1) + 1) if len(keys) % d == 0)

    def search_chunk(queries, index):
        del index
        logits = affinity.affinity(queries, keys) / temperature
        logits = jnp.where(is_valid, logits, -jnp.inf)
        selected, cells = largest(rearrange(logits, 'q (s b) -> q s b', s=size), k, top_k)
        return affinity.Neighbors(selected, cells, logsumexp(logits, -1) if sums else None)

    queries = rearrange(features, 'h w c -> (h w) c')
    chunk = max(1, _BYTES // (8 * len(keys)))
    return affinity.map_queries(search_chunk, queries, chunk)


def _search_windows(features, frames, valid, *, region, k, temperature, sums):
    """Selects among the cells that the region allows, many tiles at once."""
    num_frames, height, width, channels = frames.shape
    tiling = windowed.tiling((height, width), region.reach)
    starts, corners = tiling.starts, tiling.corners
    tile_cells, window_cells = tiling.tile_cells, tiling.window_cells
    queries = rearrange(features, 'h w c -> (h w) c')
    keys = rearrange(frames, 'm h w c -> (m h w) c')

    def search_tiles(starts_and_corners):
        starts, corners = starts_and_corners
        targets = starts[:, None] + tile_cells  # [t, q, 2]
        cells = corners[:, None] + window_cells  # [t, w, 2]
        numbers = cells[..., 0] * width + cells[..., 1]
        in_frames = numbers[:, None] + height * width * jnp.arange(num_frames)[:, None]
        # Compare all tiles with the windows of all frames, in one batched product.
        logits = affinity.affinity(
            _rows(queries, targets[..., 0] * width + targets[..., 1]),
            _rows(keys, rearrange(in_frames, 't m w -> t (m w)')),
        )
        logits = rearrange(logits / temperature, 't q (m w) -> t q m w', m=num_frames)
        inside = region.allows(targets[:, :, None] - cells[:, None])
        allowed = jnp.where(inside[:, :, None] & valid[:, None], logits, -jnp.inf)
        allowed = rearrange(allowed, 't q m w -> (t q) m w')
        selected, places = largest(allowed, k, top_k)
        # Turn places in the windows into numbers of cells.
        frame, in_window = jnp.divmod(places, len(window_cells))
        in_window = rearrange(in_window, '(t q) k -> t (q k)', t=len(starts))
        chosen = jnp.take_along_axis(numbers, in_window, axis=-1).reshape(places.shape)
        return affinity.Neighbors(
            selected,
            chosen + height * width * frame,
            logsumexp(allowed, axis=(-2, -1)) if sums else None,
        )

    bytes_per_tile = 4 * num_frames * len(window_cells) * (channels + len(tile_cells))
    at_once = min(len(starts), max(1, _BYTES // bytes_per_tile))
    num_parts = -(-len(starts) // at_once)
    # Repeats of the last tile fill up the last part.
    index = np.minimum(np.arange(num_parts * at_once), len(starts) - 1).reshape(num_parts, -1)
    parts = jnp.asarray(starts[index]), jnp.asarray(corners[index])
    found = jax.lax.map(search_tiles, parts)
    return jax.tree.map(lambda x: rearrange(x, 'p n ... -> (p n) ...')[tiling.place], found)


def _rows(array, numbers):
    return array.at[numbers].get(mode='promise_in_bounds')


def largest(
    values: jax.Array, k: int, top_k: Callable[[jax.Array, int], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Finds the k largest of values `[R, s, b]`, and their places in the rows of s * b.

    They are in the order of `top_k`. The k largest values lie in the k columns of largest maxima,
    so only these are searched.

    Args:
      values: numbers; a row may have fewer than k.
      k: how many.
      top_k: finds the places `[R, k]` of the k largest values in each row of `[R, n]`.
    """
    num_rows, size, num_columns = values.shape
    columns = top_k(jnp.max(values, axis=1), min(k, num_columns))
    candidates = jnp.take_along_axis(values, columns[:, None], axis=-1)
    candidates = candidates.reshape(num_rows, -1)
    order = top_k(candidates, min(k, candidates.shape[-1]))
    row, column = jnp.divmod(order, columns.shape[-1])
    places = row * num_columns + jnp.take_along_axis(columns, column, axis=-1)
    return jnp.take_along_axis(candidates, order, axis=-1), places


def top_k(values: jax.Array, k: int) -> jax.Array:
    """Finds the places `[R, k]` of the k largest values in each row of `[R, n]`.

    Under `jax.vmap` this stays a search in the rows of a matrix.
    """
    return _top_k(k)(jax.lax.stop_gradient(values))


@functools.cache
def _top_k(k):
    @jax.custom_batching.custom_vmap
    def find(values):
        length = values.shape[-1]
        missing = max(0, _COLUMNS - length)
        # Keep every value above the padding, so that the padding is never chosen.
        values = jnp.maximum(values, jnp.finfo(values.dtype).min)
        values = jnp.pad(values, ((0, 0), (0, missing)), constant_values=-jnp.inf)
        return jax.lax.top_k(values, k)[1]

    @find.def_vmap
    def find_in_all(axis_size, in_batched, values):
        del axis_size, in_batched
        found = find(rearrange(values, 'v r n -> (v r) n'))
        return rearrange(found, '(v r) k -> v r k', v=len(values)), True

    return find
