"""How a published network's arrays are named, and how a network of ours is made of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of one published network's arrays, and what turns the arrays into our network.

    Attributes:
      name: of the network, such as 'crw_resnet18'; a file can be read as this one by it.
      signature: names of arrays that every file of the network has, without what precedes them in
        the file. The layout of fewer names gives way to one that has these names and more: those
        of a ResNet18 are in a ResNet34 too.
      build: gives the network and its variables. It takes the arrays, by their names without
        prefix, among others that the network doesn't need, and the wanted output, such as 'res3';
        None is the one that the release evaluates. It raises ValueError for an output that the
        network doesn't have, and for arrays that are missing, not finite or of another shape.
      prefixes: ends of the prefix that the release's files have, such as 'encoder_q.'; '' is
        none. They decide between layouts of the same names, and between the networks of one file.
      bare: whether files without one of these prefixes are known too. Else such files are not
        taken for this network unless it is asked for by name.
      color: what the network was trained to see, as `jaxprop.color.network_input` names it; None
        where files of this layout differ and don't say.
    """

    name: str
    signature: tuple[str, ...]
    build: Callable[[Mapping[str, np.ndarray], str | None], tuple[nn.Module, dict[str, Any]]]
    prefixes: tuple[str, ...] = ()
    bare: bool = True
    color: str | None = 'rgb'
