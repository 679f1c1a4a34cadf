"""Blends two labels of a frame that lies between two masks, one carried from each of them.

Shapes: H, W feature cells, L labels.
"""

import jax
import jax.numpy as jnp


def backward_share(forward: jax.Array, backward: jax.Array, position: jax.Array) -> jax.Array:
    """Computes w_b / (w_f + w_b) with the weights w_f = (1 - tau) c_f and w_b = tau c_b.

    Args:
      forward: c_f, `[...]`, the confidence in what was carried from the mask before, 0 or more.
      backward: c_b, likewise, from the mask after.
      position: tau, from 0 at the mask before to 1 at the mask after.

    Returns:
      `[...]`; the position itself where both confidences are 0.
    """
    ahead, behind = (1 - position) * forward, position * backward
    total = ahead + behind
    return jnp.where(total > 0, behind / jnp.where(total > 0, total, 1), position)


def blend(forward: jax.Array, backward: jax.Array, share: jax.Array) -> jax.Array:
    """Blends soft labels: y = (1 - s) y_f + s y_b for each cell.

    Args:
      forward: y_f, `[..., L]`, carried from the mask before.
      backward: y_b, `[..., L]`, carried from the mask after.
      share: s, `[...]`, of the latter, see `backward_share`.

    Returns:
      `[..., L]`.
    """
    share = share[..., None]
    return (1 - share) * forward + share * backward
