"""Files that are whole or not there, and folders that hold the results of one set of settings."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from flax import traverse_util


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary path beside `path`, renamed to it if the block succeeds, else removed.

    So a file under its own name is always whole. Its folder is made where missing.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        # Where writing to an open file fails, on a full disk, Python does not say of which.
        error.filename = error.filename or os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text as it is, in UTF-8, by `replacing`.

    Names of files may hold bytes that are no text, which UTF-8 can't write: '?' stands for them.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8', errors='replace', newline='')


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as JSON, by `replacing`.

    JSON has finite numbers only: NaN is written as null, infinity as the string 'Infinity' or
    '-Infinity'. `np.array(values, np.float64)` makes numbers of all of them again.
    """
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + '\n')


def claim(
    path: str | os.PathLike,
    settings: Mapping[str, Any],
    changeable: Collection[str] = (),
    write: bool = True,
) -> None:
    """Makes a folder the place of results with these settings, or refuses.

    Args:
      path: of the JSON file in the folder that holds the settings.
      settings: as JSON can hold them, in dicts.
      changeable: names, 'outer/inner', that may differ from those of an earlier call.
      write: False: only check, where another process writes.

    Raises:
      ValueError: the folder holds results of other settings; the message says which differ.
    """
    path = pathlib.Path(path)
    settings = json.loads(json.dumps(_finite(settings)))
    if path.exists():
        found, wanted = (
            traverse_util.flatten_dict(values, sep='/')
            for values in (json.loads(path.read_text()), settings)
        )
        differing = [
            f'{name} is {wanted.get(name)}, was {found.get(name)}'
            for name in sorted(found.keys() | wanted.keys())
            if found.get(name) != wanted.get(name) and name not in changeable
        ]
        if differing:
            raise ValueError(
                f'{path.parent} holds results of other settings: {"; ".join(differing)}. Name '
                'another folder, or remove this one'
            )
    if write:
        write_json(path, settings)


def _finite(value):
    """A value as JSON can hold it, see `write_json`."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f'{"-" if value < 0 else ""}Infinity'
    return value
