"""Layouts of vision transformers in released files: DINO, DINOv2, DINOv3, MAE, two libraries.

The libraries are timm and Hugging Face transformers. A layout is a table of names, and those
attributes that the shapes in a file don't tell. Sizes are read from the shapes.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxprop.checkpoints.layout import Layout
from jaxprop.checkpoints.native import check_finite, variable_shapes
from jaxprop.models import positions
from jaxprop.models.vit import ViT

# Our name of a layer or an array -> the file's name. Names in a block follow the block's own name,
# 'blocks.0.'. Query, key and value with one name in the file are thirds of one array; gate and up
# with one name are halves.
_RELEASED = {
    'cls_token': 'cls_token',
    'positions': 'pos_embed',
    'patch_embed': 'patch_embed.proj',
    'norm': 'norm',
    'block': 'blocks.',
    'norm1': 'norm1',
    'query': 'attn.qkv',
    'key': 'attn.qkv',
    'value': 'attn.qkv',
    'out': 'attn.proj',
    'norm2': 'norm2',
    'fc1': 'mlp.fc1',
    'fc2': 'mlp.fc2',
    'scale1': 'ls1.gamma',
    'scale2': 'ls2.gamma',
}
_DINOV2 = {
    **_RELEASED,
    'registers': 'register_tokens',
    'gate': 'mlp.w12',
    'up': 'mlp.w12',
    'down': 'mlp.w3',
}
_DINOV3 = {
    **_RELEASED,
    'registers': 'storage_tokens',
    'gate': 'mlp.w1',
    'up': 'mlp.w2',
    'down': 'mlp.w3',
}
_TIMM = {**_RELEASED, 'registers': 'reg_token'}
_TRANSFORMERS = {
    'cls_token': 'embeddings.cls_token',
    'positions': 'embeddings.position_embeddings',
    'patch_embed': 'embeddings.patch_embeddings.projection',
    'norm': 'layernorm',
    'block': 'encoder.layer.',
    'norm1': 'layernorm_before',
    'query': 'attention.attention.query',
    'key': 'attention.attention.key',
    'value': 'attention.attention.value',
    'out': 'attention.output.dense',
    'norm2': 'layernorm_after',
    'fc1': 'intermediate.dense',
    'fc2': 'output.dense',
}
_TRANSFORMERS_DINOV2 = {
    **_TRANSFORMERS,
    'registers': 'embeddings.register_tokens',
    'norm1': 'norm1',
    'norm2': 'norm2',
    'fc1': 'mlp.fc1',
    'fc2': 'mlp.fc2',
    'gate': 'mlp.weights_in',
    'up': 'mlp.weights_in',
    'down': 'mlp.weights_out',
    'scale1': 'layer_scale1.lambda1',
    'scale2': 'layer_scale2.lambda1',
}
_TRANSFORMERS_DINOV3 = {
    'cls_token': 'embeddings.cls_token',
    'registers': 'embeddings.register_tokens',
    'patch_embed': 'embeddings.patch_embeddings',
    'norm': 'norm',
    'block': 'layer.',
    'norm1': 'norm1',
    'query': 'attention.q_proj',
    'key': 'attention.k_proj',
    'value': 'attention.v_proj',
    'out': 'attention.o_proj',
    'norm2': 'norm2',
    'fc1': 'mlp.up_proj',
    'fc2': 'mlp.down_proj',
    'gate': 'mlp.gate_proj',
    'up': 'mlp.up_proj',
    'down': 'mlp.down_proj',
    'scale1': 'layer_scale1.lambda1',
    'scale2': 'layer_scale2.lambda1',
}


@dataclasses.dataclass(frozen=True)
class _Family:
    """The things about a network that the shapes in its file don't tell.

    Attributes:
      names: the table of names.
      attributes: further attributes of the `ViT`.
      head_widths: channels of a head where they are not 64, by the width of the network.
      key_bias: whether keys have their bias, where the file has one for queries, keys and values.
    """

    names: Mapping[str, str]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head_widths: Mapping[int, int] = dataclasses.field(default_factory=dict)
    key_bias: bool = True


def build(
    state: Mapping[str, np.ndarray], output: str | None, *, family: _Family
) -> tuple[ViT, dict[str, Any]]:
    """Builds the network of a state dict, with its variables.

    Args:
      state: array by name, without prefix, in PyTorch's layout. Arrays that the network doesn't
        need are ignored: heads, decoders, mask tokens.
      output: as `ViT` takes it.
      family: the things that the shapes don't tell.

    Returns:
      The network and `params`, float32.

    Raises:
      ValueError: arrays are missing, have another shape or hold values that are not finite; or the
        network has no such output.
    """
    model = ViT(**_attributes(state, family), output=output)
    flat, missing = {}, []
    for path, shape in variable_shapes(model).items():
        name, part, parts = _source(path, family.names)
        if name not in state:
            missing.append(name)
            continue
        value = np.asarray(state[name], np.float32)
        check_finite({name: value}, 'the state')
        value = _to_flax(path, value, part, parts)
        if value.shape != shape:
            raise ValueError(
                f'{name!r} has the shape {np.shape(state[name])}, and {path!r} from it '
                f'{value.shape}; this network needs {shape}'
            )
        flat[path] = jnp.asarray(value)
    if missing:
        raise ValueError(f'the state lacks {sorted(set(missing))}')
    return model, traverse_util.unflatten_dict(flat, sep='/')


def _attributes(state: Mapping[str, np.ndarray], family: _Family) -> dict[str, Any]:
    """Finds the attributes of a state dict's `ViT`, but for its output."""
    names = family.names
    block = f'{names["block"]}0.'

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in state:
            raise ValueError(f'the state lacks {name!r}')
        found = np.shape(state[name])
        if len(found) != axes or not all(found):
            raise ValueError(f'{name!r} has the shape {found}; needed: {axes} axes, none empty')
        return found

    def has(key: str, leaf: str = '') -> bool:
        return key in names and f'{block}{names[key]}{leaf}' in state

    # Read sizes from the shapes, and parts that may be missing from the names.
    width, _, _, patch = shape(f'{names["patch_embed"]}.weight', 4)
    numbers = _block_numbers(state, names)
    swiglu = has('gate', '.weight')
    first = 'gate' if swiglu else 'fc1'
    hidden = shape(f'{block}{names[first]}.weight', 2)[0] // _parts(first, names)[1]
    biased = ('query', 'key', 'value') if family.key_bias else ('query', 'value')
    attributes: dict[str, Any] = {
        'patch': patch,
        'width': width,
        'depth': len(numbers),
        'heads': max(1, width // family.head_widths.get(width, 64)),
        'mlp': 'swiglu' if swiglu else 'gelu',
        'hidden': None if hidden == 4 * width else hidden,
        'layer_scale': 1.0 if has('scale1') else None,
        'biases': ''.join(key[0] for key in biased if has(key, '.bias')),
        **family.attributes,
    }
    if names.get('registers') in state:
        attributes['registers'] = shape(names['registers'], 3)[1]
    if family.attributes.get('position') != 'rotary':
        _, count, _ = shape(names['positions'], 3)
        attributes['grid'] = math.isqrt(count)  # The same with or without the class token's one.
    if 'rope_embed.periods' in state:
        count = width // attributes['heads'] // 4
        attributes['periods'] = _periods(state['rope_embed.periods'], count)
    return attributes


def _block_numbers(state: Mapping[str, np.ndarray], names: Mapping[str, str]) -> set[str]:
    """Lists the numbers of the blocks; raises ValueError for arrays that our blocks don't have.

    An example is a norm of the queries: without it the features would be different. Another is the
    norm before the blocks of CLIP's networks.
    """
    numbers, unknown = set(), []
    for name in state:
        if re.match('norm_pre|ln_pre|pre_layrnorm|pre_norm', name):
            unknown.append(name)
        if name.startswith(names['block']):
            number, _, rest = name.removeprefix(names['block']).partition('.')
            numbers.add(number)
            if not any(rest == known or rest.startswith(f'{known}.') for known in names.values()):
                unknown.append(name)
    if unknown:
        raise ValueError(f'the state holds {unknown}, which this network lacks')
    return numbers


def _periods(array: np.ndarray, count: int) -> tuple[float, ...] | None:
    """Reads the periods of a file; None where they are those that `ViT` has by default."""
    array = np.asarray(array, np.float32)
    check_finite({'rope_embed.periods': array}, 'the state')
    usual = positions.rotary_periods(count)
    if array.shape == usual.shape and np.allclose(array, usual, rtol=1e-6, atol=0):
        return None
    return tuple(map(float, array.ravel()))


def _source(path: str, names: Mapping[str, str]) -> tuple[str, int, int]:
    """Finds a variable in the file: the array, which of its parts, and how many parts it has."""
    _, *modules, leaf = path.split('/')
    start = ''
    if modules and modules[0].startswith('block'):
        start = f'{names["block"]}{modules.pop(0).removeprefix("block")}.'
    if not modules:  # The array belongs to no layer.
        return start + names.get(leaf, leaf), 0, 1
    [layer] = modules
    part, parts = _parts(layer, names)
    leaf = {'kernel': 'weight', 'scale': 'weight'}.get(leaf, leaf)
    return f'{start}{names[layer]}.{leaf}', part, parts


def _parts(layer: str, names: Mapping[str, str]) -> tuple[int, int]:
    """Says which part of the file's array a layer is, and how many parts the array has."""
    for group in (('query', 'key', 'value'), ('gate', 'up')):
        if layer in group and len({names[key] for key in group}) == 1:
            return group.index(layer), len(group)
    return 0, 1


def _to_flax(path: str, value: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Takes a part of a PyTorch array, and brings it into Flax's layout."""
    if parts > 1 and value.ndim:
        size = len(value) // parts
        value = value[part * size : (part + 1) * size] if size * parts == len(value) else value
    if path.endswith('/kernel'):  # [out, in, height, width] -> [height, width, in, out]
        return value.transpose(*range(2, value.ndim), 1, 0) if value.ndim >= 2 else value
    if value.ndim == 3 and len(value) == 1:  # Tokens and positions [1, N, C].
        value = value[0]
        # timm's networks with registers have positions of patches only; the class token includes
        # its own.
        if path == 'params/positions' and math.isqrt(len(value)) ** 2 == len(value):
            value = np.concatenate([np.zeros_like(value[:1]), value])
    return value


_VIT = (
    'cls_token',
    'pos_embed',
    'patch_embed.proj.weight',
    'blocks.0.attn.qkv.weight',
    'norm.bias',
)
_DINOV2_VIT = (*_VIT, 'blocks.0.ls1.gamma')
# DINOv3 has no position embeddings, but with these it has more names than any other family shares.
_DINOV3_VIT = (*(name for name in _DINOV2_VIT if name != 'pos_embed'), 'storage_tokens')
_TRANSFORMERS_VIT = (
    'embeddings.cls_token',
    'embeddings.position_embeddings',
    'embeddings.patch_embeddings.projection.weight',
    'encoder.layer.0.attention.attention.query.weight',
    'layernorm.bias',
)
_HUGE = {1280: 80, 1408: 88, 1664: 104}  # 16 heads.
_MAE_FAMILY = _Family(_RELEASED, {'offset': 0.0}, _HUGE)
_REGISTERS = {'offset': 0.0, 'antialias': True}
_ROTARY = {'position': 'rotary', 'epsilon': 1e-5}

# Name, signature, family. DINO's files and MAE's encoder have the same names. Where the names in a
# file of the two libraries show of which release its network is, it gets that release's
# interpolation.
_TABLE = (
    ('dino', _VIT, _Family(_RELEASED)),
    ('mae', _VIT, _MAE_FAMILY),
    ('mae_with_decoder', (*_VIT, 'decoder_pos_embed'), _MAE_FAMILY),
    ('dinov2', _DINOV2_VIT, _Family(_DINOV2)),
    ('dinov2_registers', (*_DINOV2_VIT, 'register_tokens'), _Family(_DINOV2, _REGISTERS)),
    (
        'dinov3',
        _DINOV3_VIT,
        _Family(_DINOV3, _ROTARY, {4096: 128}, key_bias=False),
    ),
    ('timm_vit', (*_VIT, 'head.weight'), _Family(_TIMM, _REGISTERS, _HUGE)),
    ('timm_vit_registers', (*_DINOV2_VIT, 'reg_token'), _Family(_TIMM, _REGISTERS, _HUGE)),
    (
        'transformers_vit',
        (*_TRANSFORMERS_VIT, 'encoder.layer.0.layernorm_before.weight'),
        _Family(_TRANSFORMERS, {'offset': 0.0, 'epsilon': 1e-12}, _HUGE),
    ),
    (
        'transformers_dinov2',
        (*_TRANSFORMERS_VIT, 'encoder.layer.0.layer_scale1.lambda1'),
        _Family(_TRANSFORMERS_DINOV2),
    ),
    (
        'transformers_dinov2_registers',
        (
            *_TRANSFORMERS_VIT,
            'encoder.layer.0.layer_scale1.lambda1',
            'embeddings.register_tokens',
        ),
        _Family(_TRANSFORMERS_DINOV2, _REGISTERS),
    ),
    (
        'transformers_dinov3',
        ('embeddings.cls_token', 'embeddings.register_tokens', 'layer.0.attention.q_proj.weight'),
        _Family(_TRANSFORMERS_DINOV3, _ROTARY, {4096: 128}, key_bias=False),
    ),
)
# DINO's and MAE's encoders have the same names, in different places of their releases' files.
_PREFIXES = {'dino': ('', 'backbone.'), 'mae': ('model.',)}
# Networks of these layouts were trained with different means and deviations; files don't say which.
_COLORS = {'timm_vit': None, 'transformers_vit': None}
LAYOUTS = tuple(
    Layout(
        name,
        signature,
        functools.partial(build, family=family),
        _PREFIXES.get(name, ()),
        color=_COLORS.get(name, 'rgb'),
    )
    for name, signature, family in _TABLE
)
