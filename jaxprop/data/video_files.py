"""Reads videos one frame at a time, from folders of frames and video files, and writes files."""

import bisect
import collections
import contextlib
import dataclasses
import fractions
import itertools
import math
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import numpy as np

from jaxprop.data.drawn_masks import read_drawn_mask
from jaxprop.data.image_files import (
    check_size,
    frame_names,
    image_size,
    list_images,
    read_image,
)
from jaxprop.data.image_formats import MAX_PIXELS
from jaxprop.data.sequences import DataError, LabelledSequence, identity_of
from jaxprop.files import replacing

# FFmpeg's readers of MP4 and MOV, Matroska and WebM, AVI, and MPEG's three. FFmpeg has about 350
# others; some of them read playlists, which name files and addresses for FFmpeg to open.
CONTAINERS = ('mov', 'mp4', 'matroska', 'webm', 'avi', 'mpeg', 'mpegts', 'mpegvideo')
# While a video is read backwards, so many bytes of frames are held in memory, of 8 to 64 frames.
_BACKWARDS = 1 << 27
_KEPT = 8  # The latest frames of a file that are read again without decoding.
# If the key frame found is shown after the wanted frame, search so many frames further back.
_FURTHER_BACK = 50, 300
# Titles and other metadata may be in any encoding. From version 19 on PyAV decodes them only when
# they are asked for; before, it must not fail on them.
_METADATA = {'metadata_errors': 'replace'} if int(av.__version__.partition('.')[0]) < 19 else {}


@dataclasses.dataclass(frozen=True)
class Video:
    """A video; one frame at a time is held in memory.

    Attributes:
      path: of the folder or the file.
      name: the name of the folder, or that of the file without its suffix.
      num_frames: the number of frames.
      size: (height, width) of every frame in pixels.
      frame_names: a name for each frame: an image's file name without suffix, or the frame's
        number.
      frames_per_second: of a file; None for a folder, and for a file that does not say.
      read_frame: a function from a frame's index to uint8 RGB `[H, W, 3]`. A file is decoded
        forwards from the last frame read, and from its start again for one that is not among the
        latest few. Threads may call it. It raises DataError.
      iterate: a function that returns an iterator over all frames in order; each call has a decoder
        of its own. The iterator raises DataError.
      iterate_from: likewise, from the frame of an index on. A file is decoded from the key frame
        before it.
      files: the files from which the frames are read.
    """

    path: pathlib.Path
    name: str
    num_frames: int
    size: tuple[int, int]
    frame_names: tuple[str, ...]
    frames_per_second: float | None
    read_frame: Callable[[int], np.ndarray]
    iterate: Callable[[], Iterator[np.ndarray]]
    iterate_from: Callable[[int], Iterator[np.ndarray]]
    files: tuple[pathlib.Path, ...]


def open_video(path: str | os.PathLike) -> Video:
    """Opens a folder of frames (JPEG, PNG, in natural order) or a video file.

    A file is decoded once to count its frames, since headers often have a wrong number, and to find
    damage now rather than in the middle of the work. A rotation in the file, such as telephones
    record, is applied.

    Raises:
      DataError: the file or folder is missing, damaged, without frames, or no video of a kind that
        `open_container` reads; frames have different sizes (in a folder the error comes when such a
        frame is read); two frames of a folder have names that differ in their suffixes alone. The
        message names the file.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise DataError(f'{path}: there is no such folder or file')
    return _open_file(path)


def video_sequence(
    path: str | os.PathLike | Video,
    first_mask_path: str | os.PathLike,
    name: str | None = None,
) -> LabelledSequence:
    """Makes a labelled sequence of a video and a mask of its first frame.

    `open_video` opens the video, `jaxprop.data.drawn_masks.read_drawn_mask` the mask.

    Args:
      path: a folder of frames or a video file, or the `Video` that `open_video` returned for it.
      first_mask_path: of the mask.
      name: of the sequence; None takes the name of the folder or the file.

    Raises:
      DataError: an error of `open_video` or `read_drawn_mask`; the message names the file.
    """
    video = path if isinstance(path, Video) else open_video(path)
    mask = read_drawn_mask(first_mask_path, video.size)
    return LabelledSequence(
        name=video.name if name is None else name,
        num_frames=video.num_frames,
        size=video.size,
        read_frame=video.read_frame,
        read_label=lambda index: mask.ids.copy() if index == 0 else None,
        frame_names=video.frame_names,
        palette=mask.palette,
        notes=mask.notes,
        identity=identity_of([*video.files, first_mask_path]),
    )


def read_range(video: Any, numbers: range) -> Iterator[np.ndarray]:
    """Reads frames forwards or backwards, uint8 RGB `[H, W, 3]`, a few of them in memory.

    Args:
      video: a `Video`, or what else has size and read_frame.
      numbers: of the frames, in steps of 1 or -1.

    Raises:
      DataError: a frame cannot be read.
      ValueError: steps of another length.
    """
    if abs(numbers.step) != 1:
        raise ValueError(f'frames are read in steps of 1 or -1; these are {numbers}')
    if numbers.step > 0:
        yield from _read_forwards(video, numbers)
        return
    # Read some frames forwards and hand them out backwards.
    count = min(max(_BACKWARDS // (3 * math.prod(video.size)), 8), 64)
    for start in range(0, len(numbers), count):
        part = numbers[start : start + count]
        frames = list(_read_forwards(video, part[::-1]))
        while frames:
            yield frames.pop()


def _read_forwards(video, numbers):
    if not numbers:
        return iter(())
    if isinstance(video, Video):
        return itertools.islice(video.iterate_from(numbers[0]), len(numbers))
    return map(video.read_frame, numbers)


def write_video(
    path: str | os.PathLike, frames: Iterable[np.ndarray], frames_per_second: float = 24
) -> None:
    """Writes frames to a video file one by one: H.264, or MPEG-4 if H.264 is not available.

    These codecs need even sides: an odd side grows by a copy of its last row or column.

    Args:
      path: of the file; its suffix (.mp4, .mkv, .avi ...) says the container.
      frames: uint8 RGB `[H, W, 3]`, all of one size.
      frames_per_second: of the video.

    Raises:
      ValueError: there is no frame, a frame has another type or size, or the suffix names no
        container.
    """
    codec = 'libx264' if 'libx264' in av.codecs_available else 'mpeg4'
    quality = {'crf': '18'} if codec == 'libx264' else {'qmin': '2', 'qmax': '4'}
    rate = fractions.Fraction(frames_per_second).limit_denominator(1001)
    shape = None
    with replacing(path) as temporary:
        try:
            container = av.open(str(temporary), 'w')
        except ValueError as error:
            raise ValueError(f'{path}: the suffix names no video container; .mp4 does') from error
        with container:
            for frame in frames:
                if shape is None:
                    shape = (*frame.shape[:2], 3)
                    stream = container.add_stream(codec, rate=rate, options=quality)
                    stream.height, stream.width = (side + side % 2 for side in shape[:2])
                    stream.pix_fmt = 'yuv420p'
                if frame.dtype != np.uint8 or frame.shape != shape:
                    raise ValueError(
                        f'a frame is {frame.dtype} {list(frame.shape)}; it must be uint8, and '
                        f'{list(shape)} like the first'
                    )
                odd = ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0))
                even = np.ascontiguousarray(np.pad(frame, odd, mode='edge'))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format='rgb24')))
            if shape is None:
                raise ValueError(f'{path}: there is no frame to write')
            container.mux(stream.encode())


def _open_folder(path: pathlib.Path) -> Video:
    frames = list_images(path)
    size = image_size(frames[0])

    def read_frame(index: int) -> np.ndarray:
        frame = read_image(frames[index])
        check_size(frames[index], frame.shape[:2], size, frames[0])
        return frame

    return Video(
        path=path,
        name=path.resolve().name,
        num_frames=len(frames),
        size=size,
        frame_names=frame_names(frames),
        frames_per_second=None,
        read_frame=read_frame,
        iterate=lambda: map(read_frame, range(len(frames))),
        iterate_from=lambda start: map(read_frame, range(start, len(frames))),
        files=tuple(frames),
    )


def _open_file(path: pathlib.Path) -> Video:
    num_frames, times = 0, []
    for frame in _decode(path):
        times.append(frame.pts)
        if num_frames == 0:
            stored_size = frame.height, frame.width
            size = to_rgb(frame).shape[:2]
        if (frame.height, frame.width) != stored_size:
            raise DataError(
                f'{path}: frame {num_frames} is {frame.height} x {frame.width} (height x width), '
                f'but frame 0 is {stored_size[0]} x {stored_size[1]}'
            )
        num_frames += 1
    if num_frames == 0:
        raise DataError(f'{path}: holds no frame')
    with open_container(path) as (_, stream):
        rate = stream.average_rate
    return Video(
        path=path,
        name=path.stem,
        num_frames=num_frames,
        size=size,
        frame_names=tuple(f'{index:05d}' for index in range(num_frames)),
        frames_per_second=float(rate) if rate else None,
        read_frame=_ForwardReader(path, num_frames),
        iterate=lambda: map(to_rgb, _decode(path)),
        iterate_from=lambda start: map(to_rgb, _decode_from(path, times, start)),
        files=(path,),
    )


class _ForwardReader:
    """Reads frame t of a file: decodes forwards, and from the start again for an earlier frame.

    Threads may call it. They ask for neighbouring frames in any order, so the latest frames are
    kept.
    """

    def __init__(self, path: pathlib.Path, num_frames: int) -> None:
        self._lock = threading.Lock()
        self._path = path
        self._num_frames = num_frames
        self._frames: Iterator[av.VideoFrame] = iter(())
        # The latest frames, each with its index, and the index of the last one. Before the first
        # call it is past the end, so that the decoder starts.
        self._latest: collections.deque[tuple[int, av.VideoFrame]] = collections.deque(maxlen=_KEPT)
        self._position = num_frames

    def __call__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._num_frames:
            raise IndexError(f'frame {index} of a video of {self._num_frames}')
        with self._lock:
            found = dict(self._latest).get(index)
            if found is None and index < self._position:
                self._frames, self._position = _decode(self._path), -1
            try:
                while self._position < index:
                    found = next(self._frames, None)
                    if found is None:
                        raise DataError(f'{self._path}: frame {index} can no longer be read')
                    self._position += 1
                    self._latest.append((self._position, found))
            except BaseException:
                self._position = self._num_frames  # Decode from the start the next time.
                self._latest.clear()
                raise
            return to_rgb(found)


@contextlib.contextmanager
def open_container(
    path: str | os.PathLike, strict: bool = True
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a video file and its first video stream.

    The path is always taken for a local file, also if it looks like an address. The container must
    be one of `CONTAINERS`, and FFmpeg opens no other file for it.

    Args:
      path: of the file.
      strict: whether the decoder stops with an error at corrupt data; if not, it shows what it can
        and notes the error in a log. A strict decoder must read from the start: the first frames
        after a key frame may refer to frames before it, and their absence is an error too.

    Raises:
      DataError: the file is missing, of another kind, or holds no video that can be decoded, or
        FFmpeg raises an error in the `with` block; the message names the file.
    """
    path = pathlib.Path(path)
    if not path.is_file():  # Reading a pipe or a device would never end.
        raise DataError(f'{path}: there is no such file, or it is no regular one')
    options = {'protocol_whitelist': 'file', 'format_whitelist': ','.join(CONTAINERS)}
    try:
        # Without 'file:' FFmpeg takes a name such as 12:30.mp4 for an address.
        with av.open(f'file:{path.absolute()}', options=options, **_METADATA) as container:
            if not container.streams.video:
                raise DataError(f'{path}: holds no video')
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f'{path}: its video is of an unknown kind')
            errors = {'err_detect': 'explode+crccheck+bitstream+buffer'} if strict else {}
            stream.codec_context.options = {'max_pixels': str(MAX_PIXELS), **errors}
            yield container, stream
    except av.error.ArgumentError as error:
        raise DataError(
            f'{path}: is no MP4, MOV, Matroska, WebM, AVI or MPEG video; convert it to MP4'
        ) from error
    except (av.FFmpegError, OSError) as error:
        raise DataError(f'{path}: cannot be decoded: {error}') from error


def _decode(path: pathlib.Path) -> Iterator[av.VideoFrame]:
    num_frames = num_packets = 0
    with open_container(path) as (container, stream):
        # Decode one frame at a time: of frames decoded at once, corrupt ones are not always marked.
        stream.thread_type = 'SLICE'
        try:
            for packet in container.demux(stream):
                num_packets += packet.size > 0
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise DataError(f'{path}: frame {num_frames} is damaged')
                    yield frame
                    num_frames += 1
        except av.FFmpegError as error:
            raise DataError(
                f'{path}: cannot be decoded from frame {num_frames} on: {error}'
            ) from error
        # A file that is cut short may decode without an error. In MP4 the index has the number of
        # frames; the numbers in other containers' headers are too often wrong.
        if 'mp4' in container.format.name and num_packets < stream.frames:
            raise DataError(
                f'{path}: is cut short: {num_packets} of {stream.frames} frames are there'
            )


def _decode_from(path: pathlib.Path, times: list, start: int) -> Iterator[av.VideoFrame]:
    """Decodes from a frame on; `times` are the time stamps of all frames, None where there is none.

    The whole file has been decoded without an error before, so the decoder need not be strict. A
    strict one would stop at frames after a key frame that need frames before it.
    """
    are_known = all(None not in pair and pair[0] < pair[1] for pair in itertools.pairwise(times))
    for back in (0, *_FURTHER_BACK) if are_known and start else ():
        number = None
        with open_container(path, strict=False) as (container, stream):
            container.seek(times[max(start - back, 0)], stream=stream)
            for frame in container.decode(stream):
                if number is None and frame.key_frame:
                    # All frames that are shown after a key frame can be decoded from it on.
                    number = bisect.bisect_left(times, frame.pts)
                    if number > start:
                        break
                if number is None:
                    continue
                if number == len(times) or frame.pts != times[number]:
                    break
                if number >= start:
                    yield frame
                    start += 1
                number += 1
        if start == len(times):
            return
    yield from itertools.islice(_decode(path), start, None)


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Converts a decoded frame to uint8 RGB `[H, W, 3]`, and applies its rotation."""
    image = frame.to_ndarray(format='rgb24')
    turns = round(frame.rotation / 90) % 4  # The rotation is in degrees, counterclockwise.
    return np.ascontiguousarray(np.rot90(image, turns))
