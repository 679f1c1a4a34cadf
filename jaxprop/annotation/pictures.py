"""The frames of a video as JPEGs, for a browser, in any order."""

import pathlib
import tempfile
import threading

from jaxprop.data.image_files import encode_jpeg
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import Video

_SHORT_SIDE = 1080  # Larger frames are shown smaller. Their masks have the full size.
_QUALITY = 90
_BEFORE = 16  # So many frames before the wanted one are decoded with it: people go back, too.
_AHEAD = 64  # A frame up to so far ahead is reached by decoding on, without a search.


class Pictures:
    """Frames as JPEGs; those of a file are kept in a temporary folder once they are decoded.

    Threads may share one.
    """

    def __init__(self, video: Video) -> None:
        self._video, self._lock = video, threading.Lock()
        self._frames, self._next = video.iterate_from(0), 0
        self._kept = tempfile.TemporaryDirectory(prefix='jaxprop-')

    def jpeg(self, number: int) -> bytes:
        """Returns frame `number` as a JPEG. Raises DataError where it can't be read."""
        with self._lock:
            if self._video.path.is_dir():
                return self._encode(self._video.read_frame(number))
            if not self._path(number).exists():
                self._decode(number)
            return self._path(number).read_bytes()

    def _decode(self, number):
        """Decodes frames up to one, and keeps them."""
        if not self._next <= number < self._next + _AHEAD:
            self._next = max(0, number - _BEFORE)
            self._frames = self._video.iterate_from(self._next)
        while self._next <= number:
            frame = next(self._frames, None)
            if frame is None:
                self._next = self._video.num_frames  # The next call starts anew.
                raise DataError(f'{self._video.path}: frame {number} can no longer be read')
            self._path(self._next).write_bytes(self._encode(frame))
            self._next += 1

    def close(self) -> None:
        """Removes the temporary folder."""
        with self._lock:
            self._kept.cleanup()

    def _path(self, number):
        return pathlib.Path(self._kept.name) / f'{number}.jpg'

    def _encode(self, frame):
        return encode_jpeg(frame, _SHORT_SIDE, _QUALITY)
