"""The folder of an evaluation: where predictions and records are, and where a number comes from."""

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
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

import jaxprop
from jaxprop import files
from jaxprop.data.sequences import DataError, check_name
from jaxprop.evaluation.labeller import Labeller
from jaxprop.tasks.task import Record, Task

# What an evaluation's results are called in its folder, and all that it writes there.
SUMMARIES = ('metrics.json', 'per_sequence.csv', 'report.html')
OWNED = ('masks', 'keypoints', 'sequences', *SUMMARIES)
WRITTEN = (*OWNED, 'skipped')

# Git runs programs that a repository's own settings name: monitors, hooks, filters, transports. A
# comparison of object names needs none of them.
_GIT = ('git', '-c', 'core.fsmonitor=false', '-c', 'core.hooksPath=/dev/null')
_GIT += ('-c', 'protocol.allow=never')
_GIT_SECONDS = 10


def provenance() -> dict[str, Any]:
    """Where a number comes from: commit, versions, device, date. Nothing here is private."""
    packages = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
    return {
        'jaxprop': jaxprop.__version__,
        'git commit': git_commit(pathlib.Path(__file__).parents[2]),
        'date': time.strftime('%Y-%m-%d %H:%M:%S %z'),
        'python': platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }


def command() -> str:
    """The command line of this process. It may hold paths and secrets: not to be shown."""
    return ' '.join(sys.argv)


def git_commit(folder: pathlib.Path) -> str | None:
    """The commit that a checkout is at, and whether the files of the package differ from it.

    Git is asked for names of objects alone. It runs no program that the repository's settings
    name, and fetches nothing.

    Args:
      folder: of the checkout, which holds the package jaxprop.

    Returns:
      The hash, with a remark where a file of the package is not the commit's; None where the folder
      is not the top of a repository (an installed package may lie inside somebody else's), or git
      is missing or takes more than 10 seconds.
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
    """The name that git gives to a file's content; None without the file."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest().encode()


def shown(value: Any, private: Iterable[str] = ()) -> Any:
    """What may be shown to others of a value as JSON has them: paths are cut to their last part.

    Args:
      value: texts in it may be absolute paths, or hold some.
      private: paths that are cut off wherever they begin one, also with spaces inside.
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
    """The settings that predictions and scores of a sequence depend on."""
    return {
        'network': labeller.source.description,
        **labeller.settings(),
        **task.settings(),
    }


class Folder:
    """The results of an evaluation that may have been begun before, sequence by sequence.

        masks/NAME/00000.png ... or keypoints/NAME.json    predictions
        sequences/NAME.json                                a record: the sequence is finished
        skipped/NAME.json                                  why it could not be used

    A record says, by digests, what it was made from: the settings, the sequence's files and the
    predictions. A sequence whose record is damaged, or says something else than is there now, is
    not finished.
    """

    def __init__(self, output: pathlib.Path, task: Task, settings: Mapping[str, Any]):
        """A folder that exists or will be made.

        Args:
          output: of the results.
          task: whose results they are.
          settings: all that the results depend on besides the sequences themselves.
        """
        self.output, self.task = output, task
        self.settings_digest = _digest(settings)

    def predictions(self, name: str) -> pathlib.Path:
        """Where the predictions of a finished sequence are."""
        return prediction_path(self.output, self.task, name)

    def finish(self, partial: pathlib.Path, record: Record, data: str) -> None:
        """Brings the predictions of a sequence to their place and, last, writes its record."""
        name = record['name']
        record_path(self.output, name).unlink(missing_ok=True)
        files.move(partial, self.predictions(name))
        made = self._made_from(name, data)
        write_sealed(record_path(self.output, name), {**record, 'made_from': made})

    def record(self, name: str, data: str) -> Record | None:
        """The record of a sequence; None where it is not finished, or was made from other data."""
        try:
            record = read_sealed(record_path(self.output, name))
            return record if record['made_from'] == self._made_from(name, data) else None
        except (OSError, ValueError, KeyError):
            return None

    def _made_from(self, name, data):
        predictions = files.digest([self.predictions(name)])
        return {'settings': self.settings_digest, 'data': data, 'predictions': predictions}

    def are_ours(self) -> bool:
        """Whether records are there, and those that are whole were made with these settings."""
        found = set()
        for path in (self.output / 'sequences').rglob('*.json'):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.add(read_sealed(path)['made_from']['settings'])
        return found == {self.settings_digest}

    def skip(self, name: str, reason: str) -> None:
        """Writes down why a sequence could not be used."""
        files.write_json(skipped_path(self.output, name), {'reason': reason})

    def skipped(self, name: str) -> str | None:
        """Why a sequence could not be used, if that was found."""
        try:
            return str(files.read_json(skipped_path(self.output, name))['reason'])
        except FileNotFoundError:
            return None


def write_sealed(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as JSON with a digest of itself, for `read_sealed`."""
    files.write_json(path, {**value, 'seal': _digest(value)})


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Raises:
      ValueError: it is damaged; the message names the file. OSError: it can't be read.
    """
    value = files.read_json(path)
    if not isinstance(value, dict) or value.pop('seal', None) != _digest(value):
        raise ValueError(f'{path}: is damaged; evaluate again, which makes it anew')
    return value


def identities(
    sequences: Iterable[tuple[str, Callable[[], Any]]],
) -> dict[str, str]:
    """By name the digest of each sequence's files; '' where it can't be opened.

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
    """SHA-256 of a value as JSON has it."""
    return hashlib.sha256(json.dumps(files.as_json(value), sort_keys=True).encode()).hexdigest()


def prediction_path(output: pathlib.Path, task: Task, name: str) -> pathlib.Path:
    """Where the predictions of a finished sequence are."""
    return output / task.folder / f'{_checked(name)}{task.suffix}'


def record_path(output: pathlib.Path, name: str) -> pathlib.Path:
    """Where the record of a finished sequence is, as its task made it."""
    return output / 'sequences' / f'{_checked(name)}.json'


def skipped_path(output: pathlib.Path, name: str) -> pathlib.Path:
    """Where the reason is why a sequence could not be used."""
    return output / 'skipped' / f'{_checked(name)}.json'


def _checked(name):
    """The name of a sequence, which leads to no place outside the output. Raises DataError."""
    return check_name(name, 'the results of a sequence', parts=None)
