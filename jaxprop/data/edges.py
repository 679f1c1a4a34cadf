"""Tells masks with hard edges from masks whose edges were smoothed."""

import cv2
import numpy as np

# A person draws fewer objects than this, or draws them with a brush that has no soft edge.
_MANY_IDS = 20


def smoothed_values(ids: np.ndarray) -> tuple[int, int] | None:
    """Finds whether the values of a grey mask blend into each other, as soft brushes draw it.

    An object has a place where 3 x 3 pixels have its id. Values that smoothing has made lie only in
    thin lines along the edges of objects. A mask counts as smoothed if more than half of its values
    lie only in thin lines, and either there are many values or the largest one has such a place: it
    is then the object that the lines surround. If the values are few and the largest one lies in
    thin lines, too, it is void between objects, and the mask is not smoothed.

    Args:
      ids: the values, `[H, W]`.

    Returns:
      The number of values, and the number of those that lie only in thin lines; None if edges are
      hard.
    """
    found = np.unique(ids[ids > 0])
    if len(found) <= 2:
        return None
    solid = np.intersect1d(found, ids[in_blocks(ids)])
    is_smoothing = len(found) > _MANY_IDS or found[-1] in solid
    if len(solid) < len(found) / 2 and is_smoothing:
        return len(found), len(found) - len(solid)
    return None


def in_blocks(values: np.ndarray) -> np.ndarray:
    """Marks the pixels that are the middle of 3 x 3 equal ones.

    Args:
      values: integers `[H, W]` below 2^24.

    Returns:
      bool `[H, W]`.
    """
    exact, square = values.astype(np.float32), np.ones((3, 3), np.uint8)
    return cv2.erode(exact, square) == cv2.dilate(exact, square)
