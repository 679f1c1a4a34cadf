"""The network that benchmarks take features from."""

from collections.abc import Callable

import jax

from jaxprop import affinity, color
from jaxprop.checkpoints.native import DEFAULT_NETWORK, load_pretrained


def make_extract() -> Callable[[jax.Array], jax.Array]:
    """Makes a function from frames `[B, h, w, 3]` to their features `[B, H, W, C]`."""
    model, variables = load_pretrained(DEFAULT_NETWORK)
    return lambda frames: affinity.l2_normalize(
        model.apply(variables, color.network_input(frames, 'lightness'))
    )
