"""Finds the same neighbours with fewer multiplications, by bounds on the affinities.

Most of the energy of a network's features lies in few directions. So a product of few channels
bounds an affinity closely from above. For an orthonormal V `[C, d]`, by Cauchy and Schwarz,

    <g, f> <= <V'g, V'f> + r(g) r(f),        r(f) = sqrt(|f|^2 - |V'f|^2),

which is one product of d + 1 channels. The grid of target cells is cut into tiles, as in
`windowed`. For each tile:

1. Bound all affinities. Of each place keep the largest bound over a group of a few context frames:
   a place in the frames of a group is a candidate.
2. Compute the affinities of the most promising candidates. The k-th best of them is a threshold,
   which no neighbour can be below.
3. Compute the affinities of every other candidate whose bound reaches the threshold of some cell of
   the tile, and select the k best. No other candidate can hold a neighbour.

Frames that the region does not bind come last, with the threshold that the others gave, so step 2
is left out.

The answer is exact, but for rounding. For features without main directions, such as random ones, or
whose affinities are all alike, bounds are too loose to save work, see `is_worthwhile`. How many
candidates step 3 computes depends on the video, so it chooses among programs of a few sizes. Under
`jax.vmap` JAX would run all of these: there the caller searches in another way.

Shapes: H, W feature cells, N = H * W, C channels, M context frames, tiles of q cells, p places,
b groups of m frames.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import affinity
from jaxprop.rules import windowed
from jaxprop.rules.rule import Execution, Region

# The sides of a tile, and its least number of cells. In larger tiles some cell needs almost every
# place; of smaller ones there are many, and each takes some time.
_TILE_SIDES, _LEAST_TILE_CELLS = range(5, 10), 45
# At most so many frames share a bound. With more of them, a place is computed in more frames that
# hold no neighbour there; with fewer, there are more candidates to sort.
_GROUP = 4
# How many candidates step 2 computes. With fewer the threshold is low, so step 3 computes more;
# with more, many are computed that hold no neighbour. From 320 to 512 took equally long.
_PROMISING = 384
_CHANNELS_PER_DIRECTION = 8
# `is_worthwhile` looks at one in so many tiles. The number is prime, so that on most grids these
# tiles lie in different columns.
_TILE_STEP = 23
# Bounds save work where steps 2 and 3 compute less than this share of the allowed candidates.
_WORTHWHILE = 0.5
# Where more than this share of the frames that the region binds are copies of frame 0, the other
# searches take less time: they search the copies once.
_MOST_COPIES = 0.5
# The number of programs for step 3. Each takes half a second to compile.
_SIZES = 8
# Bounds are raised by this share of |g| |f|, which is more than what float32 rounds off.
_ROUNDING = 4e-6
# The least numbers of context cells and of channels for which 'auto' screens. Below, little time is
# saved.
_LEAST_CELLS, _LEAST_CHANNELS = 55_000, 64


def is_possible(softmax: str, aggregation: str) -> bool:
    """Whether neighbours can be screened."""
    return softmax == 'neighbors' and aggregation == 'overall'


def is_used(shape: tuple[int, ...], softmax: str, aggregation: str, execution: Execution) -> bool:
    """Whether neighbours are screened in a context whose features have the shape (M, H, W, C).

    For 'screened'; and for 'auto' on CPUs, where it is possible and context and features are large.
    """
    if execution.implementation != 'auto':
        return execution.implementation == 'screened'
    *frames, channels = shape
    is_large = math.prod(frames) >= _LEAST_CELLS and channels >= _LEAST_CHANNELS
    return is_large and is_possible(softmax, aggregation) and jax.default_backend() == 'cpu'


def check(softmax: str, aggregation: str, execution: Execution) -> None:
    """Raises ValueError where a screened search is asked for and not possible."""
    if execution.implementation == 'screened' and not is_possible(softmax, aggregation):
        raise ValueError(
            "implementation='screened' needs aggregation='overall' and a softmax over 'neighbors'; "
            f'these are {aggregation!r} and {softmax!r}'
        )


def is_early(numbers: jax.Array) -> jax.Array:
    """Whether most of the latest frames, by their numbers `[n]`, are copies of frame 0."""
    return jnp.mean(numbers == 0) > _MOST_COPIES


def search(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    codes: tuple[jax.Array, jax.Array],
    *,
    num_free: int,
    region: Region,
    k: int,
) -> tuple[jax.Array, jax.Array]:
    """Finds few context cells, among them the k of largest affinity to each target cell.

    These are the k best of the frames that are bound, and of those that are free the k best that
    are as good as the k-th best of these. Where a cell of a tile has fewer than k cells in the
    bound frames, all cells of the free frames are computed for the tile.

    The affinities come from products of different sizes, which round differently. So compute them
    once more in one way before they are compared, also because this function has no gradient.

    Args:
      features: `[H, W, C]` of the targets.
      frames: `[M, H, W, C]` of the context.
      valid: `[M]`, the frames from which cells may be selected.
      codes: of the targets and of the context, see `codes_of`.
      num_free: how many leading frames the region does not bind.
      region: which cells of the other frames are allowed.
      k: how many cells are selected.

    Returns:
      The affinities `[N, L]`, L = k or 2 k, -inf where fewer cells are allowed; and the cells'
      numbers `[N, L]`, frame * N + cell.
    """
    cut, candidates_of = _tile_candidates(features, valid, codes, num_free, region)
    keys = frames.reshape(-1, frames.shape[-1])

    def search_tile(start_and_corner):
        tile, (first, *rest) = candidates_of(*start_and_corner)
        # Search the frames that are bound first: few cells of the others reach their threshold.
        promising, is_needed = _search_promising(tile, keys, first, k)
        needed = _search_needed(tile, keys, first, is_needed, k)
        found = [best_of([promising, needed], k)]
        threshold = jnp.min(found[0][0], axis=-1, keepdims=True)
        for candidates in rest:
            is_needed = _reach(candidates.bounds, threshold)
            needed = _search_needed(tile, keys, candidates, is_needed, k)
            found.append(best_of([needed], k))
        return tuple(jnp.concatenate(lists, axis=-1) for lists in zip(*found))

    results = jax.lax.map(search_tile, (jnp.asarray(cut.starts), jnp.asarray(cut.corners)))
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[cut.place], results)


def is_worthwhile(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    codes: tuple[jax.Array, jax.Array],
    *,
    num_free: int,
    region: Region,
    k: int,
) -> jax.Array:
    """Whether bounds save work: whether few of the candidates are computed.

    It is found out in some of the tiles, in the frames that the region binds if there are any. The
    arguments are those of `search`. Where values are not finite, there are no bounds: another
    search shows these values.
    """
    is_finite = jnp.isfinite(sum(jnp.sum(x) for x in codes))
    cut, candidates_of = _tile_candidates(features, valid, codes, num_free, region)
    keys = frames.reshape(-1, frames.shape[-1])

    def share_of_tile(start_and_corner):
        tile, (candidates, *_) = candidates_of(*start_and_corner)
        is_needed = _search_promising(tile, keys, candidates, k)[-1]
        num_allowed = jnp.sum(jnp.any(candidates.bounds > -jnp.inf, axis=0))
        num_computed = min(_PROMISING, len(is_needed)) + jnp.sum(is_needed)
        return num_computed / jnp.maximum(num_allowed, 1)

    sample = slice(_TILE_STEP // 2 % len(cut.starts), None, _TILE_STEP)
    shares = jax.lax.map(
        share_of_tile, (jnp.asarray(cut.starts[sample]), jnp.asarray(cut.corners[sample]))
    )
    return (jnp.mean(shares) < _WORTHWHILE) & is_finite


def _tile_candidates(features, valid, codes, num_free, region):
    """Cuts the grid of target cells into tiles.

    Returns:
      The cut; and a function of a tile's start and its window's corner. It returns the tile's
      features `[q, C]`, and its candidates in the frames that the region binds, and in those that
      it does not, as far as there are such frames.
    """
    target_codes, frame_codes = codes
    num_frames, height, width, _ = frame_codes.shape
    # A region without a limit has one window, the whole grid.
    reach = (height, width) if region.reach is None else region.reach
    cut = windowed.tiling((height, width), reach, _tile_sides((height, width), reach))

    def candidates_of(start, corner):
        tile, tile_codes = (
            windowed.cut_out(x, start, cut.tile).reshape(-1, x.shape[-1])
            for x in (features, target_codes)
        )
        parts = []
        # The candidates in bound frames are in a window around the tile.
        if num_free < num_frames:
            places = corner + cut.window_cells
            window = windowed.cut_out(
                frame_codes, corner, cut.window, (num_free, num_frames - num_free)
            )
            inside = region.allows((start + cut.tile_cells)[:, None] - places[None])
            places = places[:, 0] * width + places[:, 1]
            parts.append((window, num_free, places, inside))
        # In free frames they are everywhere.
        if num_free:
            places = jnp.arange(height * width)
            parts.append((frame_codes[:num_free], 0, places, jnp.ones((1, len(places)), bool)))
        return tile, [
            _candidates(tile_codes, window, valid, first, height * width, places, inside)
            for window, first, places, inside in parts
        ]

    return cut, candidates_of


def _tile_sides(grid, reach):
    """The sides of the tiles for which the fewest affinities are bounded.

    On a grid that is too narrow for tiles of `_LEAST_TILE_CELLS` they are as large as may be.
    """

    def num_bounds(sides):
        _, window = windowed.tile_and_window(grid, reach, sides)
        num_tiles = math.prod(-(-whole // side) for whole, side in zip(grid, sides))
        return num_tiles * math.prod(sides) * math.prod(window)

    possible = itertools.product(*([min(side, x) for x in _TILE_SIDES] for side in grid))
    possible = sorted(set(possible), key=math.prod)
    large = [sides for sides in possible if math.prod(sides) >= _LEAST_TILE_CELLS]
    return min(large or possible[-1:], key=num_bounds)


class _Candidates(NamedTuple):
    """The places where a tile's neighbours may be, in groups of frames.

    Candidate number group * p + place is a place in all frames of a group.

    Attributes:
      bounds: `[q, b * p]`, from above, of the affinities with a place in any frame of the group;
        -inf where nothing is allowed.
      valid: `[b, m]`, whether cells of each of the frames may be selected. Of a frame that is in
        two groups, this is so in one of them.
      offsets: `[b, m]`, the number of the first cell of each of the frames.
      places: `[p]`, each place's cell in a frame.
      inside: `[q, p]` or `[1, p]`, the places that the region allows.
    """

    bounds: jax.Array
    valid: jax.Array
    offsets: np.ndarray
    places: jax.Array
    inside: jax.Array


def _candidates(tile_codes, window_codes, valid, first, num_cells, places, inside):
    """The candidates of a tile in some frames.

    Args:
      tile_codes: `[q, d + 1]`.
      window_codes: `[..., d + 1]`, of p cells of each of the frames.
      valid: `[M]`, of all frames.
      first: the number of the first of the frames.
      num_cells: N.
      places, inside: see `_Candidates`.
    """
    num_frames, width = len(window_codes), window_codes.shape[-1]
    # Cut the frames into groups of one size. The last group may begin inside the one before it.
    num_groups = -(-num_frames // _GROUP)
    size = -(-num_frames // num_groups)
    starts = np.arange(0, num_frames, size)
    numbers = np.minimum(starts, num_frames - size)[:, None] + np.arange(size)
    valid = valid[first + numbers] & (numbers >= starts[:, None])
    # Of each place keep the largest bound over the frames of a group.
    bounds = []
    for (start, *_), are_valid in zip(numbers, valid):
        codes = window_codes[start : start + size].reshape(-1, width)
        bound = affinity.affinity(tile_codes, codes).reshape(len(tile_codes), size, -1)
        bound = jnp.max(jnp.where(are_valid[:, None], bound, -jnp.inf), axis=1)
        bounds.append(jnp.where(inside, bound, -jnp.inf))
    bounds = jnp.concatenate(bounds, axis=-1)
    return _Candidates(bounds, valid, (first + numbers) * num_cells, places, inside)


def main_directions(features: jax.Array, count: int | None = None) -> jax.Array:
    """Finds directions that hold most of the energy of features: orthonormal `[C, count]`.

    They are an eighth of the channels if `count` is not given.

    Two steps of subspace iteration on the matrix of second moments, which are near its first
    eigenvectors. Every third row and column of the features `[H, W, C]` is used.
    """
    count = max(1, features.shape[-1] // _CHANNELS_PER_DIRECTION) if count is None else count
    features = features[::3, ::3].reshape(-1, features.shape[-1])
    features = features.astype(affinity.at_least_float32(features))
    moments = jnp.einsum('nc,nd->cd', features, features, precision='highest')
    start = np.random.default_rng(0).standard_normal((len(moments), count))
    directions = jnp.asarray(start, moments.dtype)
    for _ in range(2):
        directions = jnp.linalg.qr(jnp.matmul(moments, directions, precision='highest'))[0]
    return directions


def codes_of(features: jax.Array, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The codes of targets `[H, W, C]` and of context frames `[M, H, W, C]`, see `bound_codes`."""
    directions = main_directions(features)
    return bound_codes(features, directions), bound_codes(frames, directions)


def bound_codes(features: jax.Array, directions: jax.Array) -> jax.Array:
    """Makes vectors `[..., d + 1]` whose products are never below the features' affinities.

    They are V'f and r(f), see above, for features `[..., C]` and directions `[C, d]`. r is a little
    larger than there, by what float32 may round off.
    """
    features = features.astype(affinity.at_least_float32(features))
    kept = jnp.einsum('...c,cd->...d', features, directions, precision='highest')
    energy = jnp.sum(jnp.square(features), axis=-1)
    rest = jnp.maximum(energy - jnp.sum(jnp.square(kept), axis=-1), 0)
    rest = jnp.sqrt(rest + _ROUNDING * energy)
    return jnp.concatenate([kept, rest[..., None]], axis=-1)


def _search_promising(tile, keys, candidates, k):
    """Finds the best cells of the most promising candidates.

    Args:
      tile: features `[q, C]`.
      keys: features `[M * N, C]` of all context cells.
      candidates: of this tile.
      k: how many.

    Returns:
      The affinities and the numbers of cells, see `_search_chosen`; and for each other candidate,
      whether it may hold a neighbour by its bound.
    """
    bounds = candidates.bounds
    # Those are promising that come nearest to the best bound of some cell.
    promise = jnp.max(bounds - jnp.max(bounds, axis=1, keepdims=True), axis=0)
    promising = _top_k(promise[None], min(_PROMISING, len(promise)))[0]
    best = _search_chosen(tile, keys, candidates, promising, True, k)
    kth_best = jnp.min(jax.lax.top_k(best[0], k)[0], axis=-1, keepdims=True)
    is_needed = _reach(bounds, kth_best)
    return best, is_needed.at[promising].set(False)


def _reach(bounds, threshold):
    """Whether bounds `[q, n]` reach the thresholds `[q, 1]` of some cells, `[n]`."""
    return jnp.any((bounds >= threshold) & (bounds > -jnp.inf), axis=0)


def _search_needed(tile, keys, candidates, is_needed, k):
    """Finds the best cells of the candidates that are needed, see `_search_chosen`."""
    num_needed, sizes = jnp.sum(is_needed), _sizes(len(is_needed))

    def search_some(size):
        chosen = jnp.nonzero(is_needed, size=size, fill_value=0)[0]
        is_wanted = jnp.arange(size) < num_needed
        return _search_chosen(tile, keys, candidates, chosen, is_wanted, k)

    affinities, cells = jax.eval_shape(lambda: search_some(sizes[0]))
    nothing = jnp.full_like(affinities, -jnp.inf), jnp.zeros_like(cells)
    branches = [lambda: nothing, *(lambda size=size: search_some(size) for size in sizes)]
    return jax.lax.switch(jnp.searchsorted(jnp.asarray([0, *sizes]), num_needed), branches)


def _search_chosen(tile, keys, candidates, chosen, is_wanted, k):
    """Finds m * k cells of the chosen candidates, the k best among them.

    Args:
      tile, keys, candidates, k: see `_search_promising`.
      chosen: numbers of candidates `[s]`, in order.
      is_wanted: `[s]`, or True; cells of other candidates are not found.

    Returns:
      Affinities, -inf where there are too few cells, and numbers of cells `[q, m * k]`.
    """
    group, place = jnp.divmod(chosen, len(candidates.places))
    # Compute the affinities with the places in all frames of their groups, `[q, m, s]`.
    cells = jnp.asarray(candidates.offsets).T[:, group] + candidates.places[place]
    affinities = affinity.affinity(tile, keys.at[cells.reshape(-1)].get(mode='promise_in_bounds'))
    affinities = affinities.reshape(len(tile), *cells.shape)
    allowed = candidates.valid.T[:, group] & (candidates.inside[:, place] & is_wanted)[:, None]
    affinities = jnp.where(allowed, affinities, -jnp.inf)
    # The k best lie in the k columns of largest maxima.
    num_columns = min(k, len(chosen))
    columns = _top_k(jnp.max(affinities, axis=1), num_columns)
    affinities = jnp.take_along_axis(affinities, columns[:, None], axis=-1)
    cells = jnp.moveaxis(cells.T[columns], 1, 2)
    missing = (0, 0), (0, 0), (0, k - num_columns)
    affinities = jnp.pad(affinities, missing, constant_values=-jnp.inf)
    return affinities.reshape(len(tile), -1), jnp.pad(cells, missing).reshape(len(tile), -1)


def _sizes(num_candidates):
    """Numbers of candidates in equal ratios, from half of the promising ones to all."""
    least = min(_PROMISING // 2, num_candidates)
    return sorted({math.ceil(x) for x in np.geomspace(least, num_candidates, _SIZES).round(6)})


def best_of(found: Sequence[tuple[jax.Array, jax.Array]], k: int) -> tuple[jax.Array, jax.Array]:
    """The k best of lists of affinities and cells `[N, L]`, in no certain order.

    Of equal ones these are those of smallest number. Affinities that are not numbers come first.
    """
    affinities, cells = (jnp.concatenate(lists, axis=-1) for lists in zip(*found))
    if affinities.shape[-1] == k:
        return affinities, cells
    # XLA takes some values that are not numbers for the least ones.
    ranks = jnp.where(jnp.isnan(affinities), jnp.inf, jax.lax.stop_gradient(affinities))
    best, order = jax.lax.top_k(ranks, k)
    kth_best = jnp.min(best, axis=-1, keepdims=True)
    num_as_good = jnp.sum((ranks >= kth_best) & (ranks > -jnp.inf), axis=-1)
    # A sort takes long. It is only needed where the k best are not certain.
    return jax.lax.cond(
        jnp.any(num_as_good > k),
        lambda: tuple(x[:, :k] for x in best_first(affinities, cells)),
        lambda: tuple(jnp.take_along_axis(x, order, axis=-1) for x in (affinities, cells)),
    )


def best_first(affinities: jax.Array, cells: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sorts affinities and cells `[..., L]` by falling affinity, equal ones by the cell's number.

    Affinities that are not numbers come first.
    """
    losses = jax.lax.stop_gradient(-affinities)
    losses = jnp.where(jnp.isnan(losses), -jnp.inf, losses)
    _, cells, affinities = jax.lax.sort((losses, cells, affinities), num_keys=2)
    return affinities, cells


def _top_k(values, k):
    """The places of the k largest values of each row, in order, so that the first of ties wins."""
    return jnp.sort(jax.lax.top_k(values, k)[1], axis=-1)
