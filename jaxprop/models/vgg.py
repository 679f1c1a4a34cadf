"""The VGG16 encoder of DeepCluster: it sees edges, and has BatchNorm after every convolution.

Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition",
ICLR 2015, in the arrangement of torchvision's and DeepCluster's `features`, so that weights carry
over one to one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxprop.models.resnet import check_images

# Channels of conv1 to conv13; a max pool follows conv2, conv4, conv7 and conv10.
CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
POOLED = (2, 4, 7, 10)
OUTPUTS = tuple(f'conv{index}' for index in range(1, len(CHANNELS) + 1))

_HORIZONTAL_EDGES = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], np.float32)


class VGG16(nn.Module):
    """Turns images into a feature map: VGG16 up to one of its convolutions, after norm and ReLU.

    Called on `images` `[B, H, W, 3]`, floating point and already normalised, it gives features
    `[B, H // stride, W // stride, channels]`. With `train` BatchNorm uses the batch's statistics,
    and updates the running ones where `batch_stats` is mutable.

    Attributes:
      sobel: the convolutions see two channels, the horizontal and the vertical Sobel derivative of
        the mean of red, green and blue, as in DeepCluster; else the three colours.
      output: 'conv1' to 'conv13', counting convolutions; later ones are not built.
      pool4: whether there is the fourth 2x2 max pool, after conv10. Without it conv11 to conv13
        have stride 8, too.
      norm_momentum: share of the old running statistics that one training step keeps.
      norm_axis_name: mapped axis (of devices) over which training averages batch statistics.
      dtype: of computation and features; None: float32. Parameters and statistics are float32.

    Raises:
      ValueError: the output has another name, or images have another form.

    Source: Caron, Bojanowski, Joulin, Douze, "Deep clustering for unsupervised learning of visual
    features", ECCV 2018, as released.
    """

    sobel: bool = True
    output: str = 'conv10'
    pool4: bool = False
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None
    dtype: DTypeLike | None = None

    def __post_init__(self):
        if self.output not in OUTPUTS:
            raise ValueError(f'output is {self.output!r}; known: {OUTPUTS}')
        super().__post_init__()

    @property
    def _depth(self) -> int:
        return OUTPUTS.index(self.output) + 1

    @property
    def _pooled(self) -> tuple[int, ...]:
        """The convolutions that a max pool follows."""
        pooled = POOLED if self.pool4 else POOLED[:3]
        return tuple(index for index in pooled if index < self._depth)

    @property
    def stride(self) -> int:
        """Pixels from one feature cell to the next."""
        return 2 ** len(self._pooled)

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return CHANNELS[self._depth - 1]

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the features of images of `height` x `width` pixels, in cells."""
        return height // self.stride, width // self.stride

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images)
        x = sobel_edges(images) if self.sobel else images
        for index, channels in enumerate(CHANNELS[: self._depth], start=1):
            x = nn.Conv(
                channels,
                (3, 3),
                padding=((1, 1), (1, 1)),
                kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
                dtype=self.dtype,
                name=f'conv{index}',
            )(x)
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.norm_momentum,
                epsilon=1e-5,
                axis_name=self.norm_axis_name,
                dtype=self.dtype,
                name=f'norm{index}',
            )(x)
            x = nn.relu(x)
            if index in self._pooled:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return x


def sobel_edges(images: jax.Array) -> jax.Array:
    """Computes the Sobel derivatives of the mean of the channels, with zeros around the image.

    Args:
      images: `[B, H, W, C]`.

    Returns:
      `[B, H, W, 2]`: left minus right, and upper minus lower, weighted 1, 2, 1.

    Source: Caron et al., ECCV 2018, as released.
    """
    gray = jnp.pad(jnp.mean(images, axis=-1), ((0, 0), (1, 1), (1, 1)))
    height, width = images.shape[1:3]

    def filtered(kernel):
        return sum(
            weight * gray[:, row : row + height, column : column + width]
            for (row, column), weight in np.ndenumerate(kernel)
            if weight
        )

    return jnp.stack([filtered(_HORIZONTAL_EDGES), filtered(_HORIZONTAL_EDGES.T)], axis=-1)
