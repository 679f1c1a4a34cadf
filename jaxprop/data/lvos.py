"""Reads LVOS: long videos, whose objects may appear later.

    root/meta.json                          videos and their objects
    root/JPEGImages/NAME/00000001.jpg ...   every fifth frame: 00000001, 00000006, ...
    root/Annotations/NAME/00000001.png ...  of `val` all, of `test` where objects appear

`root` is the folder of a split. An object of meta.json has a 'frame_range' with the names of the
first frame, 'start', and the last, 'end'. The official evaluation scores an object before the last.

Source: Hong et al., "LVOS: A Benchmark for Long-term Video Object Segmentation", ICCV 2023.
"""

import dataclasses
import os
import pathlib

from jaxprop.data.appearing import AppearingSequence, open_video, read_meta, read_objects
from jaxprop.data.sequences import DataError


def lvos_names(root: str | os.PathLike) -> tuple[str, ...]:
    """Lists the videos of meta.json, in the order of their names.

    Raises:
      DataError: meta.json is missing or damaged, or `check_name` refuses a name in it.
    """
    return tuple(sorted(read_meta(pathlib.Path(root) / 'meta.json')))


def lvos_sequence(root: str | os.PathLike, name: str) -> AppearingSequence:
    """Opens one video, see `jaxprop.data.appearing.open_video`.

    Args:
      root: the folder that holds meta.json, JPEGImages and Annotations.
      name: of the video.

    Raises:
      DataError: an error of `open_video` or `read_objects`.
    """
    path, known = read_objects(root, name)
    objects = {value: (str(about.get('category', '')), None) for value, about in known.items()}
    frames, masks = (pathlib.Path(root) / kind / name for kind in ('JPEGImages', 'Annotations'))
    video = open_video(name, frames, masks, objects, path)
    try:
        numbers = [int(frame) for frame in video.frame_names]
        last = {value: int(known[value]['frame_range']['end']) for value in video.starts}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: {name!r}: an object has no 'frame_range' with an 'end', or a frame's name is "
            f'no number: {type(error).__name__}: {error}'
        ) from error
    ends = {value: sum(number < last[value] for number in numbers) for value in video.starts}
    return dataclasses.replace(video, ends=ends)
