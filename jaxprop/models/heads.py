"""Heads that turn the feature maps of a backbone into one vector per image."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxprop.models.network import attribute_names
from jaxprop.models.resnet import BasicBlock, max_pool

KINDS = ('linear', 'residual')


class LinearHead(nn.Module):
    """Average pool and one dense layer: `[B, H, W, C]` -> float32 `[B, num_outputs]`.

    Before that layer there may be `hidden_layers` others of C channels, each with a ReLU.
    """

    num_outputs: int
    hidden_layers: int = 0

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        pooled = jnp.mean(features, axis=(1, 2), dtype=jnp.float32)
        for index in range(self.hidden_layers):
            pooled = nn.relu(nn.Dense(pooled.shape[-1], name=f'hidden_{index}')(pooled))
        return nn.Dense(self.num_outputs, name='dense')(pooled)


class ResidualHead(nn.Module):
    """Max pool, a residual stage like ResNet18's last, average pool and one dense layer.

    The max pool is 3x3 with stride 2; the stage has two basic blocks of 512 channels, the first of
    stride 2. `[B, H, W, C]` -> float32 `[B, num_outputs]`. The attributes beside `num_outputs` are
    those of `ResNet`.

    Source: the image head of UVC+: McKee et al., "Transfer of Representations to Video Label
    Propagation: Implementation Factors Matter", BMVC 2022.
    """

    num_outputs: int
    padding: str = 'zero'
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        x = max_pool(features)
        for index, stride in enumerate((2, 1)):
            block = BasicBlock(
                512,
                stride,
                padding=self.padding,
                norm_momentum=self.norm_momentum,
                norm_axis_name=self.norm_axis_name,
                dtype=self.dtype,
                name=f'block_{index}',
            )
            x = block(x, train)
        return LinearHead(self.num_outputs, name='linear')(x)


def make_head(
    kind: str, num_outputs: int, backbone: nn.Module, axis_name: str | None = None
) -> nn.Module:
    """The head for a backbone, with its padding, norm and dtype where it has such attributes.

    Args:
      kind: 'linear': `LinearHead`, for a whole network; 'residual': `ResidualHead`, for one that
        ends at res3 or is shared with a video objective.
      num_outputs: length of the vector.
      backbone: whose features the head takes.
      axis_name: the mapped axis of devices over which the head's batch statistics are averaged, if
        the backbone has no `norm_axis_name`.

    Raises:
      ValueError: for another kind.
    """
    if kind == 'linear':
        return LinearHead(num_outputs)
    if kind == 'residual':
        known = attribute_names(backbone)
        names = ('padding', 'norm_momentum', 'norm_axis_name', 'dtype')
        shared: dict[str, Any] = {'norm_axis_name': axis_name}
        shared |= {name: getattr(backbone, name) for name in names if name in known}
        return ResidualHead(num_outputs, **shared)
    raise ValueError(f'head is {kind!r}; known: {KINDS}')
