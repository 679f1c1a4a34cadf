import jax
import numpy as np
import pytest

from jaxprop import augment
from jaxprop.objectives import classification
from jaxprop.objectives import objective as objectives
from tests.objectives.support import (
    RNG,
    TinyBackbone,
    assert_trees_close,
    batch,
    check_gradient,
    compiled,
    descend,
    make_step,
    on_devices,
)

SIZE = 8
EXAMPLES = batch(8)


@pytest.fixture(scope='module')
def alone():
    objective = classification.objective(TinyBackbone(), 3, size=SIZE, min_area=0.5)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    return make_step(objective), variables['params'], variables['state']


def test_loss_is_numpys_on_the_augmented_images(alone):
    step, params, state = alone
    (loss, (new_state, metrics)), _ = step(params, state, EXAMPLES, RNG)

    views = np.asarray(
        compiled(augment.random_view, static_argnums=(2, 3))(
            objectives.example_keys(RNG, 8), EXAMPLES['image'].astype(np.float32) / 255, SIZE, 0.5
        )
    )
    pixels = (np.round(255 * views) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    features, updates = TinyBackbone().apply(
        {'params': params['backbone'], **state['backbone']},
        pixels.astype(np.float32),
        train=True,
        mutable=['batch_stats'],
    )
    dense = params['head']['dense']
    logits = np.mean(features, axis=(1, 2)) @ dense['kernel'] + dense['bias']
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[range(8), EXAMPLES['label']]).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(
        metrics['accuracy'], np.mean(logits.argmax(axis=1) == EXAMPLES['label'])
    )
    assert_trees_close(new_state, {'backbone': updates}, rtol=1e-4, atol=1e-5)


def test_gradient(alone):
    check_gradient(*alone, EXAMPLES)


def test_a_handful_of_images_is_learned(alone):
    losses = descend(*alone, EXAMPLES, num=60, rate=1.0)
    assert losses[-1] < 0.2 * losses[0]


def test_four_devices_are_as_one(alone):
    step, params, state = alone
    objective = classification.objective(
        TinyBackbone(norm_axis_name='device'), 3, size=SIZE, min_area=0.5, axis_name='device'
    )
    actual = on_devices(objective, 4)(params, state, EXAMPLES, RNG)
    expected = step(params, state, EXAMPLES, RNG)
    assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_gray_sees_no_colour():
    objective = classification.objective(TinyBackbone(), 3, size=SIZE, gray=True)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    loss = compiled(objective.loss)
    # Pure red and the gray of its lightness: 136 of 255 in 8-bit Lab.
    red = np.zeros_like(EXAMPLES['image'])
    red[..., 0] = 255
    values = [
        loss(variables['params'], variables['state'], {**EXAMPLES, 'image': images}, RNG)[0]
        for images in (red, np.full_like(red, 127), EXAMPLES['image'])
    ]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    assert abs(values[0] - values[2]) > 1e-3
