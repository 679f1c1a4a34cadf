"""Loads networks with their variables by name: shipped, saved, published, or random weights."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxprop import files
from jaxprop.checkpoints import hub, native, published
from jaxprop.models import find_network
from jaxprop.models.network import attribute_names, check_attributes
from jaxprop.names import unknown

# Attributes that change no feature, so descriptions leave them out.
_UNDESCRIBED = ('norm_momentum', 'norm_axis_name')
DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its variables, and facts about them for outputs.

    Attributes:
      model: a network as `jaxprop.models` describes it.
      variables: all variables of the model.
      trained: whether the weights are trained. If they are random, batch statistics, if there are
        any, are estimated on each video itself.
      description: identifies the network in every output.
      color: the colours that the network was trained to see, as `jaxprop.color.network_input` names
        them; None if they are not known.
      card: attributes that have another value here than in the card of the saved network, or in the
        layout of the published file, with the values there.
      notes: more sentences about the network for every output.
    """

    model: nn.Module
    variables: Mapping[str, Any]
    trained: bool
    description: Mapping[str, Any]
    color: str | None = 'rgb'
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """The notes, and a sentence for each attribute whose value differs from the card's."""
        name, layout = self.description['name'], self.description.get('layout')
        source = f'the layout {layout}' if layout else f'the card of {name}'
        return [
            *self.notes,
            *(
                f'network.{key} is {getattr(self.model, key)!r}, {source} says {value!r}.'
                for key, value in self.card.items()
            ),
        ]


def load_network(
    name: str,
    *,
    architecture: str | None = None,
    seed: int = 0,
    untrained: Mapping[str, Any] | None = None,
    layout: str | None = None,
    prefix: str | None = None,
    **attributes: Any,
) -> Network:
    """Loads a shipped, a saved or a published network, or makes one with random weights.

    Args:
      name: as `load_pretrained` takes it; the path of any published file that `load_published`
        reads; a folder or an address 'hf://OWNER/NAME', see `jaxprop.checkpoints.hub.locate`; or
        'untrained' for random weights.
      architecture: of an untrained network, a name for `find_network`; None takes 'resnet'. For
        other networks it must be the architecture in the file.
      seed: of the random weights.
      untrained: defaults of an untrained network: attributes, and 'architecture'.
      layout: of a published file, as `load_published` takes it; None recognises it.
      prefix: likewise.
      **attributes: of the network. They replace those of the card or the layout, or the defaults of
        an untrained network. An attribute of None counts as not given.

    Raises:
      ValueError: an unknown architecture, layout or attribute; an error of `load_pretrained` or
        `load_published`; or the network's features are no grid.
    """
    attributes = {key: value for key, value in attributes.items() if value is not None}
    if 'dtype' in attributes:
        attributes['dtype'] = _dtype_name(attributes['dtype'])
    if layout is not None and layout not in {one.name for one in published.LAYOUTS}:
        raise unknown('layout', layout, {one.name for one in published.LAYOUTS})
    if prefix is not None and (name == 'untrained' or has_card(name)):
        raise ValueError(f'network.prefix is {prefix!r}; only published files have one, not {name}')
    if name == 'untrained':
        network = _untrained(architecture, seed, untrained or {}, attributes)
    elif has_card(name):
        network = _saved(name, architecture, layout, attributes)
    else:
        network = _published(name, architecture, layout, prefix, attributes)
    _check_grid(network.model, name)
    return network


def weights_digest(name: str) -> str:
    """Computes the SHA-256 of a network's file of weights, in hexadecimal; '' without a file."""
    if name in ('', 'untrained'):
        return ''
    return native.weights_digest(name) if has_card(name) else digest(locate(name).path)


def _untrained(architecture, seed, settings, attributes) -> Network:
    """Makes a network with random weights; `attributes` replace those of `settings`."""
    attributes = {**settings, **attributes}
    attributes.pop('architecture', None)
    network = find_network(architecture or settings.get('architecture') or 'resnet')
    check_attributes(network, attributes, 'network')
    model = network(**attributes)
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)))
    description = {'name': 'untrained', 'seed': seed, **_described(model)}
    return Network(model, variables, False, description)


def _saved(name, architecture, layout, attributes) -> Network:
    """Loads a network that `save_pretrained` wrote; attributes not given are those of its card."""
    card = native.describe_pretrained(name)
    if architecture and find_network(architecture) is not find_network(card['network']):
        raise ValueError(
            f'network.architecture is {architecture!r}, the card of {name} says {card["network"]!r}'
        )
    known = card['description'].get('layout')
    if layout and known and layout != known:
        raise ValueError(f'network.layout is {layout!r}, the card of {name} says {known!r}')
    model, variables = native.load_pretrained(name, **attributes)
    saved = type(model)(**card['attributes'])
    differing = {
        key: getattr(saved, key)
        for key in attributes
        if key in card['attributes'] and key != 'dtype' and _differ(saved, model, key)
    }
    description = {'name': str(name), 'sha256': card['sha256'], **_described(model)}
    if differing:
        description['card'] = differing
    if affinity := card['description'].get('affinity'):
        description['affinity'] = affinity
    color_seen = card['description'].get('color', 'rgb')
    return Network(model, variables, True, description, color_seen, differing)


def _published(name, architecture, layout, prefix, attributes) -> Network:
    """Loads a network from a file that somebody else published."""
    located = locate(name)
    file = published.read_published(located.path, layout, prefix)
    attributes = dict(attributes)
    output = attributes.pop('output', None)
    recognised, variables = file.build(output)
    if architecture and find_network(architecture) is not type(recognised):
        raise ValueError(
            f'network.architecture is {architecture!r}, {name} holds a {kind(recognised)} '
            f'({file.layout.name})'
        )
    check_attributes(type(recognised), attributes, 'network')
    model = recognised.clone(**attributes)
    variables = _fitting(model, variables, recognised, attributes, str(name))

    candidates, notes = alternatives(file, str(name), recognised, output, attributes)
    differing = {
        key: getattr(recognised, key)
        for key in attributes
        if key != 'dtype' and all(_differ(one, model, key) for one in candidates)
    }
    description = {
        'name': str(name),
        'sha256': digest(located.path),
        'layout': file.layout.name,
        **located.origin,
        **({'prefix': file.prefix} if prefix else {}),
        **_described(model),
    }
    if differing:
        description['card'] = differing
    return Network(model, variables, True, description, file.layout.color, differing, notes)


def alternatives(
    file: published.Published,
    name: str,
    recognised: nn.Module,
    output: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[list[nn.Module], tuple[str, ...]]:
    """Lists the networks that a published file may be, by the names of its arrays.

    Args:
      file: as it was read.
      name: the user's name for it.
      recognised: the network as which it was read.
      output: the output with which the network was built.
      attributes: replace those of the layout.

    Returns:
      The networks of all layouts of the file, the recognised one first; and a tuple with a
      sentence, if with these attributes another one has other features or sees other colours.
    """
    attributes = attributes or {}
    candidates, others = [recognised], []
    model = recognised.clone(**attributes)
    for one in file.others:
        try:
            candidate, _ = file.build(output, one)
            other = candidate.clone(**attributes)
        except (TypeError, ValueError):
            continue  # The file has not this layout.
        candidates.append(candidate)
        if other != model or one.color != file.layout.color:
            others.append(one.name)
    if not others:
        return candidates, ()
    note = (
        f'{name} is read as {file.layout.name}; by its names it could be '
        f'{" or ".join(dict.fromkeys(others))} too: network.layout says which it is.'
    )
    return candidates, (note,)


def locate(name: str) -> hub.Located:
    """Finds the file of a published network, see `jaxprop.checkpoints.hub`.

    Raises:
      ValueError: there is no such file.
    """
    located = hub.locate(name)
    if not located.path.exists():
        hint = '; a function is named PACKAGE.MODULE:FUNCTION' if ':' in str(name) else ''
        if (pathlib.Path(name) / 'backbone.json').is_file():
            hint = f'; the network of this run is {pathlib.Path(name) / "backbone"}'
        raise ValueError(
            f'no network {str(name)!r}: there is neither such a file nor one with the ending '
            f'.safetensors, and the shipped networks are {native.list_pretrained()}{hint}'
        )
    return located


def has_card(name: str) -> bool:
    """Tells whether a name is that of a network that `save_pretrained` wrote, with a card."""
    if str(name).startswith(hub.HUB):
        return False
    base = str(name).removesuffix('.safetensors')
    if str(name) in native.list_pretrained():
        return True
    if base == str(name) and pathlib.Path(name).is_file():
        return False  # The name is that of this file, not of NAME.safetensors.
    if pathlib.Path(f'{base}.json').is_file():
        return True
    # If only NAME.safetensors is there, it is a saved network whose card is missing.
    return not pathlib.Path(name).exists() and pathlib.Path(f'{base}.safetensors').is_file()


def digest(path: pathlib.Path) -> str:
    """Computes the SHA-256 of a file; a file that has not changed is read once."""
    found = path.stat()
    return _digest_of(os.fspath(path), found.st_size, found.st_mtime_ns)


@functools.lru_cache
def _digest_of(path, size, time):
    return files.sha256(path)


def _fitting(model, variables, recognised, attributes, name):
    """Selects the variables of the recognised network that one with other attributes needs."""

    def select(model):
        # A deeper network has all that a less deep one needs.
        if getattr(model, 'depth', None) != getattr(recognised, 'depth', None):
            raise ValueError('another depth')
        return native.select(model, flat, name)

    flat = traverse_util.flatten_dict(variables, sep='/')
    try:
        return traverse_util.unflatten_dict(select(model), sep='/')
    except ValueError as error:
        wrong = [key for key in attributes if _differ(recognised, model, key)]
        for key in wrong:
            try:
                select(recognised.clone(**{key: attributes[key]}))
            except ValueError:
                wrong = [key]  # This attribute alone does not fit.
                break
        given = ' and '.join(f'network.{key} is {attributes[key]!r}' for key in wrong)
        held = ', '.join(f'{key} {getattr(recognised, key)!r}' for key in wrong if key != 'depth')
        held = f' with {held}' if held else ''
        raise ValueError(f'{given}, {name} holds a {kind(recognised)}{held}') from error


def kind(model: nn.Module) -> str:
    """Names a network's class and depth: 'ResNet50', 'VGG16', 'ViT of depth 12'."""
    name, depth = type(model).__name__, getattr(model, 'depth', None)
    if depth is None:
        return name
    return f'{name}{depth}' if name == 'ResNet' else f'{name} of depth {depth}'


def _differ(first: nn.Module, second: nn.Module, key: str) -> bool:
    return getattr(first, key) != getattr(second, key)


def _check_grid(model: nn.Module, name: str) -> None:
    """Raises ValueError if a network's features are no grid, such as the class token alone."""
    images = jnp.zeros((1, 64, 64, 3))
    features, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    if features.ndim != 4:
        raise ValueError(
            f'network.output is {getattr(model, "output", None)!r}, which of {name} is no grid of '
            f'features: an image gives {list(features.shape[1:])}; name a layer of patches or cells'
        )


def _dtype_name(value: Any) -> str:
    """Returns the name of a dtype, which is given as text or as an object of NumPy or JAX."""
    try:
        found = jnp.dtype(value).name
    except TypeError:
        found = str(value)
    if found not in DTYPES:
        raise ValueError(f'network.dtype is {found!r}; known: {", ".join(DTYPES)}')
    return found


def _dtype_of(model: nn.Module) -> str:
    """Returns the name of the dtype in which a network computes."""
    value = getattr(model, 'dtype', None)
    return 'float32' if value is None else np.dtype(jnp.dtype(value)).name


def _described(model):
    """Describes a network by its class and all attributes that may change its features."""
    names = [name for name in attribute_names(model) if name not in _UNDESCRIBED]
    taken = {'name', 'sha256', 'architecture', 'seed', 'card', 'layout', 'prefix', 'trained'}
    taken |= {'affinity', 'repository', 'commit', 'file'}
    if taken := sorted(taken & set(names)):
        raise ValueError(
            f'{type(model).__name__} has an attribute {taken[0]!r}; results have something else '
            'by that name: rename it'
        )
    described = {name: getattr(model, name) for name in names}
    if 'dtype' in described:
        # Float32 is left out, as in results of earlier versions, which had no other dtype.
        if _dtype_of(model) == 'float32':
            del described['dtype']
        else:
            described['dtype'] = _dtype_of(model)
    return {'architecture': type(model).__name__, **described}


def network_of(model: nn.Module, variables: Mapping[str, Any], name: str, color: str) -> Network:
    """Makes a `Network` of a trained network in memory, with a `name` for its results."""
    return Network(model, variables, True, {'name': name, **_described(model)}, color)
