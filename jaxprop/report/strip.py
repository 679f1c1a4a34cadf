"""A strip of curves over time, to be shown under each frame of a video, with a cursor."""

from collections.abc import Sequence

import cv2
import numpy as np

from jaxprop.tasks.task import Colour

_GROUND, _LEVEL, _CURSOR = (24, 24, 24), (64, 64, 64), (255, 255, 255)
_MARGIN = 0.1  # Of the height, above 1 and below 0.


def draw_strip(
    values: np.ndarray, colours: Sequence[Colour], marked: Sequence[int], width: int
) -> np.ndarray:
    """Draws curves from 0 at the bottom to 1 at the top, over the whole video.

    Args:
      values: `[O, T]` from 0 to 1; there is a gap where they are NaN.
      colours: RGB, of the O curves. They are drawn half way to white, as contours of masks are.
      marked: numbers of frames that get a mark at the top.
      width: in pixels.

    Returns:
      uint8 RGB `[h, width, 3]`; h is about an eighth of the width.
    """
    values = np.asarray(values, float)
    height = max(16, 2 * round(width / 16))
    strip = np.full((height, width, 3), _GROUND, np.uint8)
    num_frames = values.shape[1]
    for level in (0, 0.5, 1):
        y = round(_heights(np.array(level), height).item())
        strip[y] = _LEVEL
    for number in marked:
        x = _place(number, num_frames, width)
        strip[: max(2, round(_MARGIN * height)), max(x - 1, 0) : x + 2] = _CURSOR
    x = [_place(number, num_frames, width) for number in range(num_frames)]
    for curve, colour in zip(values, colours):
        light = tuple((int(channel) + 255) // 2 for channel in colour)
        points = np.stack([x, _heights(curve, height)], axis=-1)
        for part in np.split(points, np.flatnonzero(np.isnan(curve))):
            part = part[~np.isnan(part[:, 1])]
            if len(part):
                # In sixteenths of a pixel; a single point is a line to itself.
                line = np.rint(16 * part).astype(np.int32)[:, None]
                cv2.polylines(strip, [line], False, light, 1, cv2.LINE_AA, shift=4)
    return strip


def with_cursor(strip: np.ndarray, number: int, num_frames: int) -> np.ndarray:
    """Returns a copy of a strip with an upright line at frame `number` of `num_frames`."""
    result = strip.copy()
    result[:, _place(number, num_frames, strip.shape[1])] = _CURSOR
    return result


def _place(number, num_frames, width):
    """The column of a frame."""
    return round(number * (width - 1) / max(num_frames - 1, 1))


def _heights(values, height):
    """The rows of values."""
    return (_MARGIN + (1 - 2 * _MARGIN) * (1 - values)) * (height - 1)
