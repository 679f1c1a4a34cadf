"""The source that reads features from a folder: an array for each video, made by any program.

Shapes: T frames of a video, T' feature maps that stand for them, H, W cells, C channels.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxprop import files
from jaxprop.data.sequences import DataError, check_name
from jaxprop.evaluation.features import OpenedVideo, cells_of
from jaxprop.evaluation.targets import Sizes

PREFIX = 'features:'
SUFFIXES = ('.npy', '.npz', '.safetensors')
# The file in which `jaxprop export-features` describes the arrays of a folder.
CARD = 'jaxprop-features.json'
_DTYPES = ('float16', 'float32', 'bfloat16')
# Cells may be unsquare if frames were resized to squares. A larger ratio of the sides is an error.
_UNSQUARE = 3


class FolderFeatures:
    """The features in a folder: a `FeatureSource` without any network.

    The array of the video NAME is FOLDER/NAME.npy, .npz or .safetensors, one array `[T', H, W, C]`
    in a file, in float16, float32 or (safetensors) bfloat16. A '/' in a video's name is a folder.
    One frame at a time is read and converted to float32.

    T' is T or less. Map j stands for the frames t with floor(t T' / T) = j, the nearest ones in
    time. Grids of videos may differ. If `export-features` wrote the folder, its file
    jaxprop-features.json says more: for which frames a map stands, and at what size the network saw
    them.

    Attributes:
      folder: of the arrays.
      batch: the number of maps that are read at a time.

    Raises:
      ValueError: there is no such folder, no array in it, or its jaxprop-features.json is damaged.
      OSError: a file can't be read.
    """

    network, color = None, 'rgb'

    def __init__(self, folder: str | os.PathLike, batch: int = 4):
        if batch < 1:
            raise ValueError(f'feature_batch is {batch}; it must be at least 1')
        self.folder, self.batch = pathlib.Path(folder), batch
        self._channels: tuple[pathlib.Path, int] | None = None
        sha256 = folder_digest(folder)
        # Files behind a linked folder are not among these, since the digest does not cover them.
        self._paths = set(files.files_in(self.folder, SUFFIXES))
        card = read_card(self.folder)
        self._known = card.get('videos', {})
        self.trained: bool = card.get('network', {}).get('trained', True)
        self.warnings: Sequence[str] = card.get('warnings', [])
        name = f'{PREFIX}{self.folder.resolve().name}'
        self.description: Mapping[str, Any] = {'name': name, 'sha256': sha256}
        if 'network' in card:
            self.description['exported_from'] = card['network']

    def settings(self) -> dict[str, Any]:
        return {'input': {'frames': 'not seen'}}

    def sizes(self, video: Any) -> Sizes:
        path, shape, _ = self._find(video)
        frame_size, grid = tuple(video.size), shape[1:3]
        known = self._known.get(video.name)
        if known is not None and tuple(known['size']) == frame_size:
            return Sizes(frame_size, tuple(known['seen']), grid, tuple(known['cell']))
        cell = cells_of(frame_size, grid)
        if max(cell) > _UNSQUARE * min(cell):
            raise DataError(
                f'{path}: is {list(shape)}, a grid of {grid[0]} x {grid[1]} cells for frames of '
                f'{frame_size[0]} x {frame_size[1]} pixels (height x width): are the axes '
                '[T, H, W, C]?'
            )
        return Sizes(frame_size, frame_size, grid, cell)

    def open(self, video: Any, frames: Iterator[np.ndarray]) -> OpenedVideo:
        path, shape, read = self._find(video)
        known = self._known.get(video.name, {})
        spans = known.get('spans') or spans_of(shape[0], video.num_frames)
        return OpenedVideo(_arrays(path, read), spans=spans)

    def _find(self, video):
        """Finds a video's array: its path, its shape, and a function that reads its frames."""
        if video.num_frames is None:
            raise ValueError(
                f'{self.folder}: features are read for videos of known length: pass the video too'
            )
        check_name(video.name, self.folder, parts=None)
        # A name may have dots, so suffixes are appended as text.
        paths = [self.folder / f'{video.name}{suffix}' for suffix in SUFFIXES]
        found = [path for path in paths if path in self._paths]
        if len(found) != 1:
            names = ', '.join(path.name for path in found or paths)
            what = 'there are several files of' if found else 'there are no'
            raise DataError(f'{paths[0].parent}: {what} features of {video.name}: {names}')
        (path,) = found
        with _naming(path):
            shape, dtype, read = _OPEN[path.suffix](path)
        wrong = ''
        if len(shape) != 4 or 0 in shape or str(dtype) not in _DTYPES:
            wrong = f'is {dtype} {list(shape)}; features are {" or ".join(_DTYPES)} [T, H, W, C]'
        elif shape[0] > video.num_frames:
            wrong = f'holds {shape[0]} feature maps for a video of {video.num_frames} frames'
        known = self._known.get(video.name)
        if known is not None and known['num_frames'] != video.num_frames:
            frames = known['num_frames']
            wrong = f'was made of {frames} frames; the video has {video.num_frames}'
        elif known is not None and list(shape) != known['shape']:
            wrong = f'is {list(shape)}; {CARD} says {known["shape"]}'
        if wrong:
            raise DataError(f'{path}: {wrong}')
        first, channels = self._channels = self._channels or (path, shape[3])
        if shape[3] != channels:
            raise DataError(f'{path}: has {shape[3]} channels, but {first} has {channels}')
        return path, tuple(shape), read


def spans_of(num_maps: int, num_frames: int) -> list[int] | None:
    """Counts the frames for which each map stands, if nothing tells more than their numbers.

    Map j stands for the frames t with floor(t num_maps / num_frames) = j.

    Args:
      num_maps: T', at most T.
      num_frames: T.

    Returns:
      T' numbers; None if each map stands for one frame.
    """
    if num_maps == num_frames:
        return None
    maps = np.arange(num_frames) * num_maps // num_frames
    return np.bincount(maps, minlength=num_maps).tolist()


def read_card(folder: pathlib.Path) -> dict[str, Any]:
    """Reads the description that `export-features` wrote for a folder's arrays; {} without one.

    Raises:
      ValueError: the file is damaged; the message names it.
    """
    path = folder / CARD
    if not path.is_file():
        return {}
    card = files.read_json(path)
    try:
        for known in card['videos'].values():
            sizes = [*known['size'], *known['seen'], *known['cell'], known['num_frames']]
            spans = known['spans']
            is_whole = len(sizes) == 7 and min(sizes) > 0 and len(known['shape']) == 4
            if spans is not None:
                is_whole &= (sum(spans), len(spans)) == (known['num_frames'], known['shape'][0])
            if not is_whole:
                raise ValueError(known)
        card['network']['trained'], [*card['warnings']]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: is damaged; export the features anew') from error
    return card


def folder_digest(folder: str | os.PathLike) -> str:
    """Computes a SHA-256 of a folder's arrays and their description, in hexadecimal.

    Raises:
      ValueError: there is no such folder, or no array in it.
    """
    folder = pathlib.Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f'{PREFIX}{folder}: there is no such folder')
    found = files.files_in(folder, SUFFIXES)
    if not found:
        raise ValueError(f'{folder}: holds no features, which are {", ".join(SUFFIXES)} files')
    stats = [path.stat() for path in found]
    stamp = tuple((path, s.st_size, s.st_mtime_ns) for path, s in zip(found, stats))
    arrays = _arrays_digest(folder, stamp)
    if not (videos := read_card(folder).get('videos')):
        return arrays
    return hashlib.sha256(f'{arrays} {json.dumps(videos, sort_keys=True)}'.encode()).hexdigest()


@functools.lru_cache
def _arrays_digest(folder, stamp):
    """Computes the digest of a folder's arrays; files whose `stamp` is the same are read once.

    A study asks for the digest for each of its cells.
    """
    return files.digest([folder], SUFFIXES)


def _arrays(path, read):
    with _naming(path):
        for index, array in enumerate(read()):
            array = np.array(array, np.float32)
            if not np.isfinite(array).all():
                raise ValueError(f'feature map {index} holds values that are not finite')
            yield array


@contextlib.contextmanager
def _naming(path):
    """Turns errors of libraries for damaged files into a DataError that names the file."""
    from safetensors import SafetensorError

    # zipfile raises RuntimeError if a password is needed, NotImplementedError if it does not know
    # the compression of a file.
    wrong = (ValueError, OSError, EOFError, RuntimeError, NotImplementedError)
    try:
        yield
    except (*wrong, zipfile.BadZipFile, zlib.error, SafetensorError) as error:
        said = ' '.join(str(error).split())
        raise DataError(f'{path}: cannot be read as features: {said}') from error


def _open_npy(path):
    array = np.lib.format.open_memmap(path, 'r')
    return array.shape, array.dtype, lambda: iter(array)


def _open_npz(path):
    """Opens the array of an .npz file, which may be compressed; it is read frame by frame."""
    with zipfile.ZipFile(path) as archive:
        name = _only(archive.namelist())
        with archive.open(name) as file:
            shape, is_fortran, dtype = _header(file)
            num_bytes = archive.getinfo(name).file_size - file.tell()
    if not dtype.hasobject and dtype.itemsize * math.prod(shape) != num_bytes:
        raise ValueError(f'its header says {dtype} {list(shape)}, but it holds {num_bytes} bytes')
    if is_fortran:
        raise ValueError("it is in Fortran's order: save np.ascontiguousarray(array)")

    def read():
        size = dtype.itemsize * int(np.prod(shape[1:]))
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            _header(file)
            for _ in range(shape[0]):
                data = file.read(size)
                if len(data) < size:
                    raise ValueError('it is cut short')
                yield np.frombuffer(data, dtype).reshape(shape[1:])

    return shape, dtype, read


def _header(file):
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _open_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, 'numpy') as file:
        name = _only(list(file.keys()))
        part = file.get_slice(name)
        shape, stored = tuple(part.get_shape()), part.get_dtype()
    dtype = {'F16': 'float16', 'F32': 'float32', 'BF16': 'bfloat16'}.get(stored, stored)

    def read():
        with safe_open(path, 'numpy') as file:
            part = file.get_slice(name)
            yield from (part[t] for t in range(shape[0]))

    return shape, dtype, read


def _only(names):
    if len(names) != 1:
        raise ValueError(f'it holds {len(names)} arrays; it must hold one')
    return names[0]


_OPEN: Mapping[str, Callable[[pathlib.Path], tuple[tuple[int, ...], Any, Callable]]] = dict(
    zip(SUFFIXES, (_open_npy, _open_npz, _open_safetensors))
)
