import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.models import heads
from jaxprop.models.resnet import ResNet

FEATURES = np.random.default_rng(0).normal(size=(2, 6, 8, 4)).astype(np.float32)


def _shapes(network, features):
    return jax.eval_shape(network.init, jax.random.key(0), features)


def test_linear_head_is_a_dense_layer_of_the_mean():
    random = np.random.default_rng(1)
    dense = {'kernel': random.normal(size=(4, 3)), 'bias': random.normal(size=3)}
    assert set(_shapes(heads.LinearHead(3), FEATURES)) == {'params'}
    actual = heads.LinearHead(3).apply({'params': {'dense': dense}}, FEATURES, train=True)
    expected = FEATURES.mean(axis=(1, 2)) @ dense['kernel'] + dense['bias']
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_residual_head_has_the_stage_of_a_resnet18():
    backbone = ResNet(output='res4')
    head = _shapes(heads.make_head('residual', 5, backbone), jnp.zeros((1, 8, 8, 256)))
    resnet = _shapes(backbone, jnp.zeros((1, 32, 32, 3)))
    for collection in ('params', 'batch_stats'):
        for index in range(2):
            assert head[collection][f'block_{index}'] == resnet[collection][f'res4_{index}']


def test_residual_head_pools_before_and_after():
    # Where the second convolutions are 0, what is left of the stage is its shortcut: the norm of a
    # 1x1 convolution of every other pooled cell.
    random = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32), _shapes(heads.ResidualHead(5), FEATURES)
    )
    kernel = random.normal(size=(4, 512)).astype(np.float32)
    dense = {'kernel': random.normal(size=(512, 5)) / 20, 'bias': random.normal(size=5)}
    params = variables['params']
    params['block_0']['shortcut_conv']['kernel'] = kernel[None, None]
    params['block_0']['shortcut_norm']['scale'] += 1
    variables['batch_stats'] = jax.tree.map(lambda leaf: leaf + 1, variables['batch_stats'])
    params['linear']['dense'] = dense
    actual = heads.ResidualHead(5).apply(variables, FEATURES)

    padded = np.pad(FEATURES, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    # Pooled cells 0 and 2, of which cell i is the maximum over rows 2 i - 1 to 2 i + 1.
    pooled = np.stack(
        [
            np.stack([padded[:, i : i + 3, j : j + 3].max(axis=(1, 2)) for j in (0, 4)], axis=1)
            for i in (0, 4)
        ],
        axis=1,
    )
    rectified = np.maximum((pooled @ kernel - 1) / np.sqrt(1 + 1e-5), 0)
    expected = rectified.mean(axis=(1, 2)) @ dense['kernel'] + dense['bias']
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_heads_take_over_the_backbones_settings_and_give_float32():
    backbone = ResNet(
        padding='reflect', norm_momentum=0.5, norm_axis_name='device', dtype=jnp.bfloat16
    )
    head = heads.make_head('residual', 7, backbone)
    assert (head.padding, head.norm_momentum, head.norm_axis_name, head.dtype) == (
        'reflect',
        0.5,
        'device',
        jnp.bfloat16,
    )
    features = jnp.zeros((1, 8, 8, 4), jnp.bfloat16)
    for kind in heads.KINDS:
        head = heads.make_head(kind, 7, backbone)
        outputs, _ = jax.eval_shape(head.init_with_output, jax.random.key(0), features)
        assert (outputs.shape, outputs.dtype) == ((1, 7), jnp.float32)


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="head is 'mlp'"):
        heads.make_head('mlp', 3, ResNet())
