import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.models.heads import PredictionHead, ProjectionHead
from jaxprop.objectives import vfs
from jaxprop.objectives.objective import apply_networks
from tests.objectives.support import (
    RNG,
    TinyBackbone,
    check_devices,
    clips,
    compiled,
    descend,
    make_step,
    released,
)

SMALL = {'size': 8, 'hidden': 6, 'dimensions': 6, 'bottleneck': 3}
EXAMPLES = clips(num_frames=4)


@pytest.fixture(scope='module')
def tiny():
    objective = vfs.objective(TinyBackbone(), **SMALL)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    return make_step(objective), variables['params'], variables['state']


@pytest.fixture(scope='module')
def arrays():
    return released('pretexts_crw_vfs.npz', 'vfs_')


def released_variables(arrays, kind='param_'):
    """Converts both heads' parameters and statistics from PyTorch's names and order of axes."""
    params, state = {}, {}
    for name, fcs, dense, norms in (
        ('projector', 'projection_fcs', (0, 3, 6), (1, 4, 7)),
        ('predictor', 'predictor_fcs', (0, 3), (1,)),
    ):

        def get(index, key, kind='param_', fcs=fcs):
            return jnp.asarray(arrays[f'{kind}{fcs}.{index}.{key}'], jnp.float32)

        params[name] = {
            f'dense_{i}': {'kernel': get(index, 'weight').T, 'bias': get(index, 'bias')}
            for i, index in enumerate(dense)
        } | {
            f'norm_{i}': {'scale': get(index, 'weight'), 'bias': get(index, 'bias')}
            for i, index in enumerate(norms)
        }
        state[name] = {
            'batch_stats': {
                f'norm_{i}': {key: get(index, f'running_{key}', kind) for key in ('mean', 'var')}
                for i, index in enumerate(norms)
            }
        }
    return params, state


def test_loss_and_gradients_are_the_released_codes(arrays):
    params, state = released_variables(arrays)
    projector, predictor = ProjectionHead(10, 10), PredictionHead(4, 10)

    def loss(features):
        after, projections, predictions = state, [], []
        for maps in features:
            flat = maps.reshape(-1, *maps.shape[2:])
            z, after = apply_networks({'projector': projector}, params, after, flat)
            p, after = apply_networks({'predictor': predictor}, params, after, z)
            projections.append(z.reshape(3, 4, 10))
            predictions.append(p.reshape(3, 4, 10))
        losses = vfs.pair_losses(predictions, projections)
        return losses.mean(), (losses, projections, predictions, after)

    features = [jnp.asarray(arrays[f'features{half}'], jnp.float32) for half in (1, 2)]
    (value, found), gradients = compiled(jax.value_and_grad(loss, has_aux=True))(features)
    losses, projections, predictions, after = found
    np.testing.assert_allclose(value, arrays['loss'], rtol=1e-5)
    # Frame t of the first half with frame t - i of the second.
    for i, expected in enumerate(arrays['shift_losses']):
        shifted = [losses[:, t, (t - i) % 4].mean() for t in range(4)]
        np.testing.assert_allclose(np.mean(shifted), expected, rtol=1e-5)
    for half in (1, 2):
        for kind, results in (('z', projections), ('p', predictions)):
            np.testing.assert_allclose(results[half - 1], arrays[f'{kind}{half}'], atol=2e-5)
        expected = arrays[f'features{half}_gradient']
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradients[half - 1], expected, rtol=1e-4, atol=1e-4 * scale)
    # Torch's running variances are of n - 1: the means are compared.
    _, expected = released_variables(arrays, 'after_')
    for name, statistics in expected.items():
        for norm, values in statistics['batch_stats'].items():
            found = after[name]['batch_stats'][norm]['mean']
            np.testing.assert_allclose(found, values['mean'], atol=1e-6)


class Identity(nn.Module):
    """A backbone whose features are its images."""

    def __call__(self, images, train=False):
        return images


@pytest.mark.parametrize('all_pairs, name', [(True, 'loss'), (False, 'single_loss')])
def test_the_objectives_loss_is_the_released_codes(all_pairs, name, arrays, monkeypatch):
    halves = [arrays['features1'], arrays['features2']]
    features = jnp.asarray(np.concatenate(halves, axis=1), jnp.float32).reshape(-1, 3, 2, 12)
    monkeypatch.setattr(vfs, 'network_input', lambda images: features)
    settings = {'size': 4, 'hidden': 10, 'dimensions': 10, 'bottleneck': 4, 'all_pairs': all_pairs}
    objective = vfs.objective(Identity(), **settings)
    params, state = released_variables(arrays)
    examples = {'frames': np.zeros((3, 8, 4, 4, 3), np.uint8)}
    loss, (_, metrics) = compiled(objective.loss)({'backbone': {}} | params, state, examples, RNG)
    np.testing.assert_allclose(loss, arrays[name], rtol=1e-5)
    shifts = [metrics[f'shift_{i}'] for i in range(4)]
    np.testing.assert_allclose(shifts, arrays['shift_losses'], rtol=1e-5)


def test_no_gradient_flows_into_projections():
    random = np.random.default_rng(0)
    vectors = [jnp.asarray(random.normal(size=(2, 3, 5)), jnp.float32) for _ in range(4)]

    def loss(predictions, projections):
        return vfs.pair_losses(predictions, projections).mean()

    into_p, into_z = compiled(jax.grad(loss, (0, 1)))(vectors[:2], vectors[2:])
    assert all(np.abs(gradient).max() > 0 for gradient in into_p)
    assert not any(np.any(gradient) for gradient in into_z)


def test_all_pairs_or_those_of_one_place(tiny):
    step, params, state = tiny
    (loss, (_, metrics)), _ = step(params, state, EXAMPLES, RNG)
    assert set(metrics) == {'shift_0', 'shift_1', 'spread'}
    np.testing.assert_allclose(loss, (metrics['shift_0'] + metrics['shift_1']) / 2, rtol=1e-6)
    assert 0 < loss < 4
    # One shift alone, and frames in other colours.
    settings = SMALL | {'jitter': (0.4, 0.4, 0.4, 0.1), 'grayscale': 0.2, 'all_pairs': False}
    other = vfs.objective(TinyBackbone(), **settings)
    loss, (_, changed) = compiled(other.loss)(params, state, EXAMPLES, RNG)
    assert loss == changed['shift_0']
    assert abs(loss - metrics['shift_0']) > 1e-4


def test_spread_tells_a_collapse():
    random = np.random.default_rng(0)
    np.testing.assert_allclose(compiled(vfs.spread)(random.normal(size=(4, 500, 64))), 1, atol=0.02)
    np.testing.assert_allclose(compiled(vfs.spread)(np.ones((2, 5, 64), np.float32)), 0, atol=1e-3)


def test_it_learns(tiny):
    step, params, state = tiny
    losses = descend(step, params, state, EXAMPLES, num=25, rate=0.2)
    assert losses[-1] < 0.6 * losses[0], losses


def test_devices_change_nothing(tiny):
    objective = vfs.objective(TinyBackbone(norm_axis_name='device'), **SMALL, axis_name='device')
    check_devices(tiny, objective, EXAMPLES, atol=1e-4)


@pytest.mark.parametrize('num_frames, message', [(1, 'T at least 2'), (3, 'clips have 3 frames')])
def test_other_clips_are_refused(num_frames, message):
    examples = {'frames': np.zeros((1, num_frames, 8, 8, 3), np.uint8)}
    with pytest.raises(ValueError, match=message):
        vfs.objective(TinyBackbone(), **SMALL).loss({}, {}, examples, RNG)
