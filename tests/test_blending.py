"""Blends of two labels against loops in NumPy."""

import jax
import numpy as np

from jaxprop import blending


def test_blends_are_those_of_loops():
    rng = np.random.default_rng(0)
    height, width, num_labels, position = 3, 4, 3, 0.3
    forward, backward = rng.dirichlet(np.ones(num_labels), (2, height, width)).astype(np.float32)
    forward[0, 0], backward[0, 0] = np.eye(num_labels)[0], np.eye(num_labels)[0]
    sure, other = rng.uniform(size=(2, num_labels)).astype(np.float32)
    expected = np.zeros_like(forward)
    for row in range(height):
        for column in range(width):
            front, back = forward[row, column], backward[row, column]
            total = sum(front[1:]) + sum(back[1:])
            if total == 0:
                expected[row, column] = (1 - position) * front + position * back
                continue
            trusts = [
                sum((front[o] + back[o]) * values[o] for o in range(1, num_labels)) / total
                for values in (sure, other)
            ]
            ahead, behind = (1 - position) * trusts[0], position * trusts[1]
            expected[row, column] = (ahead * front + behind * back) / (ahead + behind)

    @jax.jit
    def blended(forward, backward):
        trusted = blending.trust(forward, backward, sure, other)
        return blending.blend(forward, backward, blending.backward_share(*trusted, position))

    np.testing.assert_allclose(blended(forward, backward), expected, atol=1e-6)


def test_at_a_mask_only_its_own_side_counts():
    confidence = np.array([0.2, 0.9, 0.0], np.float32), np.array([0.7, 0.1, 0.0], np.float32)
    np.testing.assert_array_equal(blending.backward_share(*confidence, 0.0), [0, 0, 0])
    np.testing.assert_array_equal(blending.backward_share(*confidence, 1.0), [1, 1, 1])
    # Without any confidence the position decides.
    np.testing.assert_allclose(blending.backward_share(*confidence, 0.25)[2], 0.25)
