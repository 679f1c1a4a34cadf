"""Rules that copy labels from nearest neighbours, or by attention over all cells of a region.

For a target cell j with features g_j, and context cells i with features f_i and soft labels y_i,

    z_j = sum_{i in K(j)} exp(a_ij / T - Z_j) y_i,        a_ij = <f_i, g_j>,

where K(j) are the k context cells of largest affinity among those that the region allows (`TopK`),
or all that it allows (`Attention`), and Z_j is the logarithm of the softmax's denominator.

Source: McKee et al., "Transfer of Representations to Video Label Propagation: Implementation
Factors Matter", BMVC 2022, Algorithm 1 and section 3.

Shapes: H, W feature cells, N = H * W, C channels, L labels, M context slots.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.scipy.special import logsumexp

from jaxprop import affinity
from jaxprop.memory import ContextFrames, Memory, vary_like
from jaxprop.rules import batched, screened, windowed
from jaxprop.rules.regions import Disk, allowed_offsets
from jaxprop.rules.rule import Execution, Region, Rule

AGGREGATIONS = ('overall', 'per_frame')
# So many target cells, with their neighbours, stay in a CPU's cache.
_TARGETS_AT_ONCE = 64


def check_k(k: int) -> None:
    """Raises ValueError where `k` is no number of neighbours."""
    if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
        raise ValueError(
            f'k (num_neighbors) is {k!r}; it must be a whole number of at least 1; for all cells '
            'take Attention (num_neighbors=none)'
        )


def check_temperature(temperature: float) -> None:
    """Raises ValueError for a temperature that no softmax can have."""
    if not (isinstance(temperature, numbers.Real) and 0 < temperature < math.inf):
        raise ValueError(f'temperature is {temperature!r}; it must be positive and finite')


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError where the `value` of the setting `name` is not one of the `known` ones."""
    if value not in known:
        raise ValueError(f'{name} is {value!r}; it must be one of {", ".join(known)}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK(Rule):
    """Copies the labels of the k context cells that are most alike.

    Attributes:
      k: how many neighbours a target cell has.
      temperature: T in softmax(A / T).
      region: which context cells are allowed: `Everywhere`, `Disk`, `Square`, or one of your own.
      aggregation: 'overall': one selection of k cells over all context frames together;
        'per_frame': one selection in each context frame, the resulting labels averaged.
      softmax: which cells the softmax's denominator sums. 'neighbors': the k selected ones;
        'region': all allowed ones; 'frame': all cells of the context frame (of all context frames
        with 'overall'), allowed or not. With 'region' and 'frame' the weights of the selected cells
        sum to less than 1.

    Raises:
      ValueError: a value out of its range.

    >>> import jaxprop
    >>> rule = jaxprop.TopK(k=5, temperature=0.1, region=jaxprop.Square(13))
    >>> jaxprop.Propagation(rule=rule).rule.k
    5
    """

    k: int = 10
    temperature: float = 0.05
    region: Region = Disk()
    aggregation: str = 'overall'
    softmax: str = 'neighbors'

    def __post_init__(self):
        check_k(self.k)
        check_temperature(self.temperature)
        check_choice('aggregation', self.aggregation, AGGREGATIONS)
        check_choice('softmax', self.softmax, affinity.SOFTMAX_OVER)

    def check_grid(self, grid: tuple[int, int], memory: Memory, execution: Execution) -> None:
        windowed.check(self.region, self.softmax, execution)
        batched.check(self.softmax, execution)
        screened.check(self.softmax, self.aggregation, execution)
        num_candidates = self._num_candidates(grid, memory)
        if self.k > num_candidates:
            raise ValueError(
                f'k (num_neighbors) is {self.k}, but a cell has at most {num_candidates} '
                f'candidates on a grid of {grid[0]}x{grid[1]} with these settings; use fewer, or '
                'Attention (num_neighbors=none) for all of them'
            )

    def label(self, context: ContextFrames, features: jax.Array, execution: Execution) -> jax.Array:
        cells, weights = self.matches(context, features, execution)
        labels = rearrange(context.labels, 'm h w l -> (m h w) l')
        label = jnp.sum(weights[..., None] * labels[cells], axis=1)
        return rearrange(label, '(h w) l -> h w l', h=context.grid[0])

    def matches(
        self, context: ContextFrames, features: jax.Array, execution: Execution = Execution()
    ) -> tuple[jax.Array, jax.Array]:
        """Finds the context cells from which each target cell is labelled, and their weights.

        Args:
          context: the context frames.
          features: `[H, W, C]` of the target frame.
          execution: how this is computed.

        Returns:
          The cells' numbers, slot * N + cell, and their weights in the sum, `[N, K]` each, in no
          certain order: K is k, or M k with `aggregation` 'per_frame'.
        """
        shape = context.features.shape
        is_screened = screened.is_used(shape, self.softmax, self.aggregation, execution)
        search = self._matches_screened if is_screened else self._matches
        return search(context, features, execution)

    def _matches_screened(self, context, features, execution):
        """Finds the cells by bounds on affinities where that saves work, else as `_matches` does.

        It does not early in a video. Under `jax.vmap` it is always as `_matches` does.
        """
        num_free = _num_free(context.keep_first + context.num_given, context.num_slots, self.region)
        is_mixed = 0 < num_free < context.num_slots

        def search_all(features, frames, valid, numbers):
            here = dataclasses.replace(context, features=frames, valid=valid, numbers=numbers)
            cells, weights = self._matches(here, features, execution)
            missing = (0, 0), (0, is_mixed * self.k)
            return jnp.pad(cells, missing), jnp.pad(weights != 0, missing)

        @jax.custom_batching.custom_vmap
        def find(features, frames, valid, numbers):
            problem = features, frames, valid, screened.codes_of(features, frames)
            settings = {'num_free': num_free, 'region': self.region, 'k': self.k}

            def screen():
                affinities, cells = screened.search(*problem, **settings)
                return cells, affinities != -jnp.inf

            is_early = screened.is_early(numbers[context.num_kept :])
            return jax.lax.cond(
                screened.is_worthwhile(*problem, **settings) & ~is_early,
                screen,
                lambda: search_all(features, frames, valid, numbers),
            )

        @find.def_vmap
        def find_in_all(axis_size, in_batched, *arrays):
            del axis_size
            axes = [0 if is_batched else None for is_batched in in_batched]
            return jax.vmap(search_all, in_axes=axes)(*arrays), (True, True)

        arrays = features, context.features, context.valid, context.numbers
        cells, is_allowed = find(*jax.lax.stop_gradient(arrays))
        # Compute the affinities once more, all in one way and with a gradient, and select by them.
        frames = rearrange(context.features, 'm h w c -> (m h w) c')
        affinities = affinity.map_queries(
            lambda query, index: jnp.sum(query[:, None] * frames[cells[index]], axis=-1),
            rearrange(features, 'h w c -> (h w) c'),
            _TARGETS_AT_ONCE,
        )
        affinities = jnp.where(is_allowed, affinities, -jnp.inf)
        affinities, cells = screened.best_of([(affinities, cells)], self.k)
        logits = affinities / self.temperature
        return cells, affinity.neighbor_weights(affinity.Neighbors(logits, cells, None))

    def _matches(self, context, features, execution):
        per_frame = self.aggregation == 'per_frame'
        # 'overall' must not select from slots that are not valid. 'per_frame' searches these too,
        # and gives them no share of the average.
        searched = context.valid | per_frame
        is_batched = batched.is_used(self.softmax, execution)
        parts = []
        for slots, is_bound in _bound_and_free(context, self.region):
            region = self.region if is_bound else None
            if is_batched and batched.fits(features.shape, region, self.softmax):
                some = slice(slots[0], slots[-1] + 1)
                found = batched.search(
                    features,
                    context.features[some],
                    searched[some],
                    per_frame=per_frame,
                    region=region,
                    k=self.k,
                    temperature=self.temperature,
                    softmax=self.softmax,
                    precision=execution.precision,
                )
                cells = found.cells + slots[0] * math.prod(context.grid)
                parts.append(found._replace(cells=cells))
                continue
            if is_bound and windowed.is_used(context.grid, self.region, self.softmax, execution):
                group = windowed.group_size(len(slots))
                search = functools.partial(
                    windowed.search,
                    features,
                    context.features,
                    searched,
                    num_frames=group,
                    per_frame=per_frame,
                    region=self.region,
                    k=self.k,
                    temperature=self.temperature,
                    softmax=self.softmax,
                )
            else:
                group = 1
                search = functools.partial(
                    self._search_frame, context.features, features, searched, is_bound, execution
                )
            parts.append(_search_slots(search, slots, group, context, features, searched))
        if per_frame:
            return _per_frame(parts, context.valid)
        return _overall(parts, self.k, batched.best_of if is_batched else jax.lax.top_k)

    def _search_frame(self, frames, features, valid, is_bound, execution, slot):
        """Finds the `Neighbors [1, N, k]` of all target cells in one slot, by dense affinities."""
        grid = features.shape[:2]
        frame = rearrange(frames[slot], 'h w c -> (h w) c')

        def search(query, index):
            logits = affinity.affinity(query, frame) / self.temperature
            logits = jnp.where(valid[slot], logits, -jnp.inf)
            allowed = _restrict(logits, index, grid, self.region) if is_bound else logits
            found = affinity.select_neighbors(logits, allowed, self.k, self.softmax)
            return found._replace(cells=found.cells + slot * len(frame))

        queries = rearrange(features, 'h w c -> (h w) c')
        found = affinity.map_queries(search, queries, execution.query_chunk)
        return jax.tree.map(lambda x: x[None], found)

    def _num_candidates(self, grid, memory):
        """The number of context cells from which the cell with most of them can choose."""
        num_cells = math.prod(grid)
        in_region = _largest_region(grid, self.region)
        num_slots = memory.num_slots - memory.num_given  # Those of given frames may be empty.
        num_free = _num_free(memory.keep_first, num_slots, self.region)
        if self.aggregation == 'overall':
            return num_free * num_cells + (num_slots - num_free) * in_region
        return num_cells if memory.num_frames == 0 and num_free else in_region


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention(Rule):
    """Copies the labels of all context cells that the region allows.

    Attributes:
      temperature: T in softmax(A / T).
      region: which context cells are allowed: `Everywhere`, `Disk`, `Square`, or one of your own.
      aggregation: 'overall': one softmax over all context frames together; 'per_frame': one for
        each context frame, the resulting labels averaged.
      softmax: 'region': over the allowed cells; 'frame': over all cells, before restriction.

    Raises:
      ValueError: a value out of its range.

    >>> import jaxprop
    >>> rule = jaxprop.Attention(region=jaxprop.Square(7))  # 13 x 13 cells
    >>> rule.region.reach
    (6, 6)
    """

    temperature: float = 0.05
    region: Region = Disk()
    aggregation: str = 'overall'
    softmax: str = 'region'

    def __post_init__(self):
        check_temperature(self.temperature)
        check_choice('aggregation', self.aggregation, AGGREGATIONS)
        check_choice('softmax', self.softmax, ('region', 'frame'))

    def check_grid(self, grid: tuple[int, int], memory: Memory, execution: Execution) -> None:
        if execution.implementation in ('batched', 'screened'):
            raise ValueError(
                f'implementation={execution.implementation!r} is not for Attention; use '
                "'auto', 'windowed' or 'dense'"
            )
        windowed.check(self.region, self.softmax, execution)
        if self.region.reach is not None:
            allowed_offsets(grid, self.region)

    def label(self, context: ContextFrames, features: jax.Array, execution: Execution) -> jax.Array:
        grid = context.grid
        queries = rearrange(features, 'h w c -> (h w) c')
        over = affinity.SOFTMAX_OVER[self.softmax]

        def attend_slot(slot, is_bound):
            frame, label = context.features[slot], context.labels[slot]
            if is_bound and windowed.is_used(grid, self.region, self.softmax, execution):
                return windowed.attend(
                    features, frame, label, region=self.region, temperature=self.temperature
                )
            frame, label = (rearrange(x, 'h w c -> (h w) c') for x in (frame, label))

            def attend(query, index):
                logits = affinity.affinity(query, frame) / self.temperature
                allowed = _restrict(logits, index, grid, self.region) if is_bound else logits
                log_sums = logsumexp(over(logits, allowed), axis=-1)
                return log_sums, affinity.soft_copy(jnp.exp(allowed - log_sums[:, None]), label)

            return affinity.map_queries(attend, queries, execution.query_chunk)

        parts = [
            jax.lax.map(functools.partial(attend_slot, is_bound=is_bound), jnp.asarray(slots))
            for slots, is_bound in _bound_and_free(context, self.region)
        ]
        log_sums, copied = jax.tree.map(lambda *part: jnp.concatenate(part), *parts)
        label = combine_slots(log_sums, copied, context.valid, self.aggregation)
        return rearrange(label, '(h w) l -> h w l', h=grid[0])


def combine_slots(
    log_sums: jax.Array, labels: jax.Array, valid: jax.Array, aggregation: str
) -> jax.Array:
    """Combines the labels that attention copied from each context slot to one label.

    Args:
      log_sums: `[M, N]`, the logarithms of each slot's denominators.
      labels: `[M, N, L]`, the labels copied from each slot.
      valid: `[M]`; the other slots get no share.
      aggregation: 'overall' or 'per_frame'.

    Returns:
      `[N, L]`.
    """
    if aggregation == 'overall':
        shares = jax.nn.softmax(log_sums, axis=0, where=valid[:, None])
    else:
        shares = jnp.broadcast_to((valid / jnp.sum(valid))[:, None], log_sums.shape)
    return jnp.einsum('mn,mnl->nl', shares, labels)


def _num_free(num_given, num_slots, region):
    """The number of leading slots that the region does not bind.

    Args:
      num_given: how many leading slots hold frames whose label is given, frame 0 among them.
      num_slots: M.
      region: it binds all slots, or all but those of given frames, or none.
    """
    if region.reach is None:
        return num_slots
    return 0 if region.bind_first else int(num_given)


def _bound_and_free(context, region):
    """The numbers of the slots that the region leaves free, and of those that it binds."""
    num_given = context.keep_first + context.num_given
    num_free = _num_free(num_given, context.num_slots, region)
    slots = np.arange(context.num_slots)
    parts = (slots[:num_free], False), (slots[num_free:], True)
    return [(numbers, is_bound) for numbers, is_bound in parts if numbers.size]


def _restrict(logits, index, grid, region):
    """Sets logits `[Q, N]` of the targets numbered `index` to -inf where the region forbids."""
    targets = jnp.stack([index // grid[1], index % grid[1]], axis=-1)
    cells = jnp.asarray(np.indices(grid).reshape(2, -1).T)
    return jnp.where(region.allows(targets[:, None] - cells[None]), logits, -jnp.inf)


@functools.lru_cache
def _largest_region(grid, region):
    """How many context cells the region allows at most to a target cell of a grid."""
    if region.reach is None:
        return math.prod(grid)
    allowed = allowed_offsets(grid, region)
    # The cells of the grid, seen from one target cell, are a window over these offsets. Count the
    # allowed ones in every window.
    sums = np.pad(allowed.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    h, w = grid
    counts = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    return int(counts.max())


def _search_slots(search, slots, size, context, features, valid):
    """Searches groups of slots one after another: `Neighbors` from `search(first slot)` of each.

    Early in a video most slots are copies of frame 0. If this group and the previous one hold only
    such copies, the previous group's result is reused, its cell numbers shifted. One group is
    searched at a time, so peak memory is that of one group plus the result lists.
    """
    groups = slots.reshape(-1, size)

    # Mark the groups that repeat the one before: only copies of frame 0, with equal validity.
    is_first = jnp.all(context.numbers[groups] == 0, axis=-1)
    is_searched = valid[groups]
    same_validity = jnp.all(is_searched[1:] == is_searched[:-1], axis=-1)
    is_repeat = is_first[1:] & is_first[:-1] & same_validity
    is_repeat = jnp.concatenate([jnp.zeros(1, bool), is_repeat])
    shift = size * math.prod(context.grid)

    # Search each group, or shift the result of the one before.
    def step(before, group):
        first, is_repeat = group
        found = jax.lax.cond(
            is_repeat,
            lambda: before._replace(cells=before.cells + shift),
            lambda: search(first),
        )
        return found, found

    nothing = jax.tree.map(
        lambda x: vary_like(jnp.zeros(x.shape, x.dtype), features, context.features, valid),
        jax.eval_shape(search, slots[0]),
    )
    _, found = jax.lax.scan(step, nothing, (jnp.asarray(groups[:, 0]), is_repeat))
    return jax.tree.map(lambda x: rearrange(x, 'g l ... -> (g l) ...'), found)


def _overall(parts, k, top_k):
    """Selects the k best cells `[N, k]` of all lists together, and computes their weights.

    Args:
      parts: `Neighbors` `[m, N, k]`, cells numbered through all slots.
      k: how many cells are selected.
      top_k: finds the k largest values of each row `[N, n]`, and their places.
    """
    logits, cells = (
        jnp.concatenate([rearrange(x, 'm n k -> n (m k)') for x in lists], axis=-1)
        for lists in ([part.logits for part in parts], [part.cells for part in parts])
    )
    logits, order = top_k(logits, k)
    cells = jnp.take_along_axis(cells, order, axis=-1)
    log_sums = None
    if parts[0].log_sums is not None:
        log_sums = logsumexp(jnp.concatenate([part.log_sums for part in parts]), axis=0)
    return cells, affinity.neighbor_weights(affinity.Neighbors(logits, cells, log_sums))


def _per_frame(parts, valid):
    """Lists the k best cells of each slot, `[N, M k]`, and their weights, averaged over the slots.

    Args:
      parts: `Neighbors` `[m, N, k]`, together M lists, one for each slot.
      valid: `[M]`; the other slots get no weight.
    """
    found = jax.tree.map(lambda *part: jnp.concatenate(part), *parts)
    weights = affinity.neighbor_weights(found) * (valid / jnp.sum(valid))[:, None, None]
    return rearrange(found.cells, 'm n k -> n (m k)'), rearrange(weights, 'm n k -> n (m k)')
