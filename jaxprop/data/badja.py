"""Reads BADJA: joints of animals in some frames of DAVIS sequences.

    folder/NAME.json    a list with an entry for each annotated frame:
        image_path      its last part is the frame's file in DAVIS: .../bear/00002.jpg
        joints          [37, 2] as [y, x] in pixels of the full-resolution frame, 1920 x 1080
        visibility      [37] booleans
    root                DAVIS, see `jaxprop.data.davis`

Source: Biggs, Roddick, Fitzgibbon, Cipolla, "Creatures great and SMAL", ACCV 2018.
"""

import json
import os
import pathlib

import numpy as np

from jaxprop.data.davis import davis_sequence
from jaxprop.data.sequences import DataError, KeypointSequence, check_name, identity_of

NUM_JOINTS = 37
FULL_SIZE = (1080, 1920)
# The joints of the SMAL model, and four points that BADJA adds to them. It annotates 20 of all
# these, and the chin in one sequence.
JOINT_NAMES = (
    *(f'body {index}' for index in range(7)),
    *(f'upper right {index}' for index in range(4)),
    *(f'upper left {index}' for index in range(4)),
    'lower neck',
    'upper neck',
    *(f'lower right {index}' for index in range(4)),
    *(f'lower left {index}' for index in range(4)),
    *(f'tail {index}' for index in range(7)),
    'jaw',
    'nose',
    'chin',
    'right ear',
    'left ear',
)


def badja_names(folder: str | os.PathLike) -> tuple[str, ...]:
    """Lists the sequences with annotations: the names of the JSON files in the folder, sorted.

    Raises:
      DataError: there is no such folder, or no JSON file in it.
    """
    folder = pathlib.Path(folder)
    names = sorted(path.stem for path in folder.glob('*.json') if not path.name.startswith('.'))
    if not names:
        raise DataError(f'{folder}: holds no annotations NAME.json')
    return tuple(check_name(name, folder) for name in names)


def badja_sequence(
    folder: str | os.PathLike,
    root: str | os.PathLike,
    name: str,
    resolution: str = '480p',
    full_size: tuple[int, int] = FULL_SIZE,
) -> KeypointSequence:
    """Opens one sequence: DAVIS frames from the first annotated one to the last.

    Positions are multiplied by the ratio of the sizes, frame / full. The scale of an annotated
    frame is the square root of the animal's area in pixels, which is that of all objects in the
    DAVIS mask together.

    Args:
      folder: the folder that holds NAME.json.
      root: the folder of DAVIS.
      name: of the sequence.
      resolution: of the DAVIS frames, the name of their folder.
      full_size: (height, width) of the frames on which the annotations were made.

    Raises:
      DataError: an error of `davis_sequence`; or the annotations are missing, not as the module's
        page says, twice for one frame, for a frame that DAVIS lacks or whose mask is missing or
        empty, or without a visible joint in the first annotated frame. The message names the file.
    """
    path = pathlib.Path(folder) / f'{check_name(name, folder)}.json'
    annotations = _read_annotations(path)
    video = davis_sequence(root, name, '2016', resolution)
    for frame_name in annotations:
        if frame_name not in video.frame_names:
            raise DataError(
                f'{path}: annotates the frame {frame_name[:60]!r}, which {name!r} in {root} lacks'
            )
    indices = sorted(video.frame_names.index(frame_name) for frame_name in annotations)
    first, num_frames = indices[0], indices[-1] - indices[0] + 1
    positions = np.full((num_frames, NUM_JOINTS, 2), np.nan)
    scales = np.full(num_frames, np.nan)
    ratio = np.array([video.size[1] / full_size[1], video.size[0] / full_size[0]])
    for index in indices:
        positions[index - first] = annotations[video.frame_names[index]] * ratio
        mask = video.read_label(index)
        if mask is None or not mask.any():
            raise DataError(
                f'{path}: the annotated frame {video.frame_names[index]!r} has no mask, or an '
                f'empty one, in {root}'
            )
        scales[index - first] = np.sqrt(np.count_nonzero(mask))
    if np.isnan(positions[0]).all():
        raise DataError(f'{path}: the first annotated frame has no visible joint')
    own = identity_of([path])
    return KeypointSequence(
        name=name,
        num_frames=num_frames,
        size=video.size,
        read_frame=lambda index: video.read_frame(first + index),
        positions=positions,
        scales=scales,
        frame_names=video.frame_names[first : first + num_frames],
        joint_names=JOINT_NAMES,
        identity=lambda: f'{video.identity()} {own()}',
    )


def _read_annotations(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the joints by a frame's name: float64 `[37, 2]` (x, y) at full resolution.

    Joints that are not visible are NaN.
    """
    if not path.is_file():
        raise DataError(f'{path}: there is no such file')
    annotations = {}
    try:
        for entry in json.loads(path.read_text(encoding='utf-8')):
            frame_name = pathlib.PurePosixPath(entry['image_path']).stem
            joints = np.asarray(entry['joints'], np.float64)
            visible = np.asarray(entry['visibility'])
            if joints.shape != (NUM_JOINTS, 2) or not np.isfinite(joints).all():
                raise ValueError(f'joints of {frame_name!r} are not {NUM_JOINTS} pairs of numbers')
            if visible.shape != (NUM_JOINTS,) or visible.dtype != bool:
                raise ValueError(f'visibility of {frame_name!r} is not {NUM_JOINTS} booleans')
            if frame_name in annotations:
                raise ValueError(f'the frame {frame_name!r} is there twice')
            annotations[frame_name] = np.where(visible[:, None], joints[:, ::-1], np.nan)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # An integer of 400 digits makes an OverflowError, and lists in lists a RecursionError. The
        # messages can be long.
        reason = str(error)[:200]
        raise DataError(f'{path}: is not a list of annotated frames: {reason}') from error
    if not annotations:
        raise DataError(f'{path}: annotates no frame')
    return annotations
