"""Blends two labels of a frame that lies between two masks, one carried from each of them.

Shapes: H, W feature cells, L labels.
"""

import jax
import jax.numpy as jnp


def blend(
    forward: jax.Array,
    backward: jax.Array,
    forward_confidence: jax.Array,
    backward_confidence: jax.Array,
    position: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Blends the labels that were carried to a frame from the masks before and after it.

    At the position tau from the mask before (0) to the mask after (1), each cell's label is

        y = (w_f y_f + w_b y_b) / (w_f + w_b),    w_f = (1 - tau) c_f,    w_b = tau c_b,

    and its confidence is the mean of c_f and c_b by the same weights. Where both weights are 0,
    they are 1 - tau and tau.

    Args:
      forward: y_f, `[..., L]`, carried from the mask before.
      backward: y_b, `[..., L]`, carried from the mask after.
      forward_confidence: c_f, `[...]`, 0 or more.
      backward_confidence: c_b, likewise.
      position: tau, from 0 to 1.

    Returns:
      The label `[..., L]` and the confidence `[...]`.
    """
    ahead, behind = (1 - position) * forward_confidence, position * backward_confidence
    total = ahead + behind
    share = jnp.where(total > 0, behind / jnp.where(total > 0, total, 1), position)
    confidence = (1 - share) * forward_confidence + share * backward_confidence
    share = share[..., None]
    return (1 - share) * forward + share * backward, confidence
