"""The state of a training run: everything that changes from step to step."""

from typing import Any, NamedTuple

import jax
import optax

from jaxprop.objectives.objective import Objective


class TrainState(NamedTuple):
    """All that a run needs, beside its data, to go on.

    Attributes:
      step: int32, the number of steps done.
      params: the parameters that the optimiser changes, see `Objective`.
      state: the objective's other arrays: batch statistics, queues, counters.
      opt_state: the optimiser's state.
      rng: uint32 data of the random key from which every step's key is made.
    """

    step: jax.Array
    params: Any
    state: Any
    opt_state: Any
    rng: jax.Array


def create_state(
    objective: Objective, optimizer: optax.GradientTransformation, batch: Any, seed: int
) -> TrainState:
    """Makes the state before the first step, on one device.

    Args:
      objective: the objective to train.
      optimizer: the optimiser of its parameters.
      batch: a batch in the shapes of one device; its values don't matter.
      seed: of the initial parameters and of every step.
    """
    init_rng, step_rng = jax.random.split(jax.random.key(seed))

    def create(rng, batch):
        variables = objective.init(rng, batch)
        return variables['params'], variables['state'], optimizer.init(variables['params'])

    params, state, opt_state = jax.jit(create)(init_rng, batch)
    step = jax.numpy.zeros((), jax.numpy.int32)
    return TrainState(step, params, state, opt_state, jax.random.key_data(step_rng))
