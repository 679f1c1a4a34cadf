import functools
import math
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxprop.checkpoints.native import load_pretrained, save_pretrained
from jaxprop.models import ViT, find_network, positions, vit
from tests.models.test_resnet import random_images

SMALL = {'patch': 8, 'width': 24, 'depth': 2, 'heads': 2, 'grid': 5}
ROTARY = {
    **SMALL, 'position': 'rotary', 'periods': (1.0, 3.0, 9.5), 'registers': 2, 'mlp': 'swiglu',
    'hidden': 20, 'biases': 'qv', 'layer_scale': 0.5, 'epsilon': 1e-3,
}  # fmt: skip


@functools.cache
def small_network(**attributes):
    """A small network with variables of which none is zero or one."""
    model = ViT(**attributes)
    rng = np.random.default_rng(1)

    def random(path, leaf):
        mean = 1 if 'scale' in jax.tree_util.keystr(path) else 0
        return rng.normal(mean, 0.2, leaf.shape).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(random, shapes(model))


def shapes(model):
    images = jnp.zeros((1, 64, 64, 3))
    return jax.eval_shape(model.init, jax.random.key(0), images)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, variables, images):
    return model.apply(variables, images)


def slow_block(x, params, heads, epsilon, angles):
    """Computes one block, token by token, in float64; also returns the keys before rotation."""

    def dense(name, y):
        layer = params[name]
        return y @ layer['kernel'] + layer.get('bias', 0)

    def scaled(y, name):
        return y * params.get(name, 1)

    y = slow_norm(x, params['norm1'], epsilon)
    q, k, v = (dense(name, y) for name in ('query', 'key', 'value'))
    keys, size = k, x.shape[-1] // heads
    mixed = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for b in range(len(x)):
            rotated_keys = [slow_rotate(*pair) for pair in zip(k[b, :, part], angles)]
            for i in range(x.shape[1]):
                query = slow_rotate(q[b, i, part], angles[i])
                logits = np.array([query @ key / math.sqrt(size) for key in rotated_keys])
                weights = np.exp(logits - logits.max())
                mixed[b, i, part] = weights / weights.sum() @ v[b, :, part]
    x = x + scaled(dense('out', mixed), 'scale1')
    y = slow_norm(x, params['norm2'], epsilon)
    if 'gate' in params:
        gate = dense('gate', y)
        y = dense('down', gate / (1 + np.exp(-gate)) * dense('up', y))
    else:
        y = dense('fc1', y)
        y = dense('fc2', y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2))))
    return x + scaled(y, 'scale2'), keys


def slow_rotate(channels, angles):
    """The pairs of channels (i, i + D/2) as complex numbers."""
    a, b = np.split(channels, 2)
    rotated = (a + 1j * b) * np.exp(1j * angles)
    return np.concatenate([rotated.real, rotated.imag])


def slow_norm(x, params, epsilon):
    variance = x.var(-1, keepdims=True)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + epsilon)
    return x * params['scale'] + params['bias']


def slow_vit(model, variables, images, num_blocks):
    """All tokens after some blocks, and the keys of the last of these."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), variables['params'])
    p, size = model.patch, model.width // model.heads
    rows, columns = images.shape[1] // p, images.shape[2] // p
    tokens, angles = [], []
    for row in range(rows):
        for column in range(columns):
            patch = images[:, row * p : (row + 1) * p, column * p : (column + 1) * p]
            kernel = params['patch_embed']['kernel']
            token = np.einsum('bhwc,hwcd->bd', patch.astype(float), kernel)
            tokens.append(token + params['patch_embed']['bias'])
            y, x = 2 * (row + 0.5) / rows - 1, 2 * (column + 0.5) / columns - 1
            rotary = [2 * np.pi * at / period for at in (y, x) for period in model.periods or ()]
            angles.append(rotary or [0] * (size // 2))
    x = np.stack(tokens, 1)
    prefix = params['cls_token']
    if model.position == 'learned':
        prefix = prefix + params['positions'][:1]
        stored = params['positions'][1:].reshape(model.grid, model.grid, -1)
        # OpenCV's bicubic resizing is PyTorch's, offset 0 and without antialias.
        resized = cv2.resize(stored, (columns, rows), interpolation=cv2.INTER_CUBIC)
        x = x + resized.reshape(rows * columns, -1)
    prefix = np.concatenate([prefix, params.get('registers', prefix[:0])])
    x = np.concatenate([np.broadcast_to(prefix, (len(x), *prefix.shape)), x], 1)
    angles = [[0] * (size // 2)] * len(prefix) + angles
    keys = None
    for index in range(num_blocks):
        block = params[f'block{index}']
        x, keys = slow_block(x, block, model.heads, model.epsilon, np.array(angles))
    return x, keys


@pytest.mark.parametrize('attributes', [{**SMALL, 'offset': 0.0}, ROTARY])
def test_outputs_equal_a_slow_forward_pass(attributes):
    model, variables = small_network(**attributes)
    images = random_images((2, 26, 35))
    prefix, grid = 1 + model.registers, (2, 3, 4, 24)
    expected, keys = slow_vit(model, variables, images, 2)
    normed = slow_norm(expected, variables['params']['norm'], model.epsilon)
    block, _ = slow_vit(model, variables, images, 1)
    for changed, wanted in (
        ({}, normed[:, prefix:].reshape(grid)),
        ({'output': 'cls'}, normed[:, 0]),
        ({'output': 'block0', 'norm': False}, block[:, prefix:].reshape(grid)),
        ({'output': 'block1.keys'}, keys[:, prefix:].reshape(grid)),
    ):
        features = apply(model.clone(**changed), variables, images)
        assert features.shape == wanted.shape and features.dtype == np.float32
        np.testing.assert_allclose(features, wanted, atol=2e-5 * np.abs(wanted).max())
    assert model.grid_size(26, 35) == grid[1:3]
    assert (model.stride, model.channels) == (8, 24)


def test_queries_and_values():
    model, variables = small_network(**SMALL)
    images = random_images((1, 24, 32))
    parts = {
        part: apply(model.clone(output=f'block1.{part}'), variables, images) for part in vit.PARTS
    }
    # Of a network whose layers have each other's names.
    block = variables['params']['block1']
    swapped = {**block, 'key': block['query'], 'query': block['value'], 'value': block['key']}
    swapped = {'params': {**variables['params'], 'block1': swapped}}
    for part, other in (('keys', 'queries'), ('queries', 'values'), ('values', 'keys')):
        features = apply(model.clone(output=f'block1.{part}'), swapped, images)
        np.testing.assert_allclose(features, parts[other], atol=1e-5)
    assert np.abs(parts['keys'] - parts['queries']).max() > 0.1


def test_what_follows_the_output_is_not_built():
    built = {
        output: set(shapes(ViT(**SMALL, output=output))['params'])
        for output in ('block0', 'block0.values')
    }
    assert built['block0'] == {'cls_token', 'positions', 'patch_embed', 'block0', 'norm'}
    assert built['block0.values'] == built['block0'] - {'norm'}


@pytest.mark.parametrize('attributes', [SMALL, ROTARY])
def test_pixels_beyond_the_last_whole_patch_are_not_seen(attributes):
    model, variables = small_network(**attributes)
    images = random_images((1, 31, 39))
    features = apply(model, variables, images)
    assert features.shape == (1, 3, 4, 24)
    whole = apply(model, variables, images[:, :24, :32])
    np.testing.assert_allclose(features, whole, atol=2e-5)


def test_images_padded_to_whole_patches():
    model, variables = small_network(**SMALL)
    images = random_images((1, 31, 33))
    padded = np.pad(images, ((0, 0), (0, 1), (0, 7), (0, 0)))
    features = apply(model.clone(pad=True), variables, images)
    assert features.shape == (1, *model.clone(pad=True).grid_size(31, 33), 24) == (1, 4, 5, 24)
    np.testing.assert_allclose(features, apply(model, variables, padded), atol=2e-5)


def test_the_same_without_jit():
    model, variables = small_network(**SMALL)
    images = random_images((1, 24, 32))
    expected = model.apply(variables, images)
    np.testing.assert_allclose(apply(model, variables, images), expected, atol=2e-5)


def test_positions_of_a_square_image_of_the_same_grid_are_left_alone():
    model, variables = small_network(**SMALL)
    model = model.clone(output='block0.keys')
    without = model.clone(offset=0.0)
    for size, same in (((40, 40), True), ((40, 41), False), ((32, 32), False)):
        images = random_images((1, *size))
        features = [apply(network, variables, images) for network in (model, without)]
        assert np.allclose(*features, atol=1e-5) is same


def test_bfloat16_is_close_to_float32():
    model, variables = small_network(**ROTARY)
    images = random_images((1, 40, 48))
    expected = apply(model, variables, images)
    features = apply(model.clone(dtype='bfloat16'), variables, images)
    assert features.dtype == jnp.bfloat16
    error = np.abs(np.asarray(features, np.float32) - expected)
    assert 1e-4 < error.max() < 0.05 * np.abs(expected).max()
    parameters = jax.tree.leaves(shapes(model.clone(dtype='bfloat16')))
    assert {leaf.dtype for leaf in parameters} == {jnp.dtype('float32')}


def slow_attention(q, k, v):
    logits = np.einsum('bnhd,bmhd->bhnm', q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return np.einsum('bhnm,bmhd->bnhd', weights, v)


@pytest.mark.parametrize('form', ['attention', 'attention_of_all', 'attention_by_head'])
def test_attention_in_chunks_of_queries(form, monkeypatch):
    q, k, v = random_images((3, 2, 50, 12)).reshape(3, 2, 50, 3, 12)
    expected = slow_attention(*(np.asarray(z, np.float64) for z in (q, k, v)))
    np.testing.assert_allclose(getattr(vit, form)(q, k, v), expected, atol=1e-6)
    monkeypatch.setattr(vit, 'MAX_LOGITS', 2 * 3 * 50 * 7)  # 8 chunks, the last of 1 query.
    monkeypatch.setattr(vit, 'CHUNK', 7)
    np.testing.assert_allclose(getattr(vit, form)(q, k, v), expected, atol=1e-6)


@pytest.mark.parametrize('old, new', [(14, 30), (37, 6), (5, 5), (9, 2)])
def test_resizing_equals_other_libraries(old, new):
    values = np.random.default_rng(0).normal(size=(old, 3)).astype(np.float32)
    expected = cv2.resize(values, (3, new), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(positions.resize_matrix(old, new) @ values, expected, atol=1e-5)
    # Pillow's bicubic kernel is that of PyTorch's antialias.
    expected = np.asarray(Image.fromarray(values).resize((3, new), Image.Resampling.BICUBIC))
    matrix = positions.resize_matrix(old, new, antialias=True)
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-5)


def test_the_offset_shortens_the_step():
    # Samples of an axis of 5 + 3 are those of the longer axis, as far as they go.
    longer = positions.resize_matrix(6, 8)
    np.testing.assert_allclose(positions.resize_matrix(6, 5, offset=3), longer[:5], atol=1e-12)


def test_saved_and_loaded_with_another_output(tmp_path):
    assert find_network('vit') is ViT
    model, variables = small_network(**ROTARY)
    save_pretrained(tmp_path / 'net', model, variables)
    loaded, again = load_pretrained(tmp_path / 'net')
    assert loaded == model and hash(loaded) == hash(model)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    loaded, again = load_pretrained(tmp_path / 'net', output='block0.keys')
    assert set(again['params']) == {'cls_token', 'registers', 'patch_embed', 'block0'}
    images = np.zeros((1, 16, 24, 3), np.float32)
    assert jax.eval_shape(loaded.apply, again, images).shape == (1, 2, 3, 24)


@pytest.mark.parametrize(
    'attributes, message',
    [
        ({'output': 'block12'}, "'block0' to 'block11'"),
        ({'output': 'block1.key'}, "output is 'block1.key'"),
        ({'mlp': 'relu'}, "mlp is 'relu'"),
        ({'position': 'none'}, "position is 'none'"),
        ({'heads': 7}, 'width is 384; needed: a multiple of heads, 7'),
        ({'depth': 0}, 'depth is 0'),
        ({'biases': 'kq'}, "biases is 'kq'"),
        ({'position': 'rotary', 'heads': 64}, 'width / heads is 6'),
        ({'position': 'rotary', 'periods': (1.0, 2.0)}, 'periods are 2; needed: 16'),
    ],
)
def test_refuses_attributes(attributes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ViT(**attributes)


@pytest.mark.parametrize(
    'images, message',
    [
        (np.zeros((1, 15, 32, 3), np.float32), '15 x 32 pixels; needed: at least a patch, 16'),
        (np.zeros((1, 32, 32, 3), np.uint8), 'uint8'),
    ],
)
def test_refuses_other_images(images, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(ViT().init, jax.random.key(0), images)
