"""Neighbours under a spatial restriction, without the affinities that it forbids.

The grid of target cells is cut into tiles. A tile's targets can only reach the cells within the
radius around it, a window that is cut out of every context frame: one matrix product of a tile
with its window replaces the one of the tile with the whole frame, and the selection sees as many
values fewer. The windows are moved inside the frame where they would stick out, so nothing is
padded, and the restriction's mask is exact in every place.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.scipy.special import logsumexp

from jaxprop import affinity

_TILE = 10


def is_possible(config) -> bool:
    """Whether a `PropagationConfig` asks for nothing outside the windows."""
    return config.restriction in ('radius', 'square') and config.softmax != 'frame'


def is_used(grid: tuple[int, int], config) -> bool:
    """Whether `search` answers on this grid: if asked for, or by itself if it is less work."""
    if config.implementation != 'auto' or not is_possible(config):
        return config.implementation == 'windowed'
    _, window = _tile_and_window(grid, config.radius)
    return 2 * math.prod(window) <= math.prod(grid)


def group_size(num_frames: int) -> int:
    """How many of the frames are best searched at once: products are small with fewer, lists to
    select from long with more."""
    return next((size for size in (4, 5, 3, 2) if num_frames % size == 0), num_frames)


def search(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    first: jax.Array | int,
    num_frames: int,
    config,
) -> affinity.Neighbors:
    """`affinity.select_neighbors` among the cells that the restriction allows.

    Args:
      features: `[H, W, C]` of the targets.
      frames: `[M, H, W, C]` of the context.
      valid: `[M]`, which of them may be selected from.
      first, num_frames: the first one to search, and how many from there on.
      config: the factors; `is_possible` must hold.

    Returns:
      `Neighbors` `[1, N, k]` of all N = H * W targets with 'overall' aggregation, one list for
      each frame, `[num_frames, N, k]`, with 'per_frame'. Cells are numbered through all M frames.
    """
    height, width, _ = features.shape
    valid = jax.lax.dynamic_slice_in_dim(valid, first, num_frames)
    num_lists = 1 if config.aggregation == 'overall' else num_frames

    def search_tile(queries, inside, corner, window):
        keys = jax.lax.dynamic_slice(
            frames, (first, *corner, 0), (num_frames, *window, frames.shape[-1])
        )
        logits = (
            affinity.affinity(queries, rearrange(keys, 'm h w c -> (m h w) c')) / config.temperature
        )
        logits = rearrange(logits, 'q (m k) -> q m k', m=num_frames)
        allowed = jnp.where(inside[:, None] & valid[:, None], logits, -jnp.inf)
        logits, allowed = (x.reshape(len(x), num_lists, -1) for x in (logits, allowed))
        found = affinity.select_neighbors(logits, allowed, config.num_neighbors, config.softmax)
        candidates = found.cells + allowed.shape[-1] * jnp.arange(num_lists)[:, None]
        frame, row, column = jnp.unravel_index(candidates, (num_frames, *window))
        cells = ((first + frame) * height + corner[0] + row) * width + corner[1] + column
        return found._replace(cells=cells)

    found = _map_tiles(search_tile, features, config)
    return jax.tree.map(lambda x: rearrange(x, 'n l ... -> l n ...'), found)


def attend(
    features: jax.Array, frame: jax.Array, label: jax.Array, config
) -> tuple[jax.Array, jax.Array]:
    """Attention over all cells that the restriction allows.

    Args:
      features: `[H, W, C]` of the targets.
      frame: `[H, W, C]` of a context frame.
      label: `[H, W, L]`, its soft label.
      config: the factors; `is_possible` must hold.

    Returns:
      The logarithm of the softmax's denominator `[N]`, and the label `[N, L]`.
    """

    def attend_tile(queries, inside, corner, window):
        keys, label_there = (
            rearrange(
                jax.lax.dynamic_slice(x, (*corner, 0), (*window, x.shape[-1])), 'h w c -> (h w) c'
            )
            for x in (frame, label)
        )
        logits = affinity.affinity(queries, keys) / config.temperature
        allowed = jnp.where(inside, logits, -jnp.inf)
        log_sums = logsumexp(allowed, axis=-1)
        return log_sums, affinity.soft_copy(jnp.exp(allowed - log_sums[:, None]), label_there)

    return _map_tiles(attend_tile, features, config)


def _map_tiles(function, features, config):
    """`function` of every tile, its results' leaves `[q, ...]` put together to `[N, ...]`.

    Its arguments are the tile's features `[q, C]`, which cells of its window the restriction allows
    `[q, w]`, the window's upper left corner and its size.
    """
    *grid, channels = features.shape
    tile, window = _tile_and_window(grid, config.radius)
    starts, place = _tiles(grid, tile)
    # Windows sit around their tiles, moved inside the frame.
    margin = math.ceil(config.radius) - 1
    corners = np.clip(starts - margin, 0, np.array(grid) - np.array(window))
    tile_cells = np.indices(tile).reshape(2, -1).T
    window_cells = np.indices(window).reshape(2, -1).T

    def do_tile(start_and_corner):
        start, corner = start_and_corner
        queries = jax.lax.dynamic_slice(features, (*start, 0), (*tile, channels))
        inside = affinity.distance_mask(
            start + tile_cells, corner + window_cells, config.radius, config.restriction
        )
        return function(queries.reshape(-1, channels), inside, corner, window)

    results = jax.lax.map(do_tile, (jnp.asarray(starts), jnp.asarray(corners)))
    return jax.tree.map(lambda x: rearrange(x, 't q ... -> (t q) ...')[place], results)


def _tile_and_window(grid, radius):
    margin = math.ceil(radius) - 1
    tile = tuple(min(side, _TILE) for side in grid)
    window = tuple(min(side, size + 2 * margin) for side, size in zip(grid, tile))
    return tile, window


def _tiles(grid, tile):
    """Upper left cells of the tiles `[t, 2]`, and where in all tiles' cells each grid cell is.

    The last tile of a row or column is moved inside the grid, overlapping the one before it.
    """
    rows, columns = (
        np.minimum(np.arange(0, side, size), side - size) for side, size in zip(grid, tile)
    )
    starts = np.stack(np.meshgrid(rows, columns, indexing='ij'), axis=-1).reshape(-1, 2)
    place = np.zeros(grid, np.int32)
    for number, (row, column) in enumerate(starts):
        cells = np.arange(tile[0] * tile[1]).reshape(tile) + number * tile[0] * tile[1]
        place[row : row + tile[0], column : column + tile[1]] = cells
    return starts.astype(np.int32), place.reshape(-1)
