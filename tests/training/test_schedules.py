"""Learning rates against their formulas, and the parameters that an optimiser changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprop.training.schedules import is_frozen, make_optimizer, make_schedule


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_step_divides_at_each_boundary():
    schedule = make_schedule('step', 0.1, 10, boundaries=(3.0, 6.0), factor=0.1)
    np.testing.assert_allclose(
        rates(schedule, (0, 29, 30, 59, 60, 99)), [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5
    )


def test_boundaries_are_counted_in_examples_too():
    schedule = make_schedule(
        'step', 8.0, 10, boundaries=(1.0,), boundary_examples=(60, 132), batch_size=4, factor=0.5
    )
    assert rates(schedule, (9, 10, 14, 15, 32, 33)) == [8, 4, 4, 2, 2, 1]


def test_boundaries_of_one_step_all_count():
    schedule = make_schedule('step', 8.0, 0.1, boundaries=(11.0, 12.0, 28.0), factor=0.5)
    assert rates(schedule, (0, 1, 2, 3)) == [8, 2, 2, 1]


def test_poly_and_its_restart():
    schedule = make_schedule('poly', 1e-4, 10, epochs=20.0, power=0.9, restarts=(10.0,))
    expected = [1e-4 * (1 - t / 200) ** 0.9 for t in (0, 99, 0, 100, 150)]
    np.testing.assert_allclose(rates(schedule, (0, 99, 100, 200, 250)), expected, rtol=1e-5)


def test_cosine_after_warm_up():
    schedule = make_schedule('cosine', 2.0, 4, epochs=5.0, warmup=1.0)
    steps = np.arange(20)
    expected = np.minimum(steps / 4, 1) * (1 + np.cos(np.pi * steps / 20))
    np.testing.assert_allclose(rates(schedule, steps), expected, atol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'linear'"):
        make_schedule('linear', 1.0, 1)
    with pytest.raises(ValueError, match="'lamb'"):
        make_optimizer(optax.constant_schedule(1.0), 'lamb')


PARAMS = {
    'backbone': {
        'stem_conv': {'kernel': jnp.full((2, 2), 2.0)},
        'res2_1': {'norm1': {'scale': jnp.full(2, 2.0)}},
        'res3_0': {'conv1': {'kernel': jnp.full((2, 2), 2.0)}, 'norm1': {'bias': jnp.full(2, 2.0)}},
    },
    'head': {'kernel': jnp.full((2, 2), 2.0), 'bias': jnp.full(2, 2.0)},
}


def updates(optimizer, gradients, steps=1):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        change, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, change)
    return jax.tree.map(lambda new, old: float((new - old).ravel()[0]), params, PARAMS)


def test_weight_decay_is_of_kernels_alone_unless_asked():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    rate = optax.constant_schedule(0.5)
    for name in ('sgd', 'adam'):
        change = updates(make_optimizer(rate, name, weight_decay=0.1), zeros)
        assert change['head'] == pytest.approx({'kernel': -0.1, 'bias': 0.0})
        assert change['backbone']['res2_1']['norm1']['scale'] == 0
        change = updates(make_optimizer(rate, name, weight_decay=0.1, decay_all=True), zeros)
        assert jax.tree.leaves(change) == pytest.approx([-0.1] * 6)


def test_sgd_is_momentum_on_gradient_plus_decay():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    optimizer = make_optimizer(
        optax.constant_schedule(0.1), momentum=0.5, weight_decay=0.1, decay_all=True
    )
    value, velocity = 2.0, 0.0
    for _ in range(3):
        velocity = 0.5 * velocity + 1 + 0.1 * value
        value -= 0.1 * velocity
    change = updates(optimizer, ones, steps=3)
    assert jax.tree.leaves(change) == pytest.approx([value - 2.0] * 6, rel=1e-5)


@pytest.mark.parametrize('beta1', [0.9, 0.5])
def test_adam_has_its_beta1(beta1):
    gradients, mean, square, value = (1.0, -2.0, 0.5), 0.0, 0.0, 2.0
    optimizer = make_optimizer(optax.constant_schedule(0.1), 'adam', beta1=beta1)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step, gradient in enumerate(gradients, 1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = 0.999 * square + 0.001 * gradient**2
        value -= 0.1 * (mean / (1 - beta1**step)) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
        change, state = optimizer.update(
            jax.tree.map(lambda x: jnp.full_like(x, gradient), params), state, params
        )
        params = optax.apply_updates(params, change)
    np.testing.assert_allclose(params['head']['bias'], value, rtol=1e-5)
    with pytest.raises(ValueError, match='optimizer.beta1 is 1.0'):
        make_optimizer(optax.constant_schedule(0.1), 'adam', beta1=1.0)


def test_clipping_is_by_the_norm_of_all_gradients():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    number = sum(value.size for value in jax.tree.leaves(PARAMS))
    change = updates(make_optimizer(optax.constant_schedule(1.0), clip_norm=2.0), ones)
    assert jax.tree.leaves(change) == pytest.approx([-2 / number**0.5] * 6, rel=1e-5)


def test_frozen_stages_do_not_change():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    change = updates(
        make_optimizer(
            optax.constant_schedule(1.0), weight_decay=0.1, decay_all=True, frozen_until='res3'
        ),
        ones,
    )
    backbone = change['backbone']
    assert backbone['stem_conv']['kernel'] == backbone['res2_1']['norm1']['scale'] == 0
    assert backbone['res3_0']['conv1']['kernel'] == change['head']['bias'] == pytest.approx(-1.2)
    # A projection follows the last stage.
    assert is_frozen({'backbone': {'projection': 0, 'res2_0': 0}}, 'res3') == {
        'backbone': {'projection': False, 'res2_0': True}
    }
