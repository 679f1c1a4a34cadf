"""Reads YouTube-VOS, of 2018 or 2019: frames, masks and meta.json of a split.

    root/meta.json                       videos, their objects, and the frames that are asked for
    root/JPEGImages/NAME/00000.jpg ...   every fifth frame: 00000, 00005, ...
    root/Annotations/NAME/00000.png ...  a mask for each frame in which an object appears

`root` is the folder `valid`. The archive `valid_all_frames` has all frames, which may be given as
well: labels are then carried through all of them.

Source: Xu et al., "YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark", arXiv
1809.03327.
"""

import os
import pathlib

from jaxprop.data.appearing import AppearingSequence, open_video, read_meta, read_objects
from jaxprop.data.sequences import DataError

# The categories of the training set. The others are unseen.
SEEN = frozenset(
    'airplane ape bear bike bird boat bucket bus camel cat cow crocodile deer dog dolphin duck '
    'eagle earless_seal elephant fish fox frisbee frog giant_panda giraffe hand hat hedgehog horse '
    'knife leopard lion lizard monkey motorbike mouse others owl paddle parachute parrot penguin '
    'person plant rabbit raccoon sedan shark sheep sign skateboard snail snake snowboard squirrel '
    'surfboard tennis_racket tiger toilet train truck turtle umbrella whale zebra'.split()
)


def youtube_vos_names(root: str | os.PathLike) -> tuple[str, ...]:
    """Lists the videos of meta.json, in its order.

    Raises:
      DataError: meta.json is missing or damaged, or `check_name` refuses a name in it.
    """
    return tuple(read_meta(pathlib.Path(root) / 'meta.json'))


def youtube_vos_sequence(
    root: str | os.PathLike, name: str, all_frames: str | os.PathLike | None = None
) -> AppearingSequence:
    """Opens one video, see `jaxprop.data.appearing.open_video`.

    Args:
      root: the folder that holds meta.json, JPEGImages and Annotations.
      name: of the video.
      all_frames: the folder whose JPEGImages has all frames; None for that of `root`.

    Raises:
      DataError: an error of `open_video` or `read_objects`, or meta.json does not say an object's
        category and frames.
    """
    path, known = read_objects(root, name)
    objects = {}
    for value, about in known.items():
        category, frames = about.get('category'), about.get('frames')
        is_list = isinstance(frames, list) and all(isinstance(frame, str) for frame in frames)
        if not isinstance(category, str) or not is_list:
            raise DataError(
                f"{path}: the object {value} of {name!r} has no text 'category' or no list 'frames'"
            )
        objects[value] = category, frames
    frames = pathlib.Path(root if all_frames is None else all_frames) / 'JPEGImages' / name
    masks = pathlib.Path(root) / 'Annotations' / name
    return open_video(name, frames, masks, objects, path)
