"""The network that benchmarks take features from, and the machine that they run on."""

import os
from collections.abc import Callable

import checkout  # noqa: F401
import jax

from jaxprop import affinity, color
from jaxprop.checkpoints.native import DEFAULT_NETWORK, load_pretrained
from jaxprop.evaluation.results import provenance


def make_extract(name: str = DEFAULT_NETWORK) -> Callable[[jax.Array], jax.Array]:
    """Makes a function from frames `[B, h, w, 3]` to their features `[B, H, W, C]`."""
    model, variables = load_pretrained(name)
    return lambda frames: affinity.l2_normalize(
        model.apply(variables, color.network_input(frames, 'lightness'))
    )


def describe_machine() -> str:
    """One line with the machine and the versions, for the head of a table."""
    about = provenance()
    versions = ', '.join(f'{name} {about[name]}' for name in ('python', 'jax', 'jaxlib', 'numpy'))
    return f'{about["device"]}, {os.cpu_count()} cores; {versions}; commit {about["git commit"]}'
