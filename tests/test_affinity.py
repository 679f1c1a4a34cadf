"""`jaxprop.affinity` against loops, hand-counted cases and sorting in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import affinity


def _normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize('axis', [-1, 0])
def test_l2_normalize(axis):
    features = 3 * _normal(0, 4, 5)
    expected = features / np.linalg.norm(features, axis=axis, keepdims=True)
    np.testing.assert_allclose(affinity.l2_normalize(features, axis), expected, atol=1e-6)


def test_l2_normalize_is_safe_at_zero():
    features = _normal(0, 3, 4)
    features[1] = 0
    normalized = affinity.l2_normalize(features)
    np.testing.assert_array_equal(normalized[1], 0)
    np.testing.assert_allclose(jnp.linalg.norm(normalized[::2], axis=-1), 1, atol=1e-6)
    weights = _normal(1, 3, 4)
    gradient = jax.grad(lambda x: jnp.sum(weights * affinity.l2_normalize(x)))(features)
    np.testing.assert_array_equal(gradient[1], 0)
    # The derivative of f / |f| is the projection onto the plane across f, over |f|.
    for row in (0, 2):
        length = np.linalg.norm(features[row])
        unit = features[row] / length
        expected = (weights[row] - unit * np.dot(unit, weights[row])) / length
        np.testing.assert_allclose(gradient[row], expected, atol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.float16, jnp.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """Norms are above 256, so their squares and inner products are too large for float16."""
    features = jnp.asarray(300 * _normal(0, 6, 8), dtype)
    exact = np.asarray(features, np.float64)
    unit = exact / np.linalg.norm(exact, axis=-1, keepdims=True)
    assert np.abs(exact @ exact.T).max() > 2 * float(np.finfo(np.float16).max)
    np.testing.assert_allclose(affinity.l2_normalize(features), unit, atol=1e-6)
    found = affinity.affinity(features, features)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact @ exact.T, rtol=1e-5, atol=0.1)


def test_affinity_is_the_inner_product():
    targets, context = _normal(0, 2, 5, 3), _normal(1, 4, 1, 6, 3)
    found = affinity.affinity(targets, context)
    assert found.shape == (4, 2, 5, 6)
    for m, b, q, k in np.ndindex(4, 2, 5, 6):
        expected = sum(float(x) * float(y) for x, y in zip(targets[b, q], context[m, 0, k]))
        assert found[m, b, q, k] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ('left', 'right'), [(1.0, 1.0), (1e-6, 3e4), (1e12, 1e-12), (3e-16, 3e-16)]
)
def test_affinity_of_float16_parts_is_as_exact_as_float32(left, right):
    rng = np.random.default_rng(0)
    # Channels of very different size.
    sizes = np.exp(2 * rng.standard_normal(256))
    targets, context = (rng.standard_normal((n, 256)) * sizes for n in (40, 50))
    targets[0] *= 1e-8  # A vector that is much shorter than the others.
    targets, context = (np.float32(x) for x in (targets * left, context * right))
    exact = targets.astype(np.float64) @ context.astype(np.float64).T
    lengths = np.linalg.norm(targets, axis=-1)[:, None] * np.linalg.norm(context, axis=-1)
    found, float32 = (
        function(targets, context) for function in (affinity.affinity_float16x3, affinity.affinity)
    )
    assert found.dtype == jnp.float32
    error, error_of_float32 = (np.max(np.abs(x - exact) / lengths) for x in (found, float32))
    assert error < 1.5 * error_of_float32
    # One product of float16 is much farther away.
    rounded = np.float16(targets / left).astype(np.float64) @ (context.T / right)
    assert np.max(np.abs(rounded * left * right - exact) / lengths) > 100 * error


def test_the_low_part_is_not_found_by_casts():
    """On a GPU XLA took the cast to float16 and back for no change: every low part was zero."""
    array = jnp.ones((2, 3))
    program = jax.make_jaxpr(affinity._halves)(array)
    casts = [
        equation
        for equation in program.jaxpr.eqns
        if equation.primitive.name == 'convert_element_type'
    ]
    assert [equation.params['new_dtype'] for equation in casts] == [jnp.float16] * 2


def test_affinity_of_float16_parts_of_zeros_and_what_is_not_finite():
    zeros, ones = jnp.zeros((2, 3)), jnp.ones((4, 3))
    np.testing.assert_array_equal(affinity.affinity_float16x3(zeros, ones), 0)
    assert not np.any(np.isfinite(affinity.affinity_float16x3(ones.at[0, 0].set(jnp.inf), ones)[0]))
    assert np.all(np.isnan(affinity.affinity_float16x3(ones.at[0, 0].set(jnp.nan), ones)[0]))


def test_affinity_of_float16_parts_has_the_derivatives_of_affinity():
    rng = np.random.default_rng(0)
    targets, context = (rng.standard_normal((n, 8)).astype(np.float32) for n in (3, 5))

    def total(function):
        return lambda *arrays: jnp.sum(jnp.sin(function(*arrays)))

    wanted = jax.grad(total(affinity.affinity), argnums=(0, 1))(targets, context)
    found = jax.grad(total(affinity.affinity_float16x3), argnums=(0, 1))(targets, context)
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.abs(other).max() > 0.1


def test_soft_copy_sums_weighted_labels():
    weights, labels = np.abs(_normal(0, 2, 5, 6)), _normal(1, 2, 6, 3)
    found = affinity.soft_copy(weights, labels)
    assert found.shape == (2, 5, 3)
    for m, q, label in np.ndindex(2, 5, 3):
        expected = sum(float(weights[m, q, k]) * float(labels[m, k, label]) for k in range(6))
        assert found[m, q, label] == pytest.approx(expected, abs=1e-5)


# A prime length, ones that are cut into blocks, and all values asked for.
@pytest.mark.parametrize('length, k', [(997, 5), (1000, 5), (1200, 1), (360, 20), (12, 12)])
def test_top_k_keeps_the_order_of_ties(length, k):
    rng = np.random.default_rng(0)
    # Few different values, and a row that is mostly forbidden.
    values = rng.integers(0, 9, (2, 3, length)).astype(np.float32)
    values[1, 2, 3:] = -np.inf
    largest, places = affinity.top_k(values, k)
    order = np.argsort(-values, axis=-1, kind='stable')[..., :k]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(largest, np.take_along_axis(values, order, axis=-1))


@pytest.mark.parametrize('softmax', ['neighbors', 'frame', 'region'])
@pytest.mark.parametrize('num_neighbors', [1, 4, 9])
def test_select_neighbors(softmax, num_neighbors):
    logits = _normal(0, 2, 3, 6)
    inside = np.random.default_rng(1).random((2, 3, 6)) < 0.5
    inside[..., 2] = True
    allowed = np.where(inside, logits, -np.inf)
    found = affinity.select_neighbors(logits, allowed, num_neighbors, softmax)
    size = min(num_neighbors, 6)
    assert found.logits.shape == found.cells.shape == (2, 3, size)
    for m, q in np.ndindex(2, 3):
        order = [k for k in np.argsort(-logits[m, q]) if inside[m, q, k]][:size]
        np.testing.assert_array_equal(found.cells[m, q, : len(order)], order)
        np.testing.assert_array_equal(found.logits[m, q, : len(order)], logits[m, q, order])
        assert np.all(np.isneginf(found.logits[m, q, len(order) :]))
        if softmax != 'neighbors':
            over = logits[m, q] if softmax == 'frame' else logits[m, q][inside[m, q]]
            expected = np.log(np.sum(np.exp(over, dtype=np.float64)))
            assert found.log_sums[m, q] == pytest.approx(expected, abs=1e-5)
    if softmax == 'neighbors':
        assert found.log_sums is None
