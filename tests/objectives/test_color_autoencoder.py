import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprop import color
from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.objectives import color_autoencoder

# Compiling takes nearly all of these tests' time.
QUICK = {'xla_backend_optimization_level': 0}


@pytest.mark.slow
def test_overfits_a_batch():
    objective = color_autoencoder.objective(size=16)
    generator = np.random.default_rng(0)
    # One colour each: whatever the crop, the image is the same.
    colors = generator.integers(0, 256, (4, 1, 1, 3)).astype(np.uint8)
    batch = {'image': jnp.asarray(np.broadcast_to(colors, (4, 18, 20, 3)))}
    variables = jax.jit(objective.init, compiler_options=QUICK)(jax.random.key(0), batch)
    assert variables['state'] == {'backbone': {}}
    params, state = variables['params'], variables['state']

    # The loss of the first step, by itself.
    lab = color.scale_lab(color.rgb_to_lab8(batch['image'][:, :16, :16]))
    result = jax.jit(ColorAutoencoder().apply)({'params': params['backbone']}, lab)
    expected = np.abs(np.asarray(result, np.float64) - lab)

    optimizer = optax.adam(2e-3)
    optimizer_state = optimizer.init(params)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(params, optimizer_state, rng):
        gradient = jax.value_and_grad(objective.loss, has_aux=True)
        (loss, (_, metrics)), gradient = gradient(params, state, batch, rng)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return optax.apply_updates(params, updates), optimizer_state, loss, metrics

    losses = []
    for rng in jax.random.split(jax.random.key(1), 30):
        params, optimizer_state, loss, metrics = step(params, optimizer_state, rng)
        if not losses:
            np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)
            for name, error in zip('lab', expected.mean(axis=(0, 1, 2))):
                np.testing.assert_allclose(metrics[f'error_{name}'], 128 * error, rtol=1e-4)
        losses.append(float(loss))
    assert losses[-1] < 0.4 * losses[0], losses
    assert metrics['loss'] == losses[-1]


def test_bad_arguments():
    with pytest.raises(ValueError, match='size is 20'):
        color_autoencoder.objective(size=20)
    with pytest.raises(ValueError, match='uint8'):
        color_autoencoder.objective(size=16).loss(
            {}, {}, {'image': jnp.zeros((1, 16, 16, 3))}, jax.random.key(0)
        )
