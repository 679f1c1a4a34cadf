import jax
import numpy as np
import pytest

from jaxprop import augment
from jaxprop.models.resnet import ResNet
from jaxprop.objectives import objective as objectives
from jaxprop.objectives import rotation
from tests.objectives.support import (
    RNG,
    TinyBackbone,
    batch,
    check_gradient,
    compiled,
    descend,
    make_step,
)

SIZE = 8
EXAMPLES = {'image': batch()['image']}


@pytest.fixture(scope='module')
def tiny():
    objective = rotation.objective(TinyBackbone(), size=SIZE)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    return make_step(objective), variables['params'], variables['state']


def test_loss_is_numpys_over_all_four_orientations(tiny):
    step, params, state = tiny
    (loss, (_, metrics)), _ = step(params, state, EXAMPLES, RNG)

    views = np.asarray(
        compiled(augment.random_view, static_argnums=2)(
            objectives.example_keys(RNG, 4), EXAMPLES['image'].astype(np.float32) / 255, SIZE
        )
    )
    pixels = (np.round(255 * views) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    # Counterclockwise: the top row becomes the left column, upside down.
    turned = [pixels]
    for _ in range(3):
        turned.append(turned[-1].transpose(0, 2, 1, 3)[:, ::-1])
    features, _ = TinyBackbone().apply(
        {'params': params['backbone'], **state['backbone']},
        np.concatenate(turned).astype(np.float32),
        train=True,
        mutable=['batch_stats'],
    )
    dense = params['head']['dense']
    logits = np.mean(features, axis=(1, 2)) @ dense['kernel'] + dense['bias']
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([0] * 4 + [1] * 4 + [2] * 4 + [3] * 4)
    np.testing.assert_allclose(loss, -np.log(probabilities[range(16), labels]).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics['accuracy'], np.mean(logits.argmax(axis=1) == labels))


def test_gradient(tiny):
    check_gradient(*tiny, EXAMPLES)


def test_blank_images_can_only_be_guessed(tiny):
    step, params, state = tiny
    blank = {'image': np.full((4, 12, 14, 3), 90, np.uint8)}
    # Every turn of an image has the same logits: the best is log 4, and a bias alone reaches it.
    losses = descend(step, params, state, blank, num=40, rate=1.0)
    assert min(losses) > np.log(4) - 1e-4
    np.testing.assert_allclose(losses[-1], np.log(4), atol=1e-3)


def test_a_resnet_learns_a_handful_of_images():
    objective = rotation.objective(ResNet(output='res1'), size=16)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    losses = descend(
        make_step(objective), variables['params'], variables['state'], EXAMPLES, num=25, rate=0.1
    )
    assert losses[-1] < 0.3 * losses[0]
