"""Finds a published file by its path, a folder that holds it, or an address hf://OWNER/NAME.

Files of the Hugging Face Hub are downloaded, and kept, by the library huggingface_hub.
"""

import functools
import os
import pathlib
import re
from typing import NamedTuple

HUB = 'hf://'
# The names that libraries give to the one file of a network's weights, in the order of the search.
DEFAULT_FILES = ('model.safetensors', 'pytorch_model.bin')
_ADDRESS = re.compile(r'hf://([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?(?:/(.+))?')


class Located(NamedTuple):
    """A file on this machine.

    Attributes:
      path: of the file.
      origin: for a file of the Hub its 'repository', 'commit' and 'file'.
    """

    path: pathlib.Path
    origin: dict[str, str]


def locate(name: str | os.PathLike) -> Located:
    """Finds the file of a published network, and downloads it where it is on the Hub.

    Args:
      name: the path of a file; or of a folder with one of `DEFAULT_FILES`, as the snapshot of a
        repository is; or 'hf://OWNER/NAME[@REVISION][/FILE]', where the revision is a branch, a tag
        or a commit, and the file one of `DEFAULT_FILES` by default.

    Raises:
      ValueError: the folder or the repository has no such file; there is no such repository or
        revision, or it is not open to everyone; no connection; huggingface_hub is not installed.
        The message says what would do.
    """
    name = os.fspath(name)
    if name.startswith(HUB):
        return _download(name)
    if not name:
        raise ValueError('the network has no name: needed is a file, a folder or hf://OWNER/NAME')
    path = pathlib.Path(name)
    if path.is_dir():
        found = [path / file for file in DEFAULT_FILES if (path / file).is_file()]
        if not found:
            raise ValueError(
                f'the folder {name!r} holds neither {" nor ".join(DEFAULT_FILES)}: name a file'
            )
        path = found[0]
    return Located(path, {})


# The cache keeps the file: a branch may move between two calls, and a program that asks again means
# the same file.
@functools.cache
def _download(address: str) -> Located:
    matched = _ADDRESS.fullmatch(address)
    if matched is None:
        raise ValueError(f'{address!r} is no address; needed: hf://OWNER/NAME[@REVISION][/FILE]')
    repository, revision, file = matched.groups()
    try:
        from huggingface_hub import errors
        from huggingface_hub.utils import logging
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{address!r} needs the library huggingface_hub: pip install 'jaxprop[hub]' (in a "
            "checkout '.[hub]'), or download the file and give its path"
        ) from error
    at = f' at {revision!r}' if revision else ''
    # Silence the library's warnings about each attempt: the errors below say what failed.
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        path = _first_of(repository, revision, (file,) if file else DEFAULT_FILES)
    except errors.GatedRepoError as error:
        raise ValueError(
            f'{address!r}: its authors let only those in who accept their terms: accept them at '
            f'https://huggingface.co/{repository}, then log in by `hf auth login`'
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f'{address!r}: there is no repository {repository!r} on the Hugging Face Hub, or it is '
            'private: check the name, or log in by `hf auth login`'
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f'{address!r}: the repository {repository!r} has no branch, tag or commit {revision!r}'
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ValueError(
            f'{address!r}: the Hugging Face Hub cannot be reached, and the file is not among those '
            'that were downloaded before: connect, or give the path of the file'
        ) from error
    except errors.EntryNotFoundError as error:
        if file:
            said = f'has no file {file!r}'
        else:
            said = f'has neither {" nor ".join(DEFAULT_FILES)}: name a file, {address}/FILE'
        raise ValueError(f'{address!r}: the repository {repository!r}{at} {said}') from error
    except ValueError as error:  # The library says: no repository or file can have this name.
        raise ValueError(f'{address!r} is no address: {error}') from error
    except (OSError, RuntimeError) as error:  # The server failed, or the connection broke.
        if isinstance(error, OSError) and error.errno is not None and error.filename:
            raise  # This machine's disk failed.
        raise ValueError(f'{address!r} cannot be downloaded: {error}') from error
    finally:
        logging.set_verbosity(level)
    # Read the commit from the path: the library keeps files as .../snapshots/COMMIT/FILE. FILE may
    # have folders of these names, too.
    folder = f'models--{repository.replace("/", "--")}'
    place = path.parts.index('snapshots', path.parts.index(folder))
    origin = {
        'repository': repository,
        'commit': path.parts[place + 1],
        'file': '/'.join(path.parts[place + 2 :]),
    }
    return Located(path, origin)


def _first_of(repository: str, revision: str | None, files: tuple[str, ...]) -> pathlib.Path:
    """Downloads the first of some files that a repository has; else raises the last one's error."""
    from huggingface_hub import errors, hf_hub_download

    is_reached = True
    for file in files[:-1]:
        try:
            return pathlib.Path(hf_hub_download(repository, file, revision=revision))
        except errors.LocalEntryNotFoundError:
            is_reached = False  # Do not let the library try again to connect.
        except errors.EntryNotFoundError:
            pass
    found = hf_hub_download(
        repository, files[-1], revision=revision, local_files_only=not is_reached
    )
    return pathlib.Path(found)
