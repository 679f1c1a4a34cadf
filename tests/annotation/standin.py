"""A small video, and a stand-in for the propagation that answers when a test lets it."""

import queue
from typing import NamedTuple

import numpy as np

from jaxprop.annotation.session import Session
from jaxprop.data import image_files
from jaxprop.data.video_files import open_video

SIZE = 12, 20
NUM_FRAMES = 6


class Found(NamedTuple):
    number: int
    ids: np.ndarray
    confidence: dict[int, float]


class Shift:
    """Labels: a frame has the nearest mask before it, moved right by a pixel for each frame.

    Frames before the first mask have that one, moved left.

    With `steps`, a queue, it labels a frame for each thing in it; an exception in it is raised.
    """

    def __init__(self, steps=None):
        self.steps, self.calls, self.closed = steps, [], 0

    def __call__(self, video, masks, first, last):
        self.calls.append((sorted(masks), first, last))
        try:
            for number in range(first, last + 1):
                if self.steps is not None:
                    step = self.steps.get(timeout=20)
                    if isinstance(step, Exception):
                        raise step
                start = max((n for n in masks if n <= number), default=min(masks))
                ids = np.roll(masks[start], number - start, axis=1)
                objects = np.unique(ids[ids > 0]).tolist()
                yield Found(number, ids, dict.fromkeys(objects, 1 - number / 10))
        finally:
            self.closed += 1


def write_clip(folder, num_frames=NUM_FRAMES, size=SIZE):
    """Writes a folder of grey frames, each brighter than the one before."""
    folder.mkdir()
    for number in range(num_frames):
        frame = np.full((*size, 3), 20 + 30 * number, np.uint8)
        (folder / f'f{number}.jpg').write_bytes(image_files.encode_jpeg(frame))
    return folder


def square(id_=1, left=2):
    """A mask with a square of four pixels."""
    ids = np.zeros(SIZE, np.uint8)
    ids[4:8, left : left + 4] = id_
    return ids


def open_session(tmp_path, label=None):
    """Opens the session of the folder `out`, of a clip beside it."""
    clip = tmp_path / 'clip'
    video = open_video(clip if clip.exists() else write_clip(clip))
    return Session(video, tmp_path / 'out', label or Shift())


def gated():
    """A stand-in and the queue that lets it go on."""
    steps = queue.Queue()
    return Shift(steps), steps
