"""What training changes from step to step."""

from typing import Any, NamedTuple

import jax
import optax

from jaxprop.objectives.objective import Objective


class TrainState(NamedTuple):
    """All that a run needs, beside its data, to go on.

    Attributes:
      step: int32, how many steps were done.
      params: what the optimiser sees, see `Objective`.
      state: what it does not see: batch statistics, queues, counters.
      opt_state: the optimiser's.
      rng: uint32 data of the random key that every step's key is made from.
    """

    step: jax.Array
    params: Any
    state: Any
    opt_state: Any
    rng: jax.Array


def create_state(
    objective: Objective, optimizer: optax.GradientTransformation, batch: Any, seed: int
) -> TrainState:
    """The state before the first step, on one device.

    Args:
      objective: what is trained.
      optimizer: of its parameters.
      batch: of the shapes of one device's; its values don't matter.
      seed: of the initial parameters and of every step.
    """
    init_rng, step_rng = jax.random.split(jax.random.key(seed))

    def create(rng, batch):
        variables = objective.init(rng, batch)
        return variables['params'], variables['state'], optimizer.init(variables['params'])

    params, state, opt_state = jax.jit(create)(init_rng, batch)
    step = jax.numpy.zeros((), jax.numpy.int32)
    return TrainState(step, params, state, opt_state, jax.random.key_data(step_rng))
