"""Reads the masks of some frames of a video: files that are named after their frames."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxprop.data.drawn_masks import read_drawn_mask
from jaxprop.data.image_files import list_images
from jaxprop.data.sequences import DataError, davis_palette
from jaxprop.data.video_files import Video


class Masks(NamedTuple):
    """The masks of a video.

    Attributes:
      ids: by the number of the frame, ascending: uint8 `[H, W]`, 0 for background.
      paths: the mask's file, by the number of the frame.
      palette: uint8 `[256, 3]`, the colours to save masks with.
      notes: sentences on how the files were understood.
    """

    ids: dict[int, np.ndarray]
    paths: dict[int, pathlib.Path]
    palette: np.ndarray
    notes: tuple[str, ...]


def read_masks(paths: Sequence[str | os.PathLike], video: Video, first: int = 0) -> Masks:
    """Reads masks of frames of a video, see `jaxprop.data.drawn_masks.read_drawn_mask`.

    The mask of the earliest frame says what colours and 255 mean in the others.

    Args:
      paths: of PNG files, or a folder of them. Each has the name of its frame, or the number in it.
        One mask alone may have another name: it is then that of frame `first`.
      video: the video.
      first: the number of a frame.

    Raises:
      DataError: naming the file: an error of `read_drawn_mask`, a name that is no frame's, or two
        masks of one frame.
    """
    files = []
    for path in map(pathlib.Path, paths):
        files += list_images(path) if path.is_dir() else [path]
    found, notes = {}, []
    are_numbers = all(map(str.isdecimal, video.frame_names))
    for path in files:
        name = path.stem
        number = frame_number(name, video)
        if number is None:
            if len(files) > 1:
                raise DataError(
                    f'{path}: its name is that of no frame; the frames are {video.frame_names[0]} '
                    f'to {video.frame_names[-1]}; of several masks each is named after its frame'
                )
            number = first
            if name.isdecimal():
                notes.append(
                    f'{path}: there is no frame {name}; it is taken for frame '
                    f'{video.frame_names[first]}'
                )
        elif (len(files) == 1 and number != first) or (name.isdecimal() and not are_numbers):
            notes.append(f'{path}: is the mask of frame {video.frame_names[number]}')
        if number in found:
            raise DataError(f'{path}: is of the same frame as {found[number]}')
        found[number] = path
    # Read the earliest mask first, since it says what the others mean.
    ids, palette, earlier = {}, None, None
    for number, path in sorted(found.items()):
        mask = earlier = read_drawn_mask(path, video.size, earlier)
        notes += mask.notes
        if palette is None:
            palette = mask.palette
        elif mask.palette is not None:
            new = np.setdiff1d(mask.ids, np.concatenate([*map(np.unique, ids.values())]))
            palette = palette.copy()
            palette[new] = mask.palette[new]
        ids[number] = mask.ids.astype(np.uint8)
    palette = davis_palette() if palette is None else palette
    return Masks(ids, dict(sorted(found.items())), palette, tuple(notes))


def frame_number(name: str, video: Video) -> int | None:
    """Finds the frame that a text names, from 0; None where no frame has this name.

    Args:
      name: a frame's name ('00012'), or the number in it ('12'). Where the names of frames are more
        than numbers, a number counts frames from 0.
      video: the video.
    """
    names = video.frame_names
    if name in names:
        return names.index(name)
    if not name.isdecimal():
        return None
    numbers = [int(own) for own in names] if all(map(str.isdecimal, names)) else range(len(names))
    return numbers.index(int(name)) if int(name) in numbers else None
