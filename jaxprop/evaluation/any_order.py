"""Features of a video's frames forwards or backwards, and arrays that wait on disk.

Shapes: H, W cells, C channels of features.
"""

import collections
import itertools
import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxprop import parallel
from jaxprop.data.video_files import read_range
from jaxprop.evaluation.features import FeatureSource, extract_features, frames_of, stack_frames

_IN_MEMORY = 1 << 26  # Bytes; what is larger goes to disk.

# The next features are computed beside the labels of the last frames.
_extract = parallel.beside(extract_features)


class KeptArrays:
    """Arrays of one shape and type by numbers, in memory while they are few, else in a file.

    The file has no name, so nothing is left of it when the process ends, however it ends.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        """Starts without arrays; `folder` is where the file is made, None in the system's."""
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder)
        # Close it together with this object.
        weakref.finalize(self, self._file.close)
        self._places, self._shape, self._dtype = {}, (), None

    def append(self, number: int, array: np.ndarray) -> None:
        """Keeps an array under a number. Raises ValueError for another shape or type."""
        array = np.ascontiguousarray(array)
        if self._places and (array.shape, array.dtype) != (self._shape, self._dtype):
            raise ValueError(
                f'an array is {array.dtype} {list(array.shape)}, those before are {self._dtype} '
                f'{list(self._shape)}'
            )
        self._shape, self._dtype = array.shape, array.dtype
        self._places[number] = self._file.seek(0, os.SEEK_END)
        self._file.write(array.tobytes())

    def read(self, number: int) -> np.ndarray:
        """Reads the array of a number."""
        self._file.seek(self._places[number])
        data = self._file.read(int(np.prod(self._shape)) * self._dtype.itemsize)
        return np.frombuffer(data, self._dtype).reshape(self._shape)

    def __len__(self) -> int:
        return len(self._places)


class NetworkInAnyOrder:
    """The features of a network, computed anew each time that they are read."""

    def __init__(self, source: FeatureSource, video: Any):
        self._source, self._video = source, video
        self._frames = collections.deque()
        # The source prepares frame by frame, so it can be given frames in any order.
        opened = source.open(video, self._next_frames())
        self._arrays = opened.arrays
        own = source.network.variables if opened.variables is None else opened.variables
        self._variables = jax.device_put(own)

    def read(self, numbers: range) -> Iterator[list[tuple[int, Any]]]:
        """Reads features in the order of the numbers, in steps of 1 or -1.

        Yields:
          Batches of (number, features `[H, W, C]` on the device). Raises DataError.
        """
        frames, size = read_range(self._video, numbers), self._source.batch
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            self._frames.extend(itertools.islice(frames, len(batch)))
            arrays = list(itertools.islice(self._arrays, len(batch)))
            stacked = stack_frames({0: arrays}, 1, size)[0]
            model, color = self._source.network.model, self._source.color
            features = _extract(model, self._variables, stacked, color_space=color)
            yield list(zip(batch, features))

    def _next_frames(self):
        while True:
            yield self._frames.popleft()


class KeptInAnyOrder:
    """The features of a source without a network: read once, in order, and kept on disk."""

    def __init__(self, source: FeatureSource, video: Any, folder: str | os.PathLike | None = None):
        self._source, self._name = source, video.name
        opened = source.open(video, frames_of(video))
        self._arrays, self._kept = iter(opened.arrays), KeptArrays(folder)
        spans = itertools.repeat(1) if opened.spans is None else opened.spans
        # The number of the array that stands for each frame.
        self._array_of = (array for array, span in enumerate(spans) for _ in range(span))
        self._found = []

    def read(self, numbers: range) -> Iterator[list[tuple[int, Any]]]:
        """Reads features as `NetworkInAnyOrder.read` does."""
        for start in range(0, len(numbers), self._source.batch):
            batch = numbers[start : start + self._source.batch]
            yield [(number, jax.device_put(self._read(number))) for number in batch]

    def _read(self, number):
        while len(self._found) <= number:
            self._found.append(next(self._array_of))
        while len(self._kept) <= self._found[number]:
            array = next(self._arrays, None)
            if array is None:
                raise ValueError(
                    f'{self._name}: the source gives {len(self._kept)} arrays, but none for frame '
                    f'{number}'
                )
            self._kept.append(len(self._kept), array)
        return self._kept.read(self._found[number])


def open_features(
    source: FeatureSource, video: Any, folder: str | os.PathLike | None = None
) -> NetworkInAnyOrder | KeptInAnyOrder:
    """Opens a video so that its features can be read in any order.

    Args:
      source: of the features.
      video: as a `FeatureSource` takes it, with num_frames and read_frame.
      folder: where temporary files are made; None takes the system's folder for them.

    Raises:
      DataError: the source has no features of this video.
    """
    if source.network is not None:
        return NetworkInAnyOrder(source, video)
    return KeptInAnyOrder(source, video, folder)
