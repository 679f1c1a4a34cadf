"""Finds neighbours in a region with few large operations, for devices that compute much at once.

`windowed` goes through tiles of target cells, one after another. Here the context frames are cut
into tiles, and one product compares every tile with a window of the target cells that can reach it.
The target frame is one, the context frames are many: so windows of targets take little memory.

The affinities are written once, with the targets side by side in memory. They are read once, for
the largest affinity of each place of a tile over the frames. The k best cells of a target lie in
the k places of largest maxima, so only these places are looked up.

Shapes: H, W feature cells, N = H * W, C channels, M context frames, t tiles of p places, windows of
w target cells, o offsets that the region allows.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.scipy.special import logsumexp

from jaxprop import affinity
from jaxprop.rules import windowed
from jaxprop.rules.regions import allowed_offsets
from jaxprop.rules.rule import Execution, Region

# The side of a tile of context cells.
_TILE = 10
# What the arrays of a search may take together.
_BYTES = 4 * 2**30
# An affinity with the copies of it that a program may keep, and a channel with its float16 parts.
_BYTES_PER_AFFINITY, _BYTES_PER_CHANNEL = 10, 10
# So many neighbours are sorted, since a program with a step for each would be long.
_MANY = 24
_PRODUCTS = {'float32': affinity.affinity, 'float16x3': affinity.affinity_float16x3}


def is_possible(softmax: str) -> bool:
    """Whether neighbours can be searched in batches."""
    return softmax != 'frame'


def is_used(softmax: str, execution: Execution) -> bool:
    """Whether neighbours are searched in batches: for 'batched', and on GPUs for 'auto'."""
    if execution.implementation == 'auto':
        return jax.default_backend() == 'gpu' and is_possible(softmax)
    return execution.implementation == 'batched'


def check(softmax: str, execution: Execution) -> None:
    """Raises ValueError where a search in batches is asked for and not possible."""
    if execution.implementation == 'batched' and not is_possible(softmax):
        raise ValueError(
            "implementation='batched' needs a softmax over 'neighbors' or 'region'; this one is "
            f"over {softmax!r}: use 'auto'"
        )


def fits(shape: tuple[int, ...], region: Region | None, softmax: str) -> bool:
    """Whether a search in one context frame, of shape (H, W, C), takes no more than 4 GiB.

    Args:
      shape: of the features.
      region: which cells are allowed; None where all of them are.
      softmax: see `jaxprop.TopK`.
    """
    if not _is_windowed(shape[:2], region, softmax):
        return True  # Targets are searched in chunks.
    each, together = _bytes(shape, region)
    return each + together <= _BYTES


def search(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    *,
    per_frame: bool,
    region: Region | None,
    k: int,
    temperature: float,
    softmax: str,
    precision: str,
) -> affinity.Neighbors:
    """Selects each target cell's neighbours among the cells of all frames, or of each frame.

    Args:
      features: `[H, W, C]` of the targets.
      frames: `[M, H, W, C]` of the context.
      valid: `[M]`, the frames from which cells may be selected.
      per_frame: one list for each frame, instead of one for all of them.
      region: which cells are allowed; None where all of them are.
      k, temperature, softmax: see `jaxprop.TopK`; softmax is not 'frame'.
      precision: see `Execution`.

    Returns:
      `Neighbors` `[l, N, k]`, of cells numbered through all M frames: `[M, N, k]` with a list for
      each frame; otherwise one list, or several of groups of frames where memory is short.
    """
    num_frames, height, width, _ = frames.shape
    search_frames, size = _search_everywhere, num_frames
    if _is_windowed((height, width), region, softmax):
        search_frames = _search_windows
        each, together = _bytes(features.shape, region)
        size = min(num_frames, max(1, (_BYTES - together) // each))
    # Groups are as large as they can be, and alike.
    num_groups = num_frames if per_frame else -(-num_frames // size)
    size = -(-num_frames // num_groups)
    search_group = functools.partial(
        search_frames,
        features,
        region=region,
        k=k,
        temperature=temperature,
        sums=affinity.SOFTMAX_OVER[softmax] is not None,
        multiply=_choose_product(precision, features, frames),
    )
    if num_groups == 1:
        return jax.tree.map(lambda x: x[None], search_group(frames, valid))
    # Frames that are not valid fill up the last group.
    missing = num_groups * size - num_frames
    groups = tuple(
        rearrange(
            jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)]), '(g m) ... -> g m ...', m=size
        )
        for x in (frames, valid)
    )
    found = jax.lax.map(lambda group: search_group(*group), groups)
    num_cells = height * width
    cells = found.cells + size * num_cells * jnp.arange(num_groups)[:, None, None]
    return found._replace(cells=jnp.minimum(cells, num_frames * num_cells - 1))


def _choose_product(precision, *arrays):
    """The function that computes affinities, see `Execution.precision`."""
    if precision == 'auto':
        has_32_bits = affinity.at_least_float32(*arrays) == jnp.float32
        is_fast = has_32_bits and jax.default_backend() == 'gpu'
        precision = 'float16x3' if is_fast else 'float32'
    return _PRODUCTS[precision]


def _is_windowed(grid, region, softmax):
    """Whether windows of targets save work."""
    return region is not None and windowed.is_used(grid, region, softmax, Execution())


def _window(region, grid):
    """The reach of a region within a grid, and the size of a window, (rows, columns) each."""
    reach = tuple(min(int(far), side - 1) for far, side in zip(region.reach, grid))
    return reach, tuple(_TILE + 2 * far for far in reach)


def _bytes(shape, region):
    """What a search by windows takes: for each context frame, and for all of them together."""
    *grid, num_channels = shape
    reach, window = _window(region, grid)
    num_tiles = math.prod(-(-side // _TILE) for side in grid)
    num_affinities = num_tiles * _TILE**2 * math.prod(window)
    num_maxima = math.prod(grid) * math.prod(2 * far + 1 for far in reach)
    channels = num_channels * _BYTES_PER_CHANNEL
    return (
        _BYTES_PER_AFFINITY * num_affinities + channels * math.prod(grid),
        _BYTES_PER_AFFINITY * num_maxima + channels * num_tiles * math.prod(window),
    )


def _search_windows(features, frames, valid, *, region, k, temperature, sums, multiply):
    """Selects among the cells that the region allows, by windows of targets."""
    num_frames, height, width, _ = frames.shape
    grid = height, width
    reach, window = _window(region, grid)
    num_tiles = [-(-side // _TILE) for side in grid]
    # Cut the context frames into tiles. What fills up the last ones is never looked up.
    missing = [(0, number * _TILE - side) for number, side in zip(num_tiles, grid)]
    keys = rearrange(
        jnp.pad(frames, ((0, 0), *missing, (0, 0))),
        'm (a i) (b j) c -> (a b) (m i j) c',
        i=_TILE,
        j=_TILE,
    )
    # Cut out the window of targets around each tile.
    rows, columns = (
        np.clip(_TILE * np.arange(number)[:, None] + np.arange(size) - far, 0, side - 1)
        for number, size, far, side in zip(num_tiles, window, reach, grid)
    )
    targets = features[rows[:, None, :, None], columns[None, :, None]]
    targets = rearrange(targets, 'a b u v c -> (a b) (u v) c')

    # Compare all tiles with their windows. Of each place keep the largest affinity over the frames.
    affinities = rearrange(multiply(keys, targets), 't (m p) w -> t m p w', m=num_frames)
    allowed = jnp.where(valid[:, None, None], affinities, -jnp.inf)
    # Without the barrier XLA would find each maximum anew wherever it is looked up.
    largest = jax.lax.optimization_barrier(jnp.max(allowed, axis=1))

    # Look up the maxima at the cells that the region allows to each target.
    # The largest offsets come first: these are of the cells with the lowest numbers.
    offsets = np.argwhere(allowed_offsets((height, width), region))[::-1].T
    offsets -= np.array([[height], [width]]) - 1

    def entries_at(chosen):
        return _entries([jnp.asarray(x)[chosen] for x in offsets], grid, reach)

    every = _entries([x[:, None] for x in offsets], grid, reach)
    maxima = jnp.where(every.inside, _look_up(largest, *every.place), -jnp.inf)

    # Select, and look up the affinities in all frames of the cells that may hold a neighbour.
    def candidates_of(chosen):
        entries = entries_at(chosen)
        tile, place, target = (x[:, None] for x in entries.place)
        found = _look_up(affinities, tile, np.arange(num_frames)[:, None], place, target)
        return jnp.where(entries.inside[:, None] & valid[:, None], found, -jnp.inf)

    selected, chosen, frame = _select(maxima, candidates_of, k)
    cells = frame * math.prod(grid) + entries_at(chosen).cell
    log_sums = None
    if sums:
        log_sums = _look_up(logsumexp(allowed / temperature, axis=1), *every.place)
        log_sums = logsumexp(jnp.where(every.inside, log_sums, -jnp.inf), axis=0)
    return affinity.Neighbors(selected.T / temperature, cells.T, log_sums)


def _search_everywhere(features, frames, valid, *, region, k, temperature, sums, multiply):
    """Selects among all cells of the frames that the region allows, a chunk of targets at once."""
    num_frames, *grid, _ = frames.shape
    num_keys = num_frames * math.prod(grid)
    # Of few values in a row there are many maxima. The root balances the two.
    size = max(1, math.isqrt(num_keys // k))
    num_rows = -(-num_keys // size)
    missing = size * num_rows - num_keys
    keys = jnp.pad(rearrange(frames, 'm h w c -> (m h w) c'), ((0, missing), (0, 0)))
    is_valid = jnp.pad(jnp.repeat(valid, math.prod(grid)), (0, missing))[:, None]
    _, row, column = np.indices((num_frames, *grid)).reshape(3, -1, 1)

    def search_chunk(queries, index):
        is_allowed = is_valid
        if region is not None:
            offsets = jnp.stack([index // grid[1] - row, index % grid[1] - column], axis=-1)
            is_allowed &= jnp.pad(region.allows(offsets), ((0, missing), (0, 0)))
        affinities = jnp.where(is_allowed, multiply(keys, queries), -jnp.inf)
        rows = affinities.reshape(size, num_rows, -1)

        def candidates_of(chosen):
            return _look_up(
                rows, np.arange(size)[:, None], chosen[:, None], np.arange(rows.shape[-1])
            )

        selected, chosen, place = _select(jnp.max(rows, axis=0), candidates_of, k)
        return affinity.Neighbors(
            selected.T / temperature,
            (place * num_rows + chosen).T,
            logsumexp(affinities / temperature, axis=0) if sums else None,
        )

    queries = rearrange(features, 'h w c -> (h w) c')
    chunk = max(1, _BYTES // (_BYTES_PER_AFFINITY * num_keys))
    return affinity.map_queries(search_chunk, queries, chunk)


class _Entries(NamedTuple):
    """Where the affinities of targets and of cells at some offsets from them are.

    Attributes:
      inside: whether the cell is in the grid.
      place: the cell's tile, its place there, and the target's place in the tile's window.
      cell: the cell's number.
    """

    inside: jax.Array
    place: tuple[jax.Array, jax.Array, jax.Array]
    cell: jax.Array


def _entries(offsets, grid, reach):
    """The entries of all N targets and the cells at some offsets from them.

    Args:
      offsets: rows and columns from a cell to its target, `[n, 1]` or `[n, N]` each.
      grid: (H, W).
      reach: the largest offsets.
    """
    offset_rows, offset_columns = offsets
    (height, width), num_columns = grid, -(-grid[1] // _TILE)
    target_row, target_column = jnp.divmod(jnp.arange(height * width), width)
    row, column = target_row - offset_rows, target_column - offset_columns
    (tile_row, in_row), (tile_column, in_column) = (jnp.divmod(x, _TILE) for x in (row, column))
    window_row, window_column = (
        target - _TILE * tile + far
        for target, tile, far in zip((target_row, target_column), (tile_row, tile_column), reach)
    )
    return _Entries(
        (row >= 0) & (row < height) & (column >= 0) & (column < width),
        (
            tile_row * num_columns + tile_column,
            in_row * _TILE + in_column,
            window_row * (_TILE + 2 * reach[1]) + window_column,
        ),
        row * width + column,
    )


def _look_up(array, *index):
    """Values at an index; where this is beyond the array, some value."""
    return array.at[index].get(mode='clip')


def _select(maxima, candidates_of, k):
    """Finds the k largest of the values of N targets, which are in n rows.

    Args:
      maxima: `[n, N]`, the largest value of each row.
      candidates_of: finds the values `[r, s, N]` of the rows `[r, N]`.
      k: how many.

    Returns:
      The values, the largest one first; their rows; and their places in these, `[k, N]` each.
    """
    # In this order, of equal values the first place of the first row wins, as it does in `dense`.
    rows = jnp.sort(_places_of_largest(maxima, min(k, len(maxima))), axis=0)
    candidates = rearrange(candidates_of(rows), 'r s n -> (s r) n')
    order = _places_of_largest(candidates, min(k, len(candidates)))
    place, row = jnp.divmod(order, len(rows))
    values = jnp.take_along_axis(candidates, order, axis=0)
    return values, jnp.take_along_axis(rows, row, axis=0), place


def best_of(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Finds the k largest values in each row of `[N, n]`, and their places, `[N, k]` each."""
    places = _places_of_largest(values.T, k).T
    return jnp.take_along_axis(values, places, axis=-1), places


def _places_of_largest(values, k):
    """Finds the places `[k, N]` of the k largest values in each column of `[n, N]`.

    The largest is looked for k times. Columns lie side by side in memory, so a GPU reads them all
    at once. XLA's own search for a few large values is made for rows, and slower.
    """
    values = jax.lax.stop_gradient(values)
    if k >= _MANY:
        return jax.lax.top_k(values.T, k)[1].T
    # Only a value that was found becomes -inf. So no place is found twice.
    values = jnp.maximum(values, jnp.finfo(values.dtype).min)
    numbers = jax.lax.broadcasted_iota(jnp.int32, values.shape, 0)
    places = []
    for _ in range(k):
        places.append(jnp.argmax(values, axis=0).astype(jnp.int32))
        values = jnp.where(numbers == places[-1], -jnp.inf, values)
    return jnp.stack(places)
