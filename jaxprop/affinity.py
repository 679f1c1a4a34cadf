"""Affinities between feature cells, and labels copied along them.

Shapes here: Q target cells, K context cells, C channels, L labels; leading axes broadcast.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp


def l2_normalize(features: jax.Array, axis: int = -1) -> jax.Array:
    """Scales features to unit length along `axis`: f / max(|f|, 1e-12).

    A zero vector stays zero and has a zero gradient.
    """
    squared = jnp.sum(jnp.square(features), axis=axis, keepdims=True)
    inverse_length = jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
    # Without the choice of 0 the gradient of a zero vector would be 1e12 times the incoming one.
    return features * jnp.where(squared > 0, inverse_length, 0)


def affinity(targets: jax.Array, context: jax.Array) -> jax.Array:
    """A_qk = <g_q, f_k>: targets `[..., Q, C]`, context `[..., K, C]` -> `[..., Q, K]`.

    Computed in full float32 where the inputs are: on accelerators a reduced-precision product
    exchanges nearly tied neighbours.
    """
    return jnp.einsum('...qc,...kc->...qk', targets, context, precision=jax.lax.Precision.HIGHEST)


def soft_copy(weights: jax.Array, labels: jax.Array) -> jax.Array:
    """z_q = sum_k w_qk y_k: weights `[..., Q, K]`, labels `[..., K, L]` -> `[..., Q, L]`."""
    return jnp.einsum('...qk,...kl->...ql', weights, labels, precision=jax.lax.Precision.HIGHEST)


def distance_mask(targets: jax.Array, context: jax.Array, radius: float, shape: str) -> jax.Array:
    """Which context cells lie within `radius` of each target cell, strictly.

    Args:
      targets: `[Q, 2]` grid coordinates (row, column) in feature cells.
      context: `[K, 2]`, likewise.
      radius: in feature cells; distance < radius is inside.
      shape: 'radius' for Euclidean distance, 'square' for the larger of the two offsets.

    Returns:
      `[Q, K]` boolean.
    """
    offset = targets[:, None] - context[None]
    if shape == 'radius':
        return jnp.sum(jnp.square(offset), axis=-1) < radius**2
    if shape == 'square':
        return jnp.max(jnp.abs(offset), axis=-1) < radius
    raise ValueError(f"shape is {shape!r}; it must be 'radius' or 'square'")


def top_k(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` along a long last axis, the same to the order of ties, with less work.

    The axis is cut into blocks. The k largest values lie in the k blocks of largest maxima, so
    these blocks are found first, and searched.
    """
    length = values.shape[-1]
    # Between searching many maxima and searching large blocks.
    size = max(d for d in range(1, math.isqrt(length // k) + 1) if length % d == 0)
    if size < 4:
        return jax.lax.top_k(values, k)
    blocks = values.reshape(*values.shape[:-1], length // size, size)
    _, chosen = jax.lax.top_k(jnp.max(blocks, axis=-1), k)
    # In the order of the axis: of tied values the first one is to win.
    chosen = jnp.sort(chosen, axis=-1)
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=-2)
    largest, places = jax.lax.top_k(candidates.reshape(*chosen.shape[:-1], k * size), k)
    block, offset = jnp.divmod(places, size)
    return largest, jnp.take_along_axis(chosen, block, axis=-1) * size + offset


class Neighbors(NamedTuple):
    """The selected cells of each target, in one or more lists, each with its best cell first.

    logits: `[..., k]`, their A / T; -inf fills up where fewer than k cells are allowed.
    cells: `[..., k]`, their numbers. log_sums: `[...]`, the logarithm of the softmax's denominator
    over the list's candidates, where it does not range over the selected cells.
    """

    logits: jax.Array
    cells: jax.Array
    log_sums: jax.Array | None


def select_neighbors(
    logits: jax.Array, allowed: jax.Array, num_neighbors: int, softmax: str
) -> Neighbors:
    """The k allowed cells of largest logit among K candidates.

    Args:
      logits: A / T, `[..., K]`.
      allowed: the same with -inf where a restriction forbids the cell.
      num_neighbors: k; all K cells where it is larger.
      softmax: 'neighbors', 'frame' or 'region', see `PropagationConfig`.
    """
    selected, cells = top_k(allowed, min(num_neighbors, allowed.shape[-1]))
    log_sums = None
    if softmax != 'neighbors':
        log_sums = logsumexp(logits if softmax == 'frame' else allowed, axis=-1)
    return Neighbors(selected, cells, log_sums)


def expected_coordinates(weights: jax.Array, coordinates: jax.Array) -> jax.Array:
    """Where each target cell comes from on average: x_q = sum_k w_qk x_k.

    Args:
      weights: `[..., Q, K]`, the softmax of affinities over the context cells.
      coordinates: `[..., K, 2]`, of the context cells.

    Returns:
      `[..., Q, 2]`, in the units of `coordinates`.
    """
    return soft_copy(weights, coordinates)
