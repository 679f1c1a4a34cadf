"""CorrFlow: copies the colours of a frame through a clip, and back to the frame they came from.

Lai, Xie, "Self-supervised Learning for Video Correspondence Flow", BMVC 2019, with the settings of
the released code.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import color
from jaxprop.augment import color_jitter, random_choice
from jaxprop.objectives.copying import (
    central_pixels,
    check_sizes,
    copy_from_window,
    enlarge,
    stretch,
)
from jaxprop.objectives.objective import (
    Objective,
    apply_networks,
    clip_frames,
    example_keys,
    init_networks,
    numbered_keys,
)

# Centres of 16 clusters of colours in the released code: a and b of CIE Lab.
PALETTE = (
    (10.23, -25.50), (9.17, -5.48), (38.08, -55.18), (13.77, 29.93),
    (-22.91, 4.35), (0.37, -7.30), (-5.35, -13.47), (-9.10, 43.39),
    (2.85, -18.04), (-1.22, 21.68), (-7.97, -0.26), (33.96, 15.08),
    (22.35, -38.78), (5.73, 8.65), (54.30, -73.89), (0.19, 0.03),
)  # fmt: skip


def objective(
    backbone: nn.Module,
    *,
    truth_steps: int,
    size: int = 256,
    reach: int = 6,
    temperature: float = 1.0,
    palette: tuple[tuple[float, float], ...] | None = None,
    keep_all: float = 0.3,
    jitter: float = 0.1,
    jitter_probability: float = 0.1,
    long_weight: float = 0.1,
    truth: tuple[float, float] = (0.9, 0.6),
    average_class_numbers: bool = False,
    axis_name: str | None = None,
) -> Objective:
    """Cross-entropy of the colour classes of pixels that are copied between three frames.

        loss = CE(0 -> 1) + CE(1 -> 2) + long_weight (CE(0 -> 1 -> 0) + CE(0 -> 1 -> 2 -> 1 -> 0))

    An arrow is a copy by `copy_from_window`. CE is the cross-entropy of the last copy with the true
    classes of the frame that it reaches: see `clip_terms`. The copy 1 -> 2 takes the true classes
    of frame 1 in some steps, and in the others the classes that were copied there. The share of
    steps with true classes falls over the run.

    The network sees frames in RGB from 0 to 1. Some have jittered colours, and in most steps one or
    two of the three channels are missing, see `drop_channels`, so that the network cannot match
    colours alone. Frame 0, 1 and 2 of the clips have batch statistics of their own each.

    The batch is `{'frames': uint8 RGB [B, 3, h, w, 3]}`, in the order of time; released: 4 frames
    apart. Metrics: 'similarity' and 'long', the terms as they enter the loss, 'loss', their sum;
    'accuracy' of the classes 0 -> 1, and 'truth_share'. Parameters: 'backbone'. State: 'backbone'
    (its batch statistics, if any), 'step' (calls so far).

    Example:

        backbone = ResNet(
            output='res4', strides=(1, 2, 1, 1), max_pool=False, widths=(64, 128, 256, 256),
            projection=64, projection_kernel=3, projection_bias=True,
        )
        corrflow = objective(backbone, truth_steps=100_000)
        variables = corrflow.init(jax.random.key(0), batch)
        loss, (state, metrics) = corrflow.loss(
            variables['params'], variables['state'], batch, jax.random.key(1)
        )

    Running batch statistics are of images with dropped channels, as in the release. Each frame of a
    step updates them once; the release updates them 5, 8 and 3 times for frame 0, 1 and 2. With
    `statistics` a training config exports statistics of frames with all channels instead.

    Args:
      backbone: of stride 4. Released: as in the example.
      truth_steps: the share of steps with true classes goes from the first to the second value of
        `truth` in so many steps. Released: the whole run.
      size: frames are resized to squares with sides of so many pixels.
      reach: of the window of a copy, in cells.
      temperature: T of the copies; features are not normalised. Released: 1. With the square root
        of the number of channels training is easier; propagation must then use the same.
      palette: the colours of the classes, a and b of CIE Lab. None: `PALETTE`, the released 16.
      keep_all: share of the steps without a dropped channel.
      jitter: strength of the changes of brightness, contrast, saturation and hue, one for all.
      jitter_probability: probability that a clip is jittered, each of its frames differently.
      long_weight: weight of the copies that return to frame 0.
      truth: shares of steps in which the copy 1 -> 2 takes true classes: in the first step, and
        from step `truth_steps` on.
      average_class_numbers: whether the true classes of a cell's four pixels are averaged as
        numbers and rounded down, an error of the released code. Else soft labels are averaged.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: settings out of their range, another stride; (from loss) clips of fewer than 3
        frames.
    """
    check_sizes(backbone, size, reach, temperature)
    if truth_steps < 1:
        raise ValueError(f'truth_steps is {truth_steps}; needed: at least 1')
    for name, shares in (('keep_all', (keep_all,)), ('truth', truth)):
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f'{name} is {shares}; needed: 0 to 1')
    palette = PALETTE if palette is None else palette
    networks = {'backbone': backbone}

    def init(rng, batch):
        del batch
        variables = init_networks(networks, rng, jnp.zeros((1, size, size, 3)))
        variables['state']['step'] = jnp.zeros((), jnp.int32)
        return variables

    def loss(params, state, batch, rng):
        # Augment the frames.
        frames = stretch(clip_frames(batch, 3, 'colours go through three')[:, :3], size)
        drop_rng, truth_rng, jitter_rng = jax.random.split(rng, 3)
        images = frames
        if jitter and jitter_probability:
            keys = numbered_keys(example_keys(jitter_rng, len(frames), axis_name), 4)
            jittered = [color_jitter(keys[:, t], frames[:, t], *[jitter] * 4) for t in range(3)]
            images = random_choice(
                keys[:, 3], jitter_probability, jnp.stack(jittered, axis=1), frames
            )
        images = color.network_input(jnp.round(255 * images), 'rgb_unit')
        # Drop the same channels in the whole batch. If images dropped different ones, the batch
        # statistics would be of a mixture, and would suit no single image.
        images = drop_channels(drop_rng, images, keep_all)
        # Compute features, each frame with batch statistics of its own.
        features = []
        for t in range(3):
            result, state = apply_networks(networks, params, state, images[:, t])
            features.append(result.astype(jnp.float32))

        # Copy the classes of the unchanged frames.
        progress = jnp.minimum(state['step'] / truth_steps, 1)
        share = truth[0] + (truth[1] - truth[0]) * progress
        terms = clip_terms(
            jnp.stack(features, axis=1),
            nearest_color(color.rgb_to_lab(255 * frames)[..., 1:], palette),
            jax.random.bernoulli(truth_rng, share),
            num_classes=len(palette),
            reach=reach,
            temperature=temperature,
            average_class_numbers=average_class_numbers,
        )
        metrics = {'similarity': terms['similarity'], 'long': long_weight * terms['long']}
        metrics['loss'] = metrics['similarity'] + metrics['long']
        metrics |= {'accuracy': terms['accuracy'], 'truth_share': share}
        state = {**state, 'step': state['step'] + 1}
        return metrics['loss'], (state, metrics)

    compared = {'temperature': temperature, 'normalize_features': False}
    return Objective(init, loss, 'rgb_unit', compared)


def clip_terms(
    features: jax.Array,
    classes: jax.Array,
    true_classes: jax.Array | bool,
    *,
    num_classes: int,
    reach: int = 6,
    temperature: float = 1.0,
    average_class_numbers: bool = False,
) -> dict[str, jax.Array]:
    """Computes CorrFlow's terms of the loss from features.

    A copy averages a frame's class maps over the four middle pixels of each cell (`prepare`),
    copies them by `copy_from_window` and enlarges them to pixels. Copies of copies stay soft, and
    gradients flow through all of them.

    Args:
      features: `[B, 3, H, W, C]`.
      classes: of the pixels, integers `[B, 3, 4 H, 4 W]`.
      true_classes: whether the copy 1 -> 2 takes the true classes of frame 1, or those copied
        there from frame 0.
      num_classes: L.
      reach, temperature: see `copy_from_window`.
      average_class_numbers: see `objective`.

    Returns:
      Scalars: 'similarity', CE(0 -> 1) + CE(1 -> 2); 'long', CE(0 -> 1 -> 0) +
      CE(0 -> 1 -> 2 -> 1 -> 0); 'accuracy' of 0 -> 1.
    """
    prepare_truth = functools.partial(
        prepare, num_classes=num_classes, average_class_numbers=average_class_numbers
    )

    def copy(target, reference, cells):
        references, values = (x[:, None] for x in (features[:, reference], cells))
        copied = copy_from_window(
            features[:, target], references, values, reach=reach, temperature=temperature
        )
        return enlarge(copied)

    def middle(maps):
        return jnp.mean(central_pixels(maps), axis=3)

    in_1 = copy(1, 0, prepare_truth(classes[:, 0]))
    cells_1 = middle(in_1)
    in_2 = copy(2, 1, jnp.where(true_classes, prepare_truth(classes[:, 1]), cells_1))
    back_from_1 = copy(0, 1, cells_1)
    back_in_1 = copy(1, 2, middle(copy(2, 1, cells_1)))
    back_from_2 = copy(0, 1, middle(back_in_1))
    return {
        'similarity': class_error(in_1, classes[:, 1]) + class_error(in_2, classes[:, 2]),
        'long': class_error(back_from_1, classes[:, 0]) + class_error(back_from_2, classes[:, 0]),
        'accuracy': jnp.mean(jnp.argmax(in_1, axis=-1) == classes[:, 1]),
    }


def prepare(classes: jax.Array, num_classes: int, average_class_numbers: bool = False) -> jax.Array:
    """Turns classes of pixels into soft labels of cells: the mean of a cell's four middle pixels.

    Args:
      classes: integers `[B, 4 H, 4 W]`.
      num_classes: L.
      average_class_numbers: whether the four numbers are averaged and rounded down to one class, an
        error of the release.

    Returns:
      `[B, H, W, L]`.
    """
    pixels = central_pixels(classes[..., None])[..., 0]
    if average_class_numbers:
        numbers = jnp.sum(pixels.astype(jnp.int32), axis=-1) // 4
        return jax.nn.one_hot(numbers, num_classes)
    return jnp.mean(jax.nn.one_hot(pixels, num_classes), axis=-2)


def class_error(prediction: jax.Array, classes: jax.Array) -> jax.Array:
    """The mean of -log(prediction[class] + 1e-8).

    `prediction` is `[..., L]`, `classes` integers `[...]`.
    """
    chosen = jnp.take_along_axis(prediction, classes[..., None].astype(jnp.int32), axis=-1)
    return -jnp.mean(jnp.log(chosen + 1e-8))


def nearest_color(ab: jax.Array, palette: tuple[tuple[float, float], ...] = PALETTE) -> jax.Array:
    """Finds the number of the colour of `palette` nearest to `ab`: `[..., 2]` -> `[...]`.

    Of equally near colours it takes the first.
    """
    difference = ab[..., None, :] - np.asarray(palette, np.float32)
    return jnp.argmin(jnp.sum(jnp.square(difference), axis=-1), axis=-1)


def drop_channels(key: jax.Array, images: jax.Array, keep_all: float = 0.3) -> jax.Array:
    """Sets one or two channels, the same in all images, to 0.

    With probability `keep_all` no channel is dropped; else one or two, with equal probability. The
    channels that are left are multiplied by 3 / (their number).

    Args:
      key: a single random key.
      images: `[..., 3]`.
      keep_all: 0 to 1.
    """
    uniform_key, order_key = jax.random.split(key)
    uniform = jax.random.uniform(uniform_key, (2,))
    dropped = jnp.where(uniform[0] < keep_all, 0, jnp.where(uniform[1] < 0.5, 1, 2))
    kept = jax.random.permutation(order_key, 3) >= dropped
    return images * kept * (3 / (3 - dropped))
