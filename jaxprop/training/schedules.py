"""Learning rates over time, and the optimisers that follow them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import optax

from jaxprop.models.resnet import STAGES

_SCHEDULES = ('constant', 'step', 'poly', 'cosine')
_OPTIMIZERS = ('sgd', 'adam')


def make_schedule(
    name: str,
    learning_rate: float,
    steps_per_epoch: float,
    *,
    epochs: float = 1.0,
    boundaries: Sequence[float] = (),
    boundary_examples: Sequence[int] = (),
    batch_size: int = 1,
    factor: float = 0.1,
    power: float = 0.9,
    restarts: Sequence[float] = (),
    warmup: float = 0.0,
) -> optax.Schedule:
    """Makes the schedule that gives the learning rate of each step.

    Times are in epochs and may be fractions, unless an argument says otherwise.

    Args:
      name: the schedule. With t the time, the rate is `learning_rate` times: 'constant': 1; 'step':
        a `factor` for each boundary passed; 'poly': (1 - t / epochs)^power; 'cosine':
        (1 + cos(pi t / epochs)) / 2.
      learning_rate: the largest rate.
      steps_per_epoch: converts epochs to steps.
      epochs: the time at which 'poly' and 'cosine' reach 0.
      boundaries, factor: of 'step'.
      boundary_examples: more boundaries of 'step', in examples, for releases that count examples.
      batch_size: examples of a step; converts examples to steps.
      power: of 'poly'.
      restarts: times at which t starts at 0 again.
      warmup: from 0 to this time the rate also rises linearly from 0; t goes on meanwhile.

    Raises:
      ValueError: for another name, or `epochs` not above 0.
    """
    if name not in _SCHEDULES:
        raise ValueError(f'schedule is {name!r}; it must be one of {_SCHEDULES}')
    if not epochs > 0:
        raise ValueError(f'epochs is {epochs}; it must be above 0')

    def steps(time):
        return round(time * steps_per_epoch)

    if name == 'constant':
        schedule = optax.constant_schedule(learning_rate)
    elif name == 'step':
        passed = *map(steps, boundaries), *(round(n / batch_size) for n in boundary_examples)
        # If an epoch has few steps, several boundaries may be one step.
        factors = {step: factor**number for step, number in Counter(passed).items()}
        schedule = optax.piecewise_constant_schedule(learning_rate, factors)
    elif name == 'poly':
        schedule = optax.polynomial_schedule(learning_rate, 0.0, power, max(1, steps(epochs)))
    else:
        schedule = optax.cosine_decay_schedule(learning_rate, max(1, steps(epochs)))
    if restarts:
        schedule = optax.join_schedules(
            [schedule] * (len(restarts) + 1), [steps(time) for time in restarts]
        )
    if not warmup:
        return schedule
    rise = optax.linear_schedule(0.0, 1.0, max(1, steps(warmup)))
    return lambda count: rise(count) * schedule(count)


def make_optimizer(
    schedule: optax.Schedule,
    name: str = 'sgd',
    *,
    momentum: float = 0.9,
    beta1: float = 0.9,
    weight_decay: float = 0.0,
    decay_all: bool = False,
    clip_norm: float | None = None,
    frozen_until: str | None = None,
) -> optax.GradientTransformation:
    """Makes the optimiser of an objective's parameters.

    Args:
      schedule: of the learning rate, see `make_schedule`.
      name: 'sgd': momentum on the gradient plus weight_decay times the parameter; 'adam', with
        weight decay apart from the gradient (AdamW).
      momentum: of 'sgd'.
      beta1: of 'adam': the share of the mean gradient that a step keeps. Of the mean squared
        gradient it keeps 0.999.
      weight_decay: of kernels; biases and BatchNorm's parameters do not decay.
      decay_all: whether biases and BatchNorm's parameters decay, too.
      clip_norm: gradients of a larger global norm are scaled to this one. None: they are not.
      frozen_until: a stage of the backbone; the backbone's parameters before it do not change.
        None: all change.

    Raises:
      ValueError: for another name; `beta1` is not from 0 to below 1.
    """
    if name not in _OPTIMIZERS:
        raise ValueError(f'optimizer is {name!r}; it must be one of {_OPTIMIZERS}')
    if not 0 <= beta1 < 1:
        raise ValueError(f'optimizer.beta1 is {beta1}; it must be at least 0 and below 1')
    decay = optax.add_decayed_weights(weight_decay, None if decay_all else is_kernel)
    if name == 'sgd':
        rule = optax.chain(decay, optax.trace(momentum))
    else:
        rule = optax.chain(optax.scale_by_adam(b1=beta1), decay)
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    optimizer = optax.chain(clip, rule, optax.scale_by_learning_rate(schedule))
    if frozen_until is None:
        return optimizer
    return optax.chain(
        optimizer, optax.masked(optax.set_to_zero(), lambda params: is_frozen(params, frozen_until))
    )


def is_kernel(params: Any) -> Any:
    """Marks kernels True: arrays of more than one axis, which biases and BatchNorm's are not."""
    return jax.tree.map(lambda value: value.ndim > 1, params)


def is_frozen(params: Any, frozen_until: str) -> Any:
    """Marks each of `params` True that is the backbone's and before stage `frozen_until`."""
    learning = (*STAGES[STAGES.index(frozen_until) :], 'projection')

    def frozen(path, _):
        names = [key.key for key in path]
        return names[0] == 'backbone' and names[1].split('_')[0] not in learning

    return jax.tree_util.tree_map_with_path(frozen, params)
