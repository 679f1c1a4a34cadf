"""Keeps the programs that JAX compiles in the user's cache folder, for faster starts."""

import contextlib
import hashlib
import os
import pathlib
import platform
import sys
import warnings

import jax

_LARGEST = 1 << 30  # Bytes; of more the oldest programs are removed.


def enable() -> pathlib.Path | None:
    """Lets JAX keep the programs that it compiles, and read them when it is started again.

    A program that is read is the one that was compiled, so results stay the same to the last bit.
    JAX finds it by its code, its options and the versions of JAX and its compiler.

    Returns:
      The folder. None, and nothing is kept, if the user has told JAX otherwise by
      JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE, or if no folder can be written.
    """
    if not jax.config.jax_enable_compilation_cache or jax.config.jax_compilation_cache_dir:
        return None
    folder = writable_folder()
    if folder is not None:
        remove_oldest(folder, _LARGEST)
        jax.config.update('jax_compilation_cache_dir', str(folder))
        # Hundreds of small programs take as long to compile as the large ones.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
        # A program that can't be read or written, as on a full disk, is compiled as ever.
        warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache')
    return folder


def writable_folder() -> pathlib.Path | None:
    """Makes the folder for compiled programs, which no other user may read or write.

    Returns:
      `jaxprop/compiled-...` in the system's folder for caches: that of XDG_CACHE_HOME, else
      ~/.cache (Linux), ~/Library/Caches (macOS) or LOCALAPPDATA (Windows). None if it can't be
      made or written.
    """
    try:
        home = {'darwin': '~/Library/Caches', 'win32': os.environ.get('LOCALAPPDATA', '~')}
        caches = os.environ.get('XDG_CACHE_HOME') or home.get(sys.platform, '~/.cache')
        folder = pathlib.Path(caches).expanduser() / 'jaxprop' / f'compiled-{_processor()}'
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home.
        return None
    return folder if os.access(folder, os.W_OK) else None


def remove_oldest(folder: pathlib.Path, largest: int) -> None:
    """Removes the oldest files of a folder until the others have at most `largest` bytes."""
    with contextlib.suppress(OSError):  # Another process may remove files, too.
        found = [(path.stat(), path) for path in folder.glob('*-cache')]
        found.sort(key=lambda pair: pair[0].st_mtime)
        excess = sum(stat.st_size for stat, _ in found) - largest
        for stat, path in found:
            if excess <= 0:
                break
            path.unlink()
            excess -= stat.st_size


def _processor():
    """A short text for the kind of processor: one home may serve several kinds of machines.

    A program for the processor that compiled it may have instructions that others lack.
    """
    about = f'{platform.machine()} {platform.processor()}'
    with contextlib.suppress(OSError):  # Linux.
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        about += next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    return hashlib.sha256(about.encode()).hexdigest()[:8]
