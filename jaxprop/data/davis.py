"""Reads DAVIS: frames, masks and lists of sequences in the official layout.

    root/ImageSets/2017/val.txt              one sequence name a line
    root/JPEGImages/480p/NAME/00000.jpg ...
    root/Annotations/480p/NAME/00000.png ... the first is required, any other may be missing

Source: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675.
"""

import os
import pathlib
import re

import numpy as np

from jaxprop.data.image_files import (
    common_size,
    frame_names,
    list_images,
    only_full,
    read_ids,
    read_image,
    read_lines,
    read_palette,
    resolve_full,
)
from jaxprop.data.sequences import (
    DataError,
    LabelledSequence,
    NoListError,
    check_name,
    compact,
    identity_of,
)


def davis_names(root: str | os.PathLike, year: str = '2017', split: str = 'val') -> tuple[str, ...]:
    """Lists the sequence names of a split, in the order of `root`/ImageSets/{year}/{split}.txt.

    A line is a name, or (DAVIS-2016) the image and the mask of one frame, /JPEGImages/480p/NAME/...

    Raises:
      NoListError: the file is missing.
      DataError: the file is empty, or `check_name` refuses a name in it.
    """
    path = pathlib.Path(root) / 'ImageSets' / year / f'{split}.txt'
    if not path.is_file():
        raise NoListError(f'{path}: there is no such list; root must be the folder that holds it')
    entries = [line.split()[0] for line in read_lines(path)]
    names = [entry.split('/')[-2] if '/' in entry else entry for entry in entries]
    if not names:
        raise DataError(f'{path}: names no sequence')
    return tuple(dict.fromkeys(check_name(name, path) for name in names))


def davis_sequence(
    root: str | os.PathLike, name: str, year: str = '2017', resolution: str = '480p'
) -> LabelledSequence:
    """Opens one sequence after checking every file of it; pixels are decoded when they are read.

    Year '2016' has one object: all ids of a mask become 1. Later frames may lack a mask, as in the
    test sets: `read_label` returns None for them.

    To skip bad sequences rather than stop at the first, catch DataError around this call and around
    reading: damage inside an image's compressed data shows only when the image is decoded.

    Args:
      root: the folder with JPEGImages and Annotations.
      name: of the sequence, which has a folder in each of the two.
      year: '2016' or '2017'.
      resolution: the folder of frames and masks of one size, '480p' or 'Full-Resolution'.

    Raises:
      DataError: `check_name` refuses the name; a folder is missing; there are no frames, or their
        numbers have a gap; a file is no image or is cut short, or its size differs from the first
        frame's; the first frame has no mask, or a mask without an object; a mask has no frame. The
        message names the file.
    """
    # Check the files.
    root = pathlib.Path(root)
    check_name(name, root)
    frames = list_images(root / 'JPEGImages' / resolution / name)
    mask_paths = list_images(root / 'Annotations' / resolution / name)
    masks = dict(zip(frame_names(mask_paths), mask_paths))
    names = frame_names(frames)
    _check_numbering(frames)
    for stem, path in masks.items():
        if stem not in names:
            raise DataError(f'{path}: a mask without its frame in {frames[0].parent}')
    if names[0] not in masks:
        raise DataError(f'{frames[0]}: the first frame has no mask in {root / "Annotations"}')

    size = common_size([*frames, *masks.values()])

    # The first mask decides for all whether 255 is the object or void. A later mask alone could not
    # tell: it may hold nothing but void, after every object has left.
    first = read_ids(masks[names[0]])
    full_is_object = only_full(first)

    def read_frame(index: int) -> np.ndarray:
        return read_image(frames[index])

    def resolve(ids: np.ndarray) -> np.ndarray:
        ids = resolve_full(ids, full_is_object)
        return (ids > 0).astype(np.int32) if year == '2016' else ids

    # Keep the first label, in a byte a pixel: whoever opens a sequence reads that next.
    first = compact(resolve(first))

    def read_label(index: int) -> np.ndarray | None:
        if index == 0:
            return first.astype(np.int32)
        return resolve(read_ids(masks[names[index]])) if names[index] in masks else None

    if not first.any():
        raise DataError(f'{masks[names[0]]}: the first mask has no object')
    return LabelledSequence(
        name=name,
        num_frames=len(frames),
        size=size,
        read_frame=read_frame,
        read_label=read_label,
        frame_names=names,
        palette=read_palette(masks[names[0]]),
        identity=identity_of([*frames, *masks.values()]),
    )


def _check_numbering(frames: list[pathlib.Path]) -> None:
    for path in frames:
        if not re.fullmatch('[0-9]+', path.stem):
            raise DataError(f'{path}: the name of a frame must be its number')
    for previous, path in zip(frames, frames[1:]):
        expected = f'{int(previous.stem) + 1:0{len(previous.stem)}d}'
        if path.stem != expected:
            missing = previous.with_name(expected + previous.suffix)
            raise DataError(f'{missing}: missing: {previous.name} is followed by {path.name}')
