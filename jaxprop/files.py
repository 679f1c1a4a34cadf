"""Writes files whole or not at all, and ties a folder to the settings of the results in it."""

import concurrent.futures
import contextlib
import csv
import hashlib
import io
import json
import math
import os
import pathlib
import secrets
import shutil
import socket
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flax import traverse_util

try:
    import fcntl
except ImportError:  # On Windows; there no lock is taken.
    fcntl = None

_MARK = '.partial-'
_LITTER = ('Thumbs.db', 'desktop.ini')  # File managers leave these.


def partial_path(path: str | os.PathLike) -> pathlib.Path:
    """Makes a new hidden name beside `path`, for a file or folder while it is being written.

    Every call gives another name, in other processes too. `remove_partial` finds such names.
    """
    path = pathlib.Path(path)
    return path.with_name(f'.{path.stem}{_MARK}{secrets.token_hex(4)}{path.suffix}')


def remove_partial(folder: str | os.PathLike, owned: Iterable[str] = ()) -> None:
    """Removes half-written files that a killed process left.

    Call it while no other process writes there, see `locked`.

    Args:
      folder: where the files were written.
      owned: names of folders in it that are searched as well, at any depth.
    """
    folder, pattern = pathlib.Path(folder), f'.*{_MARK}{"[0-9a-f]" * 8}*'
    inner = (path for name in owned for path in (folder / name).rglob(pattern))
    for path in [*folder.glob(pattern), *inner]:
        remove(path)


def remove(path: str | os.PathLike) -> None:
    """Removes a file, or a folder with all that is in it; nothing happens if it is not there."""
    path = pathlib.Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def move(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a finished file or folder to its own name, and replaces what had that name.

    Its files, and then the names in its folder, reach the disk before this returns. So a record
    that is written afterwards never names files that a loss of power has emptied.
    """
    if partial.is_dir():
        # Several threads, since each of them waits for the disk most of the time.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(_sync, [partial, *partial.rglob('*')]))
    else:
        _sync(partial)
    if path.is_dir():
        remove(path)  # A folder can't be renamed over one that holds something.
    partial.replace(path)
    _sync(path.parent)


@contextlib.contextmanager
def replacing(path: str | os.PathLike, sync: bool = True) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path`, and renames it to `path` if the block succeeds.

    If the block fails, the temporary file is removed. So a file under its own name is always whole.
    Its folder is made where missing.

    Args:
      path: of the file.
      sync: whether to wait until the file is on the disk. Without it a loss of power may leave an
        empty file under this name. So it is for files in a folder that `move` brings to its place.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial_path(path)
    try:
        yield temporary
        if sync:
            move(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        # Where writing to an open file fails, as on a full disk, Python's error names no file.
        if error.errno is not None:
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


def write_csv(path: str | os.PathLike, rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows of cells as CSV, by `replacing`; None becomes an empty cell.

    A text that a spreadsheet would run as a formula gets a ' in front.
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator='\n').writerows(map(_plain_cell, row) for row in rows)
    write_text(path, stream.getvalue())


def _plain_cell(value):
    if isinstance(value, str) and value.startswith(('=', '+', '-', '@', '\t', '\r')):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def as_json(value: Any) -> Any:
    """Returns a value as it comes back from `write_json` and `read_json`."""
    return json.loads(json.dumps(_finite(value)))


def read_json(path: str | os.PathLike) -> Any:
    """Reads the value in a JSON file.

    Raises:
      ValueError: it is damaged; the message names the file. OSError: it can't be read.
    """
    try:
        return json.loads(pathlib.Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: is damaged, it is not JSON: {error}') from error


def sha256(path: str | os.PathLike) -> str:
    """Computes a file's SHA-256, in hexadecimal. Raises OSError where it can't be read."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def digest(paths: Iterable[str | os.PathLike], suffixes: Collection[str] = ()) -> str:
    """Computes one SHA-256 over the names and contents of files, in hexadecimal.

    It identifies data: it stays the same when the data are moved to another folder.

    Args:
      paths: of files, or of folders. A folder stands for all files in it, but for hidden ones and
        those that file managers leave.
      suffixes: only files in folders with one of these endings count; () for all.

    Raises:
      OSError: a file can't be read.
    """
    total = hashlib.sha256()
    for path in map(pathlib.Path, paths):
        for file in files_in(path, suffixes) if path.is_dir() else [path]:
            content = sha256(file)
            name = os.fsencode(file.relative_to(path.parent))
            total.update(b'%d:%s %s\n' % (len(name), name, content.encode()))
    return total.hexdigest()


def claim(
    path: str | os.PathLike,
    settings: Mapping[str, Any],
    changeable: Collection[str] = (),
    write: bool = True,
    *,
    owned: Collection[str] = (),
    are_ours: Callable[[], bool] = bool,
) -> None:
    """Claims a folder for results of these settings; refuses if it holds others' results.

    Args:
      path: the JSON file in the folder that holds the settings.
      settings: as JSON can hold them, in dicts.
      changeable: names of settings that may differ from those of an earlier call: 'outer/inner', or
        'outer' for all settings below it.
      write: whether to write the settings; False where another process does.
      owned: names of the files and folders of results in the folder. As long as none of these holds
        a file, there are no results, and any settings are accepted.
      are_ours: called where results are there but their settings are missing or damaged: says
        whether they were made with the settings now given. By default they were not.

    Raises:
      ValueError: the folder holds results of other settings, and the message says which differ;
        or it holds something of these names that is not known to be a result; or the settings
        there are damaged, and nothing tells what they were.
    """
    # Read the settings of results that are there.
    path = pathlib.Path(path)
    settings = as_json(settings)
    there = [name for name in owned if _holds_file(path.parent / name)]
    found = None
    if path.exists() and (there or not owned):
        try:
            found = read_json(path)
            if not isinstance(found, dict):
                raise ValueError(f'{path}: is damaged, it holds no settings')
        except ValueError as error:
            if not are_ours():
                raise ValueError(f'{error}. Name another folder, or remove this one') from error
            found = None
    elif there and not are_ours():
        raise ValueError(
            f'{path.parent} holds {", ".join(there)}, but no {path.name} of an earlier run. Name '
            'another folder'
        )
    # Compare them with those now given.
    if found is not None:
        found, wanted = (
            traverse_util.flatten_dict(values, sep='/') for values in (found, settings)
        )
        differing = [
            f'{name} is {wanted.get(name)}, was {found.get(name)}'
            for name in sorted(found.keys() | wanted.keys())
            if found.get(name) != wanted.get(name)
            and not {name, name.split('/')[0]} & set(changeable)
        ]
        if differing:
            raise ValueError(
                f'{path.parent} holds results of other settings: {"; ".join(differing)}. Name '
                'another folder, or remove this one'
            )
    if write:
        write_json(path, settings)


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes that call this from writing to a folder.

    The folder is made where missing. The lock, the file .lock, holds the host and the process. The
    system frees it when the process ends, however it ends.

    Raises:
      ValueError: another process holds the lock; the message says which.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / '.lock'
    if fcntl is None:
        yield
        return
    while True:
        file = open(path, 'a+', encoding='utf-8')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = ' '.join(file.read(200).split()) or 'another process'
            file.close()
            raise ValueError(
                f'{folder} is being written by {holder}. Wait for it, or name another folder'
            ) from error
        except OSError as error:
            warnings.warn(
                f'{folder}: its file system has no locks ({error.strerror}): see to it that no '
                'other process writes there',
                stacklevel=3,
            )
        # The process that held the lock before may have removed this file meanwhile. Then try again
        # with a new file.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                break
        file.close()
    try:
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _holds_file(path):
    return path.is_file() or (path.is_dir() and bool(files_in(path)))


def files_in(folder: pathlib.Path, suffixes: Collection[str] = ()) -> list[pathlib.Path]:
    """Lists the files in a folder, at any depth, in order, without hidden ones and litter.

    Args:
      folder: where to search.
      suffixes: only files with one of these endings; () for all.
    """
    return sorted(
        path
        for path in folder.rglob('*')
        if path.is_file()
        and path.name not in _LITTER
        and (not suffixes or path.suffix in suffixes)
        and not any(part.startswith('.') for part in path.relative_to(folder).parts)
    )


def _sync(path):
    """Makes the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = os.fspath(path)  # Python's error names no file.
        raise
    finally:
        os.close(descriptor)


def _finite(value):
    """Makes a value one that JSON can hold, see `write_json`."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f'{"-" if value < 0 else ""}Infinity'
    return value
