import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.objectives import copying, corrflow
from tests.objectives.support import (
    RNG,
    TinyBackbone,
    check_devices,
    check_gradient,
    clips,
    compiled,
    descend,
    make_step,
    released,
)


class Backbone(TinyBackbone):
    """Two strided convolutions."""

    stride = 4

    @nn.compact
    def __call__(self, images, train=False):
        x = TinyBackbone(norm_axis_name=self.norm_axis_name, name='tiny')(images, train)
        return nn.Conv(5, (3, 3), strides=2, name='last')(x)


SMALL = {'size': 16, 'reach': 2, 'truth_steps': 10, 'jitter_probability': 0.5}
EXAMPLES = clips(4, num_frames=3, size=(16, 20))


@pytest.fixture(scope='module')
def arrays():
    return {key: jnp.asarray(value) for key, value in released('pretexts_video.npz', 'cf_').items()}


@pytest.fixture(scope='module')
def tiny():
    objective = corrflow.objective(Backbone(), **SMALL)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    return make_step(objective), variables['params'], variables['state']


def test_losses_and_gradients_are_the_released_codes(arrays):
    classes = jnp.moveaxis(arrays['ids'], 0, 1)

    def loss(features, true_classes):
        terms = corrflow.clip_terms(
            features, classes, true_classes, num_classes=16, average_class_numbers=True
        )
        return terms['similarity'] + 0.1 * terms['long'], terms

    step = compiled(jax.value_and_grad(loss, has_aux=True))
    for tag, true_classes in (('truth', True), ('own', False)):
        (_, terms), gradient = step(jnp.moveaxis(arrays['features'], 0, 1), true_classes)
        for name in ('similarity', 'long'):
            np.testing.assert_allclose(terms[name], arrays[f'{tag}_loss_{name}'], rtol=1e-5)
        expected = jnp.moveaxis(arrays[f'{tag}_gradient'], 0, 1)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4 * scale)


def test_copies_and_classes_are_the_released_codes(arrays):
    cells = corrflow.prepare(arrays['ids'][0], 16, average_class_numbers=True)
    np.testing.assert_array_equal(jnp.argmax(cells, axis=-1), arrays['prepared_ids'])
    copied = compiled(copying.copy_from_window)(
        arrays['features'][1], arrays['features'][0][:, None], cells[:, None]
    )
    np.testing.assert_allclose(copied, arrays['copy_01'], atol=1e-5)
    again = jnp.mean(copying.central_pixels(copying.enlarge(arrays['copy_01'])), axis=3)
    np.testing.assert_allclose(again, arrays['soft_prepared'], atol=1e-5)
    np.testing.assert_allclose(arrays['centroids'], corrflow.PALETTE, atol=0.0051)
    for palette in (corrflow.PALETTE, arrays['centroids']):
        numbers = corrflow.nearest_color(arrays['ab'], palette)
        np.testing.assert_array_equal(numbers, arrays['ab_ids'])


def test_a_cell_on_an_edge_of_colours_has_both():
    classes = jnp.asarray([[[0, 0, 3, 3]] * 4])
    expected = np.zeros(16)
    expected[[0, 3]] = 0.5
    np.testing.assert_allclose(corrflow.prepare(classes, 16)[0, 0, 0], expected)
    averaged = corrflow.prepare(classes, 16, average_class_numbers=True)
    np.testing.assert_array_equal(averaged[0, 0, 0], np.eye(16)[1])


def test_a_copy_by_hand():
    references = jnp.asarray([[[[[np.log(2)], [0]], [[0], [0]]]]], jnp.float32)
    values = jnp.asarray([[[[[0.1], [0.2]], [[0.3], [0.4]]]]], jnp.float32)
    target = jnp.ones((1, 2, 2, 1))
    copy = compiled(copying.copy_from_window, static_argnames='zero_outside')
    np.testing.assert_allclose(
        copy(target, references, values), np.full((1, 2, 2, 1), 0.22), rtol=1e-5
    )
    zero = copy(target, references, values, zero_outside=True)
    np.testing.assert_allclose(zero, np.full((1, 2, 2, 1), 1.1 / 170), rtol=1e-5)
    # Enlarged and taken again, a map is filtered by (1, 14, 1) / 16 along both axes.
    maps = np.random.default_rng(0).normal(size=(1, 6, 5, 1)).astype(np.float32)
    again = jnp.mean(copying.central_pixels(copying.enlarge(maps)), axis=3)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
    rows = (padded[:, :-2] + 14 * padded[:, 1:-1] + padded[:, 2:]) / 16
    expected = (rows[:, :, :-2] + 14 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    np.testing.assert_allclose(again, expected, atol=1e-6)


def test_channels_are_dropped_as_often_as_they_should():
    keys = jax.random.split(RNG, 4000)
    factors = compiled(jax.vmap(lambda key: corrflow.drop_channels(key, jnp.ones(3))))(keys)
    left = (factors > 0).sum(axis=1)
    np.testing.assert_allclose(factors.sum(axis=1), 3, rtol=1e-6)
    for number, share in ((3, 0.3), (2, 0.35), (1, 0.35)):
        np.testing.assert_allclose(np.mean(left == number), share, atol=0.03)
    np.testing.assert_allclose(np.mean(factors[left == 1] > 0, axis=0), 1 / 3, atol=0.05)


def test_uniform_predictions_cost_the_logarithm():
    error = corrflow.class_error(jnp.full((2, 4, 4, 16), 1 / 16), jnp.zeros((2, 4, 4), jnp.int32))
    np.testing.assert_allclose(error, 2.772589, rtol=1e-6)


def test_terms_add_up_and_truth_becomes_rarer(tiny):
    step, params, state = tiny
    for number, share in ((0, 0.9), (5, 0.75), (10, 0.6), (25, 0.6)):
        (loss, (after, metrics)), _ = step(
            params, {**state, 'step': jnp.int32(number)}, EXAMPLES, RNG
        )
        np.testing.assert_allclose(metrics['truth_share'], share, rtol=1e-6)
        assert after['step'] == number + 1
    assert set(metrics) == {'similarity', 'long', 'loss', 'accuracy', 'truth_share'}
    assert loss == metrics['loss']
    np.testing.assert_allclose(loss, metrics['similarity'] + metrics['long'], rtol=1e-6)


def test_gradient(tiny):
    check_gradient(*tiny, EXAMPLES)


def test_it_learns(tiny):
    losses = descend(*tiny, EXAMPLES, num=40, rate=0.1)
    assert losses[-1] < losses[0] - 0.3, losses


def test_devices_change_nothing(tiny):
    objective = corrflow.objective(Backbone(norm_axis_name='device'), **SMALL, axis_name='device')
    check_devices(tiny, objective, EXAMPLES)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'size': 18}, 'size is 18'),
        ({'temperature': 0.0}, '2 and 0.0'),
        ({'truth_steps': 0}, 'truth_steps is 0'),
        ({'truth': (1.5, 0.5)}, 'truth is'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        corrflow.objective(Backbone(), **(SMALL | settings))


def test_other_networks_and_clips_are_refused():
    backbone = Backbone()
    with pytest.raises(ValueError, match='T at least 3: colours go through three'):
        frames = np.zeros((1, 2, 16, 16, 3), np.uint8)
        corrflow.objective(backbone, **SMALL).loss({}, {}, {'frames': frames}, RNG)
    object.__setattr__(backbone, 'stride', 8)
    with pytest.raises(ValueError, match='stride 8; needed: 4'):
        corrflow.objective(backbone, **SMALL)
