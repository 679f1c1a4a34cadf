import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.objectives.combine import combine
from jaxprop.objectives.objective import Objective

WEIGHT = 0.3
EXAMPLES = {
    'video': {'frames': np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)},
    'image': {'image': np.array([[3.0, -1.0]], np.float32)},
}
RNG = jax.random.key(3)


def _objective(name, size=2):
    """Has all that an objective may: randomness, a head, batch statistics, other state."""

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
