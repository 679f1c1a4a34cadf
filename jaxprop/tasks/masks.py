"""Label maps of tasks: a palette PNG for each frame, and pictures of it over the frame."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxprop.data import image_files
from jaxprop.data.sequences import davis_palette
from jaxprop.tasks.task import MaskPicture


def write(path: pathlib.Path, sequence: Any, index: int, ids: np.ndarray) -> None:
    """Writes the ids `[H, W]` of a frame into the partial folder of its sequence.

    It does not wait for the disk: `results.Folder.finish` does, with the whole folder.
    """
    file = path / f'{sequence.frame_names[index]}.png'
    image_files.write_mask(file, ids, sequence.palette, sync=False)


def palette(sequence: Any) -> np.ndarray:
    """The colours of a sequence's ids, uint8 `[256, 3]`."""
    return davis_palette() if sequence.palette is None else sequence.palette


def pictures(path: pathlib.Path, sequence: Any, chosen: list[int]) -> Iterator[MaskPicture]:
    """The chosen frames with what was written for them, and their truth. Raises DataError."""
    for t in chosen:
        ids = image_files.read_mask(path / f'{sequence.frame_names[t]}.png')
        # What was written for the first frame is what was given.
        truth = sequence.read_label(t) if t else ids
        yield MaskPicture(sequence.read_frame(t), ids, palette(sequence), truth)
