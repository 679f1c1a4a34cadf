import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.objectives import find_objective
from jaxprop.objectives.combine import combine
from jaxprop.objectives.objective import Objective
from tests.objectives.support import assert_trees_close, batch, clips, compiled, make_step
from tests.objectives.test_corrflow import Backbone

WEIGHT = 0.3
EXAMPLES = {
    'video': {'frames': np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)},
    'image': {'image': np.array([[3.0, -1.0]], np.float32)},
}
RNG = jax.random.key(3)


def _objective(name, size=2):
    """Makes an objective with all parts: randomness, head, batch statistics, other state."""

    def init(rng, batch):
        del batch
        first, second = jax.random.split(rng)
        return {
            'params': {
                'backbone': {'w': jax.random.normal(first, (size,))},
                'head': {'v': jax.random.normal(second, (3,))},
            },
            'state': {'backbone': {'mean': jnp.ones(size)}, 'step': jnp.zeros((), jnp.int32)},
        }

    def loss(params, state, batch, rng):
        features = jnp.tanh(batch[name] * params['backbone']['w'] + jax.random.normal(rng))
        value = jnp.mean(jnp.outer(features.sum(axis=1), params['head']['v']) ** 2)
        state = {
            'backbone': {'mean': 0.9 * state['backbone']['mean'] + 0.1 * features.mean(axis=0)},
            'step': state['step'] + 1,
        }
        return value, (state, {'features': features.mean()})

    return Objective(init, loss)


VIDEO, IMAGE = _objective('frames'), _objective('image')


def test_the_loss_is_exactly_the_weighted_sum():
    objective = combine(VIDEO, IMAGE, WEIGHT)
    variables = objective.init(jax.random.key(0), EXAMPLES)
    params, state = variables['params'], variables['state']
    assert set(params) == set(state) == {'backbone', 'video', 'image'}
    (loss, (new_state, metrics)), gradient = jax.value_and_grad(objective.loss, has_aux=True)(
        params, state, EXAMPLES, RNG
    )

    keys = jax.random.split(RNG)
    (video_loss, (video_state, video_metrics)), video_gradient = jax.value_and_grad(
        VIDEO.loss, has_aux=True
    )(
        {'backbone': params['backbone'], 'head': params['video']['head']},
        {'backbone': state['backbone'], 'step': state['video']['step']},
        EXAMPLES['video'],
        keys[0],
    )
    # The image loss gets the statistics that the video loss leaves.
    (image_loss, (image_state, image_metrics)), image_gradient = jax.value_and_grad(
        IMAGE.loss, has_aux=True
    )(
        {'backbone': params['backbone'], 'head': params['image']['head']},
        {'backbone': video_state['backbone'], 'step': state['image']['step']},
        EXAMPLES['image'],
        keys[1],
    )
    assert float(loss) == np.float32(video_loss) + np.float32(WEIGHT) * np.float32(image_loss)
    assert metrics == {
        'video/loss': video_loss,
        'video/features': video_metrics['features'],
        'image/loss': image_loss,
        'image/features': image_metrics['features'],
    }
    assert set(new_state) == {'backbone', 'video', 'image'}
    np.testing.assert_array_equal(new_state['backbone']['mean'], image_state['backbone']['mean'])
    assert new_state['video'] == new_state['image'] == {'step': 1}
    np.testing.assert_allclose(
        gradient['backbone']['w'],
        video_gradient['backbone']['w'] + WEIGHT * image_gradient['backbone']['w'],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        gradient['video']['head']['v'], video_gradient['head']['v'], rtol=1e-5
    )
    np.testing.assert_allclose(
        gradient['image']['head']['v'], WEIGHT * image_gradient['head']['v'], rtol=1e-5
    )


def test_norms_of_both_gradients_are_metrics_if_wanted():
    variables = combine(VIDEO, IMAGE, WEIGHT).init(jax.random.key(0), EXAMPLES)
    params, state = variables['params'], variables['state']

    def step(weight=WEIGHT, **settings):
        objective = combine(VIDEO, IMAGE, weight, **settings)
        (loss, (_, metrics)), gradient = make_step(objective)(params, state, EXAMPLES, RNG)
        return loss, metrics, gradient

    loss, plain, gradient = step()
    other_loss, metrics, other_gradient = step(gradient_norms=True)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    assert_trees_close(other_gradient, gradient, rtol=1e-5)
    assert set(metrics) - set(plain) == {'video/gradient_norm', 'image/gradient_norm'}
    # With a weight of 0 the backbone's gradient is the video loss's alone.
    video = step(0.0)[2]['backbone']['w']
    image = (gradient['backbone']['w'] - video) / WEIGHT
    for name, expected in (('video', video), ('image', image)):
        norm = metrics[f'{name}/gradient_norm']
        np.testing.assert_allclose(norm, np.linalg.norm(expected), rtol=1e-4)


def test_over_devices_norms_are_of_the_mean_gradient():
    variables = VIDEO.init(jax.random.key(0), EXAMPLES['video'])
    params, state = variables['params'], variables['state']
    key = jax.random.split(RNG)[0]
    both = EXAMPLES['video']['frames']
    # Both losses are the same one here, and a device has one of the two examples.
    objective = combine(VIDEO, VIDEO, WEIGHT, gradient_norms=True, axis_name='device')
    examples = {'video': {'frames': both[:, None]}, 'image': {'frames': both[:, None]}}
    head = {'head': params['head']}
    arguments = (
        {'backbone': params['backbone'], 'video': head, 'image': head},
        {'backbone': state['backbone'], **dict.fromkeys(('video', 'image'), {'step': 0})},
    )
    _, (_, metrics) = compiled(
        jax.vmap(lambda x: objective.loss(*arguments, x, RNG), axis_name='device')
    )(examples)
    (_, gradient) = make_step(VIDEO)(params, state, {'frames': both}, key)
    expected = np.linalg.norm(gradient['backbone']['w'])
    np.testing.assert_allclose(metrics['video/gradient_norm'], [expected] * 2, rtol=1e-4)


@pytest.mark.parametrize('image', ['rotation', 'moco'])
@pytest.mark.parametrize('video', ['crw', 'vfs', 'timecycle', 'corrflow', 'mast'])
def test_any_video_objective_goes_with_any_image_objective(video, image):
    """Shapes alone are checked, since nothing else could fail to fit."""
    settings = {
        'crw': {'size': 16, 'patch_size': 8, 'patch_stride': 8, 'head': 'residual'},
        'vfs': {'size': 8},
        'timecycle': {'frame_size': 24, 'patch_size': 12, 'head_kernel': 2, 'num_windows': 4},
        'corrflow': {'size': 16, 'truth_steps': 5},
        'mast': {'size': 16},
        'rotation': {'size': 16, 'head': 'residual'},
        'moco': {'size': 8, 'queue_size': 8, 'num_groups': 2},
    }
    parts = [
        find_objective(name).objective(Backbone(), **settings[name]) for name in (video, image)
    ]
    objective = combine(*parts, 0.5)
    frames = {'corrflow': 3, 'crw': 3}.get(video, 4)
    examples = {'video': clips(4, frames, (24, 28)), 'image': {'image': batch()['image']}}
    variables = jax.eval_shape(objective.init, RNG, examples)
    params, state = variables['params'], variables['state']
    loss, (after, metrics) = jax.eval_shape(objective.loss, params, state, examples, RNG)
    assert loss.shape == () and objective.color == parts[0].color
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(value.shape == () for value in metrics.values())
    assert {'video/loss', 'image/loss', 'image/accuracy'} < set(metrics)


def test_the_backbone_is_the_video_objectives():
    variables = combine(VIDEO, IMAGE, WEIGHT).init(RNG, EXAMPLES)
    video_key, image_key = jax.random.split(RNG)
    video = VIDEO.init(video_key, EXAMPLES['video'])['params']
    image = IMAGE.init(image_key, EXAMPLES['image'])['params']
    jax.tree.map(
        np.testing.assert_array_equal,
        variables['params'],
        {
            'backbone': video['backbone'],
            'video': {'head': video['head']},
            'image': {'head': image['head']},
        },
    )


def test_different_backbones_are_refused():
    objective = combine(VIDEO, _objective('image', size=3), WEIGHT)
    with pytest.raises(ValueError, match=r'different backbones.*\(2,\).*\(3,\)'):
        objective.init(RNG, EXAMPLES)


@pytest.mark.parametrize('weight', [-0.1, float('nan'), float('inf')])
def test_bad_weights(weight):
    with pytest.raises(ValueError, match=f'weight is {weight}'):
        combine(VIDEO, IMAGE, weight)
