"""A run of training, from a config to a backbone on disk."""

import contextlib
import dataclasses
import importlib
import json
import math
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tqdm import tqdm

from jaxprop import color, parallel
from jaxprop.data.pipeline import BatchIterator, CombinedIterator, DatasetConfig, make_iterator
from jaxprop.files import claim, write_json, write_text
from jaxprop.models import (
    ResNet,
    estimate_batch_statistics,
    load_pretrained,
    save_pretrained,
)
from jaxprop.models.color_autoencoder import ColorAutoencoder, load_released
from jaxprop.objectives import combine
from jaxprop.objectives.objective import Objective
from jaxprop.training import checkpoint
from jaxprop.training.schedules import make_optimizer, make_schedule
from jaxprop.training.state import TrainState, create_state
from jaxprop.training.step import make_train_step

# What a run may go on with another value of: its length, its place, what is written.
_CHANGEABLE = {
    'title',
    'steps',
    'epochs',
    'log_every',
    'checkpoint_every',
    'keep',
    'data/root',
    'data/num_threads',
    'image_data/root',
    'image_data/num_threads',
    'statistics',
    'statistics/frames',
    'statistics/size',
    'statistics/color',
}
# Steps that are dispatched ahead of the device; each holds a batch there.
_AHEAD = 2
_OBJECTIVES = ('classification', 'color_autoencoder', 'moco', 'rotation', 'uvc')


def train(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Trains, or goes on where an earlier call with the same `workdir` stopped.

    SIGTERM makes it save a checkpoint after the current step, and return.

    Args:
      config: see configs/train/base.py.
      workdir: the folder for config.json, metrics.jsonl, TensorBoard's events, checkpoints, the
        unreadable files of each process in unreadable.N.json and, at the end, a ResNet's
        backbone.safetensors for `jaxprop.models.load_pretrained`.

    Returns:
      'step', 'finished' (False after SIGTERM), and 'metrics', the last that were written.

    Raises:
      FloatingPointError: a term of the loss is not finite; the message says which. The checkpoints
        there are from before that.
      DataError: the data cannot be read, or too much of it.
      ValueError: a setting that won't do, or `workdir` holds a run of other settings.
    """
    workdir = pathlib.Path(workdir)
    claim(workdir / 'config.json', config.to_dict(), _CHANGEABLE, write=parallel.is_writer())

    iterator = open_data(config)
    steps_per_epoch = iterator.examples_per_epoch / config.data.batch_size
    num_steps = config.steps if config.steps is not None else round(config.epochs * steps_per_epoch)
    backbone, objective, schedule, optimizer = make_training(config, steps_per_epoch)

    start = iterator.get_state()
    example = jax.tree.map(lambda values: values[0], parallel.split(next(iterator)))
    iterator.set_state(start)
    state = create_state(objective, optimizer, example, config.seed)

    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(checkpoint.open_manager(workdir / 'checkpoints', config.keep))
        if manager.latest_step() is not None:
            state, data_state = checkpoint.restore(manager, state)
            iterator.set_state(data_state)
        elif config.start_from:
            state = start_from(state, config.start_from, backbone)
        first_step = step = int(state.step)
        log = stack.enter_context(contextlib.closing(_Log(workdir, first_step)))
        bar = stack.enter_context(
            tqdm(
                total=num_steps,
                initial=first_step,
                desc=config.name,
                unit='step',
                dynamic_ncols=True,
                disable=not parallel.is_writer(),
            )
        )
        terminated = stack.enter_context(_sigterm())
        train_step = make_train_step(objective, optimizer, config.accumulate)
        state = parallel.replicate(state)
        batches = stack.enter_context(contextlib.closing(parallel.prefetch(iterator)))

        def write():
            log.write(
                step,
                config.data.batch_size,
                epoch=step / steps_per_epoch,
                learning_rate=float(schedule(step - 1)),
                unreadable=len(iterator.unreadable),
            )
            if iterator.unreadable:
                write_json(workdir / f'unreadable.{jax.process_index()}.json', iterator.unreadable)
            bar.set_postfix(loss=log.metrics['loss'], refresh=False)

        def save():
            write()  # First: it refuses what is not finite.
            checkpoint.save(manager, parallel.unreplicate(state), data_state, log.loss_since_save())

        log.start()
        while step < num_steps and not (terminated.is_set() or parallel.stop_requested(step)):
            with log.waiting():
                batch, data_state = next(batches)
            state, metrics = train_step(state, batch)
            step += 1
            log.add(step, metrics)
            bar.update()
            if step % config.checkpoint_every == 0 or step == num_steps:
                save()
            elif step % config.log_every == 0:
                write()
        if first_step < step < num_steps and step % config.checkpoint_every:
            save()

        state = parallel.unreplicate(state)
        if step >= num_steps and parallel.is_writer() and isinstance(backbone, ResNet):
            variables = {'params': state.params['backbone'], 'batch_stats': state.state['backbone']}
            if config.statistics is not None:
                variables = data_statistics(config, backbone, variables)
            export_backbone(
                workdir / 'backbone',
                backbone,
                variables,
                {
                    'trained by': config.name,
                    'color': 'lightness' if config.objective.name == 'uvc' else 'rgb',
                    'steps': step,
                    'epochs': step / steps_per_epoch,
                    'metrics': log.metrics,
                    'config': _without_paths(config.to_dict()),
                },
            )
    return {'step': step, 'finished': step >= num_steps, 'metrics': log.metrics}


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


class _Log:
    """metrics.jsonl and TensorBoard's events, one entry for several steps, by the one writer."""

    def __init__(self, workdir: pathlib.Path, first_step: int) -> None:
        self.metrics: dict[str, float] = {}
        self._pending: list[tuple[int, Any]] = []
        self._losses: list[float] = []
        self._file = self._events = None
        if parallel.is_writer():
            path = workdir / 'metrics.jsonl'
            self.metrics = _cut(path, first_step)
            self._file = path.open('a')
            self._events = SummaryWriter(str(workdir), purge_step=first_step + 1)

    def start(self) -> None:
        self._waited, self._began = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def add(self, step: int, metrics: Any) -> None:
        self._pending.append((step, metrics))
        if len(self._pending) > _AHEAD:
            jax.block_until_ready(self._pending[-1 - _AHEAD][1])

    def write(self, step: int, examples_per_step: int, **more: float) -> None:
        """Averages what was added since the last time, if anything; refuses what isn't finite."""
        if not self._pending:
            return
        values = [(number, parallel.unreplicate(metrics)) for number, metrics in self._pending]
        self._pending.clear()
        for number, metrics in values:
            check_finite(number, metrics)
        self._losses += [float(metrics['loss']) for _, metrics in values]
        seconds = time.perf_counter() - self._began
        self.metrics = {
            'step': step,
            **{name: float(np.mean([m[name] for _, m in values])) for name in values[0][1]},
            **more,
            'examples_per_second': len(values) * examples_per_step / seconds,
            'wait_share': self._waited / seconds,
        }
        self.start()
        if self._file is not None:
            print(json.dumps(self.metrics), file=self._file, flush=True)
            for name, value in self.metrics.items():
                self._events.add_scalar(name, value, step)

    def loss_since_save(self) -> float:
        mean = float(np.mean(self._losses))
        self._losses.clear()
        return mean

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._events.close()


def check_finite(step: int, metrics: Mapping[str, Any]) -> None:
    """Refuses metrics that are not finite.

    Raises:
      FloatingPointError: naming the step and every metric that is infinite or not a number.
    """
    bad = {name: float(value) for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        terms = ', '.join(f'{name} = {value}' for name, value in bad.items())
        raise FloatingPointError(f'step {step}: not finite: {terms}')


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process."""
    event = threading.Event()
    # With several processes JAX listens, so that all stop at the same step.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)


def _cut(path, step):
    """Leaves only what was written up to a step, as later ones are done again; gives the last."""
    if not path.exists():
        return {}
    kept, last = [], {}
    for line in path.read_text().splitlines(keepends=True):
        # A run that was killed may have left half a line.
        entry = json.loads(line) if line.endswith('\n') else None
        if entry and entry['step'] <= step:
            kept.append(line)
            last = entry
    write_text(path, ''.join(kept))
    return last


def _without_paths(config):
    """What may be shown to others: where the data lay on this machine says nothing to them."""
    flat = traverse_util.flatten_dict(config)
    return traverse_util.unflatten_dict(
        {
            key: value
            for key, value in flat.items()
            if key[-1] not in ('root', 'start_from', 'color_autoencoder')
        }
    )
