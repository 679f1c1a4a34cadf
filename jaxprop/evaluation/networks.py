"""Networks with their variables, by name: shipped, saved, or with random weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxprop.checkpoints import native
from jaxprop.models import find_network
from jaxprop.models.network import attribute_names

# Attributes left out of descriptions: they change features by rounding at most.
_UNDESCRIBED = ('dtype', 'norm_momentum', 'norm_axis_name')


@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its variables, and what is known of them.

    Attributes:
      model: a network as `jaxprop.models` describes it.
      variables: all of the model's.
      trained: False for random weights, whose batch statistics, if any, are estimated on each
        video itself.
      description: goes into every output.
      color: what the network was trained to see, as `jaxprop.color.network_input` names it.
      card: attributes that have another value here than in the card of the saved network, with
        the values of the card.
    """

    model: nn.Module
    variables: Mapping[str, Any]
    trained: bool
    description: Mapping[str, Any]
    color: str = 'rgb'
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """A sentence for each attribute that has another value than the card says."""
        name = self.description['name']
        return [
            f'network.{key} is {getattr(self.model, key)!r}, the card of {name} says {value!r}.'
            for key, value in self.card.items()
        ]


def load_network(
    name: str,
    *,
    architecture: str | None = None,
    seed: int = 0,
    untrained: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Network:
    """Loads a shipped network or a saved one by its path, or makes one with random weights.

    Args:
      name: as `load_pretrained` takes it, or 'untrained' for random weights.
      architecture: of the untrained network, a name for `find_network`; None: 'resnet'. A saved
        network's is in its card.
      seed: of the random weights.
      untrained: attributes, and the architecture, of an untrained network alone, where no others
        are given.
      **attributes: of the network, in place of those in the card, or of the defaults where it is
        untrained. None stands for an attribute that is not given.

    Raises:
      ValueError: an unknown architecture or attribute, or as `load_pretrained`.
    """
    attributes = {key: value for key, value in attributes.items() if value is not None}
    if name == 'untrained':
        attributes = {**(untrained or {}), **attributes}
        attributes.pop('architecture', None)
        architecture = architecture or (untrained or {}).get('architecture')
        network = find_network(architecture or 'resnet')
        if unknown := sorted(set(attributes) - set(attribute_names(network))):
            known = attribute_names(network)
            raise ValueError(f'network: {network.__name__} has no {unknown}; known: {known}')
        model = network(**attributes)
        variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)))
        return Network(model, variables, False, {'name': name, 'seed': seed, **_described(model)})
    card = native.describe_pretrained(name)
    if architecture and find_network(architecture) is not find_network(card['network']):
        raise ValueError(
            f'network.architecture is {architecture!r}, the card of {name} says {card["network"]!r}'
        )
    model, variables = native.load_pretrained(name, **attributes)
    saved = type(model)(**card['attributes'])
    differing = {
        key: getattr(saved, key)
        for key in attributes
        if key in card['attributes'] and getattr(saved, key) != getattr(model, key)
    }
    description = {'name': str(name), 'sha256': card['sha256'], **_described(model)}
    if differing:
        description['card'] = differing
    color_seen = card['description'].get('color', 'rgb')
    return Network(model, variables, True, description, color_seen, differing)


def weights_digest(name: str) -> str:
    """SHA-256 of a network's file of weights, in hexadecimal; '' for one without a file."""
    return '' if name in ('', 'untrained') else native.weights_digest(name)


def _described(model):
    """The class of a network, and its attributes but those that change no feature."""
    names = [name for name in attribute_names(model) if name not in _UNDESCRIBED]
    if taken := sorted({'name', 'sha256', 'architecture', 'seed', 'card'} & set(names)):
        raise ValueError(
            f'{type(model).__name__} has an attribute {taken[0]!r}; results have something else '
            'by that name: rename it'
        )
    return {'architecture': type(model).__name__, **{name: getattr(model, name) for name in names}}


def network_of(model: nn.Module, variables: Mapping[str, Any], name: str, color: str) -> Network:
    """A trained network that is in memory, under a name that results will have for it."""
    return Network(model, variables, True, {'name': name, **_described(model)}, color)
