"""Heads that turn the feature maps of a backbone, or their affinities, into one vector each."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxprop.models.network import attribute_names
from jaxprop.models.resnet import HE, BasicBlock, max_pool

KINDS = ('linear', 'residual')


class LinearHead(nn.Module):
    """Average pool and one dense layer: `[B, H, W, C]` -> float32 `[B, num_outputs]`.

    `hidden_layers` more dense layers of C channels, each with a ReLU, come before that layer.
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
    those of `jaxprop.models.resnet.ResNet`.

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


class ProjectionHead(nn.Module):
    """Average pool and three dense layers with BatchNorm: SimSiam's projector.

    A ReLU follows the first two norms. `[B, H, W, C]` -> float32 `[B, num_outputs]`. The layers
    before the last have `hidden` channels; `norm_momentum` and `norm_axis_name` are
    as in `jaxprop.models.resnet.ResNet`.

    Source: Chen, He, "Exploring Simple Siamese Representation Learning", CVPR 2021.
    """

    hidden: int
    num_outputs: int
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        x = jnp.mean(features, axis=(1, 2), dtype=jnp.float32)
        for index in range(2):
            x = nn.Dense(self.hidden, name=f'dense_{index}')(x)
            x = nn.relu(_norm(self, train, f'norm_{index}')(x))
        return _norm(self, train, 'norm_2')(nn.Dense(self.num_outputs, name='dense_2')(x))


class PredictionHead(nn.Module):
    """Two dense layers, BatchNorm and a ReLU between them: SimSiam's predictor.

    `[B, D]` -> `[B, num_outputs]`, with `bottleneck` channels between the layers. `norm_momentum`
    and `norm_axis_name` are as in `jaxprop.models.resnet.ResNet`.

    Source: Chen, He, "Exploring Simple Siamese Representation Learning", CVPR 2021.
    """

    bottleneck: int
    num_outputs: int
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None

    @nn.compact
    def __call__(self, vectors: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Dense(self.bottleneck, name='dense_0')(vectors)
        x = nn.relu(_norm(self, train, 'norm_0')(x))
        return nn.Dense(self.num_outputs, name='dense_1')(x)


class TransformHead(nn.Module):
    """Computes a shift and a rotation from affinities, by two convolutions and a dense layer.

    Each cell of a patch of n x n cells has affinities with the cells of a frame. So the input is
    `[N, n, n, H, W]`. The result `[N, 3]` is a shift along x and y and an angle, near 0 at the
    start. The affinities are the channels, column by column, and the dense layer takes the
    convolutions' result channel by channel, so that released weights fit.

    Attributes:
      hidden: channels of the convolutions; released: (128, 64).
      kernel: size of the convolutions; released: 4. There is no padding, so n must be at least
        2 kernel - 1.

    Source: TimeCycle: Wang, Jabri, Efros, "Learning Correspondence from the Cycle-Consistency of
    Time", CVPR 2019, as released.
    """

    hidden: tuple[int, int]
    kernel: int

    @nn.compact
    def __call__(self, affinities: jax.Array, train: bool = False) -> jax.Array:
        del train
        x = affinities.mT
        x = x.reshape(*x.shape[:3], -1)
        for index, channels in enumerate(self.hidden):
            conv = nn.Conv(
                channels,
                (self.kernel, self.kernel),
                padding='VALID',
                use_bias=False,
                kernel_init=HE,
                name=f'conv{index + 1}',
            )
            x = nn.leaky_relu(conv(x), 0.1)
        x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        return nn.Dense(3, kernel_init=nn.initializers.normal(0.01), name='dense')(x)


def _norm(head: nn.Module, train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=head.norm_momentum,
        epsilon=1e-5,
        axis_name=head.norm_axis_name,
        name=name,
    )


def shared_attributes(
    head: type[nn.Module], backbone: nn.Module, axis_name: str | None = None
) -> dict[str, Any]:
    """Lists the attributes that a head takes over from a backbone, where both have them.

    These are the padding, the norms' momentum and axis, and the dtype. The norms' axis is
    `axis_name` where the backbone has no `norm_axis_name`.
    """
    names = {'padding', 'norm_momentum', 'norm_axis_name', 'dtype'} & set(attribute_names(head))
    known = names & set(attribute_names(backbone))
    return {'norm_axis_name': axis_name} | {name: getattr(backbone, name) for name in known}


def make_head(
    kind: str, num_outputs: int, backbone: nn.Module, axis_name: str | None = None
) -> nn.Module:
    """Makes the head for a backbone, with the padding, norm and dtype of the backbone.

    Args:
      kind: 'linear': `LinearHead`, for a whole network; 'residual': `ResidualHead`, for a network
        that ends at res3 or is shared with a video objective.
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
        return ResidualHead(num_outputs, **shared_attributes(ResidualHead, backbone, axis_name))
    raise ValueError(f'head is {kind!r}; known: {KINDS}')
