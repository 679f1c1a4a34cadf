"""Reads JHMDB: frames and the joints of one person, in the official layout.

    root/Rename_Images/ACTION/CLIP/00001.png ...
    root/joint_positions/ACTION/CLIP/joint_positions.mat   'pos_img' [2, 15, T], (x, y) from 1
    root/splits/ACTION_test_split1.txt                     'CLIP.avi 1' for training, 2 for testing

Frames keep their size here. `jaxprop.data.inputs` resizes them for the network: the released
evaluations to 320 x 320 pixels, while the papers say 240 x 240.

Source: Jhuang, Gall, Zuffi, Schmid, Black, "Towards understanding action recognition", ICCV 2013.
"""

import os
import pathlib

import numpy as np

from jaxprop.data.image_files import common_size, frame_names, list_images, read_image, read_lines
from jaxprop.data.mat_file import read_array
from jaxprop.data.sequences import DataError, KeypointSequence, check_name, identity_of

JOINT_NAMES = (
    'neck',
    'belly',
    'face',
    'right shoulder',
    'left shoulder',
    'right hip',
    'left hip',
    'right elbow',
    'left elbow',
    'right knee',
    'left knee',
    'right wrist',
    'left wrist',
    'right ankle',
    'left ankle',
)


def jhmdb_names(
    root: str | os.PathLike, split: int = 1, list_path: str | os.PathLike | None = None
) -> tuple[str, ...]:
    """Lists the test clips of a split by 'ACTION/CLIP': 268 in split 1.

    Args:
      root: the folder that holds Rename_Images, joint_positions and splits.
      split: 1, 2 or 3.
      list_path: a list to read in place of the official ones, such as UVC and CRW have: each line
        has the folder of a clip's images and its joint_positions.mat, in either order. Only the
        last two parts of the folder's path count, since such lists hold paths of other machines.

    Raises:
      DataError: a list is missing, empty, has another kind of line, or a name that `check_name`
        refuses.
    """
    if list_path is not None:
        return _names_of_pairs(pathlib.Path(list_path))
    folder = pathlib.Path(root) / 'splits'
    suffix = f'_test_split{split}.txt'
    names = []
    for path in sorted(folder.glob(f'*{suffix}')):
        for line in read_lines(path):
            clip, _, use = line.rpartition(' ')
            if not clip or use not in ('0', '1', '2'):
                raise DataError(
                    f"{path}: the line {line[:60]!r} is not 'CLIP.avi 1' or 'CLIP.avi 2'"
                )
            if use == '2':
                name = f'{path.name.removesuffix(suffix)}/{clip.removesuffix(".avi")}'
                names.append(check_name(name, path, parts=2))
    if not names:
        raise DataError(f'{folder}: holds no list ACTION{suffix} with a test clip')
    return tuple(dict.fromkeys(names))


def jhmdb_sequence(root: str | os.PathLike, name: str) -> KeypointSequence:
    """Opens one clip after checking every file of it; pixels are decoded when they are read.

    Every joint has a position in every frame, also where it is hidden, which no evaluation regards.
    Frames after the last position are left out.

    Args:
      root: the folder that holds Rename_Images and joint_positions.
      name: 'ACTION/CLIP'.

    Raises:
      DataError: a folder or file is missing; the frames' numbers have a gap; an image is damaged or
        of another size than the first; positions are not [2, 15, T] or not finite; there are fewer
        frames than positions. The message names the file.
    """
    root = pathlib.Path(root)
    check_name(name, root, parts=2)
    frames = list_images(root / 'Rename_Images' / name)
    positions_path = root / 'joint_positions' / name / 'joint_positions.mat'
    positions = _read_positions(positions_path)
    for number, path in enumerate(frames, 1):
        if not (path.stem.isdecimal() and int(path.stem) == number):
            raise DataError(f'{path}: frames must be numbered from 1 without a gap; it is {number}')
    if len(frames) < len(positions):
        raise DataError(
            f'{positions_path}: has positions in {len(positions)} frames, but '
            f'{frames[0].parent} has {len(frames)} frames'
        )
    frames = frames[: len(positions)]
    return KeypointSequence(
        name=name,
        num_frames=len(frames),
        size=common_size(frames),
        read_frame=lambda index: read_image(frames[index]),
        positions=positions,
        scales=None,
        frame_names=frame_names(frames),
        joint_names=JOINT_NAMES,
        identity=identity_of([*frames, positions_path]),
    )


def _names_of_pairs(path: pathlib.Path) -> tuple[str, ...]:
    if not path.is_file():
        raise DataError(f'{path}: there is no such list')
    names = []
    for line in read_lines(path):
        folders = [field for field in line.split() if not field.endswith('.mat')]
        parts = pathlib.PurePosixPath(folders[0]).parts if len(folders) == 1 else ()
        if len(parts) < 2 or len(line.split()) != 2:
            raise DataError(
                f'{path}: the line {line[:60]!r} is not the folder of a clip and its .mat file'
            )
        names.append(check_name('/'.join(parts[-2:]), path, parts=2))
    if not names:
        raise DataError(f'{path}: names no clip')
    return tuple(dict.fromkeys(names))


def _read_positions(path: pathlib.Path) -> np.ndarray:
    """Reads positions as float64 `[T, 15, 2]`; the first pixel has the coordinate 0."""
    values = read_array(path, 'pos_img')
    if values.ndim == 2:  # MATLAB drops the last axis of a clip of one frame.
        values = values[..., None]
    if values.ndim != 3 or values.shape[:2] != (2, len(JOINT_NAMES)) or not values.shape[2]:
        raise DataError(
            f'{path}: pos_img is {list(values.shape)}; it must be [2, {len(JOINT_NAMES)}, T]'
        )
    if not np.isfinite(values).all():
        raise DataError(f'{path}: pos_img holds values that are not finite')
    return values.transpose(2, 1, 0) - 1
