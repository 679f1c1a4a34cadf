import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.checkpoints.convnets import from_torchvision
from jaxprop.models import ResNet, estimate_batch_statistics
from jaxprop.models.resnet import BasicBlock, BottleneckBlock


@functools.cache
def torchvision_state(depth):
    """Random weights and statistics of a whole ResNet, under torchvision's names and layout."""
    rng = np.random.default_rng(0)
    state = {}

    def conv_and_norm(conv, norm, kernel, inputs, outputs):
        scale = np.sqrt(2 / (kernel * kernel * inputs))
        state[f'{conv}.weight'] = rng.normal(0, scale, (outputs, inputs, kernel, kernel))
        state[f'{norm}.weight'] = rng.uniform(0.5, 1.5, outputs)
        state[f'{norm}.bias'] = rng.normal(0, 0.2, outputs)
        state[f'{norm}.running_mean'] = rng.normal(0, 0.2, outputs)
        state[f'{norm}.running_var'] = rng.uniform(0.5, 2, outputs)
        state[f'{norm}.num_batches_tracked'] = np.array(7)

    conv_and_norm('conv1', 'bn1', 7, 3, 64)
    inputs = 64
    for stage, num_blocks in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(num_blocks):
            prefix = f'layer{stage + 1}.{block}'
            if depth == 50:
                outputs = 4 * width
                convs = [(1, inputs, width), (3, width, width), (1, width, outputs)]
            else:
                outputs = width
                convs = [(3, inputs, width), (3, width, width)]
            for index, (kernel, *sizes) in enumerate(convs, start=1):
                conv_and_norm(f'{prefix}.conv{index}', f'{prefix}.bn{index}', kernel, *sizes)
            if inputs != outputs or (block == 0 and stage > 0):
                names = f'{prefix}.downsample.0', f'{prefix}.downsample.1'
                conv_and_norm(*names, 1, inputs, outputs)
            inputs = outputs
    state['fc.weight'] = rng.normal(size=(10, inputs))
    state['fc.bias'] = rng.normal(size=10)
    return {name: value.astype(np.float32) for name, value in state.items()}


def slow_conv(x, weight, stride, padding):
    kernel = weight.shape[-1]
    x = np.pad(x, [(0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0)], mode=padding)
    height = (x.shape[1] - kernel) // stride + 1
    width = (x.shape[2] - kernel) // stride + 1
    result = np.zeros((len(x), height, width, len(weight)))
    for row in range(height):
        for column in range(width):
            patch = x[:, row * stride :, column * stride :][:, :kernel, :kernel]
            result[:, row, column] = np.einsum('bhwi,oihw->bo', patch, weight, optimize=True)
    return result


def slow_resnet(state, images, strides, stages, padding='constant', max_pool=True):
    """The forward pass in float64, position by position."""
    state = {name: value.astype(np.float64) for name, value in state.items()}

    def conv_norm(x, conv, norm, stride=1):
        x = slow_conv(x, state[f'{conv}.weight'], stride, padding)
        x = (x - state[f'{norm}.running_mean']) / np.sqrt(state[f'{norm}.running_var'] + 1e-5)
        return x * state[f'{norm}.weight'] + state[f'{norm}.bias']

    x = np.maximum(conv_norm(images.astype(np.float64), 'conv1', 'bn1', 2), 0)
    if max_pool:
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
        rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
        x = np.stack(
            [
                np.stack([padded[:, i : i + 3, j : j + 3].max((1, 2)) for j in columns], axis=1)
                for i in rows
            ],
            axis=1,
        )
    for stage in range(1, stages + 1):
        block = 0
        while f'layer{stage}.{block}.conv1.weight' in state:
            prefix = f'layer{stage}.{block}'
            stride = strides[stage - 1] if block == 0 else 1
            num_convs = 3 if f'{prefix}.conv3.weight' in state else 2
            strided = 2 if num_convs == 3 else 1
            y = x
            for index in range(1, num_convs + 1):
                step = stride if index == strided else 1
                y = conv_norm(y, f'{prefix}.conv{index}', f'{prefix}.bn{index}', step)
                y = y if index == num_convs else np.maximum(y, 0)
            if f'{prefix}.downsample.0.weight' in state:
                x = conv_norm(x, f'{prefix}.downsample.0', f'{prefix}.downsample.1', stride)
            x = np.maximum(x + y, 0)
            block += 1
    return x


def random_images(shape):
    return np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)


@pytest.fixture(scope='module')
def untrained():
    """Variables of ResNet(output='res2')."""
    model = ResNet(output='res2')
    key = jax.random.key(0, impl='rbg')  # Compiles faster.
    return jax.jit(model.init)(key, jnp.zeros((1, 32, 32, 3)))


@pytest.mark.parametrize(
    'depth, strides, output, padding, max_pool',
    [
        (18, (1, 2, 2, 2), 'res4', 'zero', True),
        (18, (1, 2, 1, 1), 'res3', 'reflect', True),
        (18, (1, 2, 1, 1), 'res2', 'zero', False),
        (50, (1, 2, 1, 1), 'res2', 'zero', True),
    ],
)
def test_features_equal_a_slow_forward_pass(depth, strides, output, padding, max_pool):
    state = torchvision_state(depth)
    model = ResNet(depth, strides, output, max_pool=max_pool, padding=padding)
    variables = from_torchvision(state, model)
    images = random_images((2, 33, 40))
    features = jax.jit(model.apply)(variables, images)
    expected = slow_resnet(
        state,
        images,
        strides,
        int(output[-1]),
        {'zero': 'constant', 'reflect': 'reflect'}[padding],
        max_pool,
    )
    assert features.shape == (2, *model.grid_size(33, 40), model.channels)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.std())


@pytest.mark.parametrize(
    'attributes, size, stride, grid, channels',
    [
        ({}, (480, 854), 8, (60, 107), 256),
        ({'depth': 50}, (480, 854), 8, (60, 107), 1024),
        ({'output': 'res4'}, (480, 854), 8, (60, 107), 512),
        ({'max_pool': False}, (480, 854), 4, (120, 214), 256),
        ({'strides': (1, 2, 2, 2), 'output': 'res4'}, (225, 223), 32, (8, 7), 512),
        ({'depth': 34, 'output': 'res1'}, (7, 1), 4, (2, 1), 64),
        ({'output': 'res4', 'widths': [64, 128, 256, 200]}, (64, 64), 8, (8, 8), 200),
        ({'depth': 50, 'widths': (8, 12, 16, 20)}, (64, 64), 8, (8, 8), 16),
        ({'projection': 48, 'projection_kernel': 3}, (64, 65), 8, (8, 9), 48),
    ],
)
def test_stride_grid_and_channels(attributes, size, stride, grid, channels):
    model = ResNet(**attributes)
    images = jnp.zeros((1, *size, 3))
    features, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert features.shape == (1, *grid, channels)
    assert features.dtype == jnp.float32
    assert (model.stride, model.grid_size(*size), model.channels) == (stride, grid, channels)


@pytest.mark.parametrize(
    'attributes, message',
    [
        ({'depth': 101}, 'depth is 101'),
        ({'output': 'layer3'}, "output is 'layer3'"),
        ({'padding': 'same'}, "padding is 'same'"),
        ({'strides': (1, 2, 1)}, 'strides is (1, 2, 1)'),
        ({'strides': (1, 2, 0, 1)}, 'strides is (1, 2, 0, 1)'),
        ({'frozen_until': 'stem'}, "frozen_until is 'stem'"),
        ({'widths': (64, 128, 256)}, 'widths is (64, 128, 256)'),
        ({'widths': (64, 128, 256, 0)}, 'widths is (64, 128, 256, 0)'),
        ({'depth': 50, 'widths': (8, 8, 8, 10)}, 'multiples of 4'),
        ({'projection': 0}, 'projection is 0'),
        ({'projection_kernel': 2}, 'projection_kernel is 2'),
        ({'frozen_until': 'res4'}, "output is 'res3'"),
    ],
)
def test_refuses_unknown_settings_when_built(attributes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ResNet(**attributes)


@pytest.mark.parametrize(
    'images, message',
    [
        (np.zeros((32, 32, 3), np.float32), '(32, 32, 3)'),
        (np.zeros((1, 3, 32, 32), np.float32), '(1, 3, 32, 32)'),
        (np.zeros((1, 32, 32, 3), np.uint8), 'uint8'),
    ],
)
def test_refuses_other_images(images, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(ResNet(output='res1').init, jax.random.key(0), images)


def test_initial_parameters(untrained):
    assert set(untrained['params']) == {
        'stem_conv',
        'stem_norm',
        *('res1_0', 'res1_1', 'res2_0', 'res2_1'),
    }
    assert set(untrained['params']['res2_0']) == {
        *('conv1', 'norm1', 'conv2', 'norm2', 'shortcut_conv', 'shortcut_norm')
    }
    block = untrained['params']['res2_0']
    # He initialisation by the fan out: 3 * 3 * 128 outputs see each input.
    np.testing.assert_allclose(np.std(block['conv1']['kernel']), np.sqrt(2 / 1152), rtol=0.02)
    np.testing.assert_array_equal(block['norm2']['scale'], 1)


@pytest.mark.parametrize('relu', [False, True])
def test_projection_follows_the_output_stage(relu):
    attributes = {'output': 'res1', 'projection': 5, 'projection_kernel': 3}
    model = ResNet(**attributes, projection_bias=True, projection_relu=relu)
    images = random_images((1, 24, 17))
    variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), images)
    kernel, bias = (
        np.asarray(variables['params']['projection'][key]) for key in ('kernel', 'bias')
    )
    # PyTorch's initial values: uniform, where 3 * 3 * 64 inputs make an output.
    for values in (kernel, bias):
        assert 0.5 / 24 < np.abs(values).max() <= 1 / 24
    params = {key: value for key, value in variables['params'].items() if key != 'projection'}
    stage = jax.jit(ResNet(output='res1').apply)({**variables, 'params': params}, images)
    expected = slow_conv(stage, kernel.transpose(3, 2, 0, 1), 1, 'constant') + bias
    assert expected.min() < 0 < expected.max()
    np.testing.assert_allclose(
        jax.jit(model.apply)(variables, images),
        np.maximum(expected, 0) if relu else expected,
        rtol=1e-4,
        atol=1e-5,
    )
    # A bias only where it is asked for.
    model = ResNet(**attributes, projection_relu=relu)
    kernel = jax.eval_shape(model.init, jax.random.key(0), images)['params']['projection']
    assert set(kernel) == {'kernel'}


def test_blocks_can_start_as_their_shortcuts():
    key = jax.random.key(0, impl='rbg')
    x = np.tile(random_images((2, 5, 6)), 4)
    for block in (BasicBlock, BottleneckBlock):
        y, _ = jax.jit(block(12, zero_init_residual=True).init_with_output)(key, x)
        np.testing.assert_array_equal(y, np.maximum(x, 0))
    model = ResNet(output='res1', zero_init_residual=True)
    params = jax.jit(model.init)(key, random_images((1, 24, 17)))['params']
    for name in ('res1_0', 'res1_1'):
        assert not np.any(params[name]['norm2']['scale'])
        assert np.all(params[name]['norm1']['scale'] == 1)


def test_a_batch_equals_its_images_one_by_one():
    model = ResNet(output='res2')
    variables = from_torchvision(torchvision_state(18), model)
    images = random_images((3, 24, 17))
    apply = jax.jit(model.apply)
    singly = np.concatenate([apply(variables, images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(apply(variables, images), singly, rtol=1e-4, atol=1e-4)


def test_estimated_statistics_standardise_every_channel(untrained):
    model = ResNet(output='res2', norm_axis_name='device')
    images = 3 + 2 * random_images((4, 32, 32))
    estimated = jax.jit(estimate_batch_statistics, static_argnums=0)(model, untrained, images)
    _, state = jax.jit(
        lambda *arguments: model.apply(
            *arguments,
            capture_intermediates=lambda module, _: isinstance(module, nn.BatchNorm),
            mutable='intermediates',
        )
    )(estimated, images)
    norms = jax.tree.leaves(state['intermediates'])
    assert len(norms) == 10
    for norm in norms:
        np.testing.assert_allclose(np.mean(norm, axis=(0, 1, 2)), 0, atol=1e-3)
        np.testing.assert_allclose(np.var(norm, axis=(0, 1, 2)), 1, atol=1e-2)
    # Pure: nothing but the result's statistics is new.
    np.testing.assert_array_equal(untrained['batch_stats']['stem_norm']['var'], 1)
    jax.tree.map(np.testing.assert_array_equal, estimated['params'], untrained['params'])


def test_training_updates_running_statistics():
    model = ResNet(output='res1', norm_momentum=0.7)
    variables = from_torchvision(torchvision_state(18), model)
    images = random_images((2, 20, 20))
    apply = jax.jit(lambda *arguments: model.apply(*arguments, train=True, mutable='batch_stats'))
    _, updates = apply(variables, images)
    kernel = np.transpose(variables['params']['stem_conv']['kernel'], (3, 2, 0, 1))
    stem = slow_conv(images, kernel, 2, 'constant')
    for name, statistic in (('mean', stem.mean((0, 1, 2))), ('var', stem.var((0, 1, 2)))):
        running = np.asarray(variables['batch_stats']['stem_norm'][name])
        np.testing.assert_allclose(
            updates['batch_stats']['stem_norm'][name], 0.7 * running + 0.3 * statistic, rtol=1e-4
        )


def test_frozen_part_neither_learns_nor_updates():
    model = ResNet(output='res2', frozen_until='res2')
    variables = from_torchvision(torchvision_state(18), model)
    images = random_images((2, 24, 24))

    def loss(params, model):
        features, updates = model.apply(
            {**variables, 'params': params}, images, train=True, mutable='batch_stats'
        )
        return jnp.mean(features**2), updates['batch_stats']

    gradients, statistics = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(
        variables['params'], model
    )
    for part in variables['params']:
        frozen = part.startswith(('stem', 'res1'))
        for gradient in jax.tree.leaves(gradients.get(part, {})):
            assert np.any(gradient) != frozen, part
        if part in statistics:
            old, new = map(jax.tree.leaves, (variables['batch_stats'][part], statistics[part]))
            for before, after in zip(old, new, strict=True):
                assert np.array_equal(before, after) == frozen, part


def test_statistics_are_averaged_over_the_mapped_axis():
    images = random_images((4, 16, 16))
    variables = from_torchvision(torchvision_state(18), ResNet(output='res1'))

    def train(images, axis_name):
        model = ResNet(output='res1', norm_axis_name=axis_name)
        return model.apply(variables, images, train=True, mutable='batch_stats')

    expected, expected_updates = jax.jit(train, static_argnums=1)(images, None)
    mapped = jax.vmap(lambda shard: train(shard, 'device'), axis_name='device')
    features, updates = jax.jit(mapped)(images.reshape(2, 2, 16, 16, 3))
    np.testing.assert_allclose(features.reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)
    for device in range(2):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[device], b, rtol=1e-3, atol=1e-4),
            updates,
            expected_updates,
        )


def test_half_precision_computation_keeps_float32_variables():
    model = ResNet(output='res1', dtype='bfloat16')
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    variables = from_torchvision(torchvision_state(18), model)
    images = random_images((1, 32, 32))
    half = jax.jit(model.apply)(variables, images)
    full = jax.jit(model.clone(dtype=None).apply)(variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), full, atol=0.05 * np.std(full), rtol=0.05)
    assert not np.array_equal(half, full)
