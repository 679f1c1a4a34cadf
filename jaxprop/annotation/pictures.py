"""The frames of a video as JPEGs, for a browser, in any order."""

import pathlib
import tempfile
import threading

from jaxprop.data.image_files import encode_jpeg
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import Video

_SHORT_SIDE = 1080  # Larger frames are shown smaller. Their masks have the full size.
_QUALITY = 90


class Pictures:
    """Frames as JPEGs.

    A file is decoded forwards, once: what was decoded is kept in a temporary folder, so that going
    back is as fast as going on. Frames of a folder are read when they are asked for.
    """

    def __init__(self, video: Video) -> None:
        self._video, self._lock = video, threading.Lock()
        self._frames, self._count = video.iterate(), 0
        self._kept = tempfile.TemporaryDirectory(prefix='jaxprop-')

    def jpeg(self, number: int) -> bytes:
        """Returns frame `number` as a JPEG. Raises DataError where it can't be read."""
        with self._lock:
            if self._video.path.is_dir():
                return self._encode(self._video.read_frame(number))
            while self._count <= number:
                frame = next(self._frames, None)
                if frame is None:
                    raise DataError(
                        f'{self._video.path}: frame {self._count} can no longer be read'
                    )
                self._path(self._count).write_bytes(self._encode(frame))
                self._count += 1
            return self._path(number).read_bytes()

    def close(self) -> None:
        """Removes the temporary folder."""
        with self._lock:
            self._kept.cleanup()

    def _path(self, number):
        return pathlib.Path(self._kept.name) / f'{number}.jpg'

    def _encode(self, frame):
        return encode_jpeg(frame, _SHORT_SIDE, _QUALITY)
