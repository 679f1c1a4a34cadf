"""The folder of an evaluation: where predictions and records are, and where a number comes from."""

import csv
import importlib.metadata
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from typing import Any

import jax

from jaxprop.data.sequences import check_name
from jaxprop.files import replacing
from jaxprop.tasks.task import Task


def provenance() -> dict[str, Any]:
    """Where a number comes from: command, commit, versions, device, date."""
    folder = pathlib.Path(__file__).parent

    def git(*arguments):
        try:
            done = subprocess.run(
                ['git', *arguments], cwd=folder, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git('rev-parse', 'HEAD')
    if commit and git('status', '--porcelain', '--untracked-files=no', '--', str(folder)):
        commit += ' with uncommitted changes'
    packages = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
    return {
        'command': ' '.join(sys.argv),
        'git commit': commit,
        'date': time.strftime('%Y-%m-%d %H:%M:%S %z'),
        'python': platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }


def prediction_path(output: pathlib.Path, task: Task, name: str) -> pathlib.Path:
    """Where the predictions of a finished sequence are."""
    return output / task.folder / f'{_checked(name)}{task.suffix}'


def partial_path(output: pathlib.Path, task: Task, name: str) -> pathlib.Path:
    """Where they are before it is finished."""
    path = prediction_path(output, task, name)
    return path.with_name(f'.{path.name}.partial')


def remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def record_path(output: pathlib.Path, name: str) -> pathlib.Path:
    """Where the record of a finished sequence is, as its task made it."""
    return output / 'sequences' / f'{_checked(name)}.json'


def skipped_path(output, name):
    return output / 'skipped' / f'{_checked(name)}.json'


def _checked(name):
    """The name of a sequence, which leads to no place outside the output. Raises DataError."""
    return check_name(name, 'the results of a sequence', parts=None)


def write_csv(path, rows):
    with replacing(path) as temporary, temporary.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ['sequence'])
        writer.writeheader()
        writer.writerows(rows)
