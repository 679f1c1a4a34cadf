"""Where features come from: networks with their variables, and what is known of them."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import color
from jaxprop.checkpoints.native import describe_pretrained, load_pretrained
from jaxprop.data.inputs import input_size, resize_frame
from jaxprop.models import estimate_batch_statistics, find_network
from jaxprop.models.network import attribute_names

if typing.TYPE_CHECKING:
    from jaxprop.evaluation.run import Labeller

# Frames from which an untrained network's batch statistics are taken, evenly over the video.
_STATISTICS_FRAMES = 8

# What a description leaves out: it changes no feature, or rounding alone.
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
      card: what a saved network's card says of those attributes that have another value here.
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
    name: str, *, architecture: str | None = None, seed: int = 0, **attributes: Any
) -> Network:
    """Loads a shipped network or a saved one by its path, or makes one with random weights.

    Args:
      name: as `load_pretrained` takes it, or 'untrained' for random weights.
      architecture: of the untrained network, a name for `find_network`; None: 'resnet'. A saved
        network's is in its card.
      seed: of the random weights.
      **attributes: of the network, in place of those in the card, or of the defaults where it is
        untrained. None stands for an attribute that is not given.

    Raises:
      ValueError: an unknown architecture or attribute, or as `load_pretrained`.
    """
    attributes = {key: value for key, value in attributes.items() if value is not None}
    if name == 'untrained':
        network = find_network(architecture or 'resnet')
        if unknown := sorted(set(attributes) - set(attribute_names(network))):
            known = attribute_names(network)
            raise ValueError(f'network: {network.__name__} has no {unknown}; known: {known}')
        model = network(**attributes)
        variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)))
        return Network(model, variables, False, {'name': name, 'seed': seed, **_described(model)})
    card = describe_pretrained(name)
    if architecture and find_network(architecture) is not find_network(card['network']):
        raise ValueError(
            f'network.architecture is {architecture!r}, the card of {name} says {card["network"]!r}'
        )
    model, variables = load_pretrained(name, **attributes)
    saved = type(model)(**card['attributes'])
    differing = {
        key: getattr(saved, key)
        for key in attributes
        if key in card['attributes'] and getattr(saved, key) != getattr(model, key)
    }
    description = {'name': str(name), **_described(model)}
    if differing:
        description['card'] = differing
    color_seen = card['description'].get('color', 'rgb')
    return Network(model, variables, True, description, color_seen, differing)


_estimate_statistics = jax.jit(
    lambda model, variables, frames, color_space: estimate_batch_statistics(
        model, variables, color.network_input(frames, color_space)
    ),
    static_argnums=(0, 3),
)


def video_variables(
    read_frame: Callable[[int], np.ndarray], num_frames: int, labeller: 'Labeller'
) -> Mapping[str, Any]:
    """The network's variables; if it is untrained, with the batch statistics of this video."""
    network = labeller.network
    if network.trained or 'batch_stats' not in network.variables:
        return network.variables
    chosen = np.unique(np.linspace(0, num_frames - 1, _STATISTICS_FRAMES).round().astype(int))
    frames = [read_frame(int(t)) for t in chosen]
    size = input_size(*frames[0].shape[:2], labeller.input)
    inputs = np.stack([resize_frame(frame, size) for frame in frames])
    return _estimate_statistics(network.model, network.variables, inputs, labeller.color)


def _described(model):
    names = [name for name in attribute_names(model) if name not in _UNDESCRIBED]
    return {name: getattr(model, name) for name in names}


@functools.partial(jax.jit, static_argnames=('model', 'color_space'))
def extract_features(model, variables, frames, *, color_space):
    """Features `[B, H, W, C]` of uint8 RGB frames `[B, h, w, 3]`."""
    return model.apply(variables, color.network_input(frames, color_space))
