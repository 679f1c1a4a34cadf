"""Finds neighbours in a region without computing the affinities that the region forbids.

The grid of target cells is cut into tiles. The targets of a tile can only reach the cells within
the region's reach around it. These cells are a window, which is cut out of every context frame. One
matrix product of the tile with its window replaces the product of the tile with the whole frame,
and there are fewer values to select from. A window that would stick out of the frame is moved
inside, so nothing is padded. The region's mask is computed for each tile, so it is always exact.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.scipy.special import logsumexp

from jaxprop import affinity
from jaxprop.rules.rule import Execution, Region

_TILE = 10


def is_possible(region: Region, softmax: str) -> bool:
    """Whether a rule needs no more than the cells of windows around the target cells."""
    return region.reach is not None and softmax != 'frame'


def check(region: Region, softmax: str, execution: Execution) -> None:
    """Raises ValueError for a reach of wrong form, or where the windowed search is not possible."""
    reach = region.reach
    if reach is not None and not (
        np.shape(reach) == (2,) and all(isinstance(far, numbers.Integral) for far in reach)
    ):
        raise ValueError(
            f'the reach of {region} is {reach}; it must be None or two whole numbers of cells, of '
            'rows and of columns'
        )
    if execution.implementation == 'windowed' and not is_possible(region, softmax):
        raise ValueError(
            "implementation='windowed' needs a region of limited reach, such as Disk or Square, "
            f"and a softmax over 'neighbors' or 'region'; these are {region} and {softmax!r}"
        )


def is_used(grid: tuple[int, int], region: Region, softmax: str, execution: Execution) -> bool:
    """Whether the windowed search is used on this grid.

    Always for 'windowed', never for 'dense'; otherwise where a window covers at most half of the
    grid.
    """
    implementation = execution.implementation
    if implementation in ('dense', 'windowed'):
        return implementation == 'windowed'
    if region.reach is None or not is_possible(region, softmax):
        return False
    _, window = tile_and_window(grid, region.reach)
    return 2 * math.prod(window) <= math.prod(grid)


def group_size(num_frames: int) -> int:
    """Chooses how many frames are searched at once.

    With fewer frames the matrix products are small, with more the lists to select from are long.
    """
    return next((size for size in (4, 5, 3, 2) if num_frames % size == 0), num_frames)


def search(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    first: jax.Array | int,
    *,
    num_frames: int,
    per_frame: bool,
    region: Region,
    k: int,
    temperature: float,
    softmax: str,
) -> affinity.Neighbors:
    """Selects each target cell's neighbours among the cells that a region allows.

    Args:
      features: `[H, W, C]` of the targets.
      frames: `[M, H, W, C]` of the context.
      valid: `[M]`, the frames from which cells may be selected.
      first: the number of the first frame to search.
      num_frames: how many to search from there on.
      per_frame: one list for each frame, instead of one for all of them.
      region, k, temperature, softmax: see `jaxprop.TopK`; `is_possible` must hold.

    Returns:
      `Neighbors` `[1, N, k]` of all N = H * W targets, or `[num_frames, N, k]` with one list for
      each frame. Cells are numbered through all M frames.
    """
    height, width, _ = features.shape
    valid = jax.lax.dynamic_slice_in_dim(valid, first, num_frames)

    def search_tile(queries, inside, corner, window):
        keys = cut_out(frames, corner, window, (first, num_frames))
        # Compute the affinities of the tile with the windows of all frames, in one product.
        keys = rearrange(keys, 'm h w c -> (m h w) c')
        logits = affinity.affinity(queries, keys) / temperature
        logits = rearrange(logits, 'q (m k) -> q m k', m=num_frames)
        allowed = jnp.where(inside[:, None] & valid[:, None], logits, -jnp.inf)
        # Select k cells from the windows of all frames together, or of each frame.
        if not per_frame:
            logits, allowed = (rearrange(x, 'q m k -> q (m k)')[:, None] for x in (logits, allowed))
        found = affinity.select_neighbors(logits, allowed, k, softmax)
        # Turn places in the windows into numbers of cells.
        candidates = found.cells + allowed.shape[-1] * jnp.arange(allowed.shape[1])[:, None]
        frame, row, column = jnp.unravel_index(candidates, (num_frames, *window))
        cells = ((first + frame) * height + corner[0] + row) * width + corner[1] + column
        return found._replace(cells=cells)

    found = _map_tiles(search_tile, features, region)
    return jax.tree.map(lambda x: rearrange(x, 'n l ... -> l n ...'), found)


def attend(
    features: jax.Array,
    frame: jax.Array,
    label: jax.Array,
    *,
    region: Region,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """Copies labels by attention over all cells of a context frame that a region allows.

    Args:
      features: `[H, W, C]` of the targets.
      frame: `[H, W, C]` of a context frame.
      label: `[H, W, L]`, its soft label.
      region, temperature: see `jaxprop.Attention`; the region must have a reach.

    Returns:
      The logarithm of the softmax's denominator `[N]`, and the label `[N, L]`.
    """

    def attend_tile(queries, inside, corner, window):
        keys, label_there = (
            rearrange(cut_out(x, corner, window), 'h w c -> (h w) c') for x in (frame, label)
        )
        logits = affinity.affinity(queries, keys) / temperature
        allowed = jnp.where(inside, logits, -jnp.inf)
        log_sums = logsumexp(allowed, axis=-1)
        return log_sums, affinity.soft_copy(jnp.exp(allowed - log_sums[:, None]), label_there)

    return _map_tiles(attend_tile, features, region)


def cut_out(
    array: jax.Array,
    corner: jax.Array,
    size: tuple[int, ...],
    frames: tuple[Any, int] | None = None,
) -> jax.Array:
    """Cuts a rectangle of cells `[*size, C]` out of `[H, W, C]`, or out of some of `[M, H, W, C]`.

    Args:
      array: the cells of a frame, or of several.
      corner: the row and column of the first cell.
      size: how many rows and columns.
      frames: the number of the first frame, and how many.
    """
    # All places must be of one type of integers.
    place = [*corner, jnp.zeros_like(corner[0])]
    sizes = (*size, array.shape[-1])
    if frames is not None:
        first, count = frames
        place, sizes = [jnp.asarray(first, corner.dtype), *place], (count, *sizes)
    return jax.lax.dynamic_slice(array, place, sizes)


def _map_tiles(function, features, region):
    """Calls `function` for every tile, and puts its results `[q, ...]` together to `[N, ...]`.

    The arguments of `function` are the tile's features `[q, C]`, a mask `[q, w]` of the cells of
    its window that the region allows, and the window's upper left corner and size.
    """
    *grid, channels = features.shape
    cut = tiling(grid, region.reach)

    def do_tile(start_and_corner):
        start, corner = start_and_corner
        queries = cut_out(features, start, cut.tile)
        inside = region.allows(
            (start + cut.tile_cells)[:, None] - (corner + cut.window_cells)[None]
        )
        return function(queries.reshape(-1, channels), inside, corner, cut.window)

    results = jax.lax.map(do_tile, (jnp.asarray(cut.starts), jnp.asarray(cut.corners)))
    return jax.tree.map(lambda x: rearrange(x, 't q ... -> (t q) ...')[cut.place], results)


def tile_and_window(
    grid: Sequence[int], reach: tuple[int, int], sides: Sequence[int] = (_TILE, _TILE)
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes of a tile, `sides` or less, and of the window around it, inside a grid."""
    tile = tuple(min(whole, side) for whole, side in zip(grid, sides))
    window = tuple(min(side, size + 2 * far) for side, size, far in zip(grid, tile, reach))
    return tile, window


class Tiling(NamedTuple):
    """A grid cut into tiles, each with a window around it, moved inside the frame.

    Attributes:
      tile, window: the size of a tile and of a window, (rows, columns).
      tile_cells: the cells of a tile from its upper left one on, `[q, 2]`.
      window_cells: those of a window, `[w, 2]`.
      starts: the upper left cells of the tiles, int32 `[t, 2]`.
      corners: those of their windows, int32 `[t, 2]`.
      place: the place of each grid cell among all tiles' cells, `[N]`.
    """

    tile: tuple[int, ...]
    window: tuple[int, ...]
    tile_cells: np.ndarray
    window_cells: np.ndarray
    starts: np.ndarray
    corners: np.ndarray
    place: np.ndarray


def tiling(
    grid: Sequence[int], reach: tuple[int, int], sides: Sequence[int] = (_TILE, _TILE)
) -> Tiling:
    """Cuts a grid into tiles of some rows and columns for a region of limited reach."""
    tile, window = tile_and_window(grid, reach, sides)
    starts, place = _tiles(grid, tile)
    corners = np.clip(starts - np.array(reach), 0, np.array(grid) - np.array(window))
    tile_cells, window_cells = (np.indices(size).reshape(2, -1).T for size in (tile, window))
    corners = corners.astype(np.int32)
    return Tiling(tile, window, tile_cells, window_cells, starts, corners, place)


def _tiles(grid, tile):
    """The tiles' upper left cells `[t, 2]`, and the place of each grid cell among all tiles' cells.

    The last tile of a row or column is moved inside the grid, so it overlaps the one before it.
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
