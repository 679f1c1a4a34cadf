"""Released vision transformers give what the released code gives, under any names in the file."""

import functools
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxprop.checkpoints import load_published
from jaxprop.checkpoints.published import recognise
from jaxprop.checkpoints.vit_layouts import LAYOUTS
from jaxprop.models import ViT
from tests.released_networks import NAMES, released_outputs, released_state

BY_NAME = {layout.name: layout for layout in LAYOUTS}
LAYOUT_OF = {
    'dino_vits16': 'dino',
    'dino_vits8': 'dino',
    'dinov2_vits14': 'dinov2',
    'dinov2_vits14_reg4': 'dinov2_registers',
    'dinov3_vits16': 'dinov3',
    'mae_vit': 'mae_with_decoder',
}


def build(layout, state, output=None):
    return BY_NAME[layout].build(state, output)


def fitting(state):
    """Names the layouts that fit, without those whose signature is part of another's."""
    found = [layout for layout in LAYOUTS if set(layout.signature) <= set(state)]
    signatures = [set(layout.signature) for layout in found]
    return [
        layout.name for layout in found if not any(set(layout.signature) < s for s in signatures)
    ]


@functools.cache
def first_blocks(name):
    """Cuts a state down to two blocks."""
    return released_state(name, num_blocks=2)


def assert_same(network, expected):
    assert network[0] == expected[0]
    jax.tree.map(np.testing.assert_array_equal, network[1], expected[1])


@pytest.mark.parametrize('name', NAMES)
def test_outputs_equal_those_of_the_released_code(name):
    images, outputs = released_outputs(name)
    model, variables = build(LAYOUT_OF[name], released_state(name))
    assert list(outputs) == ['tokens', 'cls']

    @jax.jit
    def apply(variables, images):
        return [model.clone(output=key).apply(variables, images) for key in (None, 'cls')]

    for features, expected in zip(apply(variables, images), outputs.values()):
        assert features.shape == expected.shape
        # 50 times what is found; a norm's epsilon of 1e-6 for 1e-5 gives 2e-5.
        np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('name', NAMES)
def test_files_are_recognised(name):
    # The names of DINO's files and of MAE's encoder are the same.
    layout = LAYOUT_OF[name]
    assert fitting(first_blocks(name)) == (['dino', 'mae'] if layout == 'dino' else [layout])


def test_attributes_are_read_from_the_file():
    model, _ = build('dinov2_registers', first_blocks('dinov2_vits14_reg4'), 'block1.keys')
    assert model == ViT(
        patch=14, grid=37, registers=4, depth=2, layer_scale=1.0, offset=0.0, antialias=True,
        output='block1.keys',
    )  # fmt: skip
    model, _ = build('mae', first_blocks('mae_vit'))
    assert model == ViT(width=192, depth=2, heads=3, offset=0.0)


def test_constants_of_dinov3():
    state = first_blocks('dinov3_vits16')
    expected = build('dinov3', state)
    assert expected[0].periods is None
    constants = ('rope_embed.periods', 'blocks.0.attn.qkv.bias_mask')
    without = {name: value for name, value in state.items() if name not in constants}
    assert len(without) == len(state) - 2
    assert_same(build('dinov3', without), expected)
    # In half the precision they are others.
    rounded = state['rope_embed.periods'].astype(np.float16)
    model, _ = build('dinov3', {**state, 'rope_embed.periods': rounded})
    assert model.periods == tuple(map(float, rounded))
    with pytest.raises(ValueError, match='periods are 8; needed: 16'):
        build('dinov3', {**state, 'rope_embed.periods': rounded[::2]})


def renamed(state, rules, split):
    """Renames the arrays of a state; `split` has the three names of queries, keys and values."""
    result = {}
    for name, value in state.items():
        if '.attn.qkv.' in name:
            for part, third in zip(split, np.split(value, 3)):
                result[name.replace('attn.qkv', part)] = third
        else:
            result[name] = value
    for old, new in rules:
        result = {re.sub(old, new, name): value for name, value in result.items()}
    return result


TRANSFORMERS = [
    ('^(cls_token|mask_token|register_tokens)', r'embeddings.\1'),
    ('^pos_embed', 'embeddings.position_embeddings'),
    ('^patch_embed.proj', 'embeddings.patch_embeddings.projection'),
    ('^norm', 'layernorm'),
    ('^blocks', 'encoder.layer'),
    (r'attn\.proj', 'attention.output.dense'),
    (r'ls(\d)\.gamma', r'layer_scale\1.lambda1'),
]
THIRDS = [f'attention.attention.{name}' for name in ('query', 'key', 'value')]


@pytest.mark.parametrize('name', ['dinov2_vits14', 'dinov2_vits14_reg4'])
def test_dinov2_of_transformers(name):
    state = renamed(first_blocks(name), TRANSFORMERS, THIRDS)
    [layout] = fitting(state)
    assert layout == f'transformers_{LAYOUT_OF[name]}'
    assert_same(build(layout, state), build(LAYOUT_OF[name], first_blocks(name)))


def test_mae_of_transformers():
    rules = [
        *TRANSFORMERS,
        (r'\.norm1', '.layernorm_before'),
        (r'\.norm2', '.layernorm_after'),
        (r'mlp\.fc1', 'intermediate.dense'),
        (r'mlp\.fc2', 'output.dense'),
    ]
    state = renamed(first_blocks('mae_vit'), rules, THIRDS)
    assert fitting(state) == ['transformers_vit']
    model, variables = build('transformers_vit', state)
    assert_same((model.clone(epsilon=1e-6), variables), build('mae', first_blocks('mae_vit')))


def test_dinov3_of_transformers():
    rules = [
        ('^(cls_token|mask_token)', r'embeddings.\1'),
        ('^storage_tokens', 'embeddings.register_tokens'),
        ('^patch_embed.proj', 'embeddings.patch_embeddings'),
        ('^blocks', 'layer'),
        (r'attn\.proj', 'attention.o_proj'),
        (r'ls(\d)\.gamma', r'layer_scale\1.lambda1'),
        (r'mlp\.fc1', 'mlp.up_proj'),
        (r'mlp\.fc2', 'mlp.down_proj'),
    ]
    thirds = [f'attention.{part}_proj' for part in 'qkv']
    state = renamed(first_blocks('dinov3_vits16'), rules, thirds)
    state = {key: value for key, value in state.items() if not key.endswith('k_proj.bias')}
    assert fitting(state) == ['transformers_dinov3']
    assert_same(build('transformers_dinov3', state), build('dinov3', first_blocks('dinov3_vits16')))


def with_swiglu(state, names):
    """Replaces the MLP of a state by a gated one of 20 channels, under the given names."""
    rng = np.random.default_rng(0)
    result = {key: value for key, value in state.items() if '.mlp.' not in key}
    for prefix in {match[0] for key in state if (match := re.match(r'blocks\.\d+\.', key))}:
        shapes = {'gate': (20, 384), 'up': (20, 384), 'down': (384, 20)}
        layers = {key: rng.normal(size=shape).astype('f4') for key, shape in shapes.items()}
        layers['w12'] = np.concatenate([layers['gate'], layers['up']])
        for layer, name in names.items():
            result[f'{prefix}mlp.{name}.weight'] = layers[layer]
            result[f'{prefix}mlp.{name}.bias'] = layers[layer][:, 0]
    return result


def test_gated_mlps():
    """The two first layers of a gated MLP are one array in DINOv2's file, and two in DINOv3's."""
    models = []
    for name, names in (
        ('dinov2_vits14', {'w12': 'w12', 'down': 'w3'}),
        ('dinov3_vits16', {'gate': 'w1', 'up': 'w2', 'down': 'w3'}),
    ):
        state = with_swiglu(first_blocks(name), names)
        model, variables = build(LAYOUT_OF[name], state)
        assert (model.mlp, model.hidden) == ('swiglu', 20)
        models.append({key: variables['params']['block0'][key] for key in ('gate', 'up', 'down')})
    jax.tree.map(np.testing.assert_array_equal, *models)
    assert models[0]['gate']['kernel'].shape == (384, 20)


def test_timm_without_a_position_of_the_class_token():
    state = dict(first_blocks('dinov2_vits14_reg4'))
    state['reg_token'] = state.pop('register_tokens')
    first = state['pos_embed'][:, :1]
    folded = {
        **state,
        'cls_token': state['cls_token'] + first,
        'pos_embed': state['pos_embed'][:, 1:],
    }
    del folded['mask_token']
    assert fitting(folded) == ['timm_vit_registers']
    images = released_outputs('dinov2_vits14_reg4')[0][:, :42, :56]
    features = []
    for layout, arrays in (('timm_vit_registers', folded), ('timm_vit_registers', state)):
        model, variables = build(layout, arrays, 'block0')
        features.append(model.apply(variables, images))
    np.testing.assert_allclose(*features, atol=1e-5)


@pytest.mark.parametrize('layout, width, heads', [('mae', 1280, 16), ('dino', 1280, 20)])
def test_heads_that_are_not_of_64_channels(layout, width, heads):
    shapes = {
        'cls_token': (1, 1, width), 'pos_embed': (1, 197, width),
        'patch_embed.proj.weight': (width, 3, 14, 14), 'patch_embed.proj.bias': (width,),
        'norm.weight': (width,), 'norm.bias': (width,),
    }  # fmt: skip
    for name, shape in {
        'norm1': (width,), 'norm2': (width,), 'attn.qkv': (3 * width, width),
        'attn.proj': (width, width), 'mlp.fc1': (8, width), 'mlp.fc2': (width, 8),
    }.items():  # fmt: skip
        shapes |= {f'blocks.0.{name}.weight': shape, f'blocks.0.{name}.bias': shape[:1]}
    model, _ = build(layout, {name: np.zeros(shape, 'f4') for name, shape in shapes.items()})
    assert (model.heads, model.hidden, model.depth) == (heads, 8, 1)


@pytest.mark.parametrize(
    'name, change, message',
    [
        ('blocks.1.attn.proj.bias', None, "the state lacks ['blocks.1.attn.proj.bias']"),
        ('blocks.1.attn.qkv.weight', None, "the state lacks ['blocks.1.attn.qkv.weight']"),
        ('cls_token', None, "the state lacks ['cls_token']"),
        ('pos_embed', None, "the state lacks 'pos_embed'"),
        ('blocks.0.mlp.fc1.weight', None, "the state lacks 'blocks.0.mlp.fc1.weight'"),
        ('patch_embed.proj.weight', lambda a: a[0], 'has the shape (3, 16, 16); needed: 4 axes'),
        ('pos_embed', lambda a: a[:, 1:-1], "'pos_embed' has the shape (1, 195, 192)"),
        ('pos_embed', lambda a: a[..., 1:], "'pos_embed' has the shape (1, 197, 191)"),
        ('blocks.1.attn.qkv.weight', lambda a: a[1:], "qkv.weight' has the shape (575, 192)"),
        ('blocks.1.norm1.bias', lambda a: a[None], "norm1.bias' has the shape (1, 192)"),
        ('norm.bias', lambda a: a * np.nan, 'norm.bias holds values that are infinite or not num'),
    ],
)
def test_refuses_another_state(name, change, message):
    state = dict(first_blocks('mae_vit'))
    value = state.pop(name)
    if change is not None:
        state[name] = change(value)
    with pytest.raises(ValueError, match=re.escape(message)):
        build('mae', state)


@pytest.mark.parametrize('name', ['blocks.1.attn.q_norm.weight', 'norm_pre.weight'])
def test_refuses_networks_of_another_kind(name):
    state = {**first_blocks('mae_vit'), name: np.ones(64, 'f4')}
    with pytest.raises(ValueError, match=f"holds \\['{name}'\\], which this network lacks"):
        build('mae', state)


def test_refuses_an_unknown_output():
    with pytest.raises(ValueError, match="output is 'res3'; known: None, 'last', 'cls', 'block0'"):
        build('mae', first_blocks('mae_vit'), 'res3')


@pytest.mark.parametrize('name', ['dino_vits8', 'dinov2_vits14_reg4', 'dinov3_vits16', 'mae_vit'])
def test_a_published_file_is_recognised(name, tmp_path):
    state = {f'teacher.backbone.{key}': value for key, value in first_blocks(name).items()}
    state |= {f'student.backbone.{key}': 0 * value for key, value in first_blocks(name).items()}
    state['teacher.head.mlp.0.weight'] = np.zeros((4, 4), np.float32)
    save_file(state, tmp_path / 'published.safetensors')
    found = load_published(tmp_path / 'published.safetensors', layout=LAYOUT_OF[name])
    assert_same(found, build(LAYOUT_OF[name], first_blocks(name)))
    recognised, start, _ = recognise(state)
    assert recognised.name == LAYOUT_OF[name] and start == 'teacher.backbone.'
