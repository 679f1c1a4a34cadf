"""Reads videos whose objects may appear after the first frame, from a folder of frames and masks.

    root/JPEGImages/NAME/00000.jpg ...
    root/Annotations/NAME/00000.png ...     a mask for each frame in which an object appears

YouTube-VOS, MOSE and LVOS look like this. If there are masks of further frames, they are the truth.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppearingSequence(LabelledSequence):
    """A video in which objects appear at several times; frame 0 is the first with an object.

    Attributes:
      starts: by the id of each object, the number of the frame in which its mask is given, which is
        the first frame with the object.
      ends: by the id of each object, the number of the first frame in which it is no longer scored.
      asked: the numbers of the frames whose masks the benchmark asks for.
      annotated: the numbers of the frames with a true mask; () where only the masks are there in
        which objects appear. `read_label` returns None for other frames but the first.
      categories: of the objects, by id; {} if they are not known.
      read_given: a function from the number of a frame in which an object appears to its mask,
        int32 ids `[H, W]`, which may show other objects, too. It raises DataError.
      name, num_frames, size, read_frame, read_label, frame_names, palette, classes, identity: as of
        a `LabelledSequence`; so are notes.
    """

    starts: Mapping[int, int]
    ends: Mapping[int, int]
    asked: tuple[int, ...]
    annotated: tuple[int, ...]
    categories: Mapping[int, str]
    read_given: Callable[[int], np.ndarray]

    def appearing(self) -> dict[int, np.ndarray]:
        """Reads, by the number of a frame, the ids `[H, W]` of the objects that appear in it.

        Other pixels are 0; the frames are in ascending order, frame 0 first. Raises DataError.
        """
        given = {}
        for frame in sorted(set(self.starts.values())):
            ids = self.read_given(frame)
            here = [value for value, start in self.starts.items() if start == frame]
            given[frame] = compact(np.where(np.isin(ids, here), ids, 0))
        return given


def video_names(
    root: str | os.PathLike, list_path: str | os.PathLike | None = None
) -> tuple[str, ...]:
    """Lists the videos: those of a list, or the folders of `root`/JPEGImages.

    Args:
      root: the folder that holds JPEGImages.
      list_path: a text file with the name of a video a line; None takes the folders.

    Raises:
      NoListError: the list is missing.
      DataError: there is no such folder, it holds none, or `check_name` refuses a name.
    """
    folder = pathlib.Path(root) / 'JPEGImages'
    if list_path is not None:
        path = pathlib.Path(list_path)
        if not path.is_file():
            raise NoListError(f'{path}: there is no such list')
        names, folder = [line.split()[0] for line in read_lines(path)], path
    elif folder.is_dir():
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        names = [name for name in names if not name.startswith('.')]
    else:
        raise DataError(f'{folder}: there is no such folder; root must be the folder that holds it')
    if not names:
        raise DataError(f'{folder}: names no video')
    return tuple(dict.fromkeys(check_name(name, folder) for name in names))


def open_video(
    name: str,
    frames_folder: pathlib.Path,
    masks_folder: pathlib.Path,
    objects: Mapping[int, tuple[str, Iterable[str] | None]] | None = None,
    meta: str | os.PathLike = '',
) -> AppearingSequence:
    """Opens a video after checking every file of it; later pixels are decoded when they are read.

    An object's mask is given in the first frame whose mask has its id. All masks are read to find
    these frames. Frames before the first mask are left out.

    Args:
      name: of the video.
      frames_folder, masks_folder: its folders. Masks have the names of their frames.
      objects: by id, the category and the names of the frames that are asked for, None for all
        frames; None where the masks alone say which objects there are.
      meta: the file from which `objects` is, for messages.

    Raises:
      DataError: a folder is missing or empty; a file is no image, is cut short or has another size
        than the first frame; a mask or an asked frame has no frame; no frame is asked for; no
        mask has an object; a mask has an object that `objects` lacks. The message names the file.
    """
    frames, mask_paths = list_images(frames_folder), list_images(masks_folder)
    names, masks = frame_names(frames), dict(zip(frame_names(mask_paths), mask_paths))
    for stem, path in masks.items():
        if stem not in names:
            raise DataError(f'{path}: a mask without its frame in {frames_folder}')
    size = common_size([*frames, *masks.values()])

    # Find the frame in which each object appears. As in DAVIS, 255 is the object where the masks
    # hold nothing else, and void elsewhere.
    present = {stem: np.unique(read_ids(path)) for stem, path in masks.items()}
    full_is_object = only_full(np.concatenate(list(present.values())))
    starts: dict[int, int] = {}
    for index, stem in enumerate(names):
        if stem in present:
            for value in resolve_full(present[stem], full_is_object).tolist():
                if value and objects is not None and value not in objects:
                    raise DataError(f'{masks[stem]}: has the object {value}, which {meta} lacks')
                if value:
                    starts.setdefault(value, index)
    if not starts:
        raise DataError(f'{masks_folder}: no mask has an object')

    # Leave out the frames before.
    first = min(starts.values())
    frames, names = frames[first:], names[first:]
    starts = {value: start - first for value, start in sorted(starts.items())}
    masks = {names.index(stem): path for stem, path in masks.items() if stem in names}
    is_truth = bool(set(masks) - set(starts.values()))

    def read_given(index: int) -> np.ndarray:
        return resolve_full(read_ids(masks[index]), full_is_object)

    def read_label(index: int) -> np.ndarray | None:
        return read_given(index) if index == 0 or (is_truth and index in masks) else None

    known = {} if objects is None else objects
    return AppearingSequence(
        name=name,
        num_frames=len(frames),
        size=size,
        read_frame=lambda index: read_image(frames[index]),
        read_label=read_label,
        frame_names=names,
        palette=read_palette(masks[0]),
        identity=identity_of([*frames, *masks.values()]),
        notes=tuple(
            f'{name}: the object {value} of {meta} is in no mask, and is left out'
            for value in sorted(set(known) - set(starts))
        ),
        starts=starts,
        ends=dict.fromkeys(starts, len(names)),
        asked=_asked(known, names, frames_folder, first, meta),
        annotated=tuple(sorted(masks)) if is_truth else (),
        categories={value: known[value][0] for value in starts if value in known},
        read_given=read_given,
    )


def _asked(objects, names, folder, first, meta):
    """The numbers of the frames that are asked for, of any object."""
    wanted = [asked for _, asked in objects.values()]
    if not wanted or None in wanted:
        return tuple(range(len(names)))
    stems = set().union(*wanted)
    if first == 0 and (missing := sorted(stems - set(names))):
        raise DataError(f'{folder / missing[0]}.jpg: missing, but {meta} asks for this frame')
    asked = tuple(index for index, stem in enumerate(names) if stem in stems)
    if not asked:
        raise DataError(f'{meta}: asks for no frame of {folder} from the first mask on')
    return asked


def read_objects(root: str | os.PathLike, name: str) -> tuple[pathlib.Path, dict[int, Any]]:
    """Finds what `root`/meta.json says of a video's objects.

    Returns:
      The path of meta.json, and what it says, by the ids of the objects.

    Raises:
      DataError: an error of `read_meta`; `check_name` refuses the name; the file lacks the video.
    """
    path = pathlib.Path(root) / 'meta.json'
    check_name(name, root)
    meta = read_meta(path)
    if name not in meta:
        raise DataError(f'{path}: has no video {name!r}')
    return path, meta[name]


@functools.lru_cache(maxsize=4)
def read_meta(path: pathlib.Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Reads a meta.json: of each video, by the ids of its objects, what is said of them.

    The file has {'videos': {NAME: {'objects': {'1': {...}, ...}}}, ...}.

    Raises:
      DataError: there is no such file, or it is another.
    """
    if not path.is_file():
        raise DataError(f'{path}: there is no such file')
    try:
        videos = json.loads(path.read_text(encoding='utf-8'))['videos']
        meta = {
            str(name): {int(value): dict(about) for value, about in video['objects'].items()}
            for name, video in videos.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f'{type(error).__name__}: {error}'[:200]
        raise DataError(f'{path}: does not list videos and their objects: {reason}') from error
    for name, objects in meta.items():
        check_name(name, path)
        if wrong := [value for value in objects if not 0 < value < 255]:
            raise DataError(
                f'{path}: the video {name!r} has the object {wrong[0]}; 1 to 254 can be'
            )
    if not meta:
        raise DataError(f'{path}: names no video')
    return meta
