"""MAST: a colour channel that the network does not see is copied from earlier frames.

Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020: the stage with pairs of
frames, which alone is released, for any number of reference frames.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxprop import color
from jaxprop.objectives.copying import STRIDE, check_sizes, copy_from_window, enlarge, stretch
from jaxprop.objectives.objective import (
    Objective,
    apply_networks,
    clip_frames,
    init_networks,
)


def objective(
    backbone: nn.Module,
    *,
    size: int = 256,
    reach: int = 6,
    temperature: float = 8.0,
    scale: float = 20.0,
    zero_outside: bool = True,
    axis_name: str | None = None,
) -> Objective:
    """Huber loss of a channel of colour that is copied from earlier frames to the last one.

    Frames are in scaled Lab, x = ((L - 50) / 50, a / 127, b / 127). In each step one channel c, a
    or b, is hidden from the network in all frames, and the others grow by half. It is copied from
    the earlier frames by `copy_from_window`, taken there at the first pixel of each cell, enlarged
    to pixels, and compared:

        loss = mean over pixels of huber(scale (Y - x_c)),
        huber(e) = e^2 / 2 where |e| < 1, else |e| - 1/2

    The batch is `{'frames': uint8 RGB [B, T, h, w, 3]}`, T at least 2, in the order of time: the
    last frame is the target, the others are references, all of one softmax. Released: pairs 2, 5
    or 8 frames apart at 30 a second. Metrics: 'loss' and 'error', the mean |Y - x_c| in units of
    Lab. Parameters: 'backbone'. State: 'backbone' (its batch statistics, if any).

    Example:

        backbone = ResNet(
            output='res4', strides=(1, 2, 1, 1), max_pool=False, widths=(64, 128, 256, 256),
            projection=64, projection_kernel=3, projection_bias=True,
        )
        mast = objective(backbone)
        variables = mast.init(jax.random.key(0), batch)
        loss, (state, metrics) = mast.loss(
            variables['params'], variables['state'], batch, jax.random.key(1)
        )

    Args:
      backbone: of stride 4. Released: as in the example.
      size: frames are resized to squares of so many pixels.
      reach: of the window of a copy, in cells.
      temperature: T of the copies; features are not normalised. Propagation needs the same. The
        default is the square root of the release's 64 channels, with which users of its code get it
        to learn. Released: 1.
      scale: of differences, before the Huber loss.
      zero_outside: cells of a window outside the frame take part, with affinity and value 0: what
        the released code does, so that colours near borders fade to grey, and what its propagation
        does, too.
      axis_name: unused; no randomness here is of single examples.

    Raises:
      ValueError: settings out of their range, another stride; (from loss) clips of one frame.
    """
    del axis_name
    check_sizes(backbone, size, reach, temperature)
    if scale <= 0:
        raise ValueError(f'scale is {scale}; needed: more than 0')
    networks = {'backbone': backbone}

    def init(rng, batch):
        del batch
        return init_networks(networks, rng, jnp.zeros((1, size, size, 3)))

    def loss(params, state, batch, rng):
        frames = clip_frames(batch, 2, 'references, and the frame that their colours are copied to')
        lab = color.network_input(255 * stretch(frames, size), 'lab')
        channel = 1 + jax.random.bernoulli(rng).astype(jnp.int32)
        # Of the whole batch, or batch statistics would be of no input that there is.
        images = 1.5 * jnp.where(jnp.arange(3) == channel, 0, lab)
        features = []
        for frame in range(frames.shape[1]):
            result, state = apply_networks(networks, params, state, images[:, frame])
            features.append(result.astype(jnp.float32))
        hidden = jnp.where(channel == 1, lab[..., 1:2], lab[..., 2:3])
        copied = copy_channel(
            jnp.stack(features, axis=1),
            hidden[:, :-1],
            reach=reach,
            temperature=temperature,
            zero_outside=zero_outside,
        )
        error = copied - hidden[:, -1]
        value = jnp.mean(huber(scale * error))
        metrics = {'loss': value, 'error': color.LAB_STD[1] * jnp.mean(jnp.abs(error))}
        return value, (state, metrics)

    compared = {'temperature': temperature, 'normalize_features': False}
    return Objective(init, loss, 'lab', compared)


def copy_channel(
    features: jax.Array,
    values: jax.Array,
    *,
    reach: int = 6,
    temperature: float = 8.0,
    zero_outside: bool = True,
) -> jax.Array:
    """What the last frame's pixels get from the other frames.

    Values are taken at the first pixel of each cell, as released, so features learn to point a
    pixel and a half off: `enlarge` has a cell's value in its middle.

    Args:
      features: `[B, R + 1, H, W, C]`, those of the target last.
      values: of the references' pixels, `[B, R, 4 H, 4 W, L]`.
      reach, temperature, zero_outside: see `copy_from_window`.

    Returns:
      `[B, 4 H, 4 W, L]`.
    """
    copied = copy_from_window(
        features[:, -1],
        features[:, :-1],
        values[:, :, ::STRIDE, ::STRIDE],
        reach=reach,
        temperature=temperature,
        zero_outside=zero_outside,
    )
    return enlarge(copied)


def huber(error: jax.Array) -> jax.Array:
    """e^2 / 2 where |e| < 1, else |e| - 1/2."""
    size = jnp.abs(error)
    return jnp.where(size < 1, jnp.square(error) / 2, size - 0.5)
