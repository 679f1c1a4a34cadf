"""Finds the same neighbours with fewer multiplications, by bounds on the affinities.

Most of the energy of a network's features lies in few directions. So a product of few channels
bounds an affinity closely from above. For an orthonormal V `[C, d]`, by Cauchy and Schwarz,

    <g, f> <= <V'g, V'f> + r(g) r(f),        r(f) = sqrt(|f|^2 - |V'f|^2),

which is one product of d + 1 channels. The grid of target cells is cut into tiles, as in
`windowed`. For each tile:

1. Bound all affinities. Of each place keep the largest bound over the context frames.
2. Compute the affinities of the most promising places. The k-th best of them is a threshold, which
   no neighbour can be below.
3. Compute the affinities of every other place whose bound reaches the threshold of some cell of the
   tile, and select the k best. No other place can hold a neighbour.

The answer is exact, but for rounding. For features without main directions, such as random ones, or
whose affinities are all alike, bounds are too loose to save work, see `is_worthwhile`. How many
places step 3 computes depends on the video, so it chooses among programs of a few sizes. Under
`jax.vmap` JAX would run all of these: there the caller searches in another way.

Shapes: H, W feature cells, N = H * W, C channels, M context frames, tiles of q cells, p places.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import affinity
from jaxprop.rules import windowed
from jaxprop.rules.rule import Execution, Region

# The side of a tile. In larger tiles some cell needs almost every place.
_TILE = 8
# How many places step 2 computes: two for each cell of a tile.
_PROMISING = 128
_CHANNELS_PER_DIRECTION = 8
# `is_worthwhile` looks at one in so many tiles, and at one in so many frames. The first number is
# prime, so that these tiles lie in different columns.
_TILE_STEP = 23
_FRAME_STEP = 4
# Bounds save work where steps 2 and 3 compute less than this share of the allowed places.
_WORTHWHILE = 0.6
# The number of programs for step 3. Each takes half a second to compile.
_SIZES = 6
# Bounds are raised by this share of |g| |f|, which is more than what float32 rounds off.
_ROUNDING = 4e-6
# The least numbers of cells and of channels for which 'auto' screens. Below, little time is saved.
_LEAST_CELLS, _LEAST_CHANNELS = 2000, 64


def is_possible(softmax: str, aggregation: str) -> bool:
    """Whether neighbours can be screened."""
    return softmax == 'neighbors' and aggregation == 'overall'


def is_used(shape: tuple[int, ...], softmax: str, aggregation: str, execution: Execution) -> bool:
    """Whether neighbours of features of shape (H, W, C) are screened.

    For 'screened'; and for 'auto' on CPUs, where it is possible and grid and features are large.
    """
    if execution.implementation != 'auto':
        return execution.implementation == 'screened'
    height, width, channels = shape
    is_large = height * width >= _LEAST_CELLS and channels >= _LEAST_CHANNELS
    return is_large and is_possible(softmax, aggregation) and jax.default_backend() == 'cpu'


def check(softmax: str, aggregation: str, execution: Execution) -> None:
    """Raises ValueError where a screened search is asked for and not possible."""
    if execution.implementation == 'screened' and not is_possible(softmax, aggregation):
        raise ValueError(
            "implementation='screened' needs aggregation='overall' and a softmax over 'neighbors'; "
            f'these are {aggregation!r} and {softmax!r}'
        )


def search(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    directions: jax.Array,
    *,
    num_free: int,
    region: Region,
    k: int,
) -> tuple[jax.Array, jax.Array]:
    """Finds few context cells, among them the k of largest affinity to each target cell.

    These are the k best of the frames that are bound, and the k best of those that are free. Their
    affinities come from products of different sizes, which round differently. So compute them once
    more in one way before they are compared, also because this function has no gradient.

    Args:
      features: `[H, W, C]` of the targets.
      frames: `[M, H, W, C]` of the context.
      valid: `[M]`, the frames from which cells may be selected.
      directions: `[C, d]`, see `main_directions`.
      num_free: how many leading frames the region does not bind.
      region: which cells of the other frames are allowed.
      k: how many cells are selected.

    Returns:
      The affinities `[N, L]`, L = k or 2 k, -inf where fewer cells are allowed; and the cells'
      numbers `[N, L]`, frame * N + cell.
    """
    cut, candidates_of = _tile_candidates(features, frames, valid, directions, num_free, region)
    keys = frames.reshape(-1, frames.shape[-1])

    def search_tile(start_and_corner):
        tile, groups = candidates_of(*start_and_corner)
        threshold, found = -jnp.inf, []
        # Search the frames that are bound first: few cells of the others reach their threshold.
        for candidates in groups:
            found.append(_search_frames(threshold, tile, keys, candidates, k))
            threshold = jnp.min(found[0][0], axis=-1, keepdims=True)
        return tuple(jnp.concatenate(lists, axis=-1) for lists in zip(*found))

    results = jax.lax.map(search_tile, (jnp.asarray(cut.starts), jnp.asarray(cut.corners)))
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[cut.place], results)


def is_worthwhile(
    features: jax.Array,
    frames: jax.Array,
    valid: jax.Array,
    directions: jax.Array,
    *,
    num_free: int,
    region: Region,
    k: int,
) -> jax.Array:
    """Whether bounds save work: whether few of the places are computed.

    It is found out in some of the tiles and of the frames, those that the region binds if there are
    any. The arguments are those of `search`. Where values are not finite, there are no bounds:
    another search shows these values.
    """
    energies = [jnp.sum(jnp.square(x.astype(directions.dtype))) for x in (features, frames)]
    is_finite = jnp.isfinite(sum(energies))
    first, num_free = (0, len(frames)) if num_free == len(frames) else (num_free, 0)
    frames, valid = (x[first::_FRAME_STEP] for x in (frames, valid))
    cut, candidates_of = _tile_candidates(
        features, frames, valid, directions, min(num_free, len(frames)), region
    )
    keys = frames.reshape(-1, frames.shape[-1])

    def share_of_tile(start_and_corner):
        tile, (candidates, *_) = candidates_of(*start_and_corner)
        is_needed = _search_promising(-jnp.inf, tile, keys, candidates, k)[-1]
        num_allowed = jnp.sum(jnp.any(candidates.bounds > -jnp.inf, axis=0))
        num_computed = min(_PROMISING, len(is_needed)) + jnp.sum(is_needed)
        return num_computed / jnp.maximum(num_allowed, 1)

    sample = slice(_TILE_STEP // 2 % len(cut.starts), None, _TILE_STEP)
    shares = jax.lax.map(
        share_of_tile, (jnp.asarray(cut.starts[sample]), jnp.asarray(cut.corners[sample]))
    )
    return (jnp.mean(shares) < _WORTHWHILE) & is_finite


def _tile_candidates(features, frames, valid, directions, num_free, region):
    """Cuts the grid of target cells into tiles.

    Returns:
      The cut; and a function of a tile's start and its window's corner. It returns the tile's
      features `[q, C]`, and its candidates in the frames that the region binds, and in those that
      it does not, as far as there are such frames.
    """
    num_frames, height, width, _ = frames.shape
    num_cells = height * width
    codes = bound_codes(features, directions)
    frame_codes = bound_codes(frames, directions)
    bound_frames = np.arange(num_free, num_frames)
    # A region without a limit has one window, the whole grid.
    reach = (height, width) if region.reach is None else region.reach
    cut = windowed.tiling((height, width), reach, _TILE)

    def candidates_of(start, corner):
        tile, tile_codes = (
            windowed.cut_out(x, start, cut.tile).reshape(-1, x.shape[-1]) for x in (features, codes)
        )
        groups = []
        # The candidates in bound frames are in a window around the tile.
        if bound_frames.size:
            places = corner + cut.window_cells
            window = windowed.cut_out(
                frame_codes, corner, cut.window, (num_free, len(bound_frames))
            )
            inside = region.allows((start + cut.tile_cells)[:, None] - places[None])
            groups.append(
                _Candidates(
                    _bounds(tile_codes, window, valid[num_free:], inside),
                    valid[num_free:],
                    bound_frames * num_cells,
                    places[:, 0] * width + places[:, 1],
                    inside,
                )
            )
        # In free frames they are everywhere.
        if num_free:
            everywhere = jnp.ones((1, num_cells), bool)
            groups.append(
                _Candidates(
                    _bounds(tile_codes, frame_codes[:num_free], valid[:num_free], everywhere),
                    valid[:num_free],
                    np.arange(num_free) * num_cells,
                    jnp.arange(num_cells),
                    everywhere,
                )
            )
        return tile, groups

    return cut, candidates_of


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


def _bounds(tile_codes, window_codes, valid, inside):
    """The largest bound over the frames, `[q, p]`; -inf where nothing is allowed."""
    num_frames, width = len(window_codes), window_codes.shape[-1]
    bounds = affinity.affinity(tile_codes, window_codes.reshape(-1, width))
    bounds = bounds.reshape(len(tile_codes), num_frames, -1)
    bounds = jnp.max(jnp.where(valid[:, None], bounds, -jnp.inf), axis=1)
    return jnp.where(inside, bounds, -jnp.inf)


class _Candidates(NamedTuple):
    """The cells of some frames among which a tile's neighbours are.

    Attributes:
      bounds: `[q, p]`, from above, of the affinities with each place in any of the frames.
      valid: `[m]`, whether cells of each of the frames may be selected.
      offsets: `[m]`, the number of the first cell of each of the frames.
      places: `[p]`, each place's cell in a frame.
      inside: `[q, p]` or `[1, p]`, the places that the region allows.
    """

    bounds: jax.Array
    valid: jax.Array
    offsets: np.ndarray
    places: jax.Array
    inside: jax.Array


def _search_frames(threshold, tile, keys, candidates, k):
    """Finds the k best candidates, or at least those that reach a threshold.

    Args:
      threshold: `[q, 1]`, or -inf; candidates of lower affinity need not be found.
      tile: features `[q, C]`.
      keys: features `[M * N, C]` of all context cells.
      candidates: of this tile.
      k: how many.

    Returns:
      Affinities, -inf where there are fewer than k cells, and numbers of cells, `[q, k]` each.
    """
    best, is_needed = _search_promising(threshold, tile, keys, candidates, k)
    sizes = _sizes(len(candidates.places))

    def search_needed(size):
        chosen = _top_k(is_needed[None].astype(candidates.bounds.dtype), size)[0]
        return _best_of(best, _search_places(tile, keys, candidates, chosen, is_needed[chosen], k))

    branches = [lambda: best, *(lambda size=size: search_needed(size) for size in sizes)]
    branch = jnp.searchsorted(jnp.asarray([0, *sizes]), jnp.sum(is_needed))
    return jax.lax.switch(branch, branches)


def _search_promising(threshold, tile, keys, candidates, k):
    """Finds the k best cells of the most promising places, and the other places that are needed.

    Returns:
      The affinities and the numbers of the cells `[q, k]`; and for each place `[p]`, whether it may
      hold another neighbour by its bound.
    """
    bounds = candidates.bounds
    # Those are promising that come nearest to the best bound of some cell.
    promise = jnp.max(bounds - jnp.max(bounds, axis=1, keepdims=True), axis=0)
    promising = _top_k(promise[None], min(_PROMISING, len(promise)))[0]
    best = _search_places(tile, keys, candidates, promising, True, k)
    threshold = jnp.maximum(threshold, jnp.min(best[0], axis=-1, keepdims=True))
    is_needed = jnp.any((bounds >= threshold) & (bounds > -jnp.inf), axis=0)
    return best, is_needed.at[promising].set(False)


def _search_places(tile, keys, candidates, chosen, is_wanted, k):
    """Finds the k best cells of the chosen places, so far as these are wanted."""
    valid, offsets, inside = candidates.valid, candidates.offsets, candidates.inside
    rows = (offsets[:, None] + candidates.places[chosen]).reshape(-1)
    affinities = affinity.affinity(tile, keys.at[rows].get(mode='promise_in_bounds'))
    affinities = affinities.reshape(len(tile), len(offsets), -1)
    allowed = valid[:, None] & (inside[:, chosen] & is_wanted)[:, None]
    affinities = jnp.where(allowed, affinities, -jnp.inf)
    found, order = _largest(affinities, k)
    missing = (0, 0), (0, k - found.shape[-1])
    found = jnp.pad(found, missing, constant_values=-jnp.inf)
    return found, jnp.pad(rows[order], missing)


def _sizes(num_places):
    """Numbers of places in equal ratios, from half of the promising ones to all."""
    least = min(_PROMISING // 2, num_places)
    return sorted({math.ceil(x) for x in np.geomspace(least, num_places, _SIZES).round(6)})


def _best_of(some, others):
    """The k best of two lists of k affinities and cells."""
    affinities, cells = (jnp.concatenate(pair, axis=-1) for pair in zip(some, others))
    k = some[0].shape[-1]
    return tuple(x[:, :k] for x in best_first(affinities, cells))


def best_first(affinities: jax.Array, cells: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sorts affinities and cells `[..., L]` by falling affinity, equal ones by the cell's number.

    Affinities that are not numbers come first.
    """
    losses = jax.lax.stop_gradient(-affinities)
    losses = jnp.where(jnp.isnan(losses), -jnp.inf, losses)
    _, cells, affinities = jax.lax.sort((losses, cells, affinities), num_keys=2)
    return affinities, cells


def _largest(values, k):
    """Finds the k largest of values `[q, s, b]`, and their places in the rows of s * b.

    They are in the order of their places. The k largest values lie in the k columns of largest
    maxima, so only these are searched. A row may have fewer values than k.
    """
    num_rows, size, num_columns = values.shape
    columns = _top_k(jnp.max(values, axis=1), min(k, num_columns))
    candidates = jnp.take_along_axis(values, columns[:, None], axis=-1)
    candidates = candidates.reshape(num_rows, -1)
    order = _top_k(candidates, min(k, candidates.shape[-1]))
    row, column = jnp.divmod(order, columns.shape[-1])
    places = row * num_columns + jnp.take_along_axis(columns, column, axis=-1)
    return jnp.take_along_axis(candidates, order, axis=-1), places


def _top_k(values, k):
    """The places of the k largest values of each row, in order, so that the first of ties wins."""
    return jnp.sort(jax.lax.top_k(values, k)[1], axis=-1)
