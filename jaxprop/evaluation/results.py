"""The folder of an evaluation: its predictions, its records, and the origin of its numbers."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

import jaxprop
from jaxprop import files
from jaxprop.data.sequences import DataError, check_name
from jaxprop.evaluation.labeller import Labeller
from jaxprop.tasks.task import Record, Task

# Names of an evaluation's results in its folder, and of all that it writes there.
SUMMARIES = ('metrics.json', 'per_sequence.csv', 'report.html', 'submission.zip')
OWNED = ('masks', 'keypoints', 'sequences', *SUMMARIES)
WRITTEN = (*OWNED, 'skipped')

# Git may run programs that a repository's settings name: monitors, hooks, filters, transports.
# These options switch them off: comparing names of objects needs none.
_GIT = ('git', '-c', 'core.fsmonitor=false', '-c', 'core.hooksPath=/dev/null')
_GIT += ('-c', 'protocol.allow=never')
_GIT_SECONDS = 10


def provenance() -> dict[str, Any]:
    """Records where numbers come from: commit, versions, device, date. Nothing here is private.

    The precision of the network's products is JAX's setting. Its default is float32 on CPUs, and
    less on accelerators: TF32 on GPUs that have it.
    """
    packages = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
    return {
        'jaxprop': jaxprop.__version__,
        'git commit': git_commit(pathlib.Path(__file__).parents[2]),
        'date': time.strftime('%Y-%m-%d %H:%M:%S %z'),
        'python': platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'precision of the network': jax.config.jax_default_matmul_precision or "JAX's default",
    }


def command() -> str:
    """Returns the command line of this process. Do not show it: it may hold paths and secrets."""
    return ' '.join(sys.argv)


def git_commit(folder: pathlib.Path) -> str | None:
    """Finds the commit of a checkout, and whether files of the package differ from it.

    Git is asked for names of objects alone. It runs no program that the repository's settings
    name, and fetches nothing.

    Args:
      folder: of the checkout, which holds the package jaxprop.

    Returns:
      The hash, with a remark if a file of the package differs from the commit's. None if the folder
      is not the top of a repository (an installed package may lie inside somebody else's), or if
      git is missing or takes more than 10 seconds.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
    environment |= {'GIT_NO_LAZY_FETCH': '1', 'GIT_OPTIONAL_LOCKS': '0'}

    def git(*arguments):
        return subprocess.run(
            [*_GIT, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_GIT_SECONDS,
        ).stdout

    try:
        top = os.fsdecode(git('rev-parse', '--show-toplevel').removesuffix(b'\n'))
        commit = git('rev-parse', 'HEAD').decode().strip()
        entries = git('ls-tree', '-r', '-z', 'HEAD', 'jaxprop').split(b'\0')
    except (OSError, subprocess.SubprocessError):
        return None
    if not os.path.samefile(top, folder):
        return None
    for entry in filter(None, entries):
        about, name = entry.split(b'\t', 1)
        mode, kind, blob = about.split()
        if kind == b'blob' and mode != b'120000' and _blob(folder / os.fsdecode(name)) != blob:
            return f'{commit} with uncommitted changes'
    return commit


def _blob(path):
    """Computes git's name for the content of a file; None if there is no file."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest().encode()


def shown(value: Any, private: Iterable[str] = ()) -> Any:
    """Makes a value fit to be shown to others: paths in its texts are cut to their last part.

    Args:
      value: as JSON has values; texts in it may be absolute paths, or hold some.
      private: paths that are also cut if they have spaces: each is removed in front of a longer
        path, and reduced to its last part elsewhere.
    """
    if isinstance(value, Mapping):
        return {key: shown(inner, private) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(inner, private) for inner in value]
    if not isinstance(value, str):
        return value
    for path in sorted(filter(os.path.isabs, private), key=len, reverse=True):
        value = value.replace(f'{path.rstrip("/")}/', '').replace(path, pathlib.PurePath(path).name)
    return re.sub(r'(?<![^\s\'"(=,\[])~?/(?:[^\s/\'"]+/)*(?=[^\s/])', '', value)


def made_by(task: Task, labeller: Labeller) -> dict[str, Any]:
    """Returns all settings on which the predictions and scores of a sequence depend."""
    return {
        'network': labeller.source.description,
        **labeller.settings(),
        **task.settings(),
    }


class Folder:
    """The results of an evaluation, sequence by sequence; a later run can go on with them.

        masks/NAME/00000.png ... or keypoints/NAME.json    predictions
        sequences/NAME.json                                a record: the sequence is finished
        skipped/NAME.json                                  why it could not be used

    A record holds digests of the settings, of the sequence's files and of the predictions. If a
    record is damaged, or one of the digests differs now, the sequence is not finished.
    """

    def __init__(self, output: pathlib.Path, task: Task, settings: Mapping[str, Any]):
        """Refers to a folder that exists or will be made.

        Args:
          output: the folder.
          task: the task that is evaluated.
          settings: all settings on which the results depend, besides the sequences themselves.
        """
        self.output, self.task = output, task
        self.settings_digest = _digest(settings)

    def predictions(self, name: str) -> pathlib.Path:
        """Returns the path of a finished sequence's predictions."""
        return prediction_path(self.output, self.task, name)

    def finish(self, partial: pathlib.Path, record: Record, data: str) -> None:
        """Moves the predictions of a sequence to their place, and then writes its record."""
        name = record['name']
        record_path(self.output, name).unlink(missing_ok=True)
        files.move(partial, self.predictions(name))
        made = self._made_from(name, data)
        write_sealed(record_path(self.output, name), {**record, 'made_from': made})

    def record(self, name: str, data: str) -> Record | None:
        """Reads the record of a sequence; None if it is not finished, or was made of other data."""
        try:
            record = read_sealed(record_path(self.output, name))
            return record if record['made_from'] == self._made_from(name, data) else None
        except (OSError, ValueError, KeyError):
            return None

    def write_submission(self, names: Iterable[str]) -> None:
        """Writes `submission.zip` for the task's server: the predictions of these sequences."""
        with (
            files.replacing(self.output / 'submission.zip') as temporary,
            zipfile.ZipFile(temporary, 'w') as archive,  # PNG is compressed already.
        ):
            for name in names:
                place = pathlib.PurePosixPath(self.task.server, name)
                for path in sorted(self.predictions(name).iterdir()):
                    # Without a date, so that the same predictions make the same file.
                    archive.writestr(zipfile.ZipInfo(str(place / path.name)), path.read_bytes())

    def _made_from(self, name, data):
        predictions = files.digest([self.predictions(name)])
        return {'settings': self.settings_digest, 'data': data, 'predictions': predictions}

    def are_ours(self) -> bool:
        """Tells whether there are whole records, and all of them were made with these settings."""
        found = set()
        for path in (self.output / 'sequences').rglob('*.json'):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.add(read_sealed(path)['made_from']['settings'])
        return found == {self.settings_digest}

    def skip(self, name: str, reason: str) -> None:
        """Writes the reason why a sequence could not be used."""
        files.write_json(skipped_path(self.output, name), {'reason': reason})

    def skipped(self, name: str) -> str | None:
        """Reads the reason why a sequence could not be used; None if it was not skipped."""
        try:
            return str(files.read_json(skipped_path(self.output, name))['reason'])
        except FileNotFoundError:
            return None


def write_sealed(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as JSON with a digest of itself, for `read_sealed`."""
    files.write_json(path, {**value, 'seal': _digest(value)})


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """Reads a mapping that `write_sealed` wrote.

    Raises:
      ValueError: the file is damaged; the message names it.
      OSError: the file can't be read.
    """
    value = files.read_json(path)
    if not isinstance(value, dict) or value.pop('seal', None) != _digest(value):
        raise ValueError(f'{path}: is damaged; evaluate again, which makes it anew')
    return value


def is_finished(
    task: Task,
    labeller: Labeller,
    output: pathlib.Path,
    sequences: Iterable[tuple[str, Callable[[], Any]]],
) -> bool:
    """Tells whether a folder has all results, made from these settings, weights and files.

    Args:
      task, labeller, output: as for `jaxprop.evaluation.run.evaluate`.
      sequences: of the task, names and functions that open them.
    """
    try:
        made = read_sealed(output / 'metrics.json')['made_from']
    except (OSError, ValueError, KeyError):
        return False
    folder = Folder(output, task, made_by(task, labeller))
    return made == {'settings': folder.settings_digest, 'data': identities(sequences)}


def identities(
    sequences: Iterable[tuple[str, Callable[[], Any]]],
) -> dict[str, str]:
    """Computes the digest of each sequence's files, by its name; '' if it can't be opened.

    Args:
      sequences: names, and functions that open them.
    """
    found = {}
    for name, open_sequence in sequences:
        try:
            found[name] = open_sequence().identity()
        except DataError:
            found[name] = ''
    return found


def _digest(value):
    """Computes the SHA-256 of a value written as JSON."""
    return hashlib.sha256(json.dumps(files.as_json(value), sort_keys=True).encode()).hexdigest()


def prediction_path(output: pathlib.Path, task: Task, name: str) -> pathlib.Path:
    """Returns the path of a finished sequence's predictions."""
    return output / task.folder / f'{_checked(name)}{task.suffix}'


def record_path(output: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a finished sequence's record."""
    return output / 'sequences' / f'{_checked(name)}.json'


def skipped_path(output: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of the file that says why a sequence could not be used."""
    return output / 'skipped' / f'{_checked(name)}.json'


def _checked(name):
    """Checks that the name of a sequence leads to no place outside the output, and returns it."""
    return check_name(name, 'the results of a sequence', parts=None)
