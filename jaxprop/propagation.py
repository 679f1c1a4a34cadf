"""Label propagation: copies the label of frame 0 through a video, from frame to frame.

A method is a `Memory`, which says which frames are context, and a rule, which says how the cells of
a frame are labelled from the context. Algorithm 1 of the study, for each frame: normalise its
features, label its cells by the rule, take the frame with its label into the context.

Source: McKee et al., "Transfer of Representations to Video Label Propagation: Implementation
Factors Matter", BMVC 2022.

Shapes: H, W feature cells, C channels, L labels, T frames.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxprop import affinity, memory
from jaxprop.labels import harden, min_max_normalize
from jaxprop.memory import Context, Memory
from jaxprop.rules.neighbors import TopK
from jaxprop.rules.rule import Execution, Rule

# For each feedback, two labels made of a predicted one: the label returned, and the one remembered.
FEEDBACK = {
    'soft': lambda label: (label, label),
    'min_max': lambda label: (min_max_normalize(label),) * 2,
    'hard': lambda label: (label, harden(label)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Propagation:
    """A method of label propagation: all of its settings. Hashable, so static under `jax.jit`.

    Attributes:
      memory: which frames are context.
      rule: how a target cell is labelled from the context: `TopK`, `Attention`, `TrackedBoxes`,
        `PredictedWindow`, or a `Rule` of your own.
      normalize_features: scale features to unit length, so that affinities are cosines.
      feedback: how a predicted label becomes context. 'soft': as it is; 'min_max': each class
        scaled to [0, 1] over the frame, which is then the predicted label too; 'hard': one-hot of
        the largest class.

    Raises:
      ValueError: an unknown feedback, or a rule that cannot work with the memory.

    >>> import jaxprop
    >>> method = jaxprop.Propagation(rule=jaxprop.TopK(k=5, region=jaxprop.Disk(8)))
    >>> method.memory.num_frames
    20
    """

    memory: Memory = Memory()
    rule: Rule = TopK()
    normalize_features: bool = True
    feedback: str = 'soft'

    def __post_init__(self):
        if self.feedback not in FEEDBACK:
            raise ValueError(
                f'feedback is {self.feedback!r}; it must be one of {", ".join(FEEDBACK)}'
            )
        self.rule.check(self.memory)


def init_context(
    features: jax.Array,
    label: jax.Array,
    method: Propagation,
    *,
    entry: Any = None,
    execution: Execution = Execution(),
) -> Context:
    """Starts a video: makes the context from which the second frame is labelled.

    Args:
      features: `[H, W, C]` of frame 0.
      label: `[H, W, L]` soft label of frame 0.
      method: memory, rule and their settings.
      entry: what the rule keeps of frame 0, by default made of the soft label. A label map can give
        it more exactly: `Rule.init_from_ids`, for the boxes of `TrackedBoxes`.
      execution: how the label of frame 0 is predicted, where the memory asks for it.

    Raises:
      ValueError: shapes that do not fit, k larger than the number of candidates, and, outside a
        trace, features or labels that are not finite. Inside a trace these propagate as NaN.

    >>> import jax
    >>> import jaxprop
    >>> method = jaxprop.methods.crw(k=5)
    >>> features = jax.random.normal(jax.random.key(0), (3, 6, 8, 16))  # [T, H, W, C]
    >>> first_label = jax.nn.softmax(features[0, ..., :2])  # [H, W, L]
    >>> context = jaxprop.init_context(features[0], first_label, method)
    >>> context.features.shape  # Frame 0, and the 20 latest frames.
    (21, 6, 8, 16)
    """
    _check(features, label, method, execution)
    features = _prepare(features, method)
    # Predicted labels are float32 at least, so the context holds this type from the start.
    label = jnp.asarray(label, affinity.at_least_float32(label))
    entry = _first_entry(entry, features, label, method)
    context = memory.init(method.memory, features, label, entry)
    if method.memory.predict_first:
        frames = memory.read(method.memory, context)
        _, remembered, entry = _label(frames, features, method, execution)
        context = memory.replace_latest(method.memory, context, remembered, entry)
    return context


def propagate_step(
    context: Context,
    features: jax.Array,
    method: Propagation,
    *,
    execution: Execution = Execution(),
) -> tuple[Context, jax.Array]:
    """Labels one frame from its context, and takes the frame into the context.

    A video of any length needs constant memory.

    Args:
      context: from `init_context` or an earlier step.
      features: `[H, W, C]` of the frame.
      method: the same as for `init_context`.
      execution: how the label is computed; it does not change the result beyond rounding.

    Returns:
      The new context, and the label `[H, W, L]`.

    Raises:
      ValueError: features of another shape than the context's.

    >>> import jax
    >>> import jaxprop
    >>> method = jaxprop.methods.crw(k=5)
    >>> features = jax.random.normal(jax.random.key(0), (3, 6, 8, 16))  # [T, H, W, C]
    >>> first_label = jax.nn.softmax(features[0, ..., :2])  # [H, W, L]
    >>> context = jaxprop.init_context(features[0], first_label, method)
    >>> context, label = jaxprop.propagate_step(context, features[1], method)
    >>> label.shape
    (6, 8, 2)
    """
    if features.shape != context.features.shape[1:]:
        raise ValueError(
            f'features are {features.shape}; the context holds {context.features.shape[1:]}'
        )
    height, width, _ = features.shape
    method.rule.check_grid((height, width), method.memory, execution)
    features = _prepare(features, method)
    frames = memory.read(method.memory, context)
    label, remembered, entry = _label(frames, features, method, execution)
    return memory.push(method.memory, context, features, remembered, entry), label


def remember(
    context: Context, features: jax.Array, label: jax.Array, method: Propagation
) -> Context:
    """Takes a frame whose label is known into the context.

    Call this instead of `propagate_step` where a label is given in the middle of a video.

    Args:
      context: of the frames before, from `init_context` or a step.
      features: `[H, W, C]` of the frame.
      label: `[H, W, L]`, its soft label.
      method: the same as for `init_context`.

    Raises:
      ValueError: as `init_context`.

    >>> import jax
    >>> import jaxprop
    >>> method = jaxprop.methods.crw(k=5)
    >>> features = jax.random.normal(jax.random.key(0), (3, 6, 8, 16))  # [T, H, W, C]
    >>> first_label = jax.nn.softmax(features[0, ..., :2])  # [H, W, L]
    >>> context = jaxprop.init_context(features[0], first_label, method)
    >>> corrected_label = first_label  # Of frame 1, whose label somebody has drawn.
    >>> context = jaxprop.remember(context, features[1], corrected_label, method)
    >>> int(context.time)  # Frames seen so far.
    2
    """
    _check(features, label, method, Execution())
    features = _prepare(features, method)
    label = jnp.asarray(label, affinity.at_least_float32(label))
    entry = method.rule.entry(memory.read(method.memory, context), features, label)
    return memory.push(method.memory, context, features, label, entry)


def give(
    context: Context,
    features: jax.Array,
    label: jax.Array,
    method: Propagation,
    slot: jax.Array | int,
    number: jax.Array | int,
    *,
    entry: Any = None,
) -> Context:
    """Keeps a frame with a given label as context for the whole video, as frame 0 is kept.

    The frame may be any, also one that is still to come: then its label helps the frames before.
    The method's memory has `num_given` slots for such frames.

    Args:
      context: from `init_context` or a step.
      features: `[H, W, C]` of the given frame.
      label: `[H, W, L]`, its soft label.
      method: the same as for `init_context`.
      slot: from 0 to `num_given` - 1; a frame that was given there before is forgotten.
      number: of the frame, counted from frame 0 of the context; frames before it have negative
        numbers.
      entry: as for `init_context`.

    Raises:
      ValueError: as `init_context`, and a slot that the memory does not have.

    >>> import dataclasses
    >>> import jax
    >>> import jaxprop
    >>> memory = jaxprop.Memory(num_given=1)
    >>> method = dataclasses.replace(jaxprop.methods.crw(k=5), memory=memory)
    >>> features = jax.random.normal(jax.random.key(0), (4, 6, 8, 16))  # [T, H, W, C]
    >>> first_label = last_label = jax.nn.softmax(features[0, ..., :2])  # [H, W, L]
    >>> context = jaxprop.init_context(features[0], first_label, method)
    >>> context = jaxprop.give(context, features[3], last_label, method, slot=0, number=3)
    >>> context, label = jaxprop.propagate_step(context, features[1], method)
    """
    _check(features, label, method, Execution())
    num_given = method.memory.num_given
    if not isinstance(slot, Tracer) and not 0 <= slot < num_given:
        raise ValueError(f'slot is {slot}; the memory has num_given={num_given} slots from 0 on')
    features = _prepare(features, method)
    label = jnp.asarray(label, affinity.at_least_float32(label))
    entry = _first_entry(entry, features, label, method)
    return memory.give(method.memory, context, slot, number, features, label, entry)


def propagate_video(
    features: jax.Array,
    first_label: jax.Array,
    method: Propagation,
    *,
    length: jax.Array | int | None = None,
    execution: Execution = Execution(),
) -> jax.Array:
    """Labels all frames of a video from the label of its first frame.

    This is a `jax.lax.scan` over `propagate_step`. Under explicit sharding (`jax.make_mesh`) shard
    whole videos and `jax.vmap` over them: a frame must stay on one device. There JAX 0.12 needs
    `jax.set_mesh` for `TrackedBoxes`, and computes no gradients of it.

    Args:
      features: `[T, H, W, C]`.
      first_label: `[H, W, L]` soft label of frame 0.
      method: memory, rule and their settings.
      length: the number of real frames, where T is padded; labels from there on are zero.
      execution: how labels are computed; it does not change them beyond rounding.

    Returns:
      Labels `[T, H, W, L]`; index 0 is `first_label`.

    Raises:
      ValueError: as `init_context`.

    >>> import jax
    >>> import jaxprop
    >>> method = jaxprop.methods.crw(k=5)
    >>> features = jax.random.normal(jax.random.key(0), (3, 6, 8, 16))  # [T, H, W, C]
    >>> first_label = jax.nn.softmax(features[0, ..., :2])  # [H, W, L]
    >>> jaxprop.propagate_video(features, first_label, method).shape
    (3, 6, 8, 2)
    """
    if features.ndim != 4:
        raise ValueError(f'features have shape {features.shape}; [T, H, W, C] is needed')
    _check(features, first_label, method, execution)
    return _propagate_video(features, first_label, length, method=method, execution=execution)


@functools.partial(jax.jit, static_argnames=('method', 'execution'))
def _propagate_video(features, first_label, length, *, method, execution):
    context = init_context(features[0], first_label, method, execution=execution)
    step = functools.partial(propagate_step, method=method, execution=execution)
    _, labels = jax.lax.scan(step, context, features[1:])
    labels = jnp.concatenate([first_label[None], labels])
    if length is not None:
        is_real = jnp.arange(len(labels)) < length
        labels = jnp.where(is_real[:, None, None, None], labels, 0)
    return labels


def _label(frames, features, method, execution):
    """The label of a frame, and the label and entry by which the context remembers it."""
    label = method.rule.label(frames, features, execution)
    label, remembered = FEEDBACK[method.feedback](label)
    return label, remembered, method.rule.entry(frames, features, label)


def _first_entry(entry, features, label, method):
    """The rule's entry of a frame whose label is given; None is made of the soft label."""
    if entry is None:
        return method.rule.init(features, label)
    own = jax.eval_shape(method.rule.init, features, label)
    if (found := _shapes(entry)) != (wanted := _shapes(own)):
        name = type(method.rule).__name__
        raise ValueError(f'entry has shapes {found}; {name} keeps {wanted}')
    return jax.tree.map(lambda given, one: jnp.asarray(given, one.dtype), entry, own)


def _prepare(features, method):
    features = jnp.asarray(features)
    return affinity.l2_normalize(features) if method.normalize_features else features


def _shapes(entry):
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(entry)]


def _check(features, label, method, execution):
    if features.ndim < 3 or label.ndim != 3:
        raise ValueError(
            f'features {features.shape} and first label {label.shape} must be [..., H, W, C] and '
            '[H, W, L]'
        )
    grid = features.shape[-3:-1]
    if label.shape[:2] != grid:
        raise ValueError(
            f'the first label is on a grid of {label.shape[:2]}, the features on {grid}; '
            'labels.encode puts a label map on the grid of the features'
        )
    if not jnp.issubdtype(label.dtype, jnp.floating):
        # A context of whole numbers would lose the fractions of the predicted labels.
        raise ValueError(f'the first label is {label.dtype}; soft labels are float32')
    method.rule.check_grid(grid, method.memory, execution)
    for name, array in {'features': features, 'first label': label}.items():
        if not isinstance(array, Tracer) and not np.all(np.isfinite(array)):
            raise ValueError(f'{name} hold values that are not finite; check the input and weights')
