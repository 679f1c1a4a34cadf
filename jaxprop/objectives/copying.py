"""Copies colours from frame to frame by local attention: the common part of CorrFlow and MAST.

Features have one cell for 4 x 4 pixels: H x W cells for h x w = 4 H x 4 W pixels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.scipy.special import logsumexp

from jaxprop.rules.regions import Square
from jaxprop.rules.windowed import attend

STRIDE = 4


def check_sizes(backbone: nn.Module, size: int, reach: int, temperature: float) -> None:
    """Raises ValueError for settings that a copying objective cannot have.

    Args:
      backbone: must have stride 4.
      size: side of the frames, in pixels; must be a multiple of 4.
      reach: of the window, in cells; must be at least 0.
      temperature: of the softmax over the window; must be above 0.
    """
    if backbone.stride != STRIDE:
        raise ValueError(
            f'the backbone has stride {backbone.stride}; needed: {STRIDE}, as of a ResNet without '
            'max pool and with strides (1, 2, 1, 1)'
        )
    if size < STRIDE or size % STRIDE:
        raise ValueError(f'size is {size}; needed: a multiple of {STRIDE}')
    if reach < 0 or temperature <= 0:
        raise ValueError(
            f'reach and temperature are {reach} and {temperature}; needed: 0 or more cells, and '
            'more than 0'
        )


def stretch(frames: jax.Array, size: int) -> jax.Array:
    """Resizes `frames [B, T, h, w, 3]` to squares of `size` pixels, floating point in [0, 1].

    The aspect ratio is not kept.
    """
    shape = (*frames.shape[:2], size, size, 3)
    return jax.image.resize(frames.astype(jnp.float32) / 255, shape, 'linear')


def copy_from_window(
    target: jax.Array,
    references: jax.Array,
    values: jax.Array,
    *,
    reach: int = 6,
    temperature: float = 1.0,
    zero_outside: bool = False,
) -> jax.Array:
    """Copies values to each cell of a target frame from windows of reference frames.

    y_p = sum over r and d of softmax(<f_p, f^r_{p+d}> / T) v^r_{p+d}, with one softmax over the
    offsets d within `reach` rows and columns in all references r.

    Args:
      target: features f, `[B, H, W, C]`.
      references: features f^r, `[B, R, H, W, C]`.
      values: v, `[B, R, H, W, L]`.
      reach: of the window, in cells: (2 reach + 1)^2 offsets.
      temperature: T.
      zero_outside: whether cells of the window outside the frame take part in the softmax, with
        affinity and value 0. In MAST's released code they do.

    Returns:
      `[B, H, W, L]`.
    """
    region = Square(reach + 1)

    def from_one(target, reference, value):
        return attend(target, reference, value, region=region, temperature=temperature)

    from_each = jax.vmap(jax.vmap(from_one, (None, 0, 0)))
    log_sums, copies = from_each(target, references, values)
    copied = jnp.sum(jax.nn.softmax(log_sums, axis=1)[..., None] * copies, axis=1)
    if zero_outside:
        # Each cell outside adds exp(0) to the denominator, and nothing to the sum.
        outside = references.shape[1] * _num_outside(target.shape[1:3], reach)
        total = logsumexp(log_sums, axis=1) - np.log(np.maximum(outside, 1))
        copied *= jnp.where(outside > 0, jax.nn.sigmoid(total), 1)[..., None]
    return copied.reshape(*target.shape[:3], -1)


def _num_outside(grid, reach):
    """Counts the cells of each cell's window that lie outside the grid, `[N]`."""
    steps = np.arange(-reach, reach + 1)
    rows, columns = (
        np.sum((steps >= -place[:, None]) & (steps < size - place[:, None]), axis=1)
        for size in grid
        for place in [np.arange(size)]
    )
    return ((2 * reach + 1) ** 2 - rows[:, None] * columns[None, :]).reshape(-1)


def enlarge(maps: jax.Array) -> jax.Array:
    """Enlarges maps of cells to maps of pixels: bilinear, `[B, H, W, L]` -> `[B, 4 H, 4 W, L]`."""
    batch, height, width, channels = maps.shape
    return jax.image.resize(maps, (batch, STRIDE * height, STRIDE * width, channels), 'linear')


def central_pixels(maps: jax.Array) -> jax.Array:
    """Takes the four middle pixels of each cell: `[B, 4 H, 4 W, L]` -> `[B, H, W, 4, L]`."""
    maps = rearrange(maps, 'b (h i) (w j) l -> b h i w j l', i=STRIDE, j=STRIDE)
    return rearrange(maps[:, :, 1:3, :, 1:3], 'b h i w j l -> b h w (i j) l')
