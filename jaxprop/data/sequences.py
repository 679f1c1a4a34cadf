"""The interface of labelled sequences: all benchmarks' readers return these dataclasses."""

import dataclasses
import functools
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxprop import files

_NAME_BYTES = 200  # File systems allow 255; results add a suffix to a name.


class DataError(Exception):
    """Data that cannot be used; the message names the file."""


class NoListError(DataError):
    """The list of a split's sequences is missing; the message names the file that would hold it."""


def check_name(name: str, where: str | os.PathLike, parts: int | None = 1) -> str:
    """Checks that a name does not lead out of the folder in which it is looked up or written.

    Names of sequences come from lists, annotations and flags, and become paths of data and of
    results. Every reader calls this before it opens anything.

    Args:
      name: of a sequence, as the list has it.
      where: the list or flag from which the name comes, for the message.
      parts: the number of parts, joined by '/', that the name must have; None for any number.

    Returns:
      The name.

    Raises:
      DataError: the name is empty, absolute, too long, or no text; it has a backslash or a control
        character, another number of parts, or a part that is empty or begins with a dot.
    """
    found = str(name).split('/')
    if not isinstance(name, str):
        reason = 'is no text'
    elif not name:
        reason = 'is empty'
    elif any(c == '\\' or unicodedata.category(c) in ('Cc', 'Zl', 'Zp') for c in name):
        reason = 'has a backslash or a control character'
    elif any(not part or part.startswith('.') for part in found):
        reason = 'leads to another folder, or to a hidden one'
    elif parts is not None and len(found) != parts:
        reason = f"has {len(found)} parts between '/'; it must have {parts}"
    else:
        try:
            reason = 'is too long' if len(os.fsencode(name)) > _NAME_BYTES else ''
        except UnicodeEncodeError:
            reason = 'is no text'
    if reason:
        raise DataError(f'{where}: the name {str(name)[:60]!r} {reason}')
    return name


def identity_of(paths: Iterable[str | os.PathLike]) -> Callable[[], str]:
    """Makes a function that computes the digest of files once, see `jaxprop.files.digest`.

    The function raises DataError if a file can't be read.
    """
    paths = tuple(paths)

    @functools.cache
    def identity() -> str:
        try:
            return files.digest(paths)
        except OSError as error:
            raise DataError(f'{error.filename}: cannot be read: {error.strerror}') from error

    return identity


def no_files() -> str:
    """Returns '', the identity of a sequence that is drawn by code and not read from files."""
    return ''


@dataclasses.dataclass(frozen=True)
class LabelledSequence:
    """A video and the object ids of some of its frames, read one frame at a time.

    Attributes:
      name: of the sequence, as its benchmark calls it.
      num_frames: T; frames are read by their index 0 ... T - 1.
      size: (height, width) of frames and labels, in pixels.
      read_frame: a function from a frame's index to uint8 RGB `[H, W, 3]`; it raises DataError.
        Threads call it, several at a time.
      read_label: a function from a frame's index to int32 ids `[H, W]`, 0 for background; or to
        None if the frame is not annotated. Frame 0 always is. It raises DataError.
      frame_names: the name under which each frame's result is saved, without extension: '00000',
        ...
      palette: uint8 `[256, 3]`, the colours of saved results; None for the DAVIS palette.
      classes: for each frame, the class of each id, if ids are instances of classes (VIP); else
        None.
      identity: a function without arguments. It returns a digest of all files of the sequence, see
        `identity_of`, or '' if the sequence is drawn by code. It raises DataError.
      notes: sentences on how its files were understood, for its user.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    read_frame: Callable[[int], np.ndarray]
    read_label: Callable[[int], np.ndarray | None]
    frame_names: tuple[str, ...]
    palette: np.ndarray | None = None
    classes: tuple[Mapping[int, int], ...] | None = None
    identity: Callable[[], str] = no_files
    notes: tuple[str, ...] = ()


def compact(ids: np.ndarray) -> np.ndarray:
    """Converts ids to the smallest integer type that holds them."""
    return ids.astype(np.result_type(*map(np.min_scalar_type, (ids.min(), ids.max()))))


def davis_palette() -> np.ndarray:
    """Makes the palette of DAVIS and PASCAL VOC: the colour of each object id.

    Bit 3 b + c of the id is bit 7 - b of channel c, so that ids near each other look different.
    (The palette inside DAVIS's own files has 191 in place of 192, and greys from id 22 on.)

    Returns:
      uint8 RGB `[256, 3]`; black, dark red, dark green, ...

    Source: the colour map of the PASCAL VOC development kit.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(3):
        for channel in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette


@dataclasses.dataclass(frozen=True, eq=False)
class KeypointSequence:
    """A video, read one frame at a time, and the positions of its subject's joints.

    Attributes:
      name: of the sequence, as its benchmark calls it.
      num_frames: T; frames are read by their index 0 ... T - 1.
      size: (height, width) of the frames, in pixels.
      read_frame: a function from a frame's index to uint8 RGB `[H, W, 3]`; it raises DataError.
        Threads call it, several at a time.
      positions: float64 `[T, J, 2]` (x, y) in pixels; the centres of pixels are whole numbers from
        0 on. Joints may lie outside the frame. They are NaN if they are not seen, or if the frame
        is not annotated. Frame 0 always is.
      scales: float64 `[T]`: the length in pixels by which distances are divided in scoring, NaN if
        the frame is not annotated; None if scoring takes it from the joints themselves (JHMDB).
      frame_names: the name under which each frame's result is saved, without extension.
      joint_names: of the J joints.
      identity: as of a `LabelledSequence`.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    read_frame: Callable[[int], np.ndarray]
    positions: np.ndarray
    scales: np.ndarray | None
    frame_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    identity: Callable[[], str] = no_files
