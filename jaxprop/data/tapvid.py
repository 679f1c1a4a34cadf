"""Reads TAP-Vid: videos and the tracks of points in them, from its pickle files.

    tapvid_davis.pkl            a dict of the videos by their names
    tapvid_rgb_stacking.pkl     a list of videos
    0000_of_0010.pkl ...        lists of videos, of Kinetics

A video is a dict of

    'video'       uint8 [T, H, W, 3], or T JPEG files
    'points'      float [N, T, 2], (x, y) from 0 to 1
    'occluded'    bool [N, T]

The files are read by `jaxprop.data.array_pickle`, so nothing in them is run.

Source: Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from jaxprop.data.array_pickle import StoredArray, read_array_pickle
from jaxprop.data.image_files import decode_jpeg
from jaxprop.data.sequences import DataError, check_name, identity_of, no_files

QUERY_STRIDE = 5  # Frames between the queries of the mode 'strided'.


@dataclasses.dataclass(frozen=True, eq=False)
class PointVideo:
    """A video and the tracks of points in it.

    Attributes:
      name: of the video; one of a list is named by its file and its number.
      num_frames: T.
      size: (height, width), to which frames are resized.
      read_frame: a function from a frame's index to uint8 RGB `[H, W, 3]`; it raises DataError.
      points: float64 `[N, T, 2]`, (x, y) in pixels of the resized frame; (0, 0) is the corner of
        the first pixel, not its centre.
      occluded: bool `[N, T]`.
      identity: a function without arguments. It returns a digest of the video's file and its name.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    read_frame: Callable[[int], np.ndarray]
    points: np.ndarray
    occluded: np.ndarray
    identity: Callable[[], str] = no_files

    def queries(self, mode: str) -> np.ndarray:
        """The points that are given: float64 `[Q, 4]` of (number of the point, t, y, x).

        In the mode 'first' each point is given in the first frame in which it is seen; one that is
        never seen is not. In the mode 'strided' it is given in each frame 0, 5, 10, ... in which it
        is seen, and is sought in all other frames from each of them.
        """
        seen = ~self.occluded
        if mode == 'first':
            numbers = np.flatnonzero(seen.any(axis=1))
            frames = seen[numbers].argmax(axis=1)
        else:
            places = np.argwhere(seen[:, ::QUERY_STRIDE].T)
            frames, numbers = QUERY_STRIDE * places[:, 0], places[:, 1]
        x, y = self.points[numbers, frames].T
        return np.stack([numbers, frames, y, x], axis=-1).astype(np.float64)


def tapvid_videos(
    root: str | os.PathLike, size: tuple[int, int] = (256, 256)
) -> dict[str, Callable[[], PointVideo]]:
    """Lists the videos of a file, or of all files NAME.pkl of a folder.

    Args:
      root: the file or the folder.
      size: (height, width) to which frames are brought.

    Returns:
      By the videos' names, functions that open them. These raise DataError if a video is not as the
      module's page says.

    Raises:
      DataError: there is no such file, or no file in the folder; a file is damaged or is no dict or
        list of videos; two videos have one name, or `check_name` refuses it.
    """
    root = pathlib.Path(root)
    paths = sorted(root.glob('[!.]*.pkl')) if root.is_dir() else [root]
    if not paths:
        raise DataError(f'{root}: holds no file NAME.pkl')
    videos: dict[str, Callable[[], PointVideo]] = {}
    for path in paths:
        content, file_identity = _value(read_array_pickle(path)), identity_of([path])
        if type(content) in (list, tuple):
            content = {f'{path.stem}-{index:04d}': video for index, video in enumerate(content)}
        if type(content) is not dict or not content:
            raise DataError(f'{path}: is no dict and no list of videos')
        for name, video in content.items():
            if check_name(name, path) in videos:
                raise DataError(f'{path}: the video {name!r} is there twice')
            videos[name] = _opener(path, name, video, size, file_identity)
    return videos


def _opener(path, name, video, size, file_identity):
    def open_video():
        frames, points, occluded = _parts(path, name, video)
        return PointVideo(
            name=name,
            num_frames=len(frames),
            size=size,
            read_frame=lambda index: _read_frame(path, name, frames, index, size),
            points=points * np.array([size[1], size[0]]),
            occluded=occluded,
            identity=lambda: f'{file_identity()} {name}',
        )

    return open_video


def _parts(path, name, video):
    """Checks a video; its frames, points and occlusion."""
    where = f'{path}: the video {name!r}'
    if type(video) is not dict or not {'video', 'points', 'occluded'} <= set(video):
        raise DataError(f"{where} is no dict of 'video', 'points' and 'occluded'")
    frames, points, occluded = (_value(video[key]) for key in ('video', 'points', 'occluded'))
    is_array = isinstance(frames, np.ndarray)
    is_video = is_array and frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3
    is_files = type(frames) in (list, tuple) and all(type(f) is memoryview for f in frames)
    if not (is_video and frames.size) and not (is_files and frames):
        raise DataError(f'{where} has frames that are no uint8 [T, H, W, 3] and no T JPEG files')
    if not isinstance(points, np.ndarray) or not isinstance(occluded, np.ndarray):
        raise DataError(f'{where} has points or occlusion that are no arrays')
    shape = (*points.shape[:1], len(frames))
    if points.shape != (*shape, 2) or points.dtype.kind != 'f' or not len(points):
        raise DataError(f'{where} has points {list(points.shape)}; needed: [N, {len(frames)}, 2]')
    if occluded.shape != shape or occluded.dtype != bool:
        raise DataError(f'{where} has occlusion {list(occluded.shape)}; needed: bool {list(shape)}')
    with np.errstate(invalid='ignore'):  # Damaged numbers may be NaN of a kind that warns.
        points = points.astype(np.float64)
    if not np.isfinite(points[~occluded]).all():
        raise DataError(f'{where} has seen points that are not finite')
    return frames, points, occluded


def _read_frame(path, name, frames, index, size):
    frame: Any = frames[index]
    if isinstance(frame, memoryview):
        try:
            frame = decode_jpeg(bytes(frame))
        except DataError as error:
            raise DataError(f'{path}: frame {index} of the video {name!r}: {error}') from error
    if frame.shape[:2] == tuple(size):
        return np.array(frame)
    shrinks = frame.shape[0] * frame.shape[1] > size[0] * size[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(frame), size[::-1], interpolation=way)


def _value(value):
    return value.value if type(value) is StoredArray else value
