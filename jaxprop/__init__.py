"""Video label propagation as pure functions in JAX and Flax.

Importing this loads jax, flax and einops alone. The packages `jaxprop.data`, `jaxprop.evaluation`
and `jaxprop.training` read files, draw and train.
"""

from jaxprop import methods
from jaxprop.labels import decode, encode, label_values
from jaxprop.memory import Context, Memory
from jaxprop.models import ResNet, estimate_batch_statistics
from jaxprop.propagation import (
    Propagation,
    give,
    init_context,
    propagate_step,
    propagate_video,
    remember,
)
from jaxprop.rules.neighbors import Attention, TopK
from jaxprop.rules.predicted import PredictedWindow
from jaxprop.rules.regions import Disk, Everywhere, Square
from jaxprop.rules.rule import Execution, Region, Rule
from jaxprop.rules.tracked import TrackedBoxes

__version__ = '0.1.0'

__all__ = [
    'Attention',
    'Context',
    'Disk',
    'Everywhere',
    'Execution',
    'Memory',
    'PredictedWindow',
    'Propagation',
    'Region',
    'ResNet',
    'Rule',
    'Square',
    'TopK',
    'TrackedBoxes',
    'decode',
    'encode',
    'estimate_batch_statistics',
    'give',
    'init_context',
    'label_values',
    'methods',
    'propagate_step',
    'propagate_video',
    'remember',
]
