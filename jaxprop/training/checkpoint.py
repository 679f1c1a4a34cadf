"""Checkpoints: all of a run's state, written in the background, whole or not at all."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxprop.training.state import TrainState


def open_manager(
    folder: str | os.PathLike, keep: int = 3, read_only: bool = False
) -> ocp.CheckpointManager:
    """A manager of the checkpoints in a folder, which is made where missing.

    Args:
      folder: of the checkpoints, one folder each.
      keep: how many of the latest are kept, beside the one with the lowest loss.
      read_only: change nothing there: another process may be writing.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    if not read_only:
        best = BestN(get_metric_fn=lambda metrics: metrics['loss'], reverse=True, n=1)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )
    return ocp.CheckpointManager(
        pathlib.Path(folder).resolve(),
        options=options,
        item_handlers={
            'state': ocp.StandardCheckpointHandler(),
            'data': ocp.JsonCheckpointHandler(),
        },
    )


def save(
    manager: ocp.CheckpointManager, state: TrainState, data: Mapping[str, Any], loss: float
) -> None:
    """Saves in the background, unless this step is saved already.

    Args:
      manager: from `open_manager`.
      state: NumPy arrays.
      data: the data iterator's state, the same in all processes but for what only informs.
      loss: by which checkpoints are compared.
    """
    step = int(state.step)
    if step in manager.all_steps():
        return
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(dict(data))
        ),
        metrics={'loss': float(loss)},
    )


def restore(
    manager: ocp.CheckpointManager, like: TrainState, step: int | None = None
) -> tuple[TrainState, dict[str, Any]]:
    """The state as NumPy arrays, and the data iterator's, of a step or the latest one.

    Args:
      manager: from `open_manager`.
      like: a state of the same shapes.
      step: which one; the latest where None.

    Raises:
      ValueError: there is none, or it is of another network, objective or optimiser.
    """
    step = _existing(manager, step)
    saved = manager.item_metadata(step)['state']
    for part in ('params', 'state'):
        _check_shapes(manager.directory / str(step), part, saved[part], getattr(like, part))
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.device_get(like)), data=ocp.args.JsonRestore()
        ),
    )
    return restored['state'], restored['data']


def restore_variables(folder: str | os.PathLike) -> dict[str, Any]:
    """The latest checkpoint's 'params' and 'state', of whatever objective, as NumPy arrays.

    Raises:
      ValueError: there is no checkpoint.
    """
    if not pathlib.Path(folder).is_dir():
        raise ValueError(f'{folder}: there is no such folder of checkpoints')
    with open_manager(folder, read_only=True) as manager:
        step = _existing(manager, None)
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))[
            'state'
        ]
    return jax.device_get({'params': state['params'], 'state': state['state']})


def _existing(manager, step):
    step = manager.latest_step() if step is None else step
    if step not in manager.all_steps():
        raise ValueError(
            f'{manager.directory}: holds no checkpoint'
            + ('' if step is None else f' of step {step}, but of {sorted(manager.all_steps())}')
        )
    return step


def _check_shapes(path, part, saved, expected):
    saved, expected = (
        {
            key: tuple(value.shape)
            for key, value in traverse_util.flatten_dict(tree, sep='/').items()
        }
        for tree in (saved, expected)
    )
    differing = [
        f'{name}: {saved.get(name)} there, {expected.get(name)} here'
        for name in sorted(saved.keys() | expected.keys())
        if saved.get(name) != expected.get(name)
    ]
    if differing:
        raise ValueError(
            f'{path}: is of another network or objective; {len(differing)} arrays in {part} '
            'differ, such as ' + '; '.join(differing[:3])
        )
