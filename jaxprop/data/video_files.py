"""Videos as they come: folders of frames and video files, read one frame at a time."""

import contextlib
import dataclasses
import fractions
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

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

# FFmpeg's readers of MP4 and MOV, Matroska and WebM, AVI, and MPEG's three. The others, about 350,
# have playlists among them, which name files and addresses for FFmpeg to open.
CONTAINERS = ('mov', 'mp4', 'matroska', 'webm', 'avi', 'mpeg', 'mpegts', 'mpegvideo')
# Titles and the like may be in any encoding. PyAV 19 decodes them when they are asked for.
_METADATA = {'metadata_errors': 'replace'} if int(av.__version__.partition('.')[0]) < 19 else {}


@dataclasses.dataclass(frozen=True)
class Video:
    """Frames in order, of which one at a time is held in memory.

    Attributes:
      path: of the folder or the file.
      name: its name, without its suffix.
      num_frames: how many frames there are.
      size: (height, width) of every frame in pixels.
      frame_names: one a frame: an image's file name without suffix, or the frame's number.
      frames_per_second: of a file; None where it does not say, and for a folder.
      read_frame: t -> uint8 RGB `[H, W, 3]`. A file is decoded forwards from the last frame read,
        and from its start again for an earlier one. Raises DataError.
      iterate: () -> all frames in order, each call with a decoder of its own. Raises DataError.
      files: that the frames are read from.
    """

    path: pathlib.Path
    name: str
    num_frames: int
    size: tuple[int, int]
    frame_names: tuple[str, ...]
    frames_per_second: float | None
    read_frame: Callable[[int], np.ndarray]
    iterate: Callable[[], Iterator[np.ndarray]]
    files: tuple[pathlib.Path, ...]


def open_video(path: str | os.PathLike) -> Video:
    """Opens a folder of frames (JPEG, PNG, in natural order) or a video file.

    A file is decoded once to count its frames, which headers often have wrong, and to find damage
    now rather than in the middle of the work. Its rotation, as telephones record it, is applied.

    Raises:
      DataError: naming the file: missing, no video of a kind that `open_container` reads, damaged,
        without frames, or with frames of different sizes (in a folder: when such a frame is read);
        two frames of a folder whose names differ in their suffixes alone.
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
    """A video, see `open_video`, with a mask for its first frame, see `read_drawn_mask`.

    Args:
      path: a folder of frames or a video file, or what `open_video` made of it.
      first_mask_path: of the mask.
      name: of the sequence; the folder's or the file's where None.

    Raises:
      DataError: naming the file: as `open_video` and `read_drawn_mask`.
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


def write_video(
    path: str | os.PathLike, frames: Iterable[np.ndarray], frames_per_second: float = 24
) -> None:
    """Writes frames as they come to a video file: H.264, or MPEG-4 where that is not built in.

    These codecs want even sides: an odd side grows by a copy of its last row or column.

    Args:
      path: of the file; its suffix (.mp4, .mkv, .avi ...) says the container.
      frames: uint8 RGB `[H, W, 3]`, all of one size.
      frames_per_second: of the video.

    Raises:
      ValueError: there is no frame, one is not like that, or the suffix names no container.
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
        files=tuple(frames),
    )


def _open_file(path: pathlib.Path) -> Video:
    num_frames = 0
    for frame in _decode(path):
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
        files=(path,),
    )


class _ForwardReader:
    """Frame t of a file, decoding forwards, and from the start for an earlier t than the last."""

    def __init__(self, path: pathlib.Path, num_frames: int) -> None:
        self._path = path
        self._num_frames = num_frames
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._latest: av.VideoFrame | None = None
        self._position = num_frames  # of the latest frame; as if past the end before the first

    def __call__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._num_frames:
            raise IndexError(f'frame {index} of a video of {self._num_frames}')
        if index < self._position:
            self._frames, self._position = _decode(self._path), -1
        while self._position < index:
            self._latest = next(self._frames)
            self._position += 1
        return to_rgb(self._latest)


@contextlib.contextmanager
def open_container(
    path: str | os.PathLike, strict: bool = True
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a video file and its first video stream.

    The file is local, whatever its name looks like, its container one of `CONTAINERS`, and no other
    file is opened for it.

    Args:
      path: of the file.
      strict: the decoder ends with an error where data is corrupt, rather than to show what it can
        and to note the error in a log. It must read from the start: the first frames after a key
        frame may refer to frames before it, whose lack is an error too.

    Raises:
      DataError: naming the file: it is missing or of another kind, holds no video that can be
        decoded, or FFmpeg raises an error in the block.
    """
    path = pathlib.Path(path)
    if not path.is_file():  # Reading a pipe or a device would never end.
        raise DataError(f'{path}: there is no such file, or it is no regular one')
    options = {'protocol_whitelist': 'file', 'format_whitelist': ','.join(CONTAINERS)}
    try:
        # Without 'file:' a name such as 12:30.mp4 is taken for an address.
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
        # Frames decoded in several threads at once are not always marked as corrupt.
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
        # A file cut short may decode without an error. MP4's index knows; the counts in other
        # containers' headers are too often wrong.
        if 'mp4' in container.format.name and num_packets < stream.frames:
            raise DataError(
                f'{path}: is cut short: {num_packets} of {stream.frames} frames are there'
            )


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame as uint8 RGB `[H, W, 3]`, turned as its rotation says."""
    image = frame.to_ndarray(format='rgb24')
    turns = round(frame.rotation / 90) % 4  # The rotation is in degrees, counterclockwise.
    return np.ascontiguousarray(np.rot90(image, turns))
