"""The training loop: a run from a config to a trained backbone on disk."""

import contextlib
import functools
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxprop import files, parallel
from jaxprop.data.pipeline import unreadable_files
from jaxprop.training import checkpoint
from jaxprop.training.evaluations import Evaluate, Evaluations
from jaxprop.training.log import Log, note
from jaxprop.training.setup import (
    check_settings,
    data_statistics,
    export_backbone,
    make_training,
    open_data,
    start_from,
    without_training,
)
from jaxprop.training.state import create_state
from jaxprop.training.step import make_train_step

# Names of a run's results in its folder.
_OWNED = ('checkpoints', 'metrics.jsonl', 'evaluation.jsonl', 'evaluation')
_OWNED += ('backbone.safetensors', 'backbone.json')
# Settings that may differ when a run is resumed. They affect its length, its paths and its logging,
# not the parameters that it learns.
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
    'evaluation/every',
    'evaluation/allow_val',
    'evaluation/dataset/root',
}
# These affect the exported network alone. They may differ, too, until a network of the run was
# evaluated with them.
_OF_EXPORT = {'statistics', 'statistics/frames', 'statistics/size', 'statistics/color'}


def train(
    config: ConfigDict, workdir: str | os.PathLike, evaluate: Evaluate | None = None
) -> dict[str, Any]:
    """Trains a network, or goes on where an earlier call with the same `workdir` stopped.

    SIGTERM and Ctrl-C (SIGINT) make it save a checkpoint after the current step, and return; a
    second Ctrl-C ends the process at once.

    Args:
      config: see configs/train/base.py.
      workdir: the folder for config.json, metrics.jsonl, TensorBoard's events, checkpoints, and
        unreadable.N.json, the list of files that process N could not read. If the config has a
        `backbone`, a run that ends or is stopped also writes backbone.safetensors for
        `jaxprop.checkpoints.load_pretrained`, with a card that says at which step.
      evaluate: a function that evaluates the network, called every `evaluation.every` steps and at
        the end as `evaluate(network, variables, color, step)`, with the variables that would be
        exported at that step. It returns a dict for evaluation.jsonl: its 'mean' chooses the best
        checkpoint, and its 'scores' are shown in TensorBoard too. It does not change the run.

    Returns:
      'step', 'finished' (False after a signal), and 'metrics', those that were written last.

    Raises:
      FloatingPointError: a term of the loss is not finite; the message says which. All checkpoints
        are from before that step.
      DataError: the data cannot be read, or too many files of it.
      ValueError: a setting cannot be used; or `workdir` holds a run of other settings, or one whose
        checkpoints are all damaged.
      OSError: `workdir` cannot be written to.
    """
    workdir = pathlib.Path(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f'{workdir} is a file; a run needs a folder')
    check_settings(config)
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(_stop_signals())
        if parallel.is_writer():
            stack.enter_context(files.locked(workdir))
        return _train(config, workdir, evaluate, stopped)


def _train(config, workdir, evaluate, stopped):
    # Check that the folder is of a run of these settings, or free.
    changeable = _CHANGEABLE
    if not (workdir / 'evaluation.jsonl').exists():
        changeable = changeable | _OF_EXPORT
    claim = functools.partial(
        files.claim, workdir / 'config.json', config.to_dict(), changeable, owned=_OWNED
    )
    claim(write=False)

    # Make the parts of the run, and the first state.
    iterator = open_data(config)
    steps_per_epoch = iterator.examples_per_epoch / config.data.batch_size
    num_steps = config.steps if config.steps is not None else round(config.epochs * steps_per_epoch)
    backbone, objective, schedule, optimizer = make_training(config, steps_per_epoch)
    every = config.evaluation.every if config.get('evaluation') is not None else None
    evaluations = Evaluations(workdir, every, evaluate)
    unreadable = workdir / f'unreadable.{jax.process_index()}.json'

    # Batches are read ahead, so how far the iterator is says nothing of a step.
    data_state = start = iterator.get_state()
    batch = parallel.split(next(iterator))
    iterator.set_state(start)
    example = jax.tree.map(lambda values: values[0], batch)
    state = create_state(objective, optimizer, example, config.seed)
    train_step = make_train_step(objective, optimizer, config.accumulate)
    # Batches that don't fit the objective are refused here. JAX keeps this for the first step.
    train_step.lower(parallel.replicate(state), parallel.put(batch))

    # All settings can be used: write them into the folder.
    claim(write=parallel.is_writer())
    if not schedule(num_steps - 1) > 0:
        note(
            f'the learning rate falls to 0 before the last of {num_steps} steps, and then nothing '
            f'is learned: --config.schedule.epochs={num_steps / steps_per_epoch:.5g} is as long as '
            'the run'
        )
    if parallel.is_writer():
        files.remove_partial(workdir)
    parallel.wait_for_all()  # On CPUs Orbax gives up if they come to it 30 seconds apart.
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(
            checkpoint.open_manager(workdir / 'checkpoints', config.keep, score=evaluations.score)
        )
        # Go on from a checkpoint, if there is one.
        if manager.latest_step() is not None:
            state, data_state = checkpoint.restore(manager, state)
            iterator.set_state(data_state)
        elif config.start_from:
            state = start_from(state, config.start_from, backbone)
        step = saved = int(state.step)
        log = stack.enter_context(contextlib.closing(Log(workdir, step)))
        bar = stack.enter_context(
            tqdm(
                total=num_steps,
                initial=step,
                desc=config.name,
                unit='step',
                dynamic_ncols=True,
                disable=not parallel.is_writer(),
            )
        )
        state = parallel.replicate(state)
        batches = stack.enter_context(contextlib.closing(parallel.prefetch(iterator)))

        def write():
            log.write(
                step,
                config.data.batch_size,
                epoch=step / steps_per_epoch,
                learning_rate=float(schedule(step - 1)),
                unreadable=len(unreadable_files(data_state)),
            )
            if unreadable_files(data_state):
                files.write_json(unreadable, unreadable_files(data_state))
            bar.set_postfix(loss=log.metrics['loss'], refresh=False)

        def save():
            nonlocal saved
            write()  # This comes first, since it raises an error if a metric is not finite.
            checkpoint.save(manager, parallel.unreplicate(state), data_state, log.loss_since_save())
            saved = step

        def variables():
            """The variables of the network at this step, as they are exported."""
            now = parallel.unreplicate(state)
            found = {'params': now.params['backbone'], **now.state.get('backbone', {})}
            return found if config.statistics is None else data_statistics(config, backbone, found)

        def evaluate_step():
            network = without_training(backbone)
            entry = evaluations.make(step, lambda: (network, variables(), objective.color))
            scores = {'mean': entry['mean'], **entry.get('scores', {})}
            log.show(step, {f'evaluation/{name}': value for name, value in scores.items()})
            log.start()  # The time of the evaluation does not count as training's.

        # Train. First make the evaluation of a process that was killed before it was done.
        log.start()
        if evaluations.is_due(step, step == num_steps):
            evaluate_step()
        while step < num_steps and not (stopped.is_set() or parallel.stop_requested(step)):
            with log.waiting():
                batch, data_state = next(batches)
            state, metrics = train_step(state, batch)
            step += 1
            log.add(step, metrics)
            bar.update()
            is_due = evaluations.is_due(step, step == num_steps)
            if step % config.checkpoint_every == 0 or step == num_steps or is_due:
                save()
                if is_due and not stopped.is_set():
                    evaluate_step()
            elif step % config.log_every == 0:
                write()
        if step > saved:
            save()

        # Export the network. The checkpoint is written before that: it matters more, should this
        # process be killed.
        checkpoint.wait(manager)
        if step > 0 and parallel.is_writer() and backbone is not None:
            export_backbone(
                workdir / 'backbone',
                backbone,
                variables(),
                {
                    'trained by': config.name,
                    'color': objective.color,
                    'affinity': objective.affinity,
                    'steps': step,
                    'finished': step >= num_steps,  # False if the run was stopped at this step.
                    'epochs': step / steps_per_epoch,
                    'metrics': log.metrics,
                    'config': _without_paths(config.to_dict()),
                },
            )
    if number := len(unreadable_files(data_state)):
        file = 'file was' if number == 1 else 'files were'
        note(f'{number} unreadable {file} left out; {unreadable} says why')
    return {'step': step, 'finished': step >= num_steps, 'metrics': log.metrics}


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Makes an event that SIGTERM and SIGINT set, instead of ending the process wherever it is.

    The handlers raise no exception: in the middle of a compilation it could crash the process.
    """
    event, is_interrupted = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def terminate(*_):
        event.set()

    def interrupt(*_):
        if is_interrupted.is_set():
            return
        is_interrupted.set()
        if jax.process_count() == 1:
            event.set()
        else:
            # JAX listens to SIGTERM, so that all processes stop at the same step.
            os.kill(os.getpid(), signal.SIGTERM)
        # `print` is not used here: the signal may have interrupted a call of it.
        os.write(2, b'\nnote: stopping after this step; Ctrl-C again stops at once\n')
        time.sleep(0.2)  # The program `timeout` sends a signal twice: let the second one pass.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    handlers = {signal.SIGINT: interrupt}
    if jax.process_count() == 1:
        handlers[signal.SIGTERM] = terminate
    previous = {number: signal.signal(number, handlers[number]) for number in handlers}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _without_paths(config):
    """Removes the paths of this machine from a config, since they tell others nothing."""
    flat = traverse_util.flatten_dict(config)
    return traverse_util.unflatten_dict(
        {
            key: value
            for key, value in flat.items()
            if key[-1] not in ('root', 'start_from', 'color_autoencoder')
        }
    )
