import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.models import heads
from jaxprop.models.resnet import ResNet
from jaxprop.objectives import objective
from tests.objectives.support import RNG, TinyBackbone, assert_trees_close, batch, compiled


def test_example_keys_do_not_depend_on_the_number_of_devices():
    alone = objective.example_keys(RNG, 6)
    spread = jax.vmap(lambda _: objective.example_keys(RNG, 2, 'device'), axis_name='device')(
        jnp.zeros(3)
    )
    np.testing.assert_array_equal(
        jax.random.key_data(spread.reshape(6)), jax.random.key_data(alone)
    )
    data = jax.random.key_data(alone)
    assert len(np.unique(data, axis=0)) == 6
    np.testing.assert_array_equal(data[4], jax.random.key_data(jax.random.fold_in(RNG, 4)))


def test_cross_entropy_is_numpys():
    random = np.random.default_rng(0)
    logits = 20 * random.normal(size=(9, 5)).astype(np.float32)
    labels = random.integers(0, 5, 9)
    loss, accuracy = objective.cross_entropy(logits, labels)
    exponentials = np.exp(logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(probabilities[range(9), labels]).mean(), rtol=1e-5)
    np.testing.assert_allclose(accuracy, np.mean(logits.argmax(axis=1) == labels))
    # Nothing overflows.
    assert objective.cross_entropy(1e4 * logits, labels)[0] < 1e6


def test_network_input_is_what_evaluation_uses():
    images = batch()['image']
    unit = objective.unit_images({'image': images})
    expected = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(objective.network_input(unit), expected, atol=1e-5)
    lightness = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., :1] for image in images])
    gray = np.asarray(objective.network_input(unit, gray=True))
    gray = gray * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    np.testing.assert_allclose(256 * gray, lightness.repeat(3, axis=-1), atol=1.001)


def test_networks_follow_each_other():
    networks = {'backbone': TinyBackbone(), 'head': heads.LinearHead(2)}
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = compiled(lambda: objective.init_networks(networks, RNG, images))()
    params, before = variables['params'], variables['state']
    assert set(params) == {'backbone', 'head'}
    assert set(before) == {'backbone'}
    outputs, after = objective.apply_networks(networks, params, before, images)
    features, updates = TinyBackbone().apply(
        {'params': params['backbone'], **before['backbone']},
        images,
        train=True,
        mutable=['batch_stats'],
    )
    dense = params['head']['dense']
    expected = features.mean(axis=(1, 2)) @ dense['kernel'] + dense['bias']
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert_trees_close(after, {'backbone': updates}, rtol=1e-6)


def test_statistics_that_do_not_learn_stay():
    networks = {'backbone': ResNet(output='res2', frozen_until='res2')}
    images = jnp.ones((1, 16, 16, 3))
    shapes = jax.eval_shape(lambda: objective.init_networks(networks, RNG, images))
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
    before = variables['state']
    _, after = objective.apply_networks(networks, variables['params'], before, images)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    changed = jax.tree.map(lambda old, new: bool((old != new).any()), before, after)['backbone'][
        'batch_stats'
    ]
    assert not any(jax.tree.leaves([changed['stem_norm'], changed['res1_0'], changed['res1_1']]))
    assert all(jax.tree.leaves([changed['res2_0'], changed['res2_1']]))


@pytest.mark.parametrize(
    'images',
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 1), np.uint8),
    ],
)
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match="batch\\['image'\\] is"):
        objective.unit_images({'image': images})
