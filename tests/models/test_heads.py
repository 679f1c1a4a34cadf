import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.models import heads
from jaxprop.models.resnet import ResNet

FEATURES = np.random.default_rng(0).normal(size=(2, 6, 8, 4)).astype(np.float32)


def _init(head, features=FEATURES):
    return jax.jit(lambda: head.init(jax.random.key(0), features))()


def test_linear_head_is_a_dense_layer_of_the_mean():
    head = heads.LinearHead(3)
    variables = _init(head)
    assert set(variables) == {'params'}
    dense = variables['params']['dense']
    bias = np.array([1.0, -2.0, 3.0])
    dense = {**dense, 'bias': jnp.asarray(bias)}
    actual = head.apply({'params': {'dense': dense}}, FEATURES, train=True)
    expected = FEATURES.mean(axis=(1, 2)) @ dense['kernel'] + bias
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_residual_head_is_resnets_last_stage_between_pools():
    # The same parameters as in a ResNet18's res4.
    backbone = ResNet(output='res4', strides=(1, 1, 1, 2))
    variables = _init(heads.make_head('residual', 5, backbone), FEATURES.repeat(64, axis=-1))
    stage = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    for index in range(2):
        assert jax.tree.map(jnp.shape, variables['params'][f'block_{index}']) == jax.tree.map(
            lambda x: x.shape, stage['params'][f'res4_{index}']
        )
    assert set(variables['batch_stats']) == {'block_0', 'block_1'}

    # With convolutions of zero, what is left is the shortcut: the norm of a 1x1 convolution of
    # every other pooled cell.
    head = heads.ResidualHead(5)
    variables = _init(head)
    params = variables['params']
    for block in ('block_0', 'block_1'):
        params[block]['conv2']['kernel'] *= 0
    actual = head.apply(variables, FEATURES)
    padded = np.pad(FEATURES, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    pooled = np.stack([
        np.stack([padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2))
                  for j in range(0, 4, 2)], axis=1)
        for i in range(0, 3, 2)
    ], axis=1)
    shortcut = pooled @ np.asarray(params['block_0']['shortcut_conv']['kernel'])[0, 0]
    rectified = np.maximum(shortcut / np.sqrt(1 + 1e-5), 0)
    dense = params['linear']['dense']
    expected = rectified.mean(axis=(1, 2)) @ dense['kernel'] + dense['bias']
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_heads_take_over_the_backbones_settings_and_give_float32():
    backbone = ResNet(
        padding='reflect', norm_momentum=0.5, norm_axis_name='device', dtype=jnp.bfloat16
    )
    head = heads.make_head('residual', 7, backbone)
    assert (head.padding, head.norm_momentum, head.norm_axis_name, head.dtype) == (
        'reflect', 0.5, 'device', jnp.bfloat16
    )
    features = jnp.zeros((1, 8, 8, 4), jnp.bfloat16)
    for kind in heads.KINDS:
        head = heads.make_head(kind, 7, backbone)
        outputs, _ = jax.eval_shape(head.init_with_output, jax.random.key(0), features)
        assert (outputs.shape, outputs.dtype) == ((1, 7), jnp.float32)


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="head is 'mlp'"):
        heads.make_head('mlp', 3, ResNet())
