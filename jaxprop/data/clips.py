"""Lists unlabelled videos below a folder, and reads some frames without decoding the others."""

import os
import pathlib
from collections.abc import Callable, Sequence

import av
import numpy as np

from jaxprop.data.image_files import IMAGE_SUFFIXES, list_images, read_image, walk_folders
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_container, to_rgb

# If the next wanted frame is more than so many frames ahead, the reader seeks it; else it decodes
# on. About so many frames lie between key frames, so seeking then decodes no more than going on.
_FAR = 250
VIDEO_SUFFIXES = ('.mp4', '.mkv', '.avi', '.webm', '.mov', '.m4v', '.mpg', '.mpeg')


def list_videos(root: str | os.PathLike) -> list[pathlib.Path]:
    """Lists every folder of frames and every video file below a folder, sorted by their paths.

    Raises:
      DataError: there is no such folder, or no video in it.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataError(f'{root}: there is no such folder')
    videos = []
    for folder, names in walk_folders(root):
        videos += [folder / name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
        if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
            videos.append(folder)
    if not videos:
        raise DataError(f'{root}: holds neither a folder of JPEG or PNG frames nor a video file')
    return sorted(videos)


def read_frames(
    path: str | os.PathLike, choose: Callable[[int, float | None], Sequence[int]]
) -> list[np.ndarray]:
    """Reads some frames of a video, without decoding the others where its format allows that.

    Decoding begins at the key frame before the first wanted frame. If the next wanted frame is far
    ahead, decoding begins anew at the key frame before that one. The number of frames comes from
    the file's header, and an index is only as exact as this number.

    Args:
      path: a folder of frames or a video file.
      choose: a function of the number of frames and the frames a second (None for a folder) that
        returns the indices of the wanted frames, in any order.

    Returns:
      uint8 RGB `[H, W, 3]` for each index.

    Raises:
      DataError: the file is missing, damaged, or ends before a wanted frame; the message names it.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        paths = list_images(path)
        return [read_image(paths[index]) for index in choose(len(paths), None)]
    with open_container(path, strict=False) as (container, stream):
        return _read_container(path, container, stream, choose)


def _read_container(path, container, stream, choose):
    rate, base = stream.average_rate, stream.time_base
    seconds = (container.duration or 0) / av.time_base
    if stream.duration:
        seconds = stream.duration * base
    count = stream.frames or int(seconds * (rate or 0))
    if not count or not rate:
        raise DataError(f'{path}: its header tells neither its frames nor its duration')
    indices = list(choose(count, float(rate)))
    start = stream.start_time or 0
    # Look for each frame from half a frame earlier on, since time stamps are rounded.
    times = {index: start + (index - 0.5) / (rate * base) for index in indices}
    found = {}
    for waiting in _near_each_other(sorted(times)):
        latest = None
        container.seek(int(max(start, times[waiting[0]])), stream=stream)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DataError(f'{path}: a frame is damaged')
            latest = frame
            while waiting and frame.pts is not None and frame.pts >= times[waiting[0]]:
                found[waiting.pop(0)] = to_rgb(frame)
            if not waiting:
                break
        if waiting and latest is not None and not stream.frames and waiting[0] >= count - 3:
            # A count from the duration can be a little too large: take the last frame.
            found.update(dict.fromkeys(waiting, to_rgb(latest)))
            waiting = []
        if waiting:
            raise DataError(f'{path}: ends before frame {waiting[0]} of {count}')
    return [found[index] for index in indices]


def _near_each_other(indices):
    """Cuts ascending indices into groups; the frames of a group are read without seeking."""
    groups = [[indices[0]]]
    for index in indices[1:]:
        if index - groups[-1][-1] > _FAR:
            groups.append([])
        groups[-1].append(index)
    return groups
