"""Pictures of a report: masks and joints drawn over frames, and encoded."""

import dataclasses
import io
import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from jaxprop.tasks.task import Colour, JointPicture, MaskPicture, SequenceView


def draw_view(view: SequenceView) -> SequenceView:
    """Draws and encodes the frames of a view, one at a time, and outlines the truth of masks.

    Raises DataError as reading does.
    """
    frames, outlines = [], []
    for picture in view.frames:
        frames.append(encode_picture(_draw(picture)))
        truth = picture.truth if isinstance(picture, MaskPicture) else None
        outlines.append(None if truth is None else outline(truth, picture.palette))
    return dataclasses.replace(view, frames=frames, outlines=outlines if any(outlines) else ())


def _draw(picture: MaskPicture | JointPicture) -> np.ndarray:
    if isinstance(picture, MaskPicture):
        return overlay(picture.frame, picture.ids, picture.palette)
    return draw_joints(picture.frame, picture.found, picture.truth, picture.colours)


def draw_joints(
    frame: np.ndarray, positions: np.ndarray, truth: np.ndarray, colours: Sequence[Colour]
) -> np.ndarray:
    """Draws joints over the frame: a dot for each, and its truth as a ring of the same colour.

    Args:
      frame: uint8 RGB `[H, W, 3]`.
      positions: `[J, 2]` (x, y) in pixels, NaN: not drawn.
      truth: likewise.
      colours: of the J joints, RGB.

    Returns:
      uint8 RGB `[H, W, 3]`, a new array.

    Raises:
      ValueError: an argument is not like that.
    """
    frame = np.asarray(frame)
    _check_picture('frame', frame)
    for name, points in (('positions', positions), ('truth', truth)):
        if np.shape(points) != (len(colours), 2):
            raise ValueError(
                f'{name} has the shape {list(np.shape(points))}; it must be [{len(colours)}, 2]'
            )
    result = frame.copy()
    # A dot of four pixels across once the picture is 240 wide; in sixteenths of a pixel for OpenCV.
    unit = max(frame.shape[:2]) / 120
    thickness = max(1, round(unit / 2))

    def circle(point, radius, colour, thickness):
        if np.isfinite(point).all():
            cv2.circle(
                result,
                [round(16 * float(value)) for value in point],
                round(16 * radius),
                colour,
                thickness,
                cv2.LINE_AA,
                shift=4,
            )

    black = (0, 0, 0)
    for point, colour in zip(truth, colours):
        circle(point, 2 * unit, black, thickness + 2)
        circle(point, 2 * unit, colour, thickness)
    for point, colour in zip(positions, colours):
        circle(point, 1.4 * unit, black, cv2.FILLED)
        circle(point, unit, colour, cv2.FILLED)
    return result


def overlay(
    frame: np.ndarray, ids: np.ndarray, palette: np.ndarray, opacity: float = 0.5
) -> np.ndarray:
    """Lays each object's colour over the frame, and a lighter contour along its inner edge.

    A pixel of an object becomes (1 - opacity) * frame + opacity * colour. Background pixels stay
    as they are; the edge of the image is no contour.

    Args:
      frame: uint8 RGB `[H, W, 3]`.
      ids: integers from 0 to 255, `[H, W]`; 0 is background.
      palette: uint8 RGB `[256, 3]`, the colour of each id.
      opacity: of the colour, 0 to 1.

    Returns:
      uint8 RGB `[H, W, 3]`, a new array.

    Raises:
      ValueError: an argument is not like that.
    """
    frame, ids, palette = np.asarray(frame), np.asarray(ids), np.asarray(palette)
    _check_picture('frame', frame)
    if ids.shape != frame.shape[:2] or ids.dtype.kind not in 'iu':
        raise ValueError(
            f'ids is {ids.dtype} {list(ids.shape)}; it must be integers of the size of the frame, '
            f'{list(frame.shape[:2])}'
        )
    if ids.min() < 0 or ids.max() > 255:
        raise ValueError(f'ids run from {ids.min()} to {ids.max()}; they must be 0 to 255')
    if palette.shape != (256, 3) or palette.dtype != np.uint8:
        raise ValueError(
            f'palette is {palette.dtype} {list(palette.shape)}; it must be uint8 [256, 3]'
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f'opacity is {opacity}; it must be from 0 to 1')
    ids = ids.astype(np.uint8)
    # About one pixel wide once the picture is 480 wide.
    radius = math.ceil(max(ids.shape) / 480)
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    contour = cv2.dilate(ids, window) != cv2.erode(ids, window)
    objects = ids > 0
    colours = palette[ids[objects]].astype(np.float32)
    tinted = (1 - opacity) * frame[objects] + opacity * colours
    # Half way to white: palettes begin with dark colours, which dark frames would hide.
    tinted = np.where(contour[objects][:, None], (colours + 255) / 2, tinted)
    result = frame.copy()
    result[objects] = np.rint(tinted)
    return result


def outline(ids: np.ndarray, palette: np.ndarray) -> dict[Colour, str]:
    """The outlines of objects as SVG paths, by colour.

    They run through the outermost pixels of each object, also around its holes, to within about
    1.5 pixels of a picture 480 wide.

    Args:
      ids: integers from 0 to 255, `[H, W]`; 0 is background.
      palette: uint8 RGB `[256, 3]`, the colour of each id.

    Returns:
      Paths in units of 1/500 of the picture's width and height.
    """
    ids = np.asarray(ids).astype(np.uint8)
    height, width = ids.shape
    tolerance = 1.25 * max(ids.shape) / 480
    paths = {}
    for value in np.unique(ids[ids > 0]).tolist():
        contours, _ = cv2.findContours(
            (ids == value).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        colour = tuple(palette[value].tolist())
        for contour in contours:
            points = cv2.approxPolyDP(contour, tolerance, closed=True)[:, 0] + 0.5
            points = np.rint(points * (500 / width, 500 / height)).astype(int)
            paths[colour] = paths.get(colour, '') + _closed(points)
    return paths


def _closed(points: np.ndarray) -> str:
    """A closed SVG path through points `[N, 2]`: from the first one each step to the next."""
    (x, y), steps = points[0], np.diff(points, axis=0).ravel()
    line = ' '.join(map(str, steps)).replace(' -', '-')
    return f'M{x} {y}l{line}z' if line else f'M{x} {y}z'


def encode_picture(image: np.ndarray, max_width: int = 480) -> bytes:
    """A picture as a WebP file, shrunk to `max_width` pixels where it is wider.

    Args:
      image: uint8 RGB `[H, W, 3]`.
      max_width: in pixels, 1 or more.

    Raises:
      ValueError: an argument is not like that.
    """
    image = np.asarray(image)
    _check_picture('image', image)
    if max_width < 1:
        raise ValueError(f'max_width is {max_width}; it must be 1 or more')
    picture = Image.fromarray(image)
    if picture.width > max_width:
        height = max(1, round(picture.height * max_width / picture.width))
        picture = picture.resize((max_width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format='WEBP', quality=80)
    return stream.getvalue()


def _check_picture(name: str, image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ValueError(f'{name} is {image.dtype} {list(image.shape)}; it must be uint8 [H, W, 3]')
