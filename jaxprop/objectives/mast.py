"""MAST: copies a colour channel that the network does not see from earlier frames.

Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020. Only the stage with
pairs of frames is released; here a target frame may have any number of reference frames.
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
    or b, is hidden from the network in all frames, and the other two are multiplied by 1.5. The
    hidden channel of the earlier frames is read at the first pixel of each cell, copied by
    `copy_from_window` and enlarged to pixels. The result Y is compared with the last frame's own:

        loss = mean over pixels of huber(scale (Y - x_c)),
        huber(e) = e^2 / 2 where |e| < 1, else |e| - 1/2

    The batch is `{'frames': uint8 RGB [B, T, h, w, 3]}`, T at least 2, in the order of time. The
    last frame is the target, the others are references, and one softmax goes over all of them.
    Released: pairs 2, 5 or 8 frames apart at 30 a second. Metrics: 'loss' and 'error', the mean
    |Y - x_c| in units of Lab. Parameters: 'backbone'. State: 'backbone' (its batch statistics, if
    any).

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
      size: frames are resized to squares with sides of so many pixels.
      reach: of the window of a copy, in cells.
      temperature: T of the copies; features are not normalised. Propagation must use the same. The
        default is the square root of the release's 64 channels, with which users of its code get it
        to learn. Released: 1.
      scale: factor of differences, before the Huber loss.
      zero_outside: whether cells of a window outside the frame take part, with affinity and value
        0. In the released code they do, in training and in propagation: colours near borders fade
        to grey.
      axis_name: unused, since nothing random differs from example to example.

    Raises:
      ValueError: settings are out of their range, or the stride is not 4; (from loss) clips have
        one frame.
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
        # Hide the same channel in the whole batch. If images hid different ones, the batch
        # statistics would be of a mixture, and would suit no single image.
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
    """Copies values from the other frames to the pixels of the last one.

    A cell's value is that of its first pixel, as released, but `enlarge` puts it in the middle of
    the cell. Features therefore learn to point a pixel and a half off.

    Args:
      features: `[B, R + 1, H, W, C]`, the target's last.
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
    """The Huber loss of each `error`: e^2 / 2 where |e| < 1, else |e| - 1/2."""
    size = jnp.abs(error)
    return jnp.where(size < 1, jnp.square(error) / 2, size - 0.5)
