"""Affinities between feature cells, and labels copied along them.

Shapes here: Q target cells, K context cells, C channels, L labels; leading axes broadcast.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.scipy.special import logsumexp


def l2_normalize(features: jax.Array, axis: int = -1) -> jax.Array:
    """Scales features to unit length along `axis`: f / max(|f|, 1e-12).

    A zero vector stays zero and has a zero gradient. Computed, and returned, in float32 at least:
    the square of a float16 norm above 256 would be infinite.
    """
    features = jnp.asarray(features)
    features = features.astype(at_least_float32(features))
    squared = jnp.sum(jnp.square(features), axis=axis, keepdims=True)
    inverse_length = jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
    # Without the choice of 0 the gradient of a zero vector would be 1e12 times the incoming one.
    return features * jnp.where(squared > 0, inverse_length, 0)


def affinity(targets: jax.Array, context: jax.Array) -> jax.Array:
    """Computes how alike each target cell and each context cell are: A_qk = <g_q, f_k>.

    `targets [..., Q, C]` and `context [..., K, C]` give `[..., Q, K]`. Products are summed and
    returned in float32 at least. On accelerators a product of reduced precision exchanges nearly
    tied neighbours, and sums of float16 are infinite above 65,504.
    """
    return _product('...qc,...kc->...qk', targets, context)


@jax.custom_jvp
def affinity_float16x3(targets: jax.Array, context: jax.Array) -> jax.Array:
    """Computes `affinity` from float16 products, which GPUs make many times as fast.

    Each vector is scaled by a power of two and split into two float16 vectors, x = h + l, with 22
    bits together. Of the product of two such sums h_q h_k + h_q l_k + l_q h_k is taken, and summed
    in float32. All that is left out is at most about 3 * 2^-22 |g| |f|.

    Source: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores while
    surpassing the FP32 theoretical peak performance", IJHPCA 2022.

    Arguments and result are those of `affinity`, in float32 at most. Derivatives are those of
    `affinity`.
    """
    (high, low, scale), (context_high, context_low, context_scale) = map(
        _halves, (targets, context)
    )
    product = jnp.einsum(
        '...qc,...kc->...qk',
        jnp.concatenate([low, high, high], axis=-1),
        jnp.concatenate([context_high, context_low, context_high], axis=-1),
        preferred_element_type=jnp.float32,
    )
    return product / scale / jnp.swapaxes(context_scale, -1, -2)


@affinity_float16x3.defjvp
def _affinity_jvp(arrays, tangents):
    (targets, context), (d_targets, d_context) = arrays, tangents
    product = affinity_float16x3(targets, context)
    tangent = affinity(d_targets, context) + affinity(targets, d_context)
    return product, tangent.astype(product.dtype)


def _halves(array):
    """Two float16 arrays whose sum is `scale` times the array; and the scales `[..., 1]`."""
    array = array.astype(jnp.float32)
    # The largest number of a vector becomes 2^13 to 2^14. So only numbers that are 2^16 times as
    # small have fewer than 22 bits.
    exponent = jnp.frexp(jnp.max(jnp.abs(array), axis=-1, keepdims=True))[1]
    scale = jnp.ldexp(jnp.float32(1), 14 - jnp.clip(exponent, -100, 128))
    array = array * scale
    # XLA may take a number that was rounded by two casts for the number itself, so that nothing is
    # left for the low part. It keeps this rounding.
    high = jax.lax.reduce_precision(array, exponent_bits=5, mantissa_bits=10)
    return high.astype(jnp.float16), (array - high).astype(jnp.float16), scale


def soft_copy(weights: jax.Array, labels: jax.Array) -> jax.Array:
    """Copies the labels of context cells to target cells by weights: z_q = sum_k w_qk y_k.

    Weights `[..., Q, K]` and labels `[..., K, L]` give `[..., Q, L]`, summed and returned in
    float32 at least.
    """
    return _product('...qk,...kl->...ql', weights, labels)


def at_least_float32(*arrays: jax.Array) -> jnp.dtype:
    """The common type of these arrays, or float32 where that has fewer bits."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def _product(equation, left, right):
    return jnp.einsum(
        equation,
        left,
        right,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=at_least_float32(left, right),
    )


def top_k(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Finds the k largest values of a long last axis, with less work than `jax.lax.top_k`.

    The result is that of `jax.lax.top_k`, down to the order of ties. The axis is cut into blocks.
    The k largest values lie in the k blocks of largest maxima, so these blocks are found first, and
    only they are searched.
    """
    length = values.shape[-1]
    # Small blocks have many maxima to search, large blocks many values. The root balances the two.
    size = max(d for d in range(1, math.isqrt(length // k) + 1) if length % d == 0)
    if size < 4:
        return jax.lax.top_k(values, k)
    blocks = values.reshape(*values.shape[:-1], length // size, size)
    _, chosen = jax.lax.top_k(jnp.max(blocks, axis=-1), k)
    # Blocks go in the order of the axis, so that of tied values the first one wins.
    chosen = jnp.sort(chosen, axis=-1)
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=-2)
    largest, places = jax.lax.top_k(candidates.reshape(*chosen.shape[:-1], k * size), k)
    block, offset = jnp.divmod(places, size)
    return largest, jnp.take_along_axis(chosen, block, axis=-1) * size + offset


class Neighbors(NamedTuple):
    """The context cells selected for each target cell: one or more lists, the best cell first.

    Attributes:
      logits: `[..., k]`, A / T of the cells; -inf fills the list where fewer than k cells are
        allowed.
      cells: `[..., k]`, their numbers.
      log_sums: `[...]`, the logarithm of the softmax's denominator over the list's candidates; None
        where the softmax ranges over the selected cells.
    """

    logits: jax.Array
    cells: jax.Array
    log_sums: jax.Array | None


# The logits that the softmax's denominator sums, chosen from those of all cells and those of the
# allowed cells. None means the selected neighbours.
SOFTMAX_OVER = {
    'neighbors': None,
    'frame': lambda logits, allowed: logits,
    'region': lambda logits, allowed: allowed,
}


def select_neighbors(logits: jax.Array, allowed: jax.Array, k: int, softmax: str) -> Neighbors:
    """Selects the k allowed cells of largest logit among K candidates.

    Args:
      logits: A / T, `[..., K]`.
      allowed: the same with -inf where a region forbids the cell.
      k: how many to select; all K cells where it is larger.
      softmax: 'neighbors', 'frame' or 'region', see `jaxprop.TopK`.
    """
    selected, cells = top_k(allowed, min(k, allowed.shape[-1]))
    over = SOFTMAX_OVER[softmax]
    return Neighbors(
        selected, cells, None if over is None else logsumexp(over(logits, allowed), axis=-1)
    )


def neighbor_weights(neighbors: Neighbors) -> jax.Array:
    """The softmax's weight `[..., k]` of each selected cell."""
    log_sums = neighbors.log_sums
    if log_sums is None:
        log_sums = logsumexp(neighbors.logits, axis=-1)
    return jnp.exp(neighbors.logits - log_sums[..., None])


def map_queries(function: Callable[..., Any], queries: jax.Array, chunk: int) -> Any:
    """Applies a function to chunks of target cells, one after another, to bound memory.

    Args:
      function: of the features `[Q, C]` of a chunk and the cells' numbers `[Q]`; its results are
        `[Q, ...]`.
      queries: features `[N, C]` of all target cells.
      chunk: Q.

    Returns:
      The results of all chunks together, `[N, ...]`.
    """
    queries = jnp.asarray(queries)
    num_queries = len(queries)
    chunk = min(chunk, num_queries)
    num_chunks = -(-num_queries // chunk)
    # Repeats of the last query fill up the last chunk. They are cut off again below.
    index = jnp.minimum(jnp.arange(num_chunks * chunk), num_queries - 1)
    index = index.reshape(num_chunks, chunk)
    results = jax.lax.map(lambda i: function(queries[i], i), index)
    return jax.tree.map(lambda x: rearrange(x, 'c q ... -> (c q) ...')[:num_queries], results)


def expected_coordinates(weights: jax.Array, coordinates: jax.Array) -> jax.Array:
    """Computes where each target cell comes from on average: x_q = sum_k w_qk x_k.

    Args:
      weights: `[..., Q, K]`, the softmax of affinities over the context cells.
      coordinates: `[..., K, 2]`, of the context cells.

    Returns:
      `[..., Q, 2]`, in the units of `coordinates`.
    """
    return soft_copy(weights, coordinates)
