"""Makes the parts of a run from its config: data, backbone, objective, optimiser, first state."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from jaxprop import color, parallel
from jaxprop.checkpoints.native import load_pretrained, save_pretrained
from jaxprop.data.pipeline import BatchIterator, CombinedIterator, DatasetConfig, make_iterator
from jaxprop.models import estimate_batch_statistics, find_network
from jaxprop.models.network import attribute_names, check_attributes, replace_attributes
from jaxprop.objectives import Objective, find_objective
from jaxprop.objectives.combine import combine
from jaxprop.training import checkpoint
from jaxprop.training.schedules import make_optimizer, make_schedule
from jaxprop.training.state import TrainState

_DTYPES = ('float32', 'bfloat16', 'float16')
# Settings that count something, or are lengths in pixels.
_COUNTS = (
    'accumulate',
    'checkpoint_every',
    'log_every',
    'keep',
    'size',
    'patch_size',
    'frame_size',
)


def check_settings(config: ConfigDict) -> None:
    """Checks numbers that would else fail later, in JAX or a library, or go wrong silently.

    Raises:
      ValueError: a setting has a value that cannot be used; the message names it.
    """
    for name, value in traverse_util.flatten_dict(config.to_dict(), sep='.').items():
        for number in value if isinstance(value, (tuple, list)) else (value,):
            # Of the settings only an objective's may be infinite: it may be a threshold.
            is_free = name.startswith(('objective.', 'image_objective.')) and number == np.inf
            if isinstance(number, float) and not np.isfinite(number) and not is_free:
                raise ValueError(f'{name} is {value}; it must be finite')
            if isinstance(number, int) and abs(number) >= 2**31:
                raise ValueError(f'{name} is {value}; it must be below {2**31}')
            if name.split('.')[-1] in _COUNTS and (type(number) is not int or number < 1):
                raise ValueError(f'{name} is {value}; it must be at least 1, a whole number')
    if config.seed < 0:
        raise ValueError(f'seed is {config.seed}; it must not be negative')
    length = 'epochs' if config.steps is None else 'steps'
    if not config[length] > 0:
        raise ValueError(f'{length} is {config[length]}; it must be above 0')
    evaluation = config.get('evaluation')
    if evaluation is not None and evaluation.every is not None:
        if evaluation.every < 1:
            raise ValueError(f'evaluation.every is {evaluation.every}; it must be at least 1')
        if config.backbone is None:
            raise ValueError('evaluation.every is set, but the config has no backbone to evaluate')


def open_data(config: ConfigDict) -> BatchIterator | CombinedIterator:
    """Opens the data of a config as an iterator of batches.

    With `image_data` a batch is {'video': of `data`, 'image': of `image_data`}, else one of `data`.
    """
    place = jax.process_index(), jax.process_count()
    iterator = make_iterator(DatasetConfig(**config.data), config.seed, *place)
    if config.image_data is None:
        return iterator
    # The seed differs, so that images are not drawn in the order of the videos.
    images = make_iterator(DatasetConfig(**config.image_data), config.seed + 1, *place)
    return CombinedIterator({'video': iterator, 'image': images})


def make_training(
    config: ConfigDict, steps_per_epoch: float
) -> tuple[nn.Module | None, Objective, optax.Schedule, optax.GradientTransformation]:
    """Makes the backbone, the objective, the learning rate and the optimiser of a config."""
    backbone = make_backbone(config)
    schedule = make_schedule(
        **config.schedule, steps_per_epoch=steps_per_epoch, batch_size=config.data.batch_size
    )
    frozen_until = getattr(backbone, 'frozen_until', None)
    optimizer = make_optimizer(schedule, **config.optimizer, frozen_until=frozen_until)
    return backbone, make_objective(config, backbone, steps_per_epoch), schedule, optimizer


def make_backbone(config: ConfigDict) -> nn.Module | None:
    """Builds the network of `config.backbone`; None where the objective brings its own.

    `architecture` is its name for `find_network`, 'resnet' if not given; the other settings are its
    attributes. Its batch statistics are averaged over the devices.

    Raises:
      ValueError: there is no such network, or it has no such attribute.
    """
    if config.backbone is None:
        return None
    settings = config.backbone.to_dict()
    network = find_network(settings.pop('architecture', 'resnet'))
    check_attributes(network, settings, 'backbone')
    if settings.get('dtype') not in (None, *_DTYPES):
        raise ValueError(f'backbone: dtype is {settings["dtype"]!r}; known: {_DTYPES}')
    return replace_attributes(network(**settings), norm_axis_name=parallel.AXIS)


def make_objective(
    config: ConfigDict, backbone: nn.Module | None, steps_per_epoch: float
) -> Objective:
    """Makes a config's objective: `objective`, or this combined with `image_objective`.

    The name of an objective is that of its module in `jaxprop.objectives`. The other settings are
    the arguments of the module's `from_config`, or of its `objective` if it has no `from_config`. A
    setting NAME_epoch is the argument NAME, given in epochs. Objectives count calls of the loss,
    of which a step makes `accumulate`, so the value is converted to calls. `image_gradient_norms`
    is `gradient_norms` of `combine`.

    Raises:
      ValueError: there is no such objective, or it refuses its settings; `image_gradient_norms` is
        set without an `image_objective`.
    """

    # Objectives count how often they are called.
    calls_per_epoch = steps_per_epoch * config.accumulate

    def build(settings):
        settings = settings.to_dict()
        module = find_objective(settings.pop('name'))
        for key in [key for key in settings if key.endswith('_epoch')]:
            settings[key.removesuffix('_epoch')] = round(settings.pop(key) * calls_per_epoch)
        settings['axis_name'] = parallel.AXIS
        arguments = [] if backbone is None else [backbone]
        if hasattr(module, 'from_config'):
            restore = checkpoint.restore_variables
            return module.from_config(*arguments, restore=restore, **settings)
        return module.objective(*arguments, **settings)

    gradient_norms = config.get('image_gradient_norms', False)
    if config.image_objective is None:
        if gradient_norms:
            raise ValueError(
                f'image_gradient_norms is {gradient_norms}, but the config has no image_objective: '
                'it compares the gradients of two losses'
            )
        return build(config.objective)
    return combine(
        build(config.objective),
        build(config.image_objective),
        config.image_weight,
        gradient_norms=gradient_norms,
        axis_name=parallel.AXIS,
    )


def start_from(
    state: TrainState, path: str | os.PathLike, backbone: nn.Module | None
) -> TrainState:
    """Puts into a fresh state the parameters that another run has learned.

    Args:
      state: the state before the first step; the optimiser's part of it is kept.
      path: the folder of a run, or the file of a network that `load_pretrained` reads. From a run's
        latest checkpoint everything is taken that this objective has, too: backbone, heads, queue
        and momentum encoder. From a file only the backbone is taken.
      backbone: the network; its strides may differ from those of the other run's. None if the
        objective brings its own network, which a file cannot hold.

    Raises:
      ValueError: there is no such run or file, or it has another backbone.
    """
    if pathlib.Path(path).is_dir():
        found = checkpoint.restore_variables(pathlib.Path(path) / 'checkpoints')
    elif backbone is None:
        raise ValueError(f'start_from is {str(path)!r}; needed here: the folder of a run')
    else:
        attributes = {name: getattr(backbone, name) for name in attribute_names(backbone)}
        _, variables = load_pretrained(path, **attributes)
        params = variables.pop('params')
        found = {'params': {'backbone': params}, 'state': {'backbone': variables}}
    found = traverse_util.flatten_dict(found)

    def replace(keys, value):
        part, *names = (key.key for key in keys)
        other = found.get((part, *names))
        same = other is not None and other.shape == value.shape
        if names[0] == 'backbone' and not same:
            raise ValueError(f'{path}: has no {"/".join(names)} of shape {value.shape}')
        # Integers are counters of steps, which start again.
        if not same or not np.issubdtype(value.dtype, np.floating):
            return value
        return jax.numpy.asarray(other, value.dtype)

    return state._replace(
        **jax.tree_util.tree_map_with_path(replace, {'params': state.params, 'state': state.state})
    )


def export_backbone(
    path: str | os.PathLike,
    backbone: nn.Module,
    variables: Mapping[str, Any],
    description: Mapping[str, Any],
) -> None:
    """Writes a trained backbone for `load_pretrained`, without attributes that only train it."""
    save_pretrained(path, without_training(backbone), variables, description)


def without_training(backbone: nn.Module) -> nn.Module:
    """Removes a backbone's attributes that only train it: devices, frozen stages, precision."""
    return replace_attributes(backbone, norm_axis_name=None, frozen_until=None, dtype=None)


def data_statistics(
    config: ConfigDict, backbone: nn.Module, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Gives a trained backbone the batch statistics of frames of `data`.

    The running statistics of training may be of other images. Those of UVC+ are of crops, in
    lightness and in colour by turns; an evaluation shows whole frames in one of the two.

    Args:
      config: a training config. Its `statistics` say how many `frames` are taken (all of an epoch,
        if it has fewer), their `size`, and in which `color` the network sees them (a name of
        `jaxprop.color.network_input`).
      backbone: the network.
      variables: all variables of the network.

    Returns:
      The network's variables with the new statistics.
    """
    frames, size, seen = (config.statistics[key] for key in ('frames', 'size', 'color'))
    single = dataclasses.replace(
        DatasetConfig(**config.data), num_frames=1, batch_size=1, size=size
    )
    # A few videos may have fewer frames in an epoch.
    frames = min(frames, make_iterator(single, config.seed).examples_per_epoch)
    data = dataclasses.replace(single, batch_size=frames)
    images = next(make_iterator(data, config.seed))['image']
    estimate = jax.jit(estimate_batch_statistics, static_argnums=0)
    network = replace_attributes(backbone, dtype=None)
    return estimate(network, variables, color.network_input(images, seen))
