import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest

from jaxprop.checkpoints.convnets import load_released
from jaxprop.models import ResNet
from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.objectives import uvc
from tests.support import shared


class Backbone(nn.Module):
    """Stands in for a ResNet: has the attributes that the objective needs, and compiles quickly."""

    stride = 8

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(16, (8, 8), strides=8, padding='VALID')(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Conv(16, (1, 1))(x)
        return nn.BatchNorm(use_running_average=not train)(x)


# Of the program, not of the results: compiling takes nearly all of these tests' time.
QUICK = {'xla_backend_optimization_level': 0}


def color_variables():
    """Makes variables of a frozen autoencoder, quicker than its own initialisation."""
    generator = np.random.default_rng(0)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(ColorAutoencoder().init, jax.random.key(0), images)
    return jax.tree.map(
        lambda leaf: (
            generator.normal(0, np.sqrt(2 / max(1, np.prod(leaf.shape[:-1]))), leaf.shape).astype(
                np.float32
            )
            if len(leaf.shape) == 4
            else np.zeros(leaf.shape, np.float32)
        ),
        shapes,
    )


def clips(count=4, size=32):
    """Makes pairs of smooth frames in faint colours; the second is the first shifted by a cell."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(60, 200, (count, 4, 4, 1)) + generator.integers(
        -60, 60, (count, 4, 4, 3)
    )
    frames = jax.image.resize(coarse.astype(np.float32), (count, size, size, 3), 'linear')
    frames = np.asarray(frames).clip(0, 255).astype(np.uint8)
    return {'frames': jnp.asarray(np.stack([frames, np.roll(frames, 8, axis=2)], axis=1))}


def softmax(x, axis):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def decode(features):
    """A linear decoder: it takes three channels, and makes each cell twice as high and wide."""
    return np.repeat(np.repeat(features[..., :3], 2, axis=1), 2, axis=2)


def jax_decode(features):
    return jnp.repeat(jnp.repeat(features[..., :3], 2, axis=1), 2, axis=2)


def random_pair(seed=0, batch=2, height=4, width=6):
    generator = np.random.default_rng(seed)
    shapes = [(height, width, 5), (height, width, 4), (2 * height, 2 * width, 3)]
    return [
        [generator.normal(size=(batch, *shape)).astype(np.float32) for _ in range(2)]
        for shape in shapes
    ]


def slow_terms(features, colors, labs, temperature, window):
    """Computes the terms of one pair, cell by cell."""
    height, width, _ = features[0].shape
    cells = [(i, j) for i in range(height) for j in range(width)]
    A = np.array([[features[0][i] @ features[1][j] for j in cells] for i in cells])
    P = softmax(A.astype(np.float64) / temperature, axis=0)
    Q = softmax(A.astype(np.float64) / temperature, axis=1)

    def error(prediction, truth):
        difference = np.abs(decode(prediction[None])[0] - truth)
        return sum(w * difference[..., c].mean() for c, w in enumerate((1, 10, 10)))

    copied2, copied1 = np.zeros(colors[0].shape), np.zeros(colors[0].shape)
    there, back, in_second = ({} for _ in range(3))
    for n, j in enumerate(cells):
        copied2[j] = sum(P[m, n] * colors[0][i] for m, i in enumerate(cells))
        there[j] = sum(P[m, n] * (np.array(i) + 0.5) for m, i in enumerate(cells))
    for m, i in enumerate(cells):
        copied1[i] = sum(P[m, n] * colors[1][j] for n, j in enumerate(cells))
        in_second[i] = sum(Q[m, n] * (np.array(j) + 0.5) for n, j in enumerate(cells))
        back[i] = sum(Q[m, n] * there[j] for n, j in enumerate(cells))
    coordinates = np.mean([np.abs(back[i] - (np.array(i) + 0.5)) for i in cells])

    grid = {(i, j): (np.linspace(-1, 1, height)[i], np.linspace(-1, 1, width)[j]) for i, j in cells}
    concentration = 0
    for weights in (P.T, Q):
        expected = {
            q: sum(weights[n, m] * np.array(grid[k]) for m, k in enumerate(cells))
            for n, q in enumerate(cells)
        }
        squares = []
        for top in range(0, height - window + 1, window):
            for left in range(0, width - window + 1, window):
                inside = [expected[top + i, left + j] for i in range(window) for j in range(window)]
                squares.append((np.array(inside) - np.mean(inside, axis=0)) ** 2)
        concentration += np.mean(squares)
    return {
        'color': error(copied2, labs[1]),
        'cycle': error(copied1, labs[0]),
        'coordinates': coordinates,
        'concentration': concentration,
    }


@pytest.mark.parametrize('temperature, window', [(1.0, 2), (0.3, 3)])
def test_pair_terms_against_loops(temperature, window):
    features, colors, labs = random_pair()
    terms = uvc.pair_terms(
        features, colors, labs, jax_decode, temperature=temperature, window=window
    )
    for b in range(2):
        expected = slow_terms(
            *([x[b] for x in pair] for pair in (features, colors, labs)), temperature, window
        )
        assert {name: value.shape for name, value in terms.items()} == dict.fromkeys(expected, (2,))
        for name, value in expected.items():
            np.testing.assert_allclose(terms[name][b], value, rtol=1e-4, err_msg=name)


def test_pair_terms_gradients():
    features, colors, labs = random_pair(batch=1)
    features = [0.5 * x for x in features]

    @jax.jit
    def terms(*features):
        result = uvc.pair_terms(features, colors, labs, jax_decode, window=2)
        return jnp.concatenate(list(result.values()))

    jax.test_util.check_grads(
        terms, features, order=1, modes=['rev'], eps=1e-3, atol=2e-2, rtol=2e-2
    )


def one_hot_features(height, width):
    """Makes features each of which is like itself alone."""
    return 10 * np.eye(height * width, dtype=np.float32).reshape(1, height, width, -1)


def test_a_frame_against_itself_costs_nothing():
    features = one_hot_features(4, 6)
    _, colors, _ = random_pair(batch=1)
    lab = decode(colors[0])
    terms = uvc.pair_terms(
        (features, features), (colors[0], colors[0]), (lab, lab), jax_decode, window=2
    )
    for name in ('color', 'cycle', 'coordinates'):
        assert abs(terms[name][0]) < 1e-6
    # Each cell stays in its place: in a window of two, all are half a cell from its mean.
    steps = np.array([2 / 3, 2 / 5])
    np.testing.assert_allclose(terms['concentration'], [2 * np.mean((steps / 2) ** 2)], rtol=1e-5)


def test_one_hot_affinities_copy_exactly():
    features = one_hot_features(4, 6)
    _, colors, _ = random_pair(batch=1)
    order = np.random.default_rng(1).permutation(24)

    def permuted(x):
        return x.reshape(1, 24, -1)[:, order].reshape(x.shape)

    copied = []
    uvc.pair_terms(
        (features, permuted(features)),
        (colors[0], permuted(colors[0])),
        [np.zeros((1, 8, 12, 3))] * 2,
        lambda x: copied.append(x) or jax_decode(x),
        window=2,
    )
    np.testing.assert_array_equal(copied[0], permuted(colors[0]))
    np.testing.assert_array_equal(copied[1], colors[0])


def test_concentration_counts_whole_windows_only():
    coordinates = np.zeros((2, 5, 4, 2), np.float32)
    coordinates[1, 4] = 7  # In no whole window.
    np.testing.assert_array_equal(uvc.concentration(jnp.asarray(coordinates), 4), [0, 0])
    coordinates[1, 0, 0, 0] = 2  # One of 16 cells, a whole unit away from the others.
    result = uvc.concentration(jnp.asarray(coordinates), 4)
    np.testing.assert_allclose(result, [0, (1 / 16 - 1 / 16**2) / 2], rtol=1e-5)
    with pytest.raises(ValueError, match='5 x 4'):
        uvc.concentration(jnp.asarray(coordinates), 6)


def test_a_shifted_frame_gives_a_shifted_box():
    frame = one_hot_features(9, 11)
    for top, left in ((0, 0), (2, 3), (5, 6)):
        patch = frame[:, top : top + 4, left : left + 5]
        np.testing.assert_allclose(
            uvc.locate(patch, frame, box='size'), [[top, left, top + 4, left + 5]], atol=1e-3
        )
    # Cells 1/2 and 3/2 from the mean deviate by 1 from it; half the height is 2 of that.
    box = uvc.locate(frame[:, 2:6, 3:7], frame, box='spread')
    np.testing.assert_allclose(box, [[2, 3, 6, 7]], atol=1e-3)
    box = uvc.locate(frame, frame, box='size')
    np.testing.assert_allclose(box, [[0, 0, 9, 11]], atol=1e-3)
    with pytest.raises(ValueError, match="'other'"):
        uvc.locate(frame, frame, box='other')


def test_a_pair_shares_rotation_scale_and_flip(monkeypatch):
    calls = []

    def record(keys, frames, size, *, place_keys, **settings):
        calls.append((jax.random.key_data(keys), jax.random.key_data(place_keys), settings))
        if len(calls) == 2:
            raise InterruptedError
        return frames

    monkeypatch.setattr(uvc, 'random_affine_crop', record)
    objective = uvc.objective(Backbone(), color_variables())
    with pytest.raises(InterruptedError):
        objective.loss({}, {}, clips(), jax.random.key(1))
    (keys, places, settings), (other_keys, other_places, other_settings) = calls
    assert settings == other_settings
    assert settings == {'max_rotation': 10, 'max_scale': 1.2, 'min_scale': 1 / 1.2, 'flip': True}
    np.testing.assert_array_equal(keys, other_keys)
    assert len(np.unique(np.concatenate([keys, places, other_places]), axis=0)) == 12


@pytest.mark.slow
def test_warm_up_overfits_four_clips():
    released = load_released(
        shared('weights', 'uvc_colour_encoder.pth'), shared('weights', 'uvc_colour_decoder.pth')
    )
    objective = uvc.objective(
        Backbone(),
        released,
        patch_size=32,
        concentration_window=2,
        concentration_weight=0.1,
        max_rotation=0.0,
        max_scale=1.0,
        temperature=10.0,
        outlier_threshold=np.inf,
    )
    batch = clips()
    variables = jax.jit(objective.init, compiler_options=QUICK)(jax.random.key(0), batch)
    params, state = variables['params'], variables['state']
    optimizer = optax.adam(3e-2)
    optimizer_state = optimizer.init(params)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(params, state, optimizer_state):
        # The same crops in every step.
        gradient = jax.value_and_grad(objective.loss, has_aux=True)
        (loss, (state, metrics)), gradient = gradient(params, state, batch, jax.random.key(1))
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return optax.apply_updates(params, updates), state, optimizer_state, loss, metrics

    history = []
    for _ in range(60):
        params, state, optimizer_state, loss, metrics = step(params, state, optimizer_state)
        history.append(metrics)
    # From six initial weights the ratios were 0.52 to 0.71; the autoencoder's own error is 0.3 of
    # 'color' at first.
    for name in ('color', 'cycle', 'loss'):
        assert history[-1][name] < 0.8 * history[0][name], name
    assert loss == history[-1]['loss']
    assert state['step'] == 60
    jax.tree.map(np.testing.assert_array_equal, state['color_autoencoder'], released)


def test_joint_terms_start_when_they_should():
    objective = uvc.objective(
        Backbone(),
        color_variables(),
        stage='joint',
        patch_size=32,
        frame_size=64,
        box='spread',
        coordinate_weight=0.1,
        concentration_window=2,
        concentration_start=1,
        outlier_threshold=-1.0,
        outlier_start=2,
    )
    batch = clips(count=2, size=48)
    variables = jax.jit(objective.init, compiler_options=QUICK)(jax.random.key(0), batch)
    params, state = variables['params'], variables['state']
    loss_and_gradient = jax.jit(
        jax.value_and_grad(objective.loss, has_aux=True), compiler_options=QUICK
    )
    history = []
    for _ in range(3):
        (loss, (state, metrics)), gradient = loss_and_gradient(
            params, state, batch, jax.random.key(1)
        )
        history.append(metrics)
        terms = ('color', 'cycle', 'coordinates', 'concentration')
        assert set(metrics) == {*terms, 'loss', 'outliers'}
        assert loss == metrics['loss']
        np.testing.assert_allclose(loss, sum(metrics[name] for name in terms), rtol=1e-5)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert [metrics['outliers'] for metrics in history] == [0, 0, 1]
    assert [metrics['concentration'] > 0 for metrics in history] == [False, True, True]
    assert [metrics['color'] > 0 for metrics in history] == [True, True, False]
    assert [metrics['cycle'] > 0 for metrics in history] == [True, True, False]
    assert all(metrics['coordinates'] > 0 for metrics in history)
    assert state['step'] == 3
    # The last gradient is of two terms of geometry alone. It reaches the whole network, but for
    # biases that BatchNorm takes out again.
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.any(leaf != 0), path


def test_bad_settings():
    for settings, message in (
        ({'stage': 'both'}, "stage is 'both'"),
        ({'box': 'other'}, "box is 'other'"),
        ({'patch_size': 60}, 'patch_size is 60'),
        ({'patch_size': 32}, 'window of 8 cells'),
        ({'stage': 'joint', 'frame_size': 128}, 'frame_size is 128'),
        ({'stage': 'joint', 'frame_size': 644}, 'frame_size is 644'),
    ):
        with pytest.raises(ValueError, match=message):
            uvc.objective(Backbone(), {}, **settings)
    with pytest.raises(ValueError, match='stride 16'):
        uvc.objective(ResNet(strides=(1, 2, 2, 1)), {})
    objective = uvc.objective(Backbone(), color_variables())
    for frames in (jnp.zeros((1, 2, 64, 64, 3)), jnp.zeros((1, 3, 64, 64, 3), jnp.uint8)):
        with pytest.raises(ValueError, match='uint8'):
            objective.loss({}, {'backbone': {}}, {'frames': frames}, jax.random.key(0))
