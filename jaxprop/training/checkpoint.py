"""Checkpoints: all of a run's state, written in the background, whole or not at all.

A checkpoint holds the SHA-256 of every file that Orbax wrote for it, and gets its name after that.
Reading finds a checkpoint that was damaged later, and takes an older one. A run that goes on from
the older one ends with the same parameters.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util

from jaxprop import parallel
from jaxprop.files import sha256, write_json
from jaxprop.training.log import note
from jaxprop.training.state import TrainState

_DIGESTS = 'integrity.json'
# Files without a digest: Orbax writes the time into the first one when it gives the folder its
# name, after the digests, and the second one holds the digests.
_UNTIL_THE_END = ('_CHECKPOINT_METADATA', _DIGESTS)


class OtherRunError(ValueError):
    """The checkpoint is whole, but of another network, objective or optimiser."""


def open_manager(
    folder: str | os.PathLike,
    keep: int = 3,
    read_only: bool = False,
    score: Callable[[int], float | None] | None = None,
) -> ocp.CheckpointManager:
    """Opens a manager of the checkpoints in a folder, and makes the folder where missing.

    Args:
      folder: the folder for the checkpoints; each is a folder in it.
      keep: the number of the latest checkpoints that are kept, beside the best one. Checkpoints
        that earlier processes wrote count, too.
      read_only: whether the manager changes nothing, since another process may be writing there.
      score: a function from a step to the score of its network, or None. The checkpoint with the
        largest score is the best one. If no step has a score, it is the one with the lowest loss.

    Raises:
      ValueError: keep is less than 1.
    """
    if keep < 1:
        raise ValueError(f'keep is {keep}; it must be at least 1')
    folder = pathlib.Path(folder).resolve()
    # Without `lightweight_initialize` Orbax reads the losses of all checkpoints now, and fails if
    # one is damaged.
    options = ocp.CheckpointManagerOptions(read_only=True, lightweight_initialize=True)
    if not read_only:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Keep(folder, keep, score or (lambda step: None)),
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=functools.partial(_write_digests, folder)
            ),
        )
    return ocp.CheckpointManager(
        folder,
        options=options,
        item_handlers={
            'state': ocp.StandardCheckpointHandler(),
            'data': ocp.JsonCheckpointHandler(),
            'loss': ocp.JsonCheckpointHandler(),
        },
    )


def save(
    manager: ocp.CheckpointManager, state: TrainState, data: Mapping[str, Any], loss: float
) -> None:
    """Saves a checkpoint in the background, unless this step is saved already.

    Args:
      manager: from `open_manager`.
      state: NumPy arrays.
      data: the data iterator's state. Processes may differ only in parts of it that do not change
        which batches follow.
      loss: by which checkpoints without a score are compared.

    Raises:
      OSError: this checkpoint, or the one before, cannot be written.
    """
    step = int(state.step)
    if step in manager.all_steps():
        return
    with _naming(manager):
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(dict(data)),
                loss=ocp.args.JsonSave({'loss': float(loss)}),
            ),
            metrics={'loss': float(loss)},
        )


def wait(manager: ocp.CheckpointManager) -> None:
    """Waits until the checkpoint that `save` began is written.

    Raises:
      OSError: it cannot be written.
    """
    with _naming(manager):
        manager.wait_until_finished()


def restore(manager: ocp.CheckpointManager, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Reads the newest whole checkpoint, and removes newer ones that are damaged.

    Notes tell the user of the damaged ones; the run writes these checkpoints anew. A checkpoint
    without digests, of an earlier version, is used if no other is whole.

    Args:
      manager: from `open_manager`.
      like: a state of the same shapes.

    Returns:
      The state as NumPy arrays, and the data iterator's state.

    Raises:
      ValueError: no checkpoint is whole, or it is of another network, objective or optimiser.
    """

    def read(step):
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

    step, result = _read_newest(manager, read)
    # Other processes may still be reading the damaged checkpoints that are removed next.
    parallel.wait_for_all()
    for later in [other for other in manager.all_steps() if other > step]:
        manager.delete(later)
    return result


def restore_variables(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads 'params' and 'state' of the newest whole checkpoint, whatever the objective.

    The values are NumPy arrays.

    Raises:
      ValueError: there is no whole checkpoint.
    """
    if not pathlib.Path(folder).is_dir():
        raise ValueError(f'{folder}: there is no such folder of checkpoints')
    with open_manager(folder, read_only=True) as manager:

        def read(step):
            args = ocp.args.Composite(state=ocp.args.StandardRestore())
            state = manager.restore(step, args=args)['state']
            return {'params': state['params'], 'state': state['state']}

        _, variables = _read_newest(manager, read)
    return jax.device_get(variables)


def _read_newest(manager: ocp.CheckpointManager, read: Callable[[int], Any]) -> tuple[int, Any]:
    """Finds the newest whole checkpoint; returns its step and the result of `read(step)`."""
    problems = []
    steps = sorted(manager.all_steps(), reverse=True)
    if not steps:
        raise ValueError(f'{manager.directory}: holds no checkpoint')
    unverified = []

    # List the steps whose files are whole, the newest first, then those without digests.
    def in_order():
        for step in steps:
            try:
                problem = _damage(pathlib.Path(manager.directory / str(step)))
            except FileNotFoundError:
                unverified.append(step)
                problem = f'has no {_DIGESTS}: it is of an earlier version, or damaged'
            if problem is None:
                yield step
            else:
                problems.append(f'checkpoint {step} {problem}')
        yield from unverified

    # Read the first one that can be read, and tell the user why others were not.
    for step in in_order():
        try:
            result = read(step)
        except (OtherRunError, PermissionError, MemoryError):
            raise
        # Orbax may raise any error for a damaged file.
        except Exception as error:
            if step not in unverified:
                raise  # The files are whole, so the error is another: nothing may be removed.
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            problems.append(f'checkpoint {step} cannot be read: {reason[:200]}')
            continue
        for problem in problems:
            note(f'{manager.directory}: {problem}')
        if problems:
            doubt = ', which cannot be verified,' if step in unverified else ''
            note(f'{manager.directory}: checkpoint {step}{doubt} is used')
        return step, result
    raise ValueError(
        f'{manager.directory}: none of its checkpoints is whole: {"; ".join(problems)}. Copy the '
        'folder from a backup, or remove it and train anew'
    )


def _write_digests(folder: pathlib.Path) -> None:
    """Writes a checkpoint's digests. Orbax calls this before it gives the folder its name."""
    if not parallel.is_writer():
        return
    for unnamed in folder.iterdir():
        if unnamed.is_dir() and unnamed.name.partition('.orbax-checkpoint-tmp')[1]:
            paths = [path for path in sorted(unnamed.rglob('*')) if path.is_file()]
            digests = {path.relative_to(unnamed).as_posix(): sha256(path) for path in paths}
            for name in _UNTIL_THE_END:
                digests.pop(name, None)
            write_json(unnamed / _DIGESTS, {'sha256': digests})


def _damage(folder: pathlib.Path) -> str | None:
    """Describes the damage to a checkpoint's files; None if they are whole.

    Raises:
      FileNotFoundError: the checkpoint has no digests.
    """
    try:
        digests = json.loads((folder / _DIGESTS).read_bytes())['sha256']
        differing = []
        for name, digest in digests.items():
            try:
                if sha256(folder / name) != digest:
                    differing.append(f'{name} differs')
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                differing.append(f'{name} is missing')
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f'is damaged: {_DIGESTS} cannot be read'
    if not digests:
        return f'is damaged: {_DIGESTS} is empty'
    return f'is damaged: {", ".join(differing[:3])}' if differing else None


@dataclasses.dataclass(frozen=True)
class _Keep:
    """The rule by which Orbax keeps checkpoints: the latest ones and the best one stay.

    Orbax knows the losses only of checkpoints that this process has saved. Those of the others are
    read from their files; checkpoints of earlier versions have none.
    """

    folder: pathlib.Path
    num_latest: int
    score: Callable[[int], float | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        losses = {info.step: self._loss(info) for info in checkpoints}
        scores = {step: score for step in losses if (score := self.score(step)) is not None}
        best = (
            max(scores, key=scores.__getitem__) if scores else min(losses, key=losses.__getitem__)
        )
        kept = {*sorted(losses)[-self.num_latest :], best}
        return [info.step in kept for info in checkpoints]

    def _loss(self, info):
        try:
            metrics = info.metrics
            if metrics is None:
                # Orbax has written this file for the item 'loss'.
                metrics = json.loads((self.folder / f'{info.step}/loss/metadata').read_text())
            return float(metrics['loss'])
        except (OSError, ValueError, KeyError, TypeError):
            return math.inf


@contextlib.contextmanager
def _naming(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns errors of Orbax in writing, such as a full disk, into OSErrors that name the folder."""
    try:
        yield
    except Exception as error:
        reason = ' '.join(str(error).split())
        if isinstance(error, OSError) or os.strerror(errno.ENOSPC) in reason:
            raise OSError(
                f'{manager.directory}: a checkpoint cannot be written: {reason}'
            ) from error
        raise


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
        raise OtherRunError(
            f'{path}: is of another network or objective; {len(differing)} arrays in {part} '
            'differ, such as ' + '; '.join(differing[:3])
        )
