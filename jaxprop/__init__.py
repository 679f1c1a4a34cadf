"""Video label propagation as pure functions in JAX and Flax.

Importing this loads jax, flax and einops alone. What reads files, draws or trains is in the
modules `jaxprop.data`, `jaxprop.evaluation` and `jaxprop.training`.
"""

from jaxprop.labels import decode, encode, label_values
from jaxprop.models import ResNet, estimate_batch_statistics
from jaxprop.propagation import (
    Context,
    PropagationConfig,
    init_context,
    propagate_step,
    propagate_video,
)

__version__ = '0.1.0'

__all__ = [
    'Context',
    'PropagationConfig',
    'ResNet',
    'decode',
    'encode',
    'estimate_batch_statistics',
    'init_context',
    'label_values',
    'propagate_step',
    'propagate_video',
]
