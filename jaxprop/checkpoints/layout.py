"""How a released file names the arrays of its network."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way in which released files hold a network.

    Attributes:
      name: of the layout: 'dino'.
      signature: names of arrays, without prefix, by which a file is recognised: it has all of them.
        Several layouts may fit one file; one whose signature holds the other's is the right one.
      build: of the arrays by name, without prefix, and of the output that is wanted (None: the one
        that the release evaluates), the network and its variables. Arrays beside the network's are
        ignored. Raises ValueError naming what is missing, of another shape or not finite.
    """

    name: str
    signature: tuple[str, ...]
    build: Callable[[Mapping[str, np.ndarray], str | None], tuple[nn.Module, dict[str, Any]]]
