"""Random crops and random colours of batches of images, computed on the device.

Images are RGB in [0, 1], floating point, `[B, h, w, 3]`; keys are `[B]`, one for each image. An
image's result depends on its own key alone, so how a batch is spread over devices does not matter.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage

# Luma of ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# How many crops are drawn for an image until one fits into it.
_NUM_TRIALS = 10


def random_view(
    keys: jax.Array,
    images: jax.Array,
    size: int,
    min_area: float = 0.2,
    grayscale: float = 0.0,
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
) -> jax.Array:
    """Crops, resizes, turns gray, changes colours and mirrors each image, each at random.

    Args:
      keys: `[B]`.
      images: `[B, h, w, 3]` in [0, 1].
      size: height and width of the result.
      min_area: least share of the image that the crop covers, up to all of it.
      grayscale: probability of grayscale.
      jitter: strengths of brightness, contrast, saturation and hue: `color_jitter`.

    Returns:
      `[B, size, size, 3]` in [0, 1].

    Raises:
      ValueError: arguments out of their range.

    Source: MoCo's augmentation, with grayscale 0.2 and jitter 0.4 of each: He et al., "Momentum
    Contrast for Unsupervised Visual Representation Learning", CVPR 2020.
    """
    crop_keys, gray_keys, jitter_keys, flip_keys = _split(keys, 4)
    images = random_resized_crop(crop_keys, images, size, area=(min_area, 1.0))
    if grayscale:
        images = random_grayscale(gray_keys, images, grayscale)
    if any(jitter):
        images = color_jitter(jitter_keys, images, *jitter)
    return random_flip(flip_keys, images)


def random_resized_crop(
    keys: jax.Array,
    images: jax.Array,
    size: int,
    area: tuple[float, float] = (0.2, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Takes a crop of random area, aspect ratio and position, and resizes it to a square.

    The share of the area is uniform, the aspect ratio (width / height) uniform in its logarithm.
    A crop that doesn't fit is drawn again. Where none of ten fits, the crop is the largest one in
    the image's centre whose aspect ratio is within bounds. Resizing is bilinear, antialiased where
    it shrinks.

    Args:
      keys: `[B]`.
      images: `[B, h, w, 3]`.
      size: height and width of the result.
      area: least and largest share of the image's area.
      aspect: least and largest aspect ratio.

    Returns:
      `[B, size, size, 3]`.

    Raises:
      ValueError: `area` isn't within (0, 1], a bound is above the other, or `images` don't fit.

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """
    _check_images(images)
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f'area is {area}; needed: two ascending shares in (0, 1]')
    if not 0 < aspect[0] <= aspect[1]:
        raise ValueError(f'aspect is {aspect}; needed: two ascending ratios above 0')
    image_size = np.array(images.shape[1:3], np.float32)

    def crop(key, image):
        # Draw the sizes of all trials at once.
        uniform = jax.random.uniform(key, (_NUM_TRIALS + 1, 2))
        share = _between(uniform[1:, 0], *area)
        ratio = jnp.exp(_between(uniform[1:, 1], math.log(aspect[0]), math.log(aspect[1])))
        pixels = share * image_size[0] * image_size[1]
        drawn = jnp.sqrt(jnp.stack([pixels / ratio, pixels * ratio], axis=-1))
        # Take the first one that fits, else the largest one in the centre.
        fits = jnp.all(drawn <= image_size, axis=-1)
        height, width = (float(side) for side in image_size)
        largest = jnp.array([min(height, width / aspect[0]), min(width, height * aspect[1])])
        crop_size = jnp.where(jnp.any(fits), drawn[jnp.argmax(fits)], largest)
        position = jnp.where(jnp.any(fits), uniform[0], 0.5)
        # Cut it out and resize it in one step.
        scale = size / crop_size
        return jax.image.scale_and_translate(
            image,
            (size, size, 3),
            (0, 1),
            scale,
            -position * (image_size - crop_size) * scale,
            method='linear',
        )

    return jax.vmap(crop)(keys, images)


def random_crop(keys: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Cuts a square of whole pixels from a random place, the same in all images of an example.

    Args:
      keys: `[B]`.
      images: `[B, ..., h, w, 3]` of any type, such as clips.
      size: height and width of the result.

    Returns:
      `[B, ..., size, size, 3]`.

    Raises:
      ValueError: the images are smaller.
    """
    room = np.array(images.shape[-3:-1]) - size
    if room.min() < 0:
        raise ValueError(
            f'images are of {images.shape[-3]} x {images.shape[-2]} pixels; needed: at least '
            f'{size} x {size}'
        )

    def crop(key, image):
        corner = jnp.floor(jax.random.uniform(key, (2,)) * (room + 1)).astype(jnp.int32)
        image = jax.lax.dynamic_slice_in_dim(image, corner[0], size, axis=-3)
        return jax.lax.dynamic_slice_in_dim(image, corner[1], size, axis=-2)

    return jax.vmap(crop)(keys, images)


def random_flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each of `images [B, h, w, 3]` left to right with probability 1/2, by `keys [B]`."""
    _check_images(images)
    flips = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_grayscale(keys: jax.Array, images: jax.Array, probability: float = 0.2) -> jax.Array:
    """Replaces each of `images [B, h, w, 3]` with `probability` by its luma, three times.

    Each image has a key of its own in `keys [B]`.

    Raises:
      ValueError: `probability` isn't in [0, 1], or `images` don't fit.
    """
    _check_images(images)
    return random_choice(keys, probability, _luma(images), images)


def random_choice(
    keys: jax.Array, probability: float, changed: jax.Array, images: jax.Array
) -> jax.Array:
    """Takes each example from `changed` with probability `probability`, else from `images`.

    Args:
      keys: `[B]`.
      probability: 0 to 1.
      changed, images: `[B, ...]`, such as images or clips; their shapes broadcast.

    Returns:
      `[B, ...]`.

    Raises:
      ValueError: `probability` isn't in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f'probability is {probability}; needed: 0 to 1')
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)
    return jnp.where(chosen.reshape(-1, *[1] * (images.ndim - 1)), changed, images)


def color_jitter(
    keys: jax.Array,
    images: jax.Array,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.4,
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue at random, in this order.

    With a factor f uniform in [max(0, 1 - strength), 1 + strength] for each of the first three:
    f x; f x + (1 - f) (mean luma of the image); f x + (1 - f) (luma of the pixel); each clipped to
    [0, 1]. Then the hue in HSV is turned by a share of the circle uniform in [-hue, hue].

    Args:
      keys: `[B]`.
      images: `[B, h, w, 3]` in [0, 1].
      brightness, contrast, saturation: strengths from 0 up; 0 changes nothing.
      hue: 0 to 0.5.

    Returns:
      `[B, h, w, 3]` in [0, 1].

    Raises:
      ValueError: a strength is out of its range, or `images` don't fit.
    """
    _check_images(images)
    strengths = np.array([brightness, contrast, saturation], np.float32)
    if not (strengths >= 0).all() or not 0 <= hue <= 0.5:
        raise ValueError(
            f'brightness, contrast, saturation and hue are {(*strengths.tolist(), hue)}; needed: '
            '0 or more, the hue at most 0.5'
        )

    def jitter(key, image):
        uniform = jax.random.uniform(key, (4,))
        factors = _between(uniform[:3], np.maximum(0, 1 - strengths), 1 + strengths)
        image = jnp.clip(factors[0] * image, 0, 1)
        image = jnp.clip(factors[1] * image + (1 - factors[1]) * jnp.mean(_luma(image)), 0, 1)
        image = jnp.clip(factors[2] * image + (1 - factors[2]) * _luma(image), 0, 1)
        return _turn_hue(image, _between(uniform[3], -hue, hue))

    return jax.vmap(jitter)(keys, images)


def random_affine_crop(
    keys: jax.Array,
    images: jax.Array,
    size: int,
    max_rotation: float = 10.0,
    max_scale: float = 1.2,
    flip: bool = True,
    *,
    min_scale: float = 1.0,
    place_keys: jax.Array | None = None,
) -> jax.Array:
    """Takes a square patch of random position, rotation, scale and orientation.

    The angle is uniform in [-max_rotation, max_rotation], the magnification in
    [min_scale, max_scale], and the patch is mirrored left to right with probability 1/2. Its centre
    is uniform over the positions at which all of the patch lies in the image. Along an axis that is
    too short for this the patch is centred, and the image continues by reflection. Sampling is
    bilinear.

    Args:
      keys: `[B]`.
      images: `[B, h, w, 3]`.
      size: height and width of the result.
      max_rotation: degrees.
      max_scale: 1 or more; the patch covers size / magnification pixels of the image.
      flip: whether patches are mirrored at all.
      min_scale: more than 0, at most `max_scale`.
      place_keys: `[B]`, for the positions alone, so that images with equal `keys` get patches of
        equal rotation, scale and orientation from places of their own.

    Returns:
      `[B, size, size, 3]`.

    Raises:
      ValueError: a bound is out of its range, or `images` don't fit.

    Source: the warm-up of Li et al., "Joint-task Self-supervised Learning for Temporal
    Correspondence", NeurIPS 2019.
    """
    _check_images(images)
    if max_rotation < 0 or max_scale < 1 or not 0 < min_scale <= max_scale:
        raise ValueError(
            f'max_rotation, max_scale and min_scale are {max_rotation}, {max_scale} and '
            f'{min_scale}; needed: at least 0 degrees, at least 1, and between 0 and max_scale'
        )
    image_size = np.array(images.shape[1:3], np.float32)
    # Where the patch's pixels are, from its centre.
    offsets = np.arange(size, dtype=np.float32) + 0.5 - size / 2

    def crop(key, place_key, image):
        # Draw rotation, magnification, mirroring and place.
        uniform = jax.random.uniform(key, (5,))
        place = uniform[3:] if place_keys is None else jax.random.uniform(place_key, (2,))
        angle = math.radians(max_rotation) * _between(uniform[0], -1, 1)
        scale = _between(uniform[1], min_scale, max_scale)
        mirror = jnp.where(flip & (uniform[2] < 0.5), -1, 1)
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        # Keep the patch in the image: `reach` is half of the side of the upright box around it.
        reach = size / 2 / scale * (jnp.abs(sine) + cosine)
        slack = jnp.maximum(image_size / 2 - reach, 0)
        centre = image_size / 2 + slack * _between(place, -1, 1)
        # Find where each pixel of the patch lies in the image, and sample there.
        down = offsets[:, None] / scale
        right = offsets[None, :] / scale * mirror
        # Index 0 is the centre of the first pixel, half a pixel from the border.
        rows = centre[0] + cosine * down + sine * right - 0.5
        columns = centre[1] - sine * down + cosine * right - 0.5
        sample = jax.vmap(
            lambda channel: ndimage.map_coordinates(channel, [rows, columns], 1, mode='reflect'),
            in_axes=-1,
            out_axes=-1,
        )
        return sample(image)

    return jax.vmap(crop)(keys, keys if place_keys is None else place_keys, images)


def _between(uniform, low, high):
    """Turns numbers uniform in [0, 1) into numbers uniform in [low, high).

    Callers draw all their numbers at once, and scale them by this: one draw compiles much faster.
    """
    return low + (high - low) * uniform


def _luma(images):
    """The luma of RGB: `[..., 3]` -> `[..., 1]`."""
    return jnp.sum(_LUMA * images, axis=-1, keepdims=True)


def _turn_hue(image, turn):
    """Moves the hue in HSV by `turn`, a share of the circle."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.max(image, axis=-1)
    chroma = value - jnp.min(image, axis=-1)
    divisor = jnp.where(chroma > 0, chroma, 1)
    # The hue in sixths of the circle: red is at 0, green at 2, blue at 4.
    hue = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixth = (hue + 6 * turn)[..., None] + jnp.array([5.0, 3.0, 1.0])
    sixth = jnp.mod(sixth, 6)
    # A channel lacks the more of the chroma, the further the hue is from the channel's own.
    share = jnp.clip(jnp.minimum(sixth, 4 - sixth), 0, 1)
    return value[..., None] - chroma[..., None] * share


def _split(keys, num):
    """Splits each of `[B]` keys into `num` keys: `[num, B]`."""
    return jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, num))(keys), 1, 0)


def _check_images(images):
    if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f'images are {images.dtype} {list(images.shape)}; needed: floating point [B, h, w, 3]'
        )
