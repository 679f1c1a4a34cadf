"""Colours as networks take them: normalised RGB, and CIE Lab, also in the 8-bit units of OpenCV.

8-bit Lab holds L in 0..255 (CIE lightness times 2.55), and a and b shifted by 128.
"""

import jax
import jax.numpy as jnp
import numpy as np

# The names of colours that `network_input` takes.
COLORS = ('rgb', 'lightness', 'rgb_unit', 'rgb_half', 'lab')

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
LAB_MEAN = np.array([50, 0, 0], np.float32)
LAB_STD = np.array([50, 127, 127], np.float32)

# Linear sRGB to CIE XYZ, every row divided by the D65 white point (0.950456, 1, 1.088754).
_RGB_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
) / np.array([[0.950456], [1.0], [1.088754]])
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ)

# OpenCV converts 8-bit RGB to Lab in fixed point: linear light and XYZ have this many steps from 0
# to 1, and the matrix is in 4096ths. Without these roundings dark colours differ by up to three
# levels.
_STEPS = 255 * 8
_LEVELS = np.arange(256) / 255
_FIXED_LINEAR = np.round(
    _STEPS * np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4)
).astype(np.float32)
_FIXED_RGB_TO_XYZ = np.round(4096 * _RGB_TO_XYZ) / 4096

# Below this relative luminance the cube root of CIE Lab gives way to a line.
_DARK = 216 / 24389
_SLOPE = 24389 / 27 / 116


def normalize_rgb(images: jax.Array) -> jax.Array:
    """Normalises RGB for networks trained on ImageNet: (x / 255 - mean) / std.

    The mean is (0.485, 0.456, 0.406), the standard deviation (0.229, 0.224, 0.225).

    Args:
      images: RGB `[..., 3]`, uint8, or floats of the same range 0..255.

    Returns:
      float32 `[..., 3]`.

    Raises:
      ValueError: the last axis is not three channels.
    """
    _check_channels(images)
    return (_unit(images) - _IMAGENET_MEAN) / _IMAGENET_STD


def rgb_to_lab8(images: jax.Array) -> jax.Array:
    """Converts sRGB to 8-bit Lab in whole levels, each within one level of OpenCV's.

    L8 = 2.55 L, a8 = a + 128, b8 = b + 128, with L = 116 f(Y) - 16, a = 500 (f(X) - f(Y)),
    b = 200 (f(Y) - f(Z)) of X, Y, Z relative to the D65 white, f the cube root with CIE's line
    near black. More than 99 of 100 values are exactly OpenCV's, since the fixed-point steps are the
    same: networks were trained on OpenCV's values.

    Args:
      images: uint8 RGB `[..., 3]`.

    Returns:
      float32 `[..., 3]`, whole numbers in 0..255.

    Raises:
      ValueError: the images are not uint8 with three channels.

    Source: CIE 15 (Lab), IEC 61966-2-1 (sRGB).
    """
    _check_channels(images)
    if images.dtype != jnp.uint8:
        raise ValueError(f'images are {images.dtype}; 8-bit Lab is defined for uint8 RGB')
    # These are whole numbers below 2^24, divided by 4096. float32 holds them exactly, so halves are
    # rounded up as in OpenCV.
    xyz = _mix(jnp.asarray(_FIXED_LINEAR)[images], _FIXED_RGB_TO_XYZ)
    xyz = jnp.floor(xyz + 0.5) / _STEPS
    root = jnp.where(xyz > _DARK, jnp.cbrt(xyz), _SLOPE * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    # OpenCV multiplies the lightness by 296, where 2.55 * 116 is 295.8.
    lab = jnp.stack([296 * y - 40.8, 500 * (x - y) + 128, 200 * (y - z) + 128], axis=-1)
    return jnp.clip(jnp.round(lab), 0, 255)


def rgb_to_lab(images: jax.Array) -> jax.Array:
    """Converts sRGB to CIE Lab in its own units, not rounded: L from 0 to 100, a and b around 0.

    OpenCV's conversion of floating-point pixels interpolates in tables: it differs from this by up
    to 0.2 in L, 0.5 in a and 0.3 in b.

    Args:
      images: RGB `[..., 3]`, uint8, or floats of the same range 0..255.

    Returns:
      float32 `[..., 3]`.

    Raises:
      ValueError: the last axis is not three channels.

    Source: CIE 15 (Lab), IEC 61966-2-1 (sRGB).
    """
    _check_channels(images)
    unit = _unit(images)
    # The maximum keeps the power out of the dark part, where its gradient grows without bound.
    power = ((jnp.maximum(unit, 0.04045) + 0.055) / 1.055) ** 2.4
    xyz = _mix(jnp.where(unit <= 0.04045, unit / 12.92, power), _RGB_TO_XYZ)
    root = jnp.where(xyz > _DARK, jnp.cbrt(jnp.maximum(xyz, _DARK)), _SLOPE * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab8_to_rgb(lab: jax.Array) -> jax.Array:
    """Converts 8-bit Lab to sRGB, not rounded: the inverse of `rgb_to_lab8`, differentiable.

    Args:
      lab: `[..., 3]` in 8-bit Lab units, fractions allowed.

    Returns:
      float32 `[..., 3]` in 0..255; colours outside sRGB are clipped to it, channel by channel.

    Raises:
      ValueError: the last axis is not three channels.

    Source: CIE 15 (Lab), IEC 61966-2-1 (sRGB).
    """
    _check_channels(lab)
    lab = jnp.asarray(lab, jnp.float32)
    y = (lab[..., 0] / 2.55 + 16) / 116
    root = jnp.stack(
        [
            y + (lab[..., 1] - 128) / 500,
            y,
            y - (lab[..., 2] - 128) / 200,
        ],
        axis=-1,
    )
    xyz = jnp.where(root > _DARK ** (1 / 3), root**3, (root - 16 / 116) / _SLOPE)
    linear = jnp.clip(_mix(xyz, _XYZ_TO_RGB), 0, 1)
    # The maximum keeps the power away from 0, where its gradient is infinite.
    power = jnp.maximum(linear, 0.0031308) ** (1 / 2.4)
    return 255 * jnp.where(linear <= 0.0031308, 12.92 * linear, 1.055 * power - 0.055)


def scale_lab(lab: jax.Array) -> jax.Array:
    """Scales 8-bit Lab `[..., 3]` to the range of a colour autoencoder: (x - 128) / 128."""
    return (jnp.asarray(lab, jnp.float32) - 128) / 128


def unscale_lab(scaled: jax.Array) -> jax.Array:
    """Scales Lab back to 8-bit units, the inverse of `scale_lab`: 128 x + 128."""
    return 128 * jnp.asarray(scaled, jnp.float32) + 128


def lightness_input(images: jax.Array) -> jax.Array:
    """Converts RGB to its lightness alone, which UVC's feature network sees.

    The result is L8 / 256, three times, normalised with ImageNet's mean and standard deviation.

    Args:
      images: uint8 RGB `[..., 3]`; or 8-bit lightness as floats `[..., 1]`, fractions allowed, as
        resizing after the conversion gives it.

    Returns:
      float32 `[..., 3]`.

    Raises:
      ValueError: the images are neither.

    Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence",
    NeurIPS 2019, as released.
    """
    if images.ndim and images.shape[-1] == 1 and jnp.issubdtype(images.dtype, jnp.floating):
        lightness = jnp.asarray(images, jnp.float32) / 256
    else:
        lightness = rgb_to_lab8(images)[..., :1] / 256
    return (lightness - _IMAGENET_MEAN) / _IMAGENET_STD


def lab_input(images: jax.Array) -> jax.Array:
    """Converts RGB to the Lab colours that MAST's network sees: (L - 50) / 50, a / 127, b / 127.

    Args:
      images: as `rgb_to_lab` takes them.

    Returns:
      float32 `[..., 3]`.

    Raises:
      ValueError: the last axis is not three channels.

    Source: Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020, as
    released.
    """
    return (rgb_to_lab(images) - LAB_MEAN) / LAB_STD


def network_input(images: jax.Array, color: str) -> jax.Array:
    """Converts pixels to the colours that a network was trained on.

    Args:
      images: uint8 RGB `[..., 3]`; or floats: RGB from 0 to 255, for 'lightness' see there.
      color: 'rgb': `normalize_rgb`; 'lightness': `lightness_input` (UVC); 'rgb_unit': RGB / 255
        (CorrFlow); 'rgb_half': 2 RGB / 255 - 1 (many ViTs of timm and Hugging Face transformers);
        'lab': `lab_input` (MAST, Spa-then-Temp).

    Returns:
      float32 `[..., 3]`.

    Raises:
      ValueError: `color` is none of these, or the images are of a kind that it does not take.
    """
    if color == 'rgb':
        return normalize_rgb(images)
    if color == 'lightness':
        return lightness_input(images)
    if color == 'rgb_unit':
        _check_channels(images)
        return _unit(images)
    if color == 'rgb_half':
        _check_channels(images)
        return 2 * _unit(images) - 1
    if color == 'lab':
        return lab_input(images)
    raise ValueError(f'color is {color!r}; it must be one of {COLORS}')


def _unit(images):
    return jnp.asarray(images, jnp.float32) / 255


def _mix(channels, matrix):
    """Each colour `[..., 3]` times a 3 x 3 matrix, in full float32 on every device."""
    return jnp.einsum(
        '...i,oi->...o', channels, matrix.astype(np.float32), precision=jax.lax.Precision.HIGHEST
    )


def _check_channels(images):
    if images.ndim < 1 or images.shape[-1] != 3:
        raise ValueError(f'images are {list(images.shape)}; the last axis must hold three channels')
