"""Describes published networks: the names of their arrays, and how ours is built of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of one published network's arrays, and a function that builds our network of them.

    Attributes:
      name: of the network, such as 'crw_resnet18'. The user may give it to choose this layout.
      signature: names, without prefix, of arrays that every file of the network has. If one layout
        has all names of another and more, it is preferred: a ResNet34 has those of a ResNet18 too.
      build: makes the network and its variables. It takes the arrays by their names without prefix,
        which may be more than the network needs, and the wanted output, such as 'res3'; None is the
        one that the release evaluates. It raises ValueError for an output that the network doesn't
        have, and for arrays that are missing, not finite or of another shape.
      prefixes: ends of the prefixes in the release's files, such as 'encoder_q.'; '' for no prefix.
        They decide between layouts of the same names, and between the networks of one file.
      bare: whether a file without these prefixes may be this network. If not, such a file is read
        as this network only when the user names it.
      color: the colours that the network was trained to see, as `jaxprop.color.network_input` names
        them; None where files of this layout differ and don't say.
    """

    name: str
    signature: tuple[str, ...]
    build: Callable[[Mapping[str, np.ndarray], str | None], tuple[nn.Module, dict[str, Any]]]
    prefixes: tuple[str, ...] = ()
    bare: bool = True
    color: str | None = 'rgb'
