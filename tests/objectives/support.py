"""Common parts of the tests of several objectives."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxprop.objectives.objective import Objective
from tests.support import REFERENCE

RNG = jax.random.key(7)


@functools.cache
def quick_options():
    """Makes the compiler quick: it takes nearly all of the time of these tests."""
    options = {'xla_backend_optimization_level': 0, 'xla_cpu_use_fusion_emitters': False}
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # JAX 0.12 has no such option.
        del options['xla_cpu_use_fusion_emitters']
    return options


def compiled(function, **settings):
    """`jax.jit` with quick compilation."""
    return jax.jit(function, compiler_options=quick_options(), **settings)


class TinyBackbone(nn.Module):
    """Stands in for a ResNet where its depth is of no interest, as it compiles at once."""

    padding: str = 'zero'
    norm_momentum: float = 0.9
    norm_axis_name: str | None = None
    dtype: None = None

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(6, (3, 3), strides=2, name='conv')(images)
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.norm_momentum,
            axis_name=self.norm_axis_name,
            name='norm',
        )
        return nn.tanh(norm(x))


def batch(num: int = 4, size: tuple[int, int] = (12, 14), seed: int = 0):
    """Smooth random images, and labels of three classes."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (num, 3, 3, 3)).astype(np.float32)
    images = np.asarray(jax.image.resize(coarse, (num, *size, 3), 'linear'))
    return {'image': images.round().astype(np.uint8), 'label': np.arange(num, dtype=np.int32) % 3}


def clips(num: int = 4, num_frames: int = 3, size: tuple[int, int] = (20, 24), seed: int = 0):
    """Smooth random frames, each moved on by two pixels from the one before."""
    images = batch(num, size, seed)['image']
    return {'frames': np.stack([np.roll(images, 2 * t, axis=2) for t in range(num_frames)], axis=1)}


def released(file: str, prefix: str):
    """Arrays that released code gave, by name: those of a file in tests/reference with a prefix."""
    arrays = np.load(REFERENCE / file)
    return {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}


def assert_trees_close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
        np.testing.assert_allclose(one, other, **tolerance)


def make_step(objective: Objective):
    """Compiles `step(params, state, batch, rng)` -> ((loss, (state, metrics)), gradient)."""
    return compiled(jax.value_and_grad(objective.loss, has_aux=True))


def check_gradient(step, params, state, examples):
    """Asserts that the derivative along the gradient, by central differences, is its length."""
    _, gradient = step(params, state, examples, RNG)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    length = np.sqrt(sum(np.sum(leaf**2) for leaf in leaves))
    assert length > 1e-3
    size = 1e-2

    def moved(sign):
        params_moved = jax.tree.map(lambda p, g: p + sign * size * g / length, params, gradient)
        return step(params_moved, state, examples, RNG)[0][0]

    np.testing.assert_allclose((moved(1) - moved(-1)) / (2 * size), length, rtol=2e-2)


def descend(step, params, state, examples, num: int, rate: float):
    """Computes the losses of `num` steps of gradient descent, all with the same augmentation."""
    losses = []
    for _ in range(num):
        (loss, (state, _)), gradient = step(params, state, examples, RNG)
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
        losses.append(float(loss))
    return losses


def check_devices(tiny, objective: Objective, examples, atol: float = 1e-5):
    """Asserts that a loss is the same on two devices as by the step, params and state `tiny`."""
    step, params, state = tiny
    alone, _ = step(params, state, examples, RNG)
    spread = on_devices(objective, 2, gradient=False)(params, state, examples, RNG)
    assert_trees_close(spread, alone, rtol=1e-3, atol=atol)


def on_devices(objective: Objective, num: int, gradient: bool = True):
    """As `make_step`, on `num` devices, of which each gets its part of the batch.

    Without `gradient` it gives the loss, the state and the metrics alone, and compiles faster.

    `jax.vmap` gives the axis 'device' here, so that one device does for the test. Losses, metrics,
    gradients and floating point state are averaged as training does.
    """

    def run(params, state, examples, rng):
        parts = jax.tree.map(lambda x: jnp.reshape(x, (num, -1, *x.shape[1:])), examples)
        step = jax.value_and_grad(objective.loss, has_aux=True) if gradient else objective.loss
        results = jax.vmap(lambda part: step(params, state, part, rng), axis_name='device')(parts)
        return jax.tree.map(
            lambda x: jnp.mean(x, axis=0) if jnp.issubdtype(x.dtype, jnp.floating) else x[0],
            results,
        )

    return compiled(run)
