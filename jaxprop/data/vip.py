"""Reads VIP: parts and instances of people in every 25th frame of videos, in the official layout.

    root/lists/val_videos.txt                            one video a line: videos1
    root/Images/VIDEO/000000000001.jpg ...               the annotated frames alone
    root/Annotations/Category_ids/VIDEO/000000000001.png the part of each pixel, 0 to 19
    root/Annotations/Instance_ids/VIDEO/000000000001.png an id for each part of each person
    root/Annotations/Instance_ids/VIDEO/000000000001.txt its class on a line: 'ID CLASS ...'

root is the folder VIP_Fine.

Source: Zhou, Liang, Gong, Lin, "Adaptive temporal encoding network for video instance-level human
parsing", ACM Multimedia 2018.
"""

import os
import pathlib

import cv2
import numpy as np

from jaxprop.data.image_files import (
    check_ids,
    common_size,
    frame_names,
    list_images,
    open_image,
    read_image,
    read_lines,
)
from jaxprop.data.sequences import DataError, LabelledSequence, check_name, identity_of

CLASS_NAMES = (
    'background',
    'hat',
    'hair',
    'sun-glasses',
    'upper-clothes',
    'dress',
    'coat',
    'socks',
    'pants',
    'gloves',
    'scarf',
    'skirt',
    'torso-skin',
    'face',
    'right-arm',
    'left-arm',
    'right-leg',
    'left-leg',
    'right-shoe',
    'left-shoe',
)
ANNOTATIONS = {'category': 'Category_ids', 'instance': 'Instance_ids'}


def vip_names(root: str | os.PathLike, split: str = 'val') -> tuple[str, ...]:
    """Lists the videos of a split, in the order of `root`/lists/{split}_videos.txt: 50 in 'val'.

    Raises:
      DataError: the list is missing or empty, or `check_name` refuses a name in it.
    """
    path = pathlib.Path(root) / 'lists' / f'{split}_videos.txt'
    if not path.is_file():
        raise DataError(f'{path}: there is no such list; root must be the folder VIP_Fine')
    names = tuple(check_name(line, path, parts=None) for line in read_lines(path))
    if not names:
        raise DataError(f'{path}: names no video')
    return tuple(dict.fromkeys(names))


def vip_sequence(
    root: str | os.PathLike, name: str, annotation: str = 'category'
) -> LabelledSequence:
    """Opens one video after checking every file of it; pixels are decoded when they are read.

    The sequence has the annotated frames alone, which are 25 apart in the video. Labels have the
    values of the files, also 255. The measures leave out pixels whose true value is no class.

    Args:
      root: the folder VIP_Fine.
      name: of the video.
      annotation: 'category': labels are classes, see `CLASS_NAMES`; 'instance': a label is the id
        of one part of one person, and `vip_instance_classes` has its class.

    Raises:
      DataError: a folder is missing; a frame has no annotation; an image is damaged, or of another
        size than the first frame; or an error of `vip_instance_classes`. The message names the
        file.
      ValueError: another annotation.
    """
    frames, masks = _paths(root, name, annotation, '.png')
    classes = _paths(root, name, annotation, '.txt')[1] if annotation == 'instance' else []
    return LabelledSequence(
        name=name,
        num_frames=len(frames),
        size=common_size([*frames, *masks]),
        read_frame=lambda index: read_image(frames[index]),
        read_label=lambda index: _read_ids(masks[index]),
        frame_names=frame_names(frames),
        classes=vip_instance_classes(root, name) if annotation == 'instance' else None,
        identity=identity_of([*frames, *masks, *classes]),
    )


def vip_instance_classes(root: str | os.PathLike, name: str) -> tuple[dict[int, int], ...]:
    """Reads the class of each instance's id, for each frame of the video `name` in `root`.

    Raises:
      DataError: a file is missing, or a line of it is not 'ID CLASS' with a class from 0 to 19; the
        message names the file.
    """
    _, paths = _paths(root, name, 'instance', '.txt')
    return tuple(_read_classes(path) for path in paths)


def resize_ids(ids: np.ndarray, size: tuple[int, int], method: str = 'nearest') -> np.ndarray:
    """Resizes the ids of a first frame to the network's input, before they are made one-hot.

    CRW's released evaluation of VIP, in square frames of 560 pixels, should take the nearest pixel
    but interpolates: on the borders of parts, mixtures of two ids become other ids. The method
    'bilinear' does the same.

    Args:
      ids: integers `[H, W]` from 0 to 255.
      size: (height, width) of the result.
      method: 'nearest', as OpenCV takes it: the pixel floor(i * source / target); or 'bilinear'.

    Returns:
      int32 `[height, width]`.

    Raises:
      ValueError: another method, or ids that 8 bits can't hold.
    """
    interpolations = {'nearest': cv2.INTER_NEAREST, 'bilinear': cv2.INTER_LINEAR}
    if method not in interpolations:
        raise ValueError(f'method is {method!r}; it must be one of {tuple(interpolations)}')
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.dtype.kind not in 'iu' or ids.min() < 0 or ids.max() > 255:
        raise ValueError(
            f'ids are {ids.dtype} {list(ids.shape)} from {ids.min()} to {ids.max()}; they must be '
            'integers [H, W] from 0 to 255'
        )
    resized = cv2.resize(
        ids.astype(np.uint8), (size[1], size[0]), interpolation=interpolations[method]
    )
    return resized.astype(np.int32)


def _paths(
    root: str | os.PathLike, name: str, annotation: str, suffix: str
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Lists the paths of a video's frames and of their annotations."""
    if annotation not in ANNOTATIONS:
        raise ValueError(f'annotation is {annotation!r}; it must be one of {tuple(ANNOTATIONS)}')
    root = pathlib.Path(root)
    check_name(name, root, parts=None)
    frames = list_images(root / 'Images' / name)
    folder = root / 'Annotations' / ANNOTATIONS[annotation] / name
    paths = [folder / f'{frame.stem}{suffix}' for frame in frames]
    for path in paths:
        if not path.is_file():
            raise DataError(f'{path}: there is no such file, but its frame is there')
    return frames, paths


def _read_ids(path: pathlib.Path) -> np.ndarray:
    """Reads the values of a grey or palette image, 0 to 255: int32 `[H, W]`."""
    with open_image(path) as image:
        values = np.array(image)
    if values.ndim != 2:
        raise DataError(f'{path}: is of mode {image.mode}; a palette or grey PNG is needed')
    check_ids(values, path)
    return values.astype(np.int32)


def _read_classes(path: pathlib.Path) -> dict[int, int]:
    classes = {}
    for line in read_lines(path):
        fields = line.split()
        if (
            len(fields) < 2
            or not all(field.isdecimal() and len(field) < 10 for field in fields[:2])
            or int(fields[1]) >= len(CLASS_NAMES)
        ):
            raise DataError(
                f"{path}: the line {line[:60]!r} is not 'ID CLASS' with a class from 0 to 19"
            )
        classes[int(fields[0])] = int(fields[1])
    return classes
