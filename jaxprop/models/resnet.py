"""ResNet encoders with the strides, the output and the padding that label propagation varies.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, in
torchvision's arrangement, so that weights carry over one to one. Its layerN is resN here; ResNet50
takes a stage's stride in the 3x3 convolution.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

STAGES = ('res1', 'res2', 'res3', 'res4')
PADDINGS = ('zero', 'reflect')
HE = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def _layers(module: nn.Module, train: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Makes convolution and norm layers with the padding, norm and dtype attributes of `module`."""

    def conv(
        x: jax.Array, channels: int, kernel: int, stride: int = 1, *, name: str, **settings: Any
    ) -> jax.Array:
        height, width = (-(-size // stride) for size in x.shape[1:3])
        # The padding is explicit: 'SAME' pads unevenly when the stride is 2 and the size is even.
        padding = (kernel // 2, kernel // 2)
        if module.padding == 'reflect' and kernel > 1:
            x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)), mode='reflect')
            # Pad a needless row and column, which are cut off again below: on CPU, XLA's
            # convolution without any padding is several times slower.
            padding = (0, 1)
        layer = nn.Conv(
            channels,
            (kernel, kernel),
            strides=stride,
            padding=(padding, padding),
            dtype=module.dtype,
            name=name,
            **{'use_bias': False, 'kernel_init': HE, **settings},
        )
        return layer(x)[:, :height, :width]

    norm = functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=module.norm_momentum,
        epsilon=1e-5,
        axis_name=module.norm_axis_name,
        dtype=module.dtype,
    )
    return conv, norm


def _last_scale(block: nn.Module) -> nn.initializers.Initializer:
    """The initial value of the scale of a block's last norm."""
    return nn.initializers.zeros if block.zero_init_residual else nn.initializers.ones


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(F(x) + S(x)), the block of ResNet18 and 34.

    S is a 1x1 convolution where the block changes the stride or the channels, else the identity.
    `channels` is the number of channels of the result. Beside it and `stride`, the attributes are
    those of `ResNet`.
    `[B, H, W, any]` -> `[B, ceil(H / stride), ceil(W / stride), channels]`.
    """

    channels: int
    stride: int = 1
    padding: str = 'zero'
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None
    dtype: DTypeLike | None = None
    zero_init_residual: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        conv, norm = _layers(self, train)
        y = conv(x, self.channels, 3, self.stride, name='conv1')
        y = nn.relu(norm(name='norm1')(y))
        y = conv(y, self.channels, 3, name='conv2')
        y = norm(name='norm2', scale_init=_last_scale(self))(y)
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = conv(x, self.channels, 1, self.stride, name='shortcut_conv')
            x = norm(name='shortcut_norm')(x)
        return nn.relu(x + y)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, the block of ResNet50.

    The first two convolutions have a quarter of the channels; the 3x3 one takes the stride.
    `channels` is the number of channels of the result. Beside it and `stride`, the attributes are
    those of `ResNet`.
    """

    channels: int
    stride: int = 1
    padding: str = 'zero'
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None
    dtype: DTypeLike | None = None
    zero_init_residual: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        conv, norm = _layers(self, train)
        y = conv(x, self.channels // 4, 1, name='conv1')
        y = nn.relu(norm(name='norm1')(y))
        y = conv(y, self.channels // 4, 3, self.stride, name='conv2')
        y = nn.relu(norm(name='norm2')(y))
        y = conv(y, self.channels, 1, name='conv3')
        y = norm(name='norm3', scale_init=_last_scale(self))(y)
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = conv(x, self.channels, 1, self.stride, name='shortcut_conv')
            x = norm(name='shortcut_norm')(x)
        return nn.relu(x + y)


# By depth: the block, the channels of res1, the number of blocks in each stage.
ARCHITECTURES = {
    18: (BasicBlock, 64, (2, 2, 2, 2)),
    34: (BasicBlock, 64, (3, 4, 6, 3)),
    50: (BottleneckBlock, 256, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """Turns images into a feature map: a ResNet up to one of its stages, after the last ReLU.

    Called on `images` `[B, H, W, 3]`, floating point and already normalised, it gives features
    `[B, ceil(H / stride), ceil(W / stride), channels]`. With `train` BatchNorm uses the batch's
    statistics, and updates the running ones where `batch_stats` is mutable.

    Attributes:
      depth: 18, 34 or 50.
      strides: of the stages res1 to res4. (1, 2, 2, 2) is the network for classification;
        (1, 2, 1, 1) has stride 8 in res3 and res4, without dilation.
      output: 'res1' to 'res4' (torchvision's layer1 to layer4); later stages are not built.
      max_pool: the stem's 3x3 max pool of stride 2; without it everything has half the stride.
      padding: of convolutions: 'zero' or 'reflect'. The max pool is always padded with -inf.
      norm_momentum: share of the old running statistics that one training step keeps.
      norm_axis_name: mapped axis (of devices) over which training averages batch statistics.
      frozen_until: the first stage that learns. The stem and earlier stages use running statistics
        in training too, and get no gradient. An optimiser with weight decay still has to leave them
        out. None: everything learns.
      dtype: of computation and features; None: float32. Parameters and statistics are float32.
      widths: channels of res1 to res4; None: 64 to 512, in ResNet50 256 to 2048. CorrFlow's and
        MAST's are (64, 128, 256, 256).
      projection: channels of a convolution after the output stage, whose results are then the
        features; None: no such convolution.
      projection_kernel: the size of the projection in cells, an odd number.
      projection_bias: whether the projection has a bias. With one it starts as PyTorch's
        convolutions do, uniform in +-1 / sqrt(inputs of an output), as CorrFlow and MAST were
        trained; without, as the other convolutions.
      projection_relu: whether a ReLU follows the projection.
      average_pool: whether the stem's pool takes the mean of its 3x3 values, zero outside, in place
        of the largest, as Spa-then-Temp's network of stride 4 does.
      zero_init_residual: whether the scale of each block's last norm starts at 0, so that a block
        starts as its shortcut (VFS).

    Raises:
      ValueError: an attribute has a value that is none of these, or images have another form.

    Source: He et al., CVPR 2016; the strides for propagation: Jabri, Owens, Efros, "Space-Time
    Correspondence as a Contrastive Random Walk", NeurIPS 2020, appendix. Widths and projection:
    Lai, Xie, "Self-supervised Learning for Video Correspondence Flow", BMVC 2019, and Wang, Jabri,
    Efros, "Learning Correspondence from the Cycle-Consistency of Time", CVPR 2019, as released.
    Average pool: Li, Liu, "Spatial-then-Temporal Self-Supervised Learning for Video
    Correspondence", CVPR 2023, as released.
    """

    depth: int = 18
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    output: str = 'res3'
    max_pool: bool = True
    padding: str = 'zero'
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None
    frozen_until: str | None = None
    dtype: DTypeLike | None = None
    widths: tuple[int, int, int, int] | None = None
    projection: int | None = None
    projection_kernel: int = 1
    projection_bias: bool = False
    projection_relu: bool = False
    average_pool: bool = False
    zero_init_residual: bool = False

    def __post_init__(self):
        # A list, as JSON has it, would make the module unhashable.
        object.__setattr__(self, 'strides', tuple(self.strides))
        if self.widths is not None:
            object.__setattr__(self, 'widths', tuple(self.widths))
        for name, known in {
            'depth': tuple(ARCHITECTURES),
            'output': STAGES,
            'padding': PADDINGS,
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is {getattr(self, name)!r}; known: {known}')
        for name in ('strides', 'widths'):
            numbers = getattr(self, name)
            if numbers is not None and not (len(numbers) == 4 and all(map(_is_positive, numbers))):
                raise ValueError(f'{name} is {numbers}; needed: four integers of at least 1')
        if self.depth == 50 and any(width % 4 for width in self.widths or ()):
            raise ValueError(f'widths is {self.widths}; those of a ResNet50 must be multiples of 4')
        if not (self.projection is None or _is_positive(self.projection)):
            raise ValueError(f'projection is {self.projection!r}; needed: None or channels')
        if not (_is_positive(self.projection_kernel) and self.projection_kernel % 2):
            raise ValueError(
                f'projection_kernel is {self.projection_kernel!r}; needed: an odd number'
            )
        if self.average_pool and not self.max_pool:
            raise ValueError('average_pool is True, but without max_pool the stem has no pool')
        if self.frozen_until not in (None, *self._stages):
            raise ValueError(
                f'frozen_until is {self.frozen_until!r}; known: None or one of {self._stages}, '
                f'as output is {self.output!r}'
            )
        super().__post_init__()

    @property
    def _stages(self) -> tuple[str, ...]:
        return STAGES[: STAGES.index(self.output) + 1]

    @property
    def stride(self) -> int:
        """Pixels from one feature cell to the next."""
        stem = 4 if self.max_pool else 2
        return stem * math.prod(self.strides[: len(self._stages)])

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self.projection or self._widths[len(self._stages) - 1]

    @property
    def _widths(self) -> tuple[int, ...]:
        """The channels of res1 to res4."""
        _, channels, _ = ARCHITECTURES[self.depth]
        return self.widths or tuple(channels * 2**stage for stage in range(4))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the features of images of `height` x `width` pixels, in cells."""
        return -(-height // self.stride), -(-width // self.stride)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images)
        block, _, num_blocks = ARCHITECTURES[self.depth]
        block = functools.partial(
            block,
            padding=self.padding,
            norm_momentum=self.norm_momentum,
            norm_axis_name=self.norm_axis_name,
            dtype=self.dtype,
            zero_init_residual=self.zero_init_residual,
        )
        learns = self.frozen_until is None

        # The stem.
        conv, norm = _layers(self, train and learns)
        x = conv(images, 64, 7, 2, name='stem_conv')
        x = nn.relu(norm(name='stem_norm')(x))
        if self.max_pool:
            x = average_pool(x) if self.average_pool else max_pool(x)

        # The stages, up to the output.
        for stage, name in enumerate(self._stages):
            if name == self.frozen_until:
                x = jax.lax.stop_gradient(x)
                learns = True
            for index in range(num_blocks[stage]):
                stride = self.strides[stage] if index == 0 else 1
                layer = block(self._widths[stage], stride, name=f'{name}_{index}')
                x = layer(x, train and learns)
        return x if self.projection is None else self._project(x, conv)

    def _project(self, x: jax.Array, conv: Callable[..., jax.Array]) -> jax.Array:
        settings = {}
        if self.projection_bias:
            bound = 1 / math.sqrt(self.projection_kernel**2 * x.shape[-1])
            settings = {
                'use_bias': True,
                'kernel_init': nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'),
                'bias_init': lambda key, shape, dtype: jax.random.uniform(
                    key, shape, dtype, -bound, bound
                ),
            }
        x = conv(x, self.projection, self.projection_kernel, name='projection', **settings)
        return nn.relu(x) if self.projection_relu else x


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def max_pool(x: jax.Array) -> jax.Array:
    """The stem's pool, 3x3, stride 2: `[B, H, W, C]` -> `[B, ceil(H / 2), ceil(W / 2), C]`."""
    padding: Any = ((1, 1), (1, 1))  # Flax says str, and takes pairs too.
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def average_pool(x: jax.Array) -> jax.Array:
    """As `max_pool`, with the mean of the 3x3 values, zeros outside, in place of the largest."""
    padding: Any = ((1, 1), (1, 1))
    return nn.avg_pool(x, (3, 3), strides=(2, 2), padding=padding)


def check_images(images: jax.Array) -> None:
    """Raises ValueError for images that are not floating point `[B, H, W, 3]`."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f'images have shape {images.shape}; needed: [B, H, W, 3]')
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f'images are {images.dtype}; needed: normalised floating point values')
