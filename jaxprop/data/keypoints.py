"""What a sequence with keypoints is, whichever benchmark it comes from."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class KeypointSequence:
    """A video, read one frame at a time, and where the joints of its subject are.

    Attributes:
      name: of the sequence, as its benchmark calls it.
      num_frames: T; frames are read by their index 0 ... T - 1.
      size: (height, width) of the frames, in pixels.
      read_frame: index -> uint8 RGB `[H, W, 3]`; raises DataError.
      positions: float64 `[T, J, 2]` (x, y) in pixels, whole numbers at the centres of pixels from
        0; they may lie outside the frame. NaN where a joint is not seen or a frame not annotated.
        Frame 0 always is.
      scales: float64 `[T]`: the length in pixels that distances are measured by, NaN where the
        frame is not annotated; None where the joints themselves give it (JHMDB).
      frame_names: what each frame's result is saved under, without extension.
      joint_names: of the J joints.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    read_frame: Callable[[int], np.ndarray]
    positions: np.ndarray
    scales: np.ndarray | None
    frame_names: tuple[str, ...]
    joint_names: tuple[str, ...]
