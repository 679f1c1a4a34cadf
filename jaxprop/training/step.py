"""One step of training, on all devices."""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxprop.objectives.objective import Objective
from jaxprop.parallel import AXIS
from jaxprop.training.state import TrainState


def make_train_step(
    objective: Objective, optimizer: optax.GradientTransformation, accumulate: int = 1
) -> jax.stages.Wrapped:
    """Makes a function that does one step on all devices, by `jax.pmap` over the axis 'device'.

    Gradients, metrics and the floating point arrays of the objective's state are averaged over the
    devices. Integers in the state are counters, which are the same on all devices.

    Args:
      objective: the objective to train.
      optimizer: the optimiser of its parameters.
      accumulate: a device's batch is taken in so many parts, one after the other, and their
        gradients are averaged. This needs less memory; each part has batch statistics of its own.

    Returns:
      step(state, batch) -> (state, metrics), all with a leading axis of devices. The buffers of the
      given state are reused, so it can't be read afterwards. Metrics are the objective's, 'loss'
      and 'gradient_norm' (before clipping).

    Raises:
      ValueError: (from step) a device's batch is no multiple of `accumulate`.
    """
    gradient = jax.value_and_grad(objective.loss, has_aux=True)

    def split(values):
        if len(values) % accumulate:
            raise ValueError(
                f'accumulate is {accumulate}; it must divide the {len(values)} examples of a device'
            )
        return values.reshape(accumulate, -1, *values.shape[1:])

    @functools.partial(jax.pmap, axis_name=AXIS, donate_argnums=0)
    def step(state, batch):
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

        # Compute the gradients, part by part.
        def part(carry, inputs):
            objective_state, total = carry
            index, examples = inputs
            (loss, (objective_state, metrics)), gradients = gradient(
                state.params, objective_state, examples, jax.random.fold_in(rng, index)
            )
            total = jax.tree.map(jnp.add, total, gradients)
            return (objective_state, total), {**metrics, 'loss': loss}

        carry = state.state, jax.tree.map(jnp.zeros_like, state.params)
        if accumulate == 1:
            # One part needs no loop: in a loop XLA's convolutions are ten times slower on the CPU.
            carry, metrics = part(carry, (0, batch))
        else:
            inputs = jnp.arange(accumulate), jax.tree.map(split, batch)
            carry, metrics = jax.lax.scan(part, carry, inputs)
        # Average over parts and devices, and update the parameters.
        objective_state, gradients = carry
        gradients = jax.lax.pmean(jax.tree.map(lambda g: g / accumulate, gradients), AXIS)
        metrics = jax.lax.pmean(jax.tree.map(jnp.mean, metrics), AXIS)
        metrics['gradient_norm'] = optax.tree.norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            state=jax.tree.map(_average, objective_state),
            opt_state=opt_state,
            rng=state.rng,
        ), metrics

    return step


def _average(value):
    return jax.lax.pmean(value, AXIS) if jnp.issubdtype(value.dtype, jnp.floating) else value
