"""Where features come from: networks with their variables, and what is known of them."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import color
from jaxprop.checkpoints.native import describe_pretrained, load_pretrained
from jaxprop.data.inputs import input_size, resize_frame
from jaxprop.models import VGG16, ResNet, estimate_batch_statistics

if typing.TYPE_CHECKING:
    from jaxprop.evaluation.run import Labeller

# Frames from which an untrained network's batch statistics are taken, evenly over the video.
_STATISTICS_FRAMES = 8


ARCHITECTURES = {'resnet': ResNet, 'vgg16': VGG16}


@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its variables, and what is known of them.

    `description` goes into every output; `trained` is False for random weights, whose batch
    statistics are estimated on each video itself. `color` is what it was trained to see, as
    `jaxprop.color.network_input` names it.
    """

    model: ResNet | VGG16
    variables: Mapping[str, Any]
    trained: bool
    description: Mapping[str, Any]
    color: str = 'rgb'


def load_network(
    name: str, *, architecture: str = 'resnet', seed: int = 0, **attributes: Any
) -> Network:
    """A shipped network or a saved one by its path; 'untrained' for one with random weights.

    Args:
      name: as `load_pretrained` takes it, or 'untrained'.
      architecture: of the untrained network, 'resnet' or 'vgg16'; a saved one's is in its file.
      seed: of the random weights.
      **attributes: of the `ResNet` or `VGG16`, in place of the saved ones.

    Raises:
      ValueError: an unknown architecture, or as `load_pretrained`.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f'architecture is {architecture!r}; it must be one of {tuple(ARCHITECTURES)}'
        )
    if name == 'untrained':
        model = ARCHITECTURES[architecture](**attributes)
        variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)))
        return Network(model, variables, False, {'name': name, 'seed': seed, **_attributes(model)})
    model, variables = load_pretrained(name, **attributes)
    seen = describe_pretrained(name)['description'].get('color', 'rgb')
    return Network(model, variables, True, {'name': str(name), **_attributes(model)}, seen)


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
    if network.trained:
        return network.variables
    chosen = np.unique(np.linspace(0, num_frames - 1, _STATISTICS_FRAMES).round().astype(int))
    frames = [read_frame(int(t)) for t in chosen]
    size = input_size(*frames[0].shape[:2], labeller.input)
    inputs = np.stack([resize_frame(frame, size) for frame in frames])
    return _estimate_statistics(network.model, network.variables, inputs, labeller.color)


def _attributes(model):
    return {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in ('parent', 'name', 'dtype', 'norm_momentum', 'norm_axis_name')
    }


@functools.partial(jax.jit, static_argnames=('model', 'color_space'))
def extract_features(model, variables, frames, *, color_space):
    """Features `[B, H, W, C]` of uint8 RGB frames `[B, h, w, 3]`."""
    return model.apply(variables, color.network_input(frames, color_space))
