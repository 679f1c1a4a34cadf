"""Sums up where a labelled video is doubtful, and where a further mask would help most.

Shapes: O objects, T frames. A confidence is NaN where the video does not have the object.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Of three of DAVIS's training sequences, J is below 0.3 in all frames of a confidence lower than
# this, and in one of fifty of a higher one.
_LOST = 0.4
_SHORTEST = 3  # Frames; a shorter doubt is none.


class Stretch(NamedTuple):
    """The frames from `start` to `stop` - 1."""

    start: int
    stop: int


def lost_stretch(confidence: np.ndarray) -> Stretch | None:
    """Finds the longest stretch in which the confidence in an object is low.

    Args:
      confidence: `[T]`.

    Returns:
      The first of the longest stretches; None where there is none of three frames or more, or of
      all frames of a shorter video.
    """
    is_low = np.concatenate([[False], confidence < _LOST, [False]])
    edges = np.flatnonzero(is_low[1:] != is_low[:-1]).reshape(-1, 2)
    longest = max(edges.tolist(), key=lambda edge: edge[1] - edge[0], default=(0, 0))
    if longest[1] - longest[0] < min(_SHORTEST, len(confidence)):
        return None
    return Stretch(*longest)


def most_helpful(
    confidence: np.ndarray, given: Sequence[int], among: Stretch | None = None
) -> int | None:
    """Chooses the frame in which a further mask would help most.

    A mask helps the frames on both sides of it. How far is read off the video itself: r_o(d) is the
    mean confidence in object o at a distance of d frames from the nearest mask, and no larger than
    nearer to it. A mask of frame t would raise the confidence c_o(u) in another frame u to
    r_o(|u - t|), where that is larger. The chosen frame has the largest sum of what is gained.

    Args:
      confidence: `[O, T]`.
      given: the numbers of the frames that have a mask.
      among: the frames from which one is chosen; None takes all.

    Returns:
      The frame's number; None where nothing would be gained.
    """
    confidence = np.asarray(confidence, float)
    num_frames = confidence.shape[1]
    numbers = np.arange(num_frames)
    distances = np.min(np.abs(numbers[:, None] - np.asarray(given)), axis=1)
    gains = np.zeros(num_frames)
    for values in confidence:
        reached = _reached(values, distances)
        for t in numbers:
            gained = reached[np.abs(numbers - t)] - values
            gains[t] += np.sum(gained[gained > 0])
    gains[distances == 0] = 0
    if among is not None:
        gains[: among.start], gains[among.stop :] = 0, 0
    return int(np.argmax(gains)) if gains.max(initial=0) > 0 else None


def _reached(values, distances):
    """The confidence that a mask gives at each distance from 0 to T - 1, `[T]`."""
    by_distance = np.full(len(values), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # The mean of nothing is NaN.
        for distance in np.unique(distances[distances < len(values)]):
            by_distance[distance] = np.nanmean(values[distances == distance])
    by_distance[0] = 1
    # Beyond the distances that are seen, the last value goes on.
    return np.fmin.accumulate(by_distance)


def sentences(
    confidence: np.ndarray, objects: Sequence[int], given: Sequence[int], names: Sequence[str]
) -> list[str]:
    """Says in words what is probably lost, and where a further mask would help most.

    Args:
      confidence: `[O, T]`.
      objects: the ids of the O objects.
      given: the numbers of the frames that have a mask, from 0 at the first of the T frames.
      names: of the T frames.
    """
    if not len(objects):
        return ['the video has no object in these frames, and their masks are empty']
    found = []
    for number, values in zip(objects, confidence):
        lost = lost_stretch(values)
        if lost is None:
            continue
        end = 'on' if lost.stop == len(names) else f'to {names[lost.stop - 1]}'
        helpful = most_helpful(values[None], given, lost)
        advice = ''
        if helpful is not None:
            advice = f'; a mask there would help most at frame {names[helpful]}'
        found.append(
            f'object {number} is probably lost from frame {names[lost.start]} {end}{advice}'
        )
    helpful = most_helpful(confidence, given)
    if helpful is not None:
        whose = 'of all objects ' if len(objects) > 1 else ''
        found.append(f'one further mask {whose}would help most at frame {names[helpful]}')
    return found
