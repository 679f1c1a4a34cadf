"""Blends two labels of a frame that lies between two masks, one carried from each of them.

At the position tau from the mask before (0) to the mask after (1) a cell's label is

    y = (w_f y_f + w_b y_b) / (w_f + w_b),    w_f = (1 - tau) c_f,    w_b = tau c_b,

where c_f and c_b are how far the two passes can be trusted with the objects of that cell.

Shapes: H, W feature cells, L labels.
"""

import jax
import jax.numpy as jnp


def trust(
    forward: jax.Array, backward: jax.Array, confidence: jax.Array, other: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes how far the two passes can be trusted in each cell.

    A pass that has lost an object still makes certain labels. So its trust in a cell is not that in
    the cell's own label, but its confidence in the objects that either of the passes sees there:

        c_f = sum_l (y_fl + y_bl) o_fl / sum_l (y_fl + y_bl)    over all labels but the background.

    Args:
      forward: y_f, `[..., L]`, the background first.
      backward: y_b, likewise.
      confidence: o_f, `[L]`, the forward pass's confidence in each label in this frame.
      other: o_b, likewise, that of the backward pass.

    Returns:
      c_f and c_b, `[...]` each; 0 where there is no object.
    """
    seen = (forward + backward)[..., 1:]
    total = jnp.sum(seen, axis=-1)
    share = seen / jnp.where(total > 0, total, 1)[..., None]
    return share @ confidence[1:], share @ other[1:]


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
