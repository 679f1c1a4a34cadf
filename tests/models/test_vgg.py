import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import models
from jaxprop.checkpoints.convnets import from_deepcluster
from jaxprop.checkpoints.native import load_pretrained, save_pretrained
from jaxprop.models.vgg import VGG16, sobel_edges
from tests.models.test_resnet import random_images, slow_conv

# The layers of `features` in PyTorch: channels of a convolution with its norm and ReLU, or a pool.
LAYERS = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512, 512, 'M')


@functools.cache
def torch_state(inputs=2):
    """Random weights and statistics, under PyTorch's names and in its layout."""
    rng = np.random.default_rng(0)
    state, position = {}, 0
    for outputs in LAYERS:
        if outputs == 'M':
            position += 1
            continue
        scale = np.sqrt(2 / (9 * inputs))
        state[f'{position}.weight'] = scale * rng.standard_normal((outputs, inputs, 3, 3), 'f4')
        state[f'{position}.bias'] = rng.normal(0, 0.1, outputs)
        state[f'{position + 1}.weight'] = rng.uniform(0.5, 1.5, outputs)
        state[f'{position + 1}.bias'] = rng.normal(0, 0.2, outputs)
        state[f'{position + 1}.running_mean'] = rng.normal(0, 0.2, outputs)
        state[f'{position + 1}.running_var'] = rng.uniform(0.5, 2, outputs)
        state[f'{position + 1}.num_batches_tracked'] = np.array(7)
        position, inputs = position + 3, outputs
    state = {f'features.{name}': value.astype('f4') for name, value in state.items()}
    return {**state, 'top_layer.weight': np.zeros((10, 4096), 'f4')}


def slow_vgg(state, images, last, pool4, sobel=True):
    """The forward pass in float64 up to the last convolution, position by position."""
    x = images.astype(np.float64)
    if sobel:
        gray = x.mean(-1, keepdims=True)
        kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], float)
        x = slow_conv(gray, np.stack([kernel, kernel.T])[:, None], 1, 'constant')
    position = convolutions = pools = 0
    for outputs in LAYERS:
        if convolutions == last:
            return x
        if outputs == 'M':
            pools, position = pools + 1, position + 1
            if pools < 4 or pool4:
                x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
                x = np.maximum(x[:, ::2], x[:, 1::2])
                x = np.maximum(x[:, :, ::2], x[:, :, 1::2])
            continue
        conv, norm = f'features.{position}', f'features.{position + 1}'
        x = slow_conv(x, state[f'{conv}.weight'].astype(float), 1, 'constant')
        x = x + state[f'{conv}.bias']
        x = (x - state[f'{norm}.running_mean']) / np.sqrt(state[f'{norm}.running_var'] + 1e-5)
        x = np.maximum(x * state[f'{norm}.weight'] + state[f'{norm}.bias'], 0)
        position, convolutions = position + 3, convolutions + 1
    return x


@pytest.mark.parametrize(
    'output, pool4, sobel',
    [('conv13', True, True), ('conv13', False, True), ('conv3', False, False)],
)
def test_features_equal_a_slow_forward_pass(output, pool4, sobel):
    state = torch_state(2 if sobel else 3)
    model = VGG16(output=output, pool4=pool4, sobel=sobel)
    images = random_images((1, 17, 18))
    features = jax.jit(model.apply)(from_deepcluster(state, model), images)
    expected = slow_vgg(state, images, int(output[4:]), pool4, sobel)
    assert features.shape == (1, *model.grid_size(17, 18), model.channels) == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.std())
    assert np.mean(expected > 0) > 0.1


@pytest.mark.parametrize(
    'attributes, size, stride, grid, channels',
    [
        ({}, (480, 854), 8, (60, 106), 512),
        ({'output': 'conv13'}, (320, 320), 8, (40, 40), 512),
        ({'output': 'conv13', 'pool4': True}, (320, 320), 16, (20, 20), 512),
        ({'output': 'conv10', 'pool4': True}, (320, 320), 8, (40, 40), 512),
        ({'output': 'conv4'}, (65, 64), 2, (32, 32), 128),
        ({'output': 'conv1', 'sobel': False}, (9, 8), 1, (9, 8), 64),
    ],
)
def test_stride_grid_and_channels(attributes, size, stride, grid, channels):
    model = VGG16(**attributes)
    images = jnp.zeros((1, *size, 3))
    features, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert features.shape == (1, *grid, channels)
    assert (model.stride, model.grid_size(*size), model.channels) == (stride, grid, channels)


def test_edges_of_a_step():
    images = np.zeros((1, 5, 6, 3), np.float32)
    images[:, :, 3:] = 2
    edges = sobel_edges(images)
    np.testing.assert_allclose(edges[0, 2, :, 0], [0, 0, -8, -8, 0, 8])  # Zeros beyond the border.
    np.testing.assert_allclose(edges[0, 1:4, :, 1], 0)
    np.testing.assert_allclose(
        sobel_edges(images.transpose(0, 2, 1, 3))[0, :, 2, 1], [0, 0, -8, -8, 0, 8]
    )


@pytest.mark.parametrize('form', ['features.module.{}', 'module.features.{}', 'net.features.{}'])
def test_names_that_states_come_with(form):
    model = VGG16(output='conv3')
    renamed = {
        form.format(name.removeprefix('features.')): value
        for name, value in torch_state().items()
        if name.startswith('features.')
    }
    expected = from_deepcluster(torch_state(), model)
    jax.tree.map(np.testing.assert_array_equal, from_deepcluster(renamed, model), expected)


def test_refuses_another_state():
    state = dict(torch_state())
    message = re.escape("'features.0.weight' has the shape (3, 3, 2, 64)")
    with pytest.raises(ValueError, match=message):
        from_deepcluster(state, VGG16(sobel=False, output='conv1'))
    del state['features.8.running_var']
    with pytest.raises(ValueError, match="lacks 'features.8.running_var'"):
        from_deepcluster(state, VGG16(output='conv3'))


@pytest.mark.parametrize(
    'images, message',
    [
        (np.zeros((32, 32, 3), np.float32), '(32, 32, 3)'),
        (np.zeros((1, 32, 32, 2), np.float32), '(1, 32, 32, 2)'),
        (np.zeros((1, 32, 32, 3), np.uint8), 'uint8'),
    ],
)
def test_refuses_other_images(images, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(VGG16(output='conv1').init, jax.random.key(0), images)


def test_refuses_an_unknown_output():
    with pytest.raises(ValueError, match="output is 'conv14'"):
        VGG16(output='conv14')


def test_saved_and_loaded_with_another_output(tmp_path, monkeypatch):
    monkeypatch.setattr(models, 'VGG16', VGG16, raising=False)
    model = VGG16(output='conv4')
    variables = from_deepcluster(torch_state(), model)
    save_pretrained(tmp_path / 'net', model, variables)
    loaded, again = load_pretrained(tmp_path / 'net', output='conv3')
    assert loaded == VGG16(output='conv3')
    expected = from_deepcluster(torch_state(), loaded)
    jax.tree.map(np.testing.assert_array_equal, again, expected)


def test_training_updates_running_statistics():
    model = VGG16(output='conv1', norm_momentum=0.7)
    variables = from_deepcluster(torch_state(), model)
    images = random_images((2, 10, 12))
    _, updates = model.apply(variables, images, train=True, mutable='batch_stats')
    seen = slow_conv(
        np.asarray(sobel_edges(images)), torch_state()['features.0.weight'], 1, 'constant'
    )
    seen = seen + torch_state()['features.0.bias']
    for name, statistic in (('mean', seen.mean((0, 1, 2))), ('var', seen.var((0, 1, 2)))):
        running = np.asarray(variables['batch_stats']['norm1'][name])
        np.testing.assert_allclose(
            updates['batch_stats']['norm1'][name], 0.7 * running + 0.3 * statistic, rtol=1e-3
        )
