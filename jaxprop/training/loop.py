"""A run of training, from a config to a backbone on disk."""

import contextlib
import os
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxprop import parallel
from jaxprop.files import claim, write_json
from jaxprop.training import checkpoint
from jaxprop.training.log import Log
from jaxprop.training.setup import (
    data_statistics,
    export_backbone,
    make_training,
    open_data,
    start_from,
)
from jaxprop.training.state import create_state
from jaxprop.training.step import make_train_step

# Settings that may differ when a run is resumed: its length, its paths, what is logged.
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


def train(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Trains, or goes on where an earlier call with the same `workdir` stopped.

    SIGTERM makes it save a checkpoint after the current step, and return.

    Args:
      config: see configs/train/base.py.
      workdir: the folder for config.json, metrics.jsonl, TensorBoard's events, checkpoints, the
        unreadable files of each process in unreadable.N.json and, at the end, if the config has a
        `backbone`, backbone.safetensors for `jaxprop.checkpoints.load_pretrained`.

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
        log = stack.enter_context(contextlib.closing(Log(workdir, first_step)))
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
        if step >= num_steps and parallel.is_writer() and backbone is not None:
            variables = {'params': state.params['backbone'], **state.state.get('backbone', {})}
            if config.statistics is not None:
                variables = data_statistics(config, backbone, variables)
            export_backbone(
                workdir / 'backbone',
                backbone,
                variables,
                {
                    'trained by': config.name,
                    'color': objective.color,
                    'steps': step,
                    'epochs': step / steps_per_epoch,
                    'metrics': log.metrics,
                    'config': _without_paths(config.to_dict()),
                },
            )
    return {'step': step, 'finished': step >= num_steps, 'metrics': log.metrics}


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
