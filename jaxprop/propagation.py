"""Label propagation: the label of frame 0 is copied through a video by nearest neighbours.

For a target cell j with features g_j, and context cells i (of frame 0 and the n latest frames)
with features f_i and soft labels y_i, the label of j is

    z_j = sum_{i in K(j)} exp(a_ij / T - Z_j) y_i,        a_ij = <f_i, g_j>,

K(j) the k context cells of largest affinity among those that the spatial restriction allows, Z_j
the logarithm of the softmax's denominator. `PropagationConfig` says over which cells K and Z range:
McKee et al., "Transfer of Representations to Video Label Propagation: Implementation Factors
Matter", BMVC 2022, Algorithm 1 and section 3.

Shapes: H, W feature cells, N = H * W, C channels, L labels, T frames, M context slots.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.scipy.special import logsumexp

from jaxprop import affinity, regions, windowed
from jaxprop.labels import harden, min_max_normalize


@dataclasses.dataclass(frozen=True)
class PropagationConfig:
    """Every factor of propagation. Hashable: a static argument of `jax.jit`.

    Attributes:
      aggregation: 'overall': one selection of k cells over all context frames together;
        'per_frame': one selection in each context frame, the resulting labels averaged.
      temperature: T in softmax(A / T).
      num_neighbors: k; None keeps every allowed cell (attention without selection).
      num_context: n, how many of the latest frames are context, beside frame 0.
      context_step: of the latest frames every so many-th one is context, the latest one first.
      keep_first: frame 0 stays context for the whole video. Without it frame 0 is a frame of the
        queue like any other.
      kept_frames: numbers of later frames that stay context as well.
      padding: what fills the queue's empty places while a video starts. 'repeat_first': copies
        of frame 0, which compete in the selection and count in the average; 'first_once': one
        copy of frame 0, beside the kept one; 'mask': nothing.
      restriction: 'none'; 'radius': context cells at Euclidean distance < `radius` of the target
        cell; 'square': at row and column distance < `radius`; 'predicted': as 'square', in context
        frames more than 15 frames away around the place that a coarser window predicts (MAST);
        'track': for each class the cells of its box in the context frame, its box being followed
        through the video, and nothing for targets outside its box (UVC).
      radius: in feature cells.
      restrict_first: the restriction binds the kept frame 0 as well.
      softmax: where the softmax's denominator is taken. 'neighbors': over the k selected cells;
        'frame': over all cells of the context frame, before restriction and selection (of all
        context frames with 'overall'), the selected weights not renormalised; 'region': over
        the allowed cells, before selection.
      normalize_features: scale features to unit length, so that affinities are cosines.
      feedback: what of a predicted label becomes context: 'soft': the label itself; 'min_max':
        each class scaled to [0, 1] over the frame, which is then the predicted label too;
        'hard': one-hot of the largest class.
      implementation: 'dense': target cells against whole context frames; 'windowed': only
        against the cells that a restriction can allow; 'auto': whichever is less work. The same
        result.
      query_chunk: how many target cells are held against a whole context frame at once. Bounds
        memory (about 12 * query_chunk * N bytes); the same result.
      as_released: errors of the released systems, by name, that published numbers have in them.
        'signed_stop' (UVC, 'track'): mean shift ends as soon as the sum of a move's two
        components is small, thus with any move up or to the left. 'corner_cells' (UVC, 'track'):
        cell i of n is at i n / (n - 1) instead of i + 1/2. 'zero_outside' (MAST, 'predicted'):
        places outside a frame compete with affinity 0. 'shared_offset' (MAST, 'predicted'): labels
        of all frames far away are read at the places that the latest one of them predicts.
    """

    aggregation: str = 'overall'
    temperature: float = 0.05
    num_neighbors: int | None = 10
    num_context: int = 20
    context_step: int = 1
    keep_first: bool = True
    kept_frames: tuple[int, ...] = ()
    padding: str = 'repeat_first'
    restriction: str = 'radius'
    radius: float = 12.0
    restrict_first: bool = False
    softmax: str = 'neighbors'
    normalize_features: bool = True
    feedback: str = 'soft'
    implementation: str = 'auto'
    query_chunk: int = 128
    as_released: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ('kept_frames', 'as_released'):
            # A list, as JSON has it, would not be hashable.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, known in {
            'aggregation': ('overall', 'per_frame'),
            'padding': ('repeat_first', 'first_once', 'mask'),
            'restriction': ('none', 'radius', 'square', 'predicted', 'track'),
            'softmax': ('neighbors', 'frame', 'region'),
            'feedback': ('soft', 'min_max', 'hard'),
            'implementation': ('auto', 'dense', 'windowed'),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f'{name} is {getattr(self, name)!r}; it must be one of {", ".join(known)}'
                )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f'temperature is {self.temperature}; it must be positive and finite')
        if self.num_neighbors is not None and self.num_neighbors < 1:
            raise ValueError(
                f'num_neighbors is {self.num_neighbors}; it must be at least 1, or None for all'
            )
        if self.num_context < 0 or self.num_slots < 1:
            raise ValueError(
                f'num_context is {self.num_context} with keep_first={self.keep_first}; '
                'at least one context frame is needed'
            )
        if self.context_step < 1:
            raise ValueError(f'context_step is {self.context_step}; it must be at least 1')
        kept = self.kept_frames
        if len(set(kept)) < len(kept) or min(kept, default=1) < 1:
            raise ValueError(
                f'kept_frames is {kept}; they must be different numbers from 1 on '
                '(keep_first keeps frame 0)'
            )
        if unknown := set(self.as_released) - set(_RELEASED_ERRORS):
            raise ValueError(
                f'as_released holds {", ".join(map(repr, sorted(unknown)))}; '
                f'known: {", ".join(_RELEASED_ERRORS)}'
            )
        has_radius = self.restriction in ('radius', 'square', 'predicted')
        if has_radius and not (self.radius >= 1 and math.isfinite(self.radius)):
            raise ValueError(
                f'radius is {self.radius}; it must be finite and at least 1 feature cell, '
                "or use restriction='none'"
            )
        if self.restriction == 'predicted' and not (
            self.num_neighbors is None
            and self.softmax == 'region'
            and (self.restrict_first or not self.keep_first)
        ):
            raise ValueError(
                "restriction='predicted' needs num_neighbors=None, softmax='region', and "
                f'restrict_first=True with keep_first; this is {self}'
            )
        if self.restriction == 'track' and not (
            self.aggregation == 'per_frame'
            and self.num_neighbors is not None
            and self.num_context > 0
            and self.keep_first
            and self.restrict_first
        ):
            raise ValueError(
                "restriction='track' needs aggregation='per_frame', num_neighbors, num_context of "
                f'at least 1, keep_first=True and restrict_first=True; this is {self}'
            )
        if self.implementation == 'windowed' and not windowed.is_possible(self):
            raise ValueError(
                "implementation='windowed' needs restriction 'radius' or 'square' and a softmax "
                f"over 'neighbors' or 'region'; this is {self}"
            )
        if self.query_chunk < 1:
            raise ValueError(f'query_chunk is {self.query_chunk}; it must be at least 1')

    @property
    def num_slots(self) -> int:
        """M, the number of a target's context frames: n, frame 0 and further ones if kept."""
        return self.first_queued + self.num_context

    @property
    def first_queued(self) -> int:
        """The first slot of the queue; before it are the kept frames."""
        return self.keep_first + len(self.kept_frames)

    @property
    def queue_length(self) -> int:
        """How many of the latest frames are held."""
        return (self.num_context - 1) * self.context_step + 1 if self.num_context else 0

    @property
    def free_slots(self) -> int:
        """How many leading slots the restriction does not bind: 0, 1 or all M of them."""
        if self.restriction == 'none':
            return self.num_slots
        return int(self.keep_first and not self.restrict_first)


_RELEASED_ERRORS = ('signed_stop', 'corner_cells', 'zero_outside', 'shared_offset')


class Context(NamedTuple):
    """The context frames: the kept ones, frame 0 first, then a padded ring buffer of the latest.

    In a config with `context_step` the buffer holds the frames between the context frames too.

    features: `[M, H, W, C]`, normalised if the config says so. labels: `[M, H, W, L]`.
    valid: `[M]` boolean. time: the number of frames seen so far, an int32 scalar. boxes:
    `[M, L, 4]`, see `jaxprop.regions`, with the restriction 'track'.
    """

    features: jax.Array
    labels: jax.Array
    valid: jax.Array
    time: jax.Array
    boxes: jax.Array | None = None


def init_context(
    features: jax.Array,
    label: jax.Array,
    *,
    config: PropagationConfig,
    boxes: jax.Array | None = None,
) -> Context:
    """The context before the second frame.

    Args:
      features: `[H, W, C]` of frame 0.
      label: `[H, W, L]` soft label of frame 0.
      config: the factors.
      boxes: `[L, 4]` of the classes in frame 0, for the restriction 'track': `regions.first_boxes`
        of a label map. By default from `label`, upsampled.

    Raises:
      ValueError: shapes that do not fit, k larger than the number of candidates, and, outside a
        trace, features or labels that are not finite. Inside a trace these propagate as NaN.
    """
    _check(features, label, config)
    if config.normalize_features:
        features = affinity.l2_normalize(features)
    num_held = config.first_queued + config.queue_length
    valid = np.ones(num_held, bool)
    valid[int(config.keep_first) : config.first_queued] = False
    if config.padding != 'repeat_first':
        valid[int(config.keep_first) :] = False
        if config.num_context and (config.padding == 'first_once' or not config.keep_first):
            # Pushes go round from the queue's first place, so the last one holds its oldest frame.
            valid[-1] = True

    def fill(frame):
        # Slots that are not valid hold frame 0 too: finite values whose weight is zero.
        return jnp.broadcast_to(frame, (num_held, *frame.shape))

    if config.restriction == 'track':
        if boxes is None:
            boxes = regions.first_boxes(_pixel_classes(label), label.shape[-1])
        elif boxes.shape != (label.shape[-1], 4):
            raise ValueError(f'boxes are {list(boxes.shape)}; they must be [L, 4]')
        boxes = fill(jnp.asarray(boxes, jnp.int32))
    elif boxes is not None:
        raise ValueError(f"boxes are for restriction='track', not {config.restriction!r}")
    return Context(fill(features), fill(label), jnp.asarray(valid), jnp.ones((), jnp.int32), boxes)


def propagate_step(
    context: Context, features: jax.Array, *, config: PropagationConfig
) -> tuple[Context, jax.Array]:
    """Labels one frame from its context, and takes it into the context. Constant memory.

    Args:
      context: from `init_context` or an earlier step.
      features: `[H, W, C]` of the frame.
      config: the factors, the same as for `init_context`.

    Returns:
      The new context, and the label `[H, W, L]`.
    """
    if features.shape != context.features.shape[1:]:
        raise ValueError(
            f'features are {features.shape}; the context holds {context.features.shape[1:]}'
        )
    features = jnp.asarray(features)
    if config.normalize_features:
        features = affinity.l2_normalize(features)
    label = _predict(context, features, config)
    if config.feedback == 'min_max':
        label = min_max_normalize(label)
    fed_back = harden(label) if config.feedback == 'hard' else label
    boxes = None
    if config.restriction == 'track':
        boxes = regions.next_boxes(
            _pixel_classes(label),
            context.boxes[_latest(context.time, config)],
            'signed_stop' in config.as_released,
        )

    def take(held, frame):
        for place, number in enumerate(config.kept_frames, int(config.keep_first)):
            held = held.at[place].set(jnp.where(context.time == number, frame, held[place]))
        if config.num_context:
            held = held.at[_latest(context.time + 1, config)].set(frame)
        return held

    frame = Context(features, fed_back, True, None, boxes)
    held = jax.tree.map(take, context._replace(time=None), frame)
    return held._replace(time=context.time + 1), label


def propagate_video(
    features: jax.Array,
    first_label: jax.Array,
    length: jax.Array | int | None = None,
    *,
    config: PropagationConfig,
) -> jax.Array:
    """Labels a whole video: `lax.scan` over `propagate_step`.

    Args:
      features: `[T, H, W, C]`.
      first_label: `[H, W, L]` soft label of frame 0.
      length: the number of real frames, where T is padded; labels from there on are zero.
      config: the factors.

    Returns:
      Labels `[T, H, W, L]`; index 0 is `first_label`.

    Raises:
      ValueError: as `init_context`.
    """
    if features.ndim != 4:
        raise ValueError(f'features have shape {features.shape}; [T, H, W, C] is needed')
    _check(features, first_label, config)
    return _propagate_video(features, first_label, length, config=config)


@functools.partial(jax.jit, static_argnames='config')
def _propagate_video(features, first_label, length, *, config):
    context = init_context(features[0], first_label, config=config)
    step = functools.partial(propagate_step, config=config)
    _, labels = jax.lax.scan(step, context, features[1:])
    labels = jnp.concatenate([first_label[None], labels])
    if length is not None:
        real = jnp.arange(len(labels)) < length
        labels = jnp.where(real[:, None, None, None], labels, 0)
    return labels


def _latest(time, config):
    """The slot of the latest frame when so many have been seen; frame 0's at first."""
    return config.first_queued + (time - 2) % config.queue_length


def _used(context, config):
    """The context with the M slots that are used, and the numbers of their frames `[M]`."""
    ages = np.arange(0, config.queue_length, config.context_step)
    if config.context_step > 1:
        queued = config.first_queued + (context.time - 2 - ages) % config.queue_length
        used = jnp.concatenate([jnp.arange(config.first_queued), queued])
        context = jax.tree.map(lambda held: held[used], context._replace(time=None))._replace(
            time=context.time
        )
    else:
        # In the order of the slots, which go round.
        ages = (context.time - 2 - ages) % max(config.queue_length, 1)
    queued = jnp.maximum(context.time - 1 - ages, 0)
    kept = (0,) * config.keep_first + config.kept_frames
    if config.kept_frames:
        is_twice = jnp.any(queued[:, None] == np.array(config.kept_frames), axis=-1)
        context = context._replace(
            valid=context.valid.at[config.first_queued :].set(
                context.valid[config.first_queued :] & ~is_twice
            )
        )
    return context, jnp.concatenate([jnp.array(kept, jnp.int32), queued])


def _predict(context, features, config):
    """The label `[H, W, L]` of a frame with (normalised) features `[H, W, C]`."""
    height, width, _ = features.shape
    context, numbers = _used(context, config)
    frames = rearrange(context.features, 'm h w c -> m (h w) c')
    labels = rearrange(context.labels, 'm h w l -> m (h w) l')
    queries = rearrange(features, 'h w c -> (h w) c')
    # Slots that are not valid can't be selected; averaged over frames, they get no share instead.
    searched = context.valid | (config.aggregation == 'per_frame')
    free = config.free_slots
    if config.restriction == 'track':
        label = _copy_tracked(queries, frames, labels, context, numbers, (height, width), config)
    elif config.restriction == 'predicted':
        label = _attend_predicted(queries, context, numbers, config)
    elif config.num_neighbors is None:
        label = _attend(features, context, config)
    else:
        slots, grid = np.arange(config.num_slots), (height, width)
        search = functools.partial(_search_dense, queries, frames, searched)
        restricted, size = functools.partial(search, grid, config), 1
        if free < config.num_slots and windowed.is_used(grid, config):
            size = windowed.group_size(config.num_slots - free)
            restricted = functools.partial(
                windowed.search,
                features,
                context.features,
                searched,
                num_frames=size,
                config=config,
            )
        parts = [
            _search_slots(search_group, group, several, numbers, searched, height * width)
            for search_group, group, several in (
                (functools.partial(search, None, config), slots[:free], 1),
                (restricted, slots[free:], size),
            )
            if group.size
        ]
        label = _copy_labels(parts, labels, context.valid, config)
    return label.reshape(height, width, -1)


def _search_slots(search, slots, size, numbers, valid, num_cells):
    """`Neighbors` from `search(first)` of each `size` slots, their lists put one after another.

    While a video starts, many slots hold frame 0: where a group holds nothing else and neither
    does the one before, what was found there is found here too, in cells further on. Group by
    group, memory does not depend on their number, but for the lists.
    """
    groups = slots.reshape(-1, size)
    is_first = jnp.all(numbers[groups] == 0, axis=-1)
    is_searched = valid[groups]
    is_repeat = is_first[1:] & is_first[:-1] & jnp.all(is_searched[1:] == is_searched[:-1], axis=-1)
    is_repeat = jnp.concatenate([jnp.zeros(1, bool), is_repeat])

    def step(before, group):
        first, is_repeat = group
        found = jax.lax.cond(
            is_repeat,
            lambda: before._replace(cells=before.cells + size * num_cells),
            lambda: search(first),
        )
        return found, found

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(search, slots[0]))
    _, found = jax.lax.scan(step, nothing, (jnp.asarray(groups[:, 0]), is_repeat))
    return jax.tree.map(lambda x: rearrange(x, 'g l ... -> (g l) ...'), found)


def _search_dense(queries, frames, valid, grid, config, slot):
    """`Neighbors` `[1, N, k]` of all queries in a slot; restricted if a `grid` is given."""
    frame = frames[slot]

    def search(query, index):
        logits = affinity.affinity(query, frame) / config.temperature
        logits = jnp.where(valid[slot], logits, -jnp.inf)
        allowed = logits
        if grid is not None:
            allowed = jnp.where(_allowed(index, grid, config), logits, -jnp.inf)
        found = affinity.select_neighbors(logits, allowed, config.num_neighbors, config.softmax)
        return found._replace(cells=found.cells + slot * len(frame))

    found = _map_queries(search, queries, config.query_chunk)
    return jax.tree.map(lambda x: x[None], found)


def _attend(features, context, config):
    """The label `[N, L]` where every allowed cell counts (k is None)."""
    height, width, _ = features.shape
    queries = rearrange(features, 'h w c -> (h w) c')

    def attend_slot(slot, is_free):
        frame, label = context.features[slot], context.labels[slot]
        if not is_free and windowed.is_used((height, width), config):
            return windowed.attend(features, frame, label, config)
        frame, label = (rearrange(x, 'h w c -> (h w) c') for x in (frame, label))

        def attend(query, index):
            logits = affinity.affinity(query, frame) / config.temperature
            allowed = logits
            if not is_free:
                allowed = jnp.where(_allowed(index, (height, width), config), logits, -jnp.inf)
            log_sums = logsumexp(logits if config.softmax == 'frame' else allowed, axis=-1)
            return log_sums, affinity.soft_copy(jnp.exp(allowed - log_sums[:, None]), label)

        return _map_queries(attend, queries, config.query_chunk)

    slots, free = np.arange(config.num_slots), config.free_slots
    parts = [
        jax.lax.map(functools.partial(attend_slot, is_free=is_free), jnp.asarray(group))
        for group, is_free in ((slots[:free], True), (slots[free:], False))
        if group.size
    ]
    log_sums, copied = jax.tree.map(lambda *part: jnp.concatenate(part), *parts)
    return _combine(log_sums, copied, context.valid, config)


def _attend_predicted(queries, context, numbers, config):
    """The label `[N, L]` where every cell of a window around a predicted place counts."""
    height, width = context.features.shape[1:3]
    cells = jnp.asarray(np.indices((height, width)).reshape(2, -1).T)
    steps = regions.search_steps(context.time - numbers)

    def search_slot(slot):
        def search(query, index):
            return jax.lax.cond(
                steps[slot] > 0,
                lambda: regions.predict_offsets(
                    query, cells[index], context.features[slot], steps[slot], config
                ),
                lambda: jnp.zeros((len(index), 2), query.dtype),
            )

        return _map_queries(search, queries, config.query_chunk)

    slots = jnp.arange(config.num_slots)
    offsets = jax.lax.map(search_slot, slots)
    label_offsets = offsets
    if 'shared_offset' in config.as_released:
        searched = (steps > 0) & context.valid
        latest = jnp.argmax(jnp.where(searched, numbers, -1))
        label_offsets = jnp.where(searched[:, None, None], offsets[latest], offsets)

    def attend_slot(slot):
        def attend(query, index):
            return regions.attend_predicted(
                query,
                cells[index],
                context.features[slot],
                context.labels[slot],
                offsets[slot][index],
                label_offsets[slot][index],
                config,
            )

        return _map_queries(attend, queries, config.query_chunk)

    log_sums, copied = jax.lax.map(attend_slot, slots)
    return _combine(log_sums, copied, context.valid, config)


def _combine(log_sums, copied, valid, config):
    """One label `[N, L]` of those by attention in each slot `[M, N, L]`."""
    if config.aggregation == 'overall':
        shares = jax.nn.softmax(log_sums, axis=0, where=valid[:, None])
    else:
        shares = jnp.broadcast_to((valid / jnp.sum(valid))[:, None], log_sums.shape)
    return jnp.einsum('mn,mnl->nl', shares, copied)


def _copy_tracked(queries, frames, labels, context, numbers, grid, config):
    """The label `[N, L]` of each query where a class comes from its box and goes into its box."""
    before = config.first_queued + jnp.argmax(numbers[config.first_queued :])
    corner_cells = 'corner_cells' in config.as_released
    coordinates = (regions.corner_cells if corner_cells else regions.center_cells)(grid)

    def follow(cell, _):
        weights = jax.nn.softmax(affinity.affinity(cell, queries) / config.temperature)
        return affinity.expected_coordinates(weights, coordinates)

    target = regions.target_boxes(
        _map_queries(follow, frames[before], config.query_chunk),
        harden(labels[before]),
        context.boxes[before],
        grid,
        'signed_stop' in config.as_released,
    )
    # Where boxes are of no use, classes come from everywhere; but from frame 0 they never do.
    is_free = regions.is_lost(labels, context.boxes, target).at[0].set(False)

    def copy_slot(slot):
        frame = frames[slot]
        sources = regions.inside(context.boxes[slot], grid) | is_free[slot]
        has_source = jnp.any(sources, axis=-1, keepdims=True)
        targets = (regions.inside(target, grid) | is_free[slot]) & has_source
        # A softmax over nothing would be NaN, in gradients too.
        sources |= ~has_source

        def copy(query, index):
            logits = affinity.affinity(query, frame) / config.temperature

            def copy_class(source_target_label):
                source, is_target, label = source_target_label
                found = affinity.select_neighbors(
                    logits,
                    jnp.where(source, logits, -jnp.inf),
                    config.num_neighbors,
                    config.softmax,
                )
                copied = jnp.sum(_weights(found, config) * label[found.cells], axis=-1)
                return jnp.where(is_target[index], copied, 0)

            return jax.lax.map(copy_class, (sources, targets, labels[slot].T)).T

        return _map_queries(copy, queries, config.query_chunk)

    copied = jax.lax.map(copy_slot, jnp.arange(config.num_slots))
    shares = context.valid / jnp.sum(context.valid)
    return jnp.einsum('m,mnl->nl', shares, copied)


def _pixel_classes(label):
    """The class of each pixel, `[8 H, 8 W]`, of a soft label `[H, W, L]`, as UVC decides it."""
    height, width, num_labels = label.shape
    # Rounding while upsampling would make a constant class vary, see `labels.decode`.
    label = jnp.where(jnp.ptp(label, axis=(0, 1)) == 0, 0, label)
    size = height * regions.STRIDE, width * regions.STRIDE, num_labels
    return jnp.argmax(min_max_normalize(jax.image.resize(label, size, 'linear')), axis=-1)


def _copy_labels(parts, labels, valid, config):
    """The label `[N, L]` of each query: its `Neighbors` weighted, their labels summed.

    parts: `Neighbors` `[m, N, k]`, which together are m = M lists, one of each slot, if the
    aggregation is 'per_frame'; cells numbered through all slots.
    """
    if config.aggregation == 'overall':
        logits, cells = (
            jnp.concatenate([rearrange(x, 'm n k -> n (m k)') for x in several], axis=-1)
            for several in list(zip(*parts))[:2]
        )
        logits, order = jax.lax.top_k(logits, config.num_neighbors)
        cells = jnp.take_along_axis(cells, order, axis=-1)
        if config.softmax == 'neighbors':
            log_sum = logsumexp(logits, axis=-1)
        else:
            log_sum = logsumexp(jnp.concatenate([part.log_sums for part in parts]), axis=0)
        weights = jnp.exp(logits - log_sum[:, None])
    else:
        found = jax.tree.map(lambda *part: jnp.concatenate(part), *parts)
        weights = _weights(found, config) * (valid / jnp.sum(valid))[:, None, None]
        weights, cells = (rearrange(x, 'm n k -> n (m k)') for x in (weights, found.cells))
    selected = labels.reshape(-1, labels.shape[-1])[cells]
    return jnp.sum(weights[..., None] * selected, axis=1)


def _weights(found, config):
    """The softmax's weights `[..., k]` of the selected cells of each list."""
    log_sums = found.log_sums
    if config.softmax == 'neighbors':
        log_sums = logsumexp(found.logits, axis=-1)
    return jnp.exp(found.logits - log_sums[..., None])


def _map_queries(function, queries, chunk):
    """`function` of chunks of queries `[Q, C]` and their numbers `[Q]`, put side by side.

    The results' leaves are `[Q, ...]`, put together to `[N, ...]`.
    """
    num_queries = len(queries)
    chunk = min(chunk, num_queries)
    num_chunks = -(-num_queries // chunk)
    # The last chunk is filled up with repeats of the last query, cut off again below.
    index = jnp.minimum(jnp.arange(num_chunks * chunk), num_queries - 1)
    index = index.reshape(num_chunks, chunk)
    results = jax.lax.map(lambda i: function(queries[i], i), index)
    return jax.tree.map(lambda x: rearrange(x, 'c q ... -> (c q) ...')[:num_queries], results)


def _allowed(index, grid, config):
    """`[Q, N]`: the cells that the restriction allows for the targets with these numbers."""
    height, width = grid
    targets = jnp.stack([index // width, index % width], axis=-1)
    cells = jnp.asarray(np.indices((height, width)).reshape(2, -1).T)
    return affinity.distance_mask(targets, cells, config.radius, config.restriction)


def _check(features, label, config):
    if features.ndim < 3 or label.ndim != 3:
        raise ValueError(
            f'features {features.shape} and first label {label.shape} must be [..., H, W, C] and '
            '[H, W, L]'
        )
    height, width = features.shape[-3:-1]
    if label.shape[:2] != (height, width):
        raise ValueError(
            f'the first label is on a grid of {label.shape[:2]}, the features on {height, width}; '
            'labels.encode puts a label map on the grid of the features'
        )
    if not jnp.issubdtype(label.dtype, jnp.floating):
        # Fractions of the predicted labels would be lost in a context of whole numbers.
        raise ValueError(f'the first label is {label.dtype}; soft labels are float32')
    window = height * width
    if config.restriction in ('radius', 'square'):
        reach = math.ceil(config.radius) - 1
        offsets = np.stack(
            np.meshgrid(
                *(
                    np.arange(-min(reach, side // 2), min(reach, (side - 1) // 2) + 1)
                    for side in (height, width)
                ),
                indexing='ij',
            ),
            axis=-1,
        ).reshape(-1, 2)
        with jax.ensure_compile_time_eval():
            window = int(
                jnp.sum(
                    affinity.distance_mask(
                        np.zeros((1, 2)), offsets, config.radius, config.restriction
                    )
                )
            )
    candidates = window
    if config.aggregation == 'overall':
        free = config.free_slots
        candidates = free * height * width + (config.num_slots - free) * window
    elif config.num_context == 0 and config.free_slots:
        candidates = height * width
    if config.num_neighbors is not None and config.num_neighbors > candidates:
        raise ValueError(
            f'num_neighbors is {config.num_neighbors}, but a cell has at most {candidates} '
            f'candidates on a grid of {height}x{width} with these settings; '
            'use fewer, or None for all of them'
        )
    for name, array in {'features': features, 'first label': label}.items():
        if not isinstance(array, jax.core.Tracer) and not np.all(np.isfinite(array)):
            raise ValueError(f'{name} hold values that are not finite; check the input and weights')
