"""From a config to the parts of a run: data, backbone, objective, optimiser, first state."""

import dataclasses
import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from jaxprop import color, parallel
from jaxprop.checkpoints.native import load_pretrained, save_pretrained
from jaxprop.checkpoints.published import load_released
from jaxprop.data.pipeline import BatchIterator, CombinedIterator, DatasetConfig, make_iterator
from jaxprop.models import ResNet, estimate_batch_statistics
from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.objectives import combine
from jaxprop.objectives.objective import Objective
from jaxprop.training import checkpoint
from jaxprop.training.schedules import make_optimizer, make_schedule
from jaxprop.training.state import TrainState

_OBJECTIVES = ('classification', 'color_autoencoder', 'moco', 'rotation', 'uvc')


def open_data(config: ConfigDict) -> BatchIterator | CombinedIterator:
    """The batches of a config: of `data`, and with `image_data` {'video': ..., 'image': ...}."""
    place = jax.process_index(), jax.process_count()
    iterator = make_iterator(DatasetConfig(**config.data), config.seed, *place)
    if config.image_data is None:
        return iterator
    # Another seed, or the images would be those of the videos' frames.
    images = make_iterator(DatasetConfig(**config.image_data), config.seed + 1, *place)
    return CombinedIterator({'video': iterator, 'image': images})


def make_training(
    config: ConfigDict, steps_per_epoch: float
) -> tuple[ResNet | ColorAutoencoder, Objective, optax.Schedule, optax.GradientTransformation]:
    """What a config trains, and how: backbone, objective, learning rate and optimiser."""
    backbone = make_backbone(config)
    schedule = make_schedule(**config.schedule, steps_per_epoch=steps_per_epoch)
    frozen_until = None if config.backbone is None else config.backbone.frozen_until
    optimizer = make_optimizer(schedule, **config.optimizer, frozen_until=frozen_until)
    return backbone, make_objective(config, backbone, steps_per_epoch), schedule, optimizer


def make_backbone(config: ConfigDict) -> ResNet | ColorAutoencoder:
    """The network that a config trains, its batch statistics averaged over the devices."""
    if config.backbone is None:
        return ColorAutoencoder()
    return ResNet(**config.backbone, norm_axis_name=parallel.AXIS)


def make_objective(
    config: ConfigDict, backbone: ResNet | ColorAutoencoder, steps_per_epoch: float
) -> Objective:
    """What a config trains: `objective`, and with `image_objective` the two combined.

    The name of an objective is its module's in `jaxprop.objectives`; the other settings are the
    arguments of its `objective`. NAME_epoch is NAME, in epochs instead of steps.

    Raises:
      ValueError: there is no such objective, or no colour autoencoder for UVC.
    """

    def build(settings):
        settings = settings.to_dict()
        name = settings.pop('name')
        if name not in _OBJECTIVES:
            raise ValueError(f'objective is {name!r}; it must be one of {_OBJECTIVES}')
        module = importlib.import_module(f'jaxprop.objectives.{name}')
        for key in [key for key in settings if key.endswith('_epoch')]:
            settings[key.removesuffix('_epoch')] = round(settings.pop(key) * steps_per_epoch)
        arguments = [] if isinstance(backbone, ColorAutoencoder) else [backbone]
        if name == 'uvc':
            arguments.append(load_color_autoencoder(settings.pop('color_autoencoder')))
        return module.objective(*arguments, **settings, axis_name=parallel.AXIS)

    if config.image_objective is None:
        return build(config.objective)
    return combine.objective(
        build(config.objective), build(config.image_objective), config.image_weight
    )


def load_color_autoencoder(path: str | os.PathLike) -> dict[str, Any]:
    """Variables of a colour autoencoder.

    Args:
      path: the folder of a run that trained one, or a folder with the two files that UVC was
        released with: *encoder*.pth and *decoder*.pth.

    Raises:
      ValueError: it is neither.
    """
    if not path:
        raise ValueError(
            'color_autoencoder is empty: give the folder of a run of configs/train/'
            'color_autoencoder.py, or one with the released encoder and decoder'
        )
    path = pathlib.Path(path)
    parts = [sorted(path.glob(f'*{part}*.pth')) for part in ('encoder', 'decoder')]
    if all(len(part) == 1 for part in parts):
        return load_released(parts[0][0], parts[1][0])
    found = checkpoint.restore_variables(path / 'checkpoints')
    return {'params': found['params']['backbone']}


def start_from(state: TrainState, path: str | os.PathLike, backbone: ResNet) -> TrainState:
    """A fresh state with what another run has learned.

    Args:
      state: before the first step; its optimiser's part is kept.
      path: the folder of a run, from whose latest checkpoint everything is taken that this
        objective has too: backbone, heads, queue and momentum encoder; or the file of a network
        that `load_pretrained` reads: the backbone alone.
      backbone: the network; its strides may differ from those of the other.

    Raises:
      ValueError: there is no such run or file, or it has another backbone.
    """
    if pathlib.Path(path).is_dir():
        found = checkpoint.restore_variables(pathlib.Path(path) / 'checkpoints')
    else:
        attributes = {name: getattr(backbone, name) for name in ('output', 'strides')}
        _, variables = load_pretrained(path, **attributes)
        found = {
            'params': {'backbone': variables['params']},
            'state': {'backbone': variables['batch_stats']},
        }
    found = traverse_util.flatten_dict(found)

    def replace(keys, value):
        part, *names = (key.key for key in keys)
        other = found.get((part, *names))
        same = other is not None and other.shape == value.shape
        if names[0] == 'backbone' and not same:
            raise ValueError(f'{path}: has no {"/".join(names)} of shape {value.shape}')
        # Integers count steps: they start again.
        if not same or not np.issubdtype(value.dtype, np.floating):
            return value
        return jax.numpy.asarray(other, value.dtype)

    return state._replace(
        **jax.tree_util.tree_map_with_path(replace, {'params': state.params, 'state': state.state})
    )


def export_backbone(
    path: str | os.PathLike,
    backbone: ResNet,
    variables: Mapping[str, Any],
    description: Mapping[str, Any],
) -> None:
    """Writes a trained backbone for `load_pretrained`, without what only training needs."""
    save_pretrained(
        path,
        backbone.clone(norm_axis_name=None, frozen_until=None, dtype=None),
        variables,
        description,
    )


def data_statistics(
    config: ConfigDict, backbone: ResNet, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """A trained backbone with the batch statistics of frames of `data`, not of its training.

    The running ones of UVC+ are of crops, in lightness and in colour by turns; an evaluation shows
    whole frames in one of the two.

    Args:
      config: `statistics` says how many `frames`, of which `size`, in which `color` (as
        `jaxprop.color.network_input`).
      backbone: the network.
      variables: `params` and `batch_stats`.
    """
    frames, size, seen = (config.statistics[key] for key in ('frames', 'size', 'color'))
    data = dataclasses.replace(
        DatasetConfig(**config.data), num_frames=1, batch_size=frames, size=size
    )
    images = next(make_iterator(data, config.seed))['image']
    estimate = jax.jit(estimate_batch_statistics, static_argnums=0)
    return estimate(backbone.clone(dtype=None), variables, color.network_input(images, seen))
