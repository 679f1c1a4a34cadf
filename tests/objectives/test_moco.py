import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import augment
from jaxprop.objectives import moco
from jaxprop.objectives import objective as objectives
from tests.objectives.support import (
    RNG,
    TinyBackbone,
    assert_trees_close,
    batch,
    check_gradient,
    compiled,
    make_step,
    on_devices,
)

SIZE = 8
SETTINGS = dict(
    size=SIZE,
    grayscale=0.5,
    jitter=(0.0,) * 4,
    dimensions=5,
    queue_size=10,
    momentum=0.75,
    temperature=0.2,
    num_groups=4,
)
# Views that differ in their orientation at most: of a square in the middle, and no grayscale.
WHOLE = {**SETTINGS, 'min_area': 1.0, 'grayscale': 0.0}
del WHOLE['momentum']
EXAMPLES = {'image': batch(8)['image']}


@pytest.fixture(scope='module')
def alone():
    """The step of the objective, its variables, and those after a step, where encoders differ."""
    objective = moco.objective(TinyBackbone(), **SETTINGS)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    step = make_step(objective)
    (_, (state, _)), gradient = step(variables['params'], variables['state'], EXAMPLES, RNG)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, variables['params'], gradient)
    return step, variables, params, state


def _encode(params, statistics, pixels):
    features, updates = TinyBackbone().apply(
        {'params': params['backbone'], **statistics['backbone']},
        pixels.astype(np.float32),
        train=True,
        mutable=['batch_stats'],
    )
    dense = params['head']['dense']
    outputs = np.mean(features, axis=(1, 2)) @ dense['kernel'] + dense['bias']
    return outputs / np.linalg.norm(outputs, axis=1, keepdims=True), updates


def _encode_groups(params, statistics, pixels):
    encoded = [_encode(params, statistics, pixels[i : i + 2]) for i in range(0, 8, 2)]
    mean = jax.tree.map(lambda *values: np.mean(values, axis=0), *(stats for _, stats in encoded))
    return np.concatenate([vectors for vectors, _ in encoded]), mean


def test_loss_and_state_are_numpys(alone):
    step, _, params, state = alone
    rng = jax.random.key(11)
    (loss, (new_state, metrics)), _ = step(params, state, EXAMPLES, rng)

    view_rng, shuffle_rng = jax.random.split(rng)
    view = compiled(augment.random_view, static_argnums=(2, 3, 4))
    keys = [jax.random.split(key) for key in objectives.example_keys(view_rng, 8)]
    pixels = []
    for index in range(2):
        images = np.asarray(
            view(
                jnp.stack([pair[index] for pair in keys]),
                EXAMPLES['image'].astype(np.float32) / 255,
                SIZE,
                0.2,
                0.5,
            )
        )
        pixels.append(
            (np.round(255 * images) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        )
    queries, statistics = _encode_groups(params, state, pixels[0])
    moved = jax.tree.map(
        lambda old, new: 0.75 * old + 0.25 * new, state['momentum']['params'], params
    )
    order = np.asarray(jax.random.permutation(shuffle_rng, 8))
    shuffled, key_statistics = _encode_groups(moved, state['momentum']['state'], pixels[1][order])
    keys = np.zeros_like(shuffled)
    keys[order] = shuffled
    positive = np.sum(queries * keys, axis=1)
    negative = queries @ np.asarray(state['queue']).T
    likelihood = np.exp(positive / 0.2) / (
        np.exp(positive / 0.2) + np.exp(negative / 0.2).sum(axis=1)
    )
    np.testing.assert_allclose(loss, -np.log(likelihood).mean(), rtol=1e-3)
    np.testing.assert_allclose(metrics['positive'], positive.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics['negative'], negative.mean(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(metrics['accuracy'], np.mean(positive > negative.max(axis=1)))
    tolerance = dict(rtol=1e-3, atol=1e-4)
    assert_trees_close(new_state['momentum']['params'], moved, **tolerance)
    assert_trees_close(new_state['backbone'], statistics, **tolerance)
    assert_trees_close(new_state['momentum']['state']['backbone'], key_statistics, **tolerance)
    # The first 8 are those of the first step; two more fit before the queue starts again.
    queue = np.asarray(state['queue']).copy()
    queue[[8, 9, 0, 1, 2, 3, 4, 5]] = keys
    np.testing.assert_allclose(new_state['queue'], queue, **tolerance)
    assert (int(state['pointer']), int(new_state['pointer'])) == (8, 6)


def test_queue_is_first_in_first_out(alone):
    step, variables, params, _ = alone
    before = variables['state']
    assert int(before['pointer']) == 0
    np.testing.assert_allclose(np.linalg.norm(before['queue'], axis=1), 1, rtol=1e-5)
    for index in range(3):
        (_, (after, _)), _ = step(params, before, EXAMPLES, jax.random.key(index))
        slots = (int(before['pointer']) + np.arange(8)) % 10
        others = np.setdiff1d(np.arange(10), slots)
        np.testing.assert_array_equal(after['queue'][others], before['queue'][others])
        changed = np.any(after['queue'] != before['queue'], axis=1)
        assert changed[slots].all()
        assert int(after['pointer']) == (slots[-1] + 1) % 10
        assert int(after['step']) == index + 1
        before = after


def test_momentum_encoder_starts_as_a_copy_of_what_it_is_given(alone):
    step, variables, _, _ = alone
    # Another backbone than that of init, as when training starts from another run.
    params = jax.tree.map(lambda value: value + 0.5, variables['params'])
    (_, (state, _)), _ = step(params, variables['state'], EXAMPLES, RNG)
    assert_trees_close(state['momentum']['params'], params, rtol=0, atol=0)


@pytest.fixture(scope='module')
def copying():
    """A step with m = 0 on whole images: the momentum encoder has the current parameters."""
    return make_step(moco.objective(TinyBackbone(), **WHOLE, momentum=0.0))


def test_no_gradient_into_keys_and_state(alone, copying):
    _, _, params, state = alone
    # With m = 1 the keys don't depend on the parameters, so finite differences see them as
    # constants too; when they have the same values because m = 0, the gradient is the same.
    objective = moco.objective(TinyBackbone(), **WHOLE, momentum=1.0)
    gradients = compiled(
        jax.value_and_grad(objective.loss, argnums=(0, 1), has_aux=True, allow_int=True)
    )

    def constant(*arguments):
        result, gradient = gradients(*arguments)
        return result, gradient[0]

    state = {**state, 'momentum': {**state['momentum'], 'params': params}}
    check_gradient(constant, params, state, EXAMPLES)
    assert_trees_close(
        copying(params, state, EXAMPLES, RNG),
        constant(params, state, EXAMPLES, RNG),
        rtol=1e-4,
        atol=1e-5,
    )
    of_state = gradients(params, state, EXAMPLES, RNG)[1][1]
    for name in ('queue', 'momentum'):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(of_state[name]))


def test_keys_are_normalised_in_other_groups_than_their_queries(alone, copying):
    _, variables, _, _ = alone
    # They look the same mirrored: in groups with the same statistics, a query equals its key.
    half = batch(8, (12, 7))['image']
    images = np.concatenate([half, half[:, :, ::-1]], axis=2)

    def positive(images):
        (_, (_, metrics)), _ = copying(
            variables['params'], variables['state'], {'image': images}, RNG
        )
        return metrics['positive']

    assert positive(images) < 0.99
    same = np.broadcast_to(images[:1], images.shape)
    np.testing.assert_allclose(positive(same), 1, atol=1e-4)


def test_four_devices_are_as_one(alone):
    step, _, params, state = alone
    objective = moco.objective(
        TinyBackbone(norm_axis_name='device'), **SETTINGS, axis_name='device'
    )
    actual = on_devices(objective, 4)(params, state, EXAMPLES, RNG)
    assert_trees_close(actual, step(params, state, EXAMPLES, RNG), rtol=1e-3, atol=1e-4)


def test_a_handful_of_images_is_learned(alone):
    step, variables, params, state = alone
    # Always the queue of random vectors: after a step it would hold keys of the same images, from
    # which queries can't be told apart.
    state = {**state, 'queue': variables['state']['queue']}
    losses = []
    for _ in range(60):
        (loss, _), gradient = step(params, state, EXAMPLES, RNG)
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0], losses


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(num_groups=1), 'num_groups is 1'),
        (dict(momentum=1.5), 'momentum is 1.5'),
        (dict(temperature=0.0), 'temperature is 0.0'),
        (dict(head='mlp'), "head is 'mlp'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        moco.objective(TinyBackbone(), **settings)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(num_groups=3), 'num_groups is 3 for a batch of 8'),
        (dict(num_groups=8), 'num_groups is 8 for a batch of 8'),
        (dict(queue_size=7), 'queue_size is 7'),
    ],
)
def test_batches_that_do_not_fit(settings, message):
    objective = moco.objective(TinyBackbone(), **{**SETTINGS, **settings})
    variables = jax.eval_shape(objective.init, RNG, EXAMPLES)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(objective.loss, variables['params'], variables['state'], EXAMPLES, RNG)
