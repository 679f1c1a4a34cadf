"""The memory of propagation: a fixed number of context frames of a video, in slots.

The slots are the kept frames, and then a ring buffer of the latest frames. Kept are frame 0, frames
whose label somebody gives (`give`), and frames of fixed numbers, in this order. The number of slots
is fixed, so one compiled program serves a video of any length in constant memory.

Shapes: H, W feature cells, C channels, L labels, S slots that are stored, M slots that are read.
"""

import dataclasses
import functools
import numbers
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PADDINGS = ('repeat_first', 'first_once', 'mask')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The choice of the frames that are context for a target frame.

    Attributes:
      num_frames: n, how many of the latest frames are context, beside the kept ones.
      step: every `step`-th of the latest frames is context, counted back from the latest one.
      keep_first: frame 0 stays context for the whole video. Without it frame 0 is a frame of the
        queue like any other.
      kept_frames: numbers of later frames that stay context as well.
      padding: what fills the queue's empty slots while a video starts. 'repeat_first': copies of
        frame 0, which compete in the selection and count in an average; 'first_once': one copy of
        frame 0, beside the kept one; 'mask': nothing.
      predict_first: the latest copy of frame 0 has the label that is predicted for frame 0 from
        the other copies, not the given one, as if frame 0 stood twice in the video. Released code
        has this error, and published numbers contain it.
      num_given: how many slots there are for frames whose label is given beside that of frame 0,
        see `jaxprop.give`. They are empty at first. Where the region leaves frame 0 free, it leaves
        these free too.

    Raises:
      ValueError: no frame would be context, or a value is out of its range.

    >>> import jaxprop
    >>> jaxprop.Memory(num_frames=7).num_slots  # Frame 0 and the latest 7 frames.
    8
    """

    num_frames: int = 20
    step: int = 1
    keep_first: bool = True
    kept_frames: tuple[int, ...] = ()
    padding: str = 'repeat_first'
    predict_first: bool = False
    num_given: int = 0

    def __post_init__(self):
        try:
            # A list, as JSON has it, would not be hashable.
            kept = tuple(self.kept_frames)
            object.__setattr__(self, 'kept_frames', tuple(map(operator.index, kept)))
        except TypeError as error:
            raise ValueError(
                f'kept_frames is {self.kept_frames!r}; it must hold numbers of frames'
            ) from error
        for name in ('num_frames', 'step', 'num_given'):
            if not isinstance(getattr(self, name), numbers.Integral):
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be a whole number')
        if self.padding not in PADDINGS:
            raise ValueError(
                f'padding is {self.padding!r}; it must be one of {", ".join(PADDINGS)}'
            )
        if self.num_frames < 0 or self.num_slots - self.num_given < 1:
            raise ValueError(
                f'num_frames is {self.num_frames} with keep_first={self.keep_first}; '
                'at least one context frame is needed'
            )
        if self.step < 1:
            raise ValueError(f'step is {self.step}; it must be at least 1')
        if self.num_given < 0:
            raise ValueError(f'num_given is {self.num_given}; it must be 0 or more')
        if self.predict_first and (self.padding != 'repeat_first' or self.num_frames < 1):
            raise ValueError(
                f"predict_first replaces a copy of frame 0: it needs padding='repeat_first', not "
                f'{self.padding!r}, and num_frames (num_context) of at least 1, not '
                f'{self.num_frames}'
            )
        kept = self.kept_frames
        if len(set(kept)) < len(kept) or min(kept, default=1) < 1:
            raise ValueError(
                f'kept_frames is {kept}; they must be different numbers from 1 on '
                '(keep_first keeps frame 0)'
            )

    @property
    def num_kept(self) -> int:
        """The number of leading slots that hold kept frames; the queue comes after them."""
        return self.keep_first + self.num_given + len(self.kept_frames)

    @property
    def num_slots(self) -> int:
        """M, the number of context frames of a target frame."""
        return self.num_kept + self.num_frames

    @property
    def queue_length(self) -> int:
        """The number of latest frames that are stored; with `step` more than are read."""
        return (self.num_frames - 1) * self.step + 1 if self.num_frames else 0


class Context(NamedTuple):
    """The stored frames of one video: the state that goes from step to step.

    Attributes:
      features: `[S, H, W, C]`, normalised if the method says so.
      labels: `[S, H, W, L]`.
      valid: `[S]` boolean; False for slots that hold nothing yet.
      time: the number of frames seen so far, an int32 scalar.
      entries: what the rule keeps of each frame, arrays `[S, ...]`; () for most rules.
      given: the numbers of the frames in the slots of given frames, int32 `[num_given]`; () where
        the memory has no such slots.
    """

    features: jax.Array
    labels: jax.Array
    valid: jax.Array
    time: jax.Array
    entries: Any = ()
    given: Any = ()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('features', 'labels', 'valid', 'numbers', 'time', 'entries'),
    meta_fields=('keep_first', 'num_given', 'num_kept'),
)
@dataclasses.dataclass(frozen=True)
class ContextFrames:
    """The M context frames of one target frame, as a rule reads them.

    Attributes:
      features: `[M, H, W, C]`.
      labels: `[M, H, W, L]`.
      valid: `[M]` boolean; the others hold frame 0, finite values that must get no weight.
      numbers: `[M]` int32, each frame's number in the video. That of a given frame may be larger
        than `time`, or negative.
      time: the target frame's number.
      entries: what the rule keeps of each frame, arrays `[M, ...]`.
      keep_first: whether slot 0 is the kept frame 0. Static.
      num_given: how many slots after it are for given frames. Static.
      num_kept: how many leading slots hold kept frames. Static.
    """

    features: jax.Array
    labels: jax.Array
    valid: jax.Array
    numbers: jax.Array
    time: jax.Array
    entries: Any
    keep_first: bool
    num_given: int
    num_kept: int

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W), the number of rows and columns of feature cells."""
        _, height, width, _ = self.features.shape
        return height, width

    @property
    def num_slots(self) -> int:
        """M, the number of context frames."""
        return self.features.shape[0]


def init(memory: Memory, features: jax.Array, label: jax.Array, entry: Any = ()) -> Context:
    """Makes the context after frame 0.

    Args:
      memory: which frames are remembered.
      features: `[H, W, C]` of frame 0.
      label: `[H, W, L]` of frame 0.
      entry: what the rule keeps of frame 0.
    """
    num_stored = memory.num_kept + memory.queue_length
    valid = np.ones(num_stored, bool)
    valid[int(memory.keep_first) : memory.num_kept] = False
    if memory.padding != 'repeat_first':
        valid[int(memory.keep_first) :] = False
        if memory.num_frames and (memory.padding == 'first_once' or not memory.keep_first):
            # Pushes fill the queue from its first slot on, so frame 0, the oldest, is in the last.
            valid[-1] = True

    # Empty slots get copies of frame 0, so that no NaN can arise. `valid` gives them no weight.
    def fill(frame):
        return jnp.broadcast_to(frame, (num_stored, *frame.shape))

    # Later labels are computed from features, and features are stored when the label is known. So
    # inside `jax.shard_map` both must vary over the same devices, from the start.
    features = vary_like(features, label)
    label = vary_like(label, features)
    entry = jax.tree.map(lambda x: vary_like(x, features, label), entry)
    return Context(
        fill(features),
        fill(label),
        jnp.asarray(valid),
        jnp.ones((), jnp.int32),
        jax.tree.map(fill, entry),
        # No frame in the queue has the number -1.
        jnp.full(memory.num_given, -1, jnp.int32) if memory.num_given else (),
    )


def give(
    memory: Memory,
    context: Context,
    slot: jax.Array | int,
    number: jax.Array | int,
    features: jax.Array,
    label: jax.Array,
    entry: Any = (),
) -> Context:
    """Puts a frame whose label is given into one of the slots for such frames.

    Args:
      memory: with `num_given` slots for given frames.
      context: the stored frames.
      slot: which of these slots, from 0; what it held is replaced.
      number: the frame's number in the video; before frame 0 it is negative.
      features: `[H, W, C]` of the frame.
      label: `[H, W, L]`.
      entry: what the rule keeps of the frame.
    """
    place = int(memory.keep_first) + slot
    features, labels, valid, entries = jax.tree.map(
        lambda stored, frame: stored.at[place].set(frame),
        (context.features, context.labels, context.valid, context.entries),
        (features, label, True, entry),
    )
    return Context(
        features, labels, valid, context.time, entries, context.given.at[slot].set(number)
    )


def replace_latest(memory: Memory, context: Context, label: jax.Array, entry: Any = ()) -> Context:
    """Replaces the label of the latest frame in the queue.

    Args:
      memory: which frames are context.
      context: its latest frame is the one that `push` took in last.
      label: `[H, W, L]`.
      entry: what the rule keeps of the frame with this label.

    Returns:
      The context with the new label and entry.
    """
    slot = _latest(memory, context.time)
    labels, entries = jax.tree.map(
        lambda stored, frame: stored.at[slot].set(frame),
        (context.labels, context.entries),
        (label, entry),
    )
    return context._replace(labels=labels, entries=entries)


def push(
    memory: Memory, context: Context, features: jax.Array, label: jax.Array, entry: Any = ()
) -> Context:
    """Takes a frame into the context, in place of the oldest one in the queue.

    Args:
      memory: as for `init`.
      context: the stored frames.
      features: `[H, W, C]` of the frame.
      label: `[H, W, L]`.
      entry: what the rule keeps of the frame.

    Returns:
      The context with the frame.
    """

    def take(stored, frame, time):
        for slot, number in enumerate(memory.kept_frames, memory.keep_first + memory.num_given):
            stored = stored.at[slot].set(jnp.where(time == number, frame, stored[slot]))
        if memory.num_frames:
            stored = stored.at[_latest(memory, time + 1)].set(frame)
        return stored

    # The label was found in the stored frames. XLA must know that this is over before they change:
    # else it keeps a copy of all of them. `valid` is small and does not come of the label, so it
    # does not wait.
    time = _once_known(context.time, (label, entry))
    features, label, entries = jax.tree.map(
        lambda stored, frame: take(stored, frame, time),
        (context.features, context.labels, context.entries),
        (features, label, entry),
    )
    valid = take(context.valid, True, context.time)
    return Context(features, label, valid, context.time + 1, entries, context.given)


def read(memory: Memory, context: Context) -> ContextFrames:
    """Reads the context frames of the next frame, with their numbers in the video.

    Args:
      memory: which frames are context.
      context: the stored frames.
    """
    ages = np.arange(0, memory.queue_length, memory.step)
    stored = (context.features, context.labels, context.valid, context.entries)
    if memory.step > 1:
        # Pick the stored frames that are context, the latest first.
        queued = memory.num_kept + (_turn(memory, context.time) - ages) % memory.queue_length
        used = jnp.concatenate([jnp.arange(memory.num_kept), queued])
        stored = jax.tree.map(lambda held: held[used], stored)
    else:
        # All stored frames are context. They stay in their slots; only their ages go round.
        ages = (_turn(memory, context.time) - ages) % max(memory.queue_length, 1)
    features, labels, valid, entries = stored
    # Number the frames, and let a kept frame that is still in the queue count once.
    queued = jnp.maximum(context.time - 1 - ages, 0)
    later = jnp.array(memory.kept_frames, jnp.int32)
    later = jnp.concatenate([context.given, later]) if memory.num_given else later
    if len(later):
        is_twice = jnp.any(queued[:, None] == later, axis=-1)
        valid = valid.at[memory.num_kept :].set(valid[memory.num_kept :] & ~is_twice)
    numbers = jnp.concatenate([jnp.zeros(int(memory.keep_first), jnp.int32), later, queued])
    return ContextFrames(
        features,
        labels,
        valid,
        numbers,
        context.time,
        entries,
        memory.keep_first,
        memory.num_given,
        memory.num_kept,
    )


def vary_like(array: jax.Array, *others: jax.Array) -> jax.Array:
    """Returns the same array, marked as varying over the devices over which the others vary.

    An array that a loop carries, or that a branch returns, must say from the start over which
    devices it varies inside `jax.shard_map`, and to which mesh it belongs where sharding is part of
    the type. Elsewhere this does nothing.
    """
    known = [x != 0 for x in _first_values(others)]
    if not known:
        return array
    never = functools.reduce(jnp.logical_and, known) & False
    # Both branches have the same value. Since the condition depends on `others`, JAX gives the
    # result their devices and their mesh.
    return jnp.where(never, jnp.add(array, never.astype(array.dtype)), array)


def _once_known(number, arrays):
    """Returns the same number, but XLA only knows it with the first value of each array.

    `jax.lax.optimization_barrier` would say this better, but XLA removes it on CPUs before it
    decides what to copy. Under `jax.vmap` this does nothing: a number for each entry would make it
    slow to change the context.
    """
    values = [jnp.real(x).astype(jnp.float32) for x in _first_values(jax.tree.leaves(arrays))]
    return _wait(*jax.lax.stop_gradient((number, values)))


@jax.custom_batching.custom_vmap
def _wait(number, values):
    # Nothing is both infinite and not a number. XLA does not know this.
    return number + sum(jnp.isnan(x) & jnp.isinf(x) for x in values)


@_wait.def_vmap
def _do_not_wait(axis_size, in_batched, number, values):
    del axis_size, values
    return number, in_batched[0]


def _first_values(arrays):
    """The first value of each array that has any."""
    return [x[(0,) * x.ndim] for x in arrays if x.size]


def _latest(memory, time):
    """The slot of the latest frame when `time` frames have been seen; at first that of frame 0."""
    return memory.num_kept + _turn(memory, time) % memory.queue_length


def _turn(memory, time):
    """One less than the number of pushes so far; the prediction of frame 0 counts as a push."""
    return time - 2 + memory.predict_first
