import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.affinity import affinity, l2_normalize
from jaxprop.models.heads import LinearHead
from jaxprop.objectives import crw
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

FILE = 'pretexts_crw_vfs.npz'
SMALL = {'size': 16, 'patch_size': 8, 'patch_stride': 4, 'dimensions': 5, 'temperature': 0.1}
EXAMPLES = clips()


@pytest.fixture(scope='module')
def tiny():
    objective = crw.objective(TinyBackbone(), **SMALL)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    return make_step(objective), variables['params'], variables['state']


def nodes_of(maps, kernel, bias):
    params = {'dense': {'kernel': kernel, 'bias': bias}}
    vectors = LinearHead(len(bias)).apply({'params': params}, maps.reshape(-1, *maps.shape[-3:]))
    return l2_normalize(vectors).reshape(*maps.shape[:3], -1)


@pytest.mark.parametrize('case', ['small', 'long'])
def test_nodes_and_their_affinities_are_the_released_codes(case):
    expected = released(FILE, f'crw_{case}_')
    maps, kernel, bias = (
        jnp.asarray(expected[name], jnp.float32) for name in ('maps', 'head_kernel', 'head_bias')
    )
    nodes = nodes_of(maps, kernel, bias)
    np.testing.assert_allclose(nodes, expected['nodes'], rtol=1e-5, atol=1e-6)
    affinities = affinity(nodes[:, :-1], nodes[:, 1:])
    np.testing.assert_allclose(affinities, expected['affinity'], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('case', ['small', 'long'])
def test_walks_and_losses_are_the_released_codes(case):
    expected = released(FILE, f'crw_{case}_')
    maps = jnp.asarray(expected['maps'], jnp.float32)
    kernel, bias = (jnp.asarray(expected[f'head_{key}'], jnp.float32) for key in ('kernel', 'bias'))
    temperature = float(expected['temperature'])

    def loss(maps):
        losses, accuracies = crw.walk_terms(nodes_of(maps, kernel, bias), temperature)
        return losses.mean(), (losses, accuracies)

    (_, (losses, accuracies)), gradient = compiled(jax.value_and_grad(loss, has_aux=True))(maps)
    np.testing.assert_allclose(losses, expected['cycle_losses'], rtol=1e-5)
    np.testing.assert_allclose(accuracies, expected['cycle_accuracy'], rtol=1e-6)
    scale = np.abs(expected['maps_gradient']).max()
    np.testing.assert_allclose(gradient, expected['maps_gradient'], rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize('case', ['small', 'long'])
def test_each_step_of_the_walk_is_the_released_codes_in_float64(case):
    expected = released(FILE, f'crw_{case}_')
    temperature = float(expected['temperature'])
    with jax.enable_x64(True):
        affinities = jnp.asarray(expected['affinity'])
        forward = crw.transition(affinities, temperature)
        backward = crw.transition(affinities.mT, temperature)
        np.testing.assert_allclose(forward, expected['forward'], rtol=1e-12)
        np.testing.assert_allclose(backward, expected['backward'], rtol=1e-12)
        np.testing.assert_allclose(crw.walks(forward, backward), expected['walks'], rtol=1e-12)
        losses, _ = crw.walk_terms(jnp.asarray(expected['nodes']), temperature)
        np.testing.assert_allclose(losses, expected['cycle_losses'], rtol=1e-12)


def test_steps_back_miss_the_edges_forward_and_more():
    expected = released(FILE, 'crw_drop_')
    rate, temperature = float(expected['rate']), float(expected['temperature'])
    forward = expected['forward_uniform'] < rate
    backward = forward.swapaxes(-1, -2) | (expected['backward_uniform'] < rate)

    def loss(nodes):
        losses, _ = crw.walk_terms(nodes, temperature, forward, backward)
        return losses.mean(), losses

    nodes = jnp.asarray(expected['nodes'], jnp.float32)
    (_, losses), gradient = compiled(jax.value_and_grad(loss, has_aux=True))(nodes)
    np.testing.assert_allclose(losses, expected['cycle_losses'], rtol=1e-5)
    scale = np.abs(expected['nodes_gradient']).max()
    np.testing.assert_allclose(gradient, expected['nodes_gradient'], rtol=1e-4, atol=1e-4 * scale)
    # The objective's own masks are nested alike.
    forward, backward = crw.cut_edges(RNG, 3, 50, 0.1)
    assert not np.any(forward.mT & ~backward)
    np.testing.assert_allclose(forward.mean(), 0.1, atol=0.015)
    np.testing.assert_allclose(backward.mean(), 0.19, atol=0.02)


def test_a_permutation_costs_nothing_and_equal_nodes_the_logarithm():
    random = np.random.default_rng(0)
    permuted = np.stack([np.eye(7)[random.permutation(7)] for _ in range(8)]).reshape(2, 4, 7, 7)
    terms = compiled(crw.walk_terms)
    losses, accuracies = terms(jnp.asarray(permuted, jnp.float32), 0.01)
    np.testing.assert_allclose(losses, [0, 0], atol=1e-6)
    np.testing.assert_array_equal(accuracies, [1, 1])
    losses, accuracies = terms(jnp.ones((2, 4, 7, 7)), 0.05)
    np.testing.assert_allclose(losses, [np.log(7)] * 2, rtol=1e-6)
    np.testing.assert_allclose(accuracies, [1 / 7] * 2, rtol=1e-6)


def test_a_walk_of_two_nodes_by_hand():
    cosine, sine, temperature = np.cos(0.4), np.sin(0.4), 0.5
    nodes = np.array([np.eye(2), [[cosine, sine], [-sine, cosine]], np.eye(2)])

    def softmax(matrix):
        exponentials = np.exp(matrix / temperature)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    first, second = nodes[0] @ nodes[1].T, nodes[1] @ nodes[2].T
    walk = softmax(first) @ softmax(second) @ softmax(second.T) @ softmax(first.T)
    losses, _ = crw.walk_terms(jnp.asarray(nodes[None], jnp.float32), temperature)
    np.testing.assert_allclose(losses, [-np.log(np.diag(walk)).mean()], rtol=1e-5)


def test_gradients_stay_finite_where_edges_or_probabilities_vanish():
    # Both nodes of frame 1 are like node 1 of frame 0: node 0 is never returned to.
    nodes = jnp.asarray(np.eye(2)[None, [[0, 1], [1, 1], [1, 1], [1, 1]]], jnp.float32)
    losses, _ = crw.walk_terms(nodes, 1e-3)
    np.testing.assert_allclose(losses, [-np.log(1e-20) / 2] * 2, rtol=1e-3)
    for cut in (None, jnp.ones((1, 3, 2, 2), bool)):
        gradient = compiled(jax.grad(lambda x: crw.walk_terms(x, 1e-3, cut, cut)[0].sum()))(nodes)
        assert np.isfinite(gradient).all()


def test_windows_lie_row_by_row():
    rows, columns = np.meshgrid(np.arange(256), np.arange(256), indexing='ij')
    images = np.stack([rows, columns, rows], axis=-1)[None]
    result = np.asarray(crw.windows(images, 64, 32))
    assert result.shape == (1, 49, 64, 64, 3)
    # The ninth is the second of the second row.
    np.testing.assert_array_equal(result[0, 8], images[0, 32:96, 32:96])
    np.testing.assert_array_equal(result[0, 6], images[0, :64, 192:])


def test_gradient(tiny):
    check_gradient(*tiny, EXAMPLES)


def test_it_learns_to_return(tiny):
    step, params, state = tiny
    (loss, (_, metrics)), _ = step(params, state, EXAMPLES, RNG)
    assert set(metrics) == {'cycle_1', 'accuracy_1'}
    assert loss == metrics['cycle_1']
    losses = descend(step, params, state, EXAMPLES, num=30, rate=0.3)
    assert losses[-1] < 0.6 * losses[0], losses


def test_devices_change_nothing(tiny):
    objective = crw.objective(TinyBackbone(norm_axis_name='device'), **SMALL, axis_name='device')
    check_devices(tiny, objective, EXAMPLES)


@pytest.mark.parametrize(
    'settings, num_nodes',
    [({'nodes': 'cells', 'hidden_layers': 1}, 64), ({'head': 'residual', 'patch_size': 8}, 9)],
)
def test_other_nodes_and_heads(settings, num_nodes):
    objective = crw.objective(TinyBackbone(), **(SMALL | {'edge_dropout': 0.0} | settings))
    variables = jax.eval_shape(objective.init, RNG, EXAMPLES)
    head = variables['params']['head']
    assert set(head) == (
        {'linear', 'block_0', 'block_1'} if 'head' in settings else {'dense', 'hidden_0'}
    )
    if 'head' not in settings:
        variables = compiled(objective.init)(RNG, EXAMPLES)
        # A head without any weights makes all nodes equal.
        variables['params']['head']['dense']['kernel'] *= 0
        loss, _ = compiled(objective.loss)(*variables.values(), EXAMPLES, RNG)
        np.testing.assert_allclose(loss, np.log(num_nodes), rtol=1e-5)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'nodes': 'pixels'}, "nodes is 'pixels'"),
        ({'size': 64}, 'two windows'),
        ({'patch_stride': 0}, '64 and 0'),
        ({'temperature': 0.0}, 'needed: more than 0'),
        ({'edge_dropout': 1.0}, 'share below 1'),
        ({'head': 'conv'}, "head is 'conv'"),
        ({'head': 'residual', 'nodes': 'cells'}, "need 'linear'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        crw.objective(TinyBackbone(), **settings)


@pytest.mark.parametrize(
    'frames',
    [
        np.zeros((1, 2, 8, 8, 3), np.uint8),
        np.zeros((3, 8, 8, 3), np.uint8),
        np.zeros((1, 3, 8, 8, 3)),
    ],
)
def test_other_clips_are_refused(frames):
    with pytest.raises(
        ValueError, match=r"batch\['frames'\] is .* T at least 3: the shortest walk"
    ):
        crw.objective(TinyBackbone()).loss({}, {}, {'frames': frames}, RNG)
