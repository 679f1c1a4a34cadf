import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import color
from jaxprop.memory import ContextFrames
from jaxprop.objectives import copying, mast
from jaxprop.rules.predicted import PredictedWindow
from jaxprop.rules.rule import Execution
from tests.objectives.support import (
    RNG,
    check_devices,
    check_gradient,
    clips,
    compiled,
    descend,
    make_step,
    released,
)
from tests.objectives.test_corrflow import Backbone

SMALL = {'size': 16, 'reach': 2, 'temperature': 1.0}
EXAMPLES = clips(4, num_frames=3, size=(16, 20))


@pytest.fixture(scope='module')
def arrays():
    found = released('pretexts_video.npz', 'mast_')
    return {key: jnp.asarray(value) for key, value in found.items()}


@pytest.fixture(scope='module')
def tiny():
    objective = mast.objective(Backbone(), **SMALL)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    return make_step(objective), variables['params'], variables['state']


def test_loss_and_gradient_are_the_released_codes(arrays):
    channel = int(arrays['channel'])
    hidden = jnp.moveaxis(arrays['lab'], 0, 1)[..., channel : channel + 1]

    def loss(features):
        copied = mast.copy_channel(features, hidden[:, :-1], temperature=1.0)
        return mast.huber(20 * (copied - hidden[:, -1])).mean()

    value, gradient = compiled(jax.value_and_grad(loss))(jnp.moveaxis(arrays['features'], 0, 1))
    np.testing.assert_allclose(value, arrays['loss'], rtol=1e-5)
    expected = jnp.moveaxis(arrays['gradient'], 0, 1)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4 * scale)


def test_copies_from_one_and_two_references_are_the_released_codes(arrays):
    channel = int(arrays['channel'])
    copy = compiled(copying.copy_from_window, static_argnames='zero_outside')
    for features, values, expected in (
        (arrays['features'], arrays['lab'][:1, ..., channel : channel + 1], arrays['copy']),
        (arrays['two_features'], arrays['two_values'], arrays['two_copy']),
    ):
        features, values = (jnp.moveaxis(x, 0, 1) for x in (features, values))
        copied = copy(features[:, -1], features[:, :-1], values[:, :, ::4, ::4], zero_outside=True)
        np.testing.assert_allclose(copied, expected, atol=1e-5)


@pytest.mark.parametrize('name, latest, time', [('near', 24, 25), ('far', 64, 65)])
def test_labels_are_the_released_codes_in_float64(name, latest, time, arrays):
    rule = PredictedWindow(radius=13, outside='zero', label_offset='latest')

    @compiled
    def label(features, classes):
        context = ContextFrames(
            features=features[:-1],
            labels=jax.nn.one_hot(classes, 7),
            valid=jnp.ones(5, bool),
            numbers=jnp.asarray([0, 5, 20, 22, latest]),
            time=jnp.asarray(time),
            entries=(),
            keep_first=True,
            num_given=0,
            num_kept=2,
        )
        return rule.label(context, features[-1], Execution())

    with jax.enable_x64(True):
        features = jnp.asarray(arrays['eval_features'], jnp.float64)
        found = label(features, arrays['eval_ids'][:, ::4, ::4])
    # Stored in float32.
    np.testing.assert_allclose(found, arrays[f'eval_{name}'], atol=5e-8)


def test_equal_features_give_the_mean_or_a_share_of_it():
    features = jnp.zeros((1, 2, 2, 2, 1))
    values = jnp.asarray(np.kron([[0.1, 0.2], [0.3, 0.4]], np.ones((4, 4))), jnp.float32)
    copy = compiled(mast.copy_channel, static_argnames='zero_outside')
    for zero_outside, expected in ((False, 0.25), (True, 1 / 169)):
        copied = copy(features, values[None, None, :, :, None], zero_outside=zero_outside)
        np.testing.assert_allclose(copied, np.full((1, 8, 8, 1), expected), rtol=1e-5)


def test_huber():
    errors = jnp.asarray([-0.1, -0.02, 0, 0.02, 0.1])
    np.testing.assert_allclose(mast.huber(20 * errors), [1.5, 0.08, 0, 0.08, 1.5], rtol=1e-5)


def test_the_network_sees_lab_without_a_channel(monkeypatch):
    seen = []

    def record(networks, params, state, images):
        seen.append(np.asarray(images))
        raise InterruptedError

    monkeypatch.setattr(mast, 'apply_networks', record)
    examples = {'frames': clips(2, num_frames=2, size=(16, 16))['frames']}
    objective = mast.objective(Backbone(), **SMALL)
    for key in range(6):
        with pytest.raises(InterruptedError):
            objective.loss({}, {}, examples, jax.random.key(key))
    hidden = [(~images.any(axis=(0, 1, 2))).tolist() for images in seen]
    assert set(map(tuple, hidden)) == {(False, True, False), (False, False, True)}
    lab = np.asarray(color.network_input(examples['frames'][:, 0], 'lab'))
    for images, mask in zip(seen, hidden):
        np.testing.assert_allclose(images, 1.5 * np.where(mask, 0, lab), atol=1e-4)


def test_metrics(tiny):
    step, params, state = tiny
    (loss, (_, metrics)), _ = step(params, state, EXAMPLES, RNG)
    assert set(metrics) == {'loss', 'error'}
    assert loss == metrics['loss'] and metrics['error'] > 1
    # Without colours there is nothing to copy wrongly.
    gray = {'frames': np.repeat(EXAMPLES['frames'][..., :1], 3, axis=-1)}
    assert step(params, state, gray, RNG)[0][1][1]['error'] < 0.02


def test_gradient(tiny):
    check_gradient(*tiny, EXAMPLES)


def test_it_learns(tiny):
    losses = descend(*tiny, EXAMPLES, num=40, rate=0.1)
    assert losses[-1] < 0.8 * losses[0], losses


def test_devices_change_nothing(tiny):
    objective = mast.objective(Backbone(norm_axis_name='device'), **SMALL, axis_name='device')
    check_devices(tiny, objective, EXAMPLES)


def test_bad_settings_and_clips():
    for settings, message in (({'scale': 0.0}, 'scale is 0.0'), ({'size': 2}, 'size is 2')):
        with pytest.raises(ValueError, match=message):
            mast.objective(Backbone(), **(SMALL | settings))
    with pytest.raises(ValueError, match='T at least 2: references'):
        frames = np.zeros((1, 1, 16, 16, 3), np.uint8)
        mast.objective(Backbone(), **SMALL).loss({}, {}, {'frames': frames}, RNG)
