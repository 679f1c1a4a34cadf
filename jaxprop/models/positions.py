"""Positions of a ViT's patches: interpolated embeddings, and rotary positions.

NumPy computes everything that depends on sizes alone, in float64, while JAX traces.
"""

import jax
import jax.numpy as jnp
import numpy as np


def interpolate_positions(
    positions: jax.Array, rows: int, columns: int, offset: float = 0.0, antialias: bool = False
) -> jax.Array:
    """Resizes position embeddings to another grid of patches, bicubically.

    Args:
      positions: `[H, W, C]`, of the grid that the network was trained on.
      rows: of the new grid.
      columns: likewise.
      offset: added to the new sizes where the step between samples is computed, see
        `resize_matrix`.
      antialias: whether the kernel widens where the grid shrinks.

    Returns:
      `[rows, columns, C]`.

    Source: the resizing of Caron et al., "Emerging Properties in Self-Supervised Vision
    Transformers", ICCV 2021 (offset 0.1); Darcet et al., "Vision Transformers Need Registers",
    ICLR 2024 (antialias).
    """
    vertical = resize_matrix(positions.shape[0], rows, offset, antialias)
    horizontal = resize_matrix(positions.shape[1], columns, offset, antialias)
    return jnp.einsum(
        'hi,wj,ijc->hwc',
        jnp.asarray(vertical, positions.dtype),
        jnp.asarray(horizontal, positions.dtype),
        positions,
        precision='highest',
    )


def resize_matrix(old: int, new: int, offset: float = 0.0, antialias: bool = False) -> np.ndarray:
    """Computes the weights `[new, old]` of PyTorch's bicubic resizing of one axis.

    Corners are not aligned: on the old axis sample `i` lies at `(i + 1/2) s - 1/2`, with the step
    `s = old / (new + offset)`. Without antialias a sample is a sum over the 4 nearest values (Keys'
    kernel with a = -0.75); outside, the border's value is repeated. With antialias the kernel
    (a = -0.5) is `max(s, 1)` times as wide and is cut off at the border, and its weights are then
    divided by their sum.

    Args:
      old: number of values.
      new: number of samples.
      offset: 0.1 in DINO and DINOv2. They give PyTorch the enlargement `(new + 0.1) / old`, so that
        rounding cannot lose a sample, and PyTorch takes the step of `new + 0.1` samples.
      antialias: see above.
    """
    step = old / (new + offset)
    places = (np.arange(new) + 0.5) * step - 0.5
    if antialias:
        width = max(step, 1.0)
        distances = (np.arange(old) - places[:, None]) / width
        weights = _cubic(distances, -0.5)
        return weights / weights.sum(1, keepdims=True)
    weights = np.zeros((new, old))
    first = np.floor(places).astype(int)
    for tap in range(-1, 3):
        index = np.clip(first + tap, 0, old - 1)
        weights[np.arange(new), index] += _cubic(places - (first + tap), -0.75)
    return weights


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel, which is zero beyond a distance of 2."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def rotary_periods(count: int, base: float = 100.0) -> np.ndarray:
    """Computes periods `[count]` of rotary positions: geometric from 1 up to `base`, without it."""
    return base ** (np.arange(count) / count)


def rotary_angles(rows: int, columns: int, periods: np.ndarray) -> np.ndarray:
    """Computes the angles, in radians, by which queries and keys of patches are rotated.

    A patch's center is `(y, x)`, each from -1 to 1 between the edges of the image. Its angles are
    `2 pi y / period` for each period, and then the same of x.

    Args:
      rows: of the grid.
      columns: likewise.
      periods: `[P]`.

    Returns:
      `[rows * columns, 2 P]`.

    Source: Simeoni et al., "DINOv3", 2025.
    """
    y, x = ((2 * np.arange(size) + 1) / size - 1 for size in (rows, columns))
    centers = np.stack(np.meshgrid(y, x, indexing='ij'), axis=-1).reshape(-1, 2, 1)
    return (2 * np.pi * centers / periods).reshape(len(centers), -1)


def rotate(x: jax.Array, angles: np.ndarray) -> jax.Array:
    """Rotates pairs of channels: channel `i` with channel `i + D/2`, by `angles[:, i]`.

    Args:
      x: queries or keys `[B, N, heads, D]`.
      angles: `[N, D/2]`.

    Returns:
      An array like `x`; the rotation is computed in float32.

    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    """
    cos = jnp.asarray(np.cos(angles), jnp.float32)[:, None]
    sin = jnp.asarray(np.sin(angles), jnp.float32)[:, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
