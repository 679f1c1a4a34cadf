"""Masks as people draw them: colours for objects, smoothed edges, another size than the video's.

The masks of benchmarks are read by `image_files.read_mask`, exactly. Here notes say what was made
of a drawing.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from jaxprop.data.edges import in_blocks, smoothed_values
from jaxprop.data.image_files import (
    only_full,
    open_image,
    pack_colours,
    palette_ids,
    read_ids,
    read_palette,
    resolve_full,
)
from jaxprop.data.sequences import DataError, davis_palette

_MOST = 255  # Objects: ids are 1 to 255.
_FEW = 8  # So many colours, and more, are drawn ones if each of them fills a place somewhere.


class DrawnMask(NamedTuple):
    """A mask as it is used.

    Attributes:
      ids: int32 `[H, W]`, 0 for background.
      palette: uint8 `[256, 3]`, the colours to save masks with; None for the DAVIS palette.
      notes: sentences on what was changed; none where the file holds exactly these ids.
      colours: the id of each colour 0xRRGGBB of its own that a mask had so far; {} where none had.
      full_is_object: whether 255 is an object, and not void.
    """

    ids: np.ndarray
    palette: np.ndarray | None
    notes: tuple[str, ...]
    colours: Mapping[int, int]
    full_is_object: bool


def read_drawn_mask(
    path: str | os.PathLike, size: tuple[int, int], earlier: DrawnMask | None = None
) -> DrawnMask:
    """Reads a mask that somebody drew for a frame of a video.

    A palette image gives its indices and a grey one its values, as for `read_mask`, also if it was
    saved as RGB. Colours of the DAVIS palette give their ids. Of other colours each is an object,
    numbered from the largest to the smallest; black is background, or the most frequent colour of
    the image's border where nothing is black. Transparent pixels are background. White alone is one
    object.

    Smoothed edges, grey or coloured, become hard: a pixel that belongs to no 3 x 3 equal ones takes
    the value of the nearest pixel that does. A mask of another size, but of the frame's shape, is
    resized; each pixel takes the value of the nearest.

    Args:
      path: of a PNG.
      size: (height, width) of the frame.
      earlier: a mask of the same video that was read before this one, and which says what the
        colours and 255 mean. A colour that it lacks is a new object. This mask may then be without
        an object.

    Raises:
      DataError: naming the file: it cannot be read, is a JPEG, is a picture and no mask, has no
        object or more than 255, or has another shape than the frame.
    """
    colours = {} if earlier is None else earlier.colours
    with open_image(path) as image:
        mode = image.mode
        is_coloured = mode in ('RGB', 'RGBA') and image.format != 'JPEG'
        pixels = np.array(image.convert('RGBA')) if is_coloured else None
    if pixels is not None:
        ids, palette, notes, colours = _from_colours(pixels, path, colours, earlier is None)
    elif mode == 'P':
        ids, palette, notes = read_ids(path), read_palette(path), []
        colours = colours or _colours_of(ids, palette)
    else:
        ids, notes = _from_values(read_ids(path, check_edges=False), path)
        palette = None
    full_is_object = only_full(ids) if earlier is None else earlier.full_is_object
    if 255 in ids and only_full(ids) and not full_is_object:
        notes.append(f'{path}: 255 is void, since the first mask has other objects')
    if full_is_object and 255 in ids and not only_full(ids):
        notes.append(f'{path}: 255 is object 1, as in the first mask, and no void')
    ids = resolve_full(ids, full_is_object)
    if not ids.any() and earlier is None:
        raise DataError(f'{path}: the mask has no object')
    if ids.shape != size:
        ids = _resized(ids, size, path)
        notes.append(f'{path}: was resized to the size of the frames, {size[0]} x {size[1]}')
    return DrawnMask(ids, palette, tuple(notes), colours, full_is_object)


def _from_values(values, path):
    """The ids of a grey image, and notes."""
    if smoothed_values(values) is None:
        return values, []
    ids = _hard_edges(values, path)
    shown = resolve_full(ids, only_full(ids))
    told = ', '.join(map(str, np.unique(shown[shown > 0])))
    return ids, [f'{path}: smoothed edges were made hard; its objects: {told}']


def _from_colours(pixels, path, earlier, is_first):
    """The ids of an RGBA image, the palette of its colours, notes, and the ids of its colours."""
    pixels[pixels[..., 3] == 0] = 0
    known, colours = palette_ids(), pack_colours(pixels[..., :3])
    if np.all(pixels[..., :3] == pixels[..., :1]) and not set(np.unique(colours)) <= set(known):
        # Image editors save grey pictures as RGB.
        ids, notes = _from_values(pixels[..., 0].astype(np.int32), path)
        return ids, None, notes, earlier
    notes = []
    found, solid = np.unique(colours), np.unique(colours[in_blocks(colours)])
    if len(found) > _FEW and len(solid) < len(found) / 2:
        colours = _hard_edges(colours, path)
        notes.append(f'{path}: smoothed edges were made hard')
    names, inverse, counts = np.unique(colours, return_inverse=True, return_counts=True)
    if len(names) > _MOST + 1:
        raise DataError(
            f'{path}: has {len(names)} colours; a mask has one for each object, at most {_MOST}'
        )
    known = earlier or known
    if set(names.tolist()) <= set(known):
        ids = np.array([known[name] for name in names.tolist()], np.int32)
        return ids[inverse].reshape(colours.shape), None, notes, earlier

    if earlier == {} and not is_first:
        raise DataError(
            f'{path}: has colours of its own, but the masks before it have numbers: draw it in the '
            "colours of DAVIS's palette, or save it with a palette or grey values"
        )
    # Other colours: which one is the background, and numbers for the others.
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    frequent, times = np.unique(border, return_counts=True)
    background = 0 if names[0] == 0 else frequent[np.argmax(times)]
    by_size = [name for name in names[np.argsort(-counts, kind='stable')] if name != background]
    id_of, palette, told = {**earlier, int(background): 0}, davis_palette(), []
    for name in map(int, by_size):
        if name not in earlier:
            id_of[name] = 1 + max(id_of.values())
            told.append(f'object {id_of[name]} is {_hexadecimal(name)}')
    if max(id_of.values()) > _MOST:
        raise DataError(f'{path}: with its colours the masks have more than {_MOST} objects')
    for name, number in id_of.items():
        palette[number] = _unpacked(name) if number else palette[number]
    notes.append(f'{path}: {", ".join(told)}; background is {_hexadecimal(background)}')
    ids = np.array([id_of[name] for name in names.tolist()], np.int32)
    return ids[inverse].reshape(colours.shape), palette, notes, id_of


def _colours_of(ids, palette):
    """The ids of the colours with which a mask shows them; {} where they are those of DAVIS."""
    shown = np.unique(ids)
    packed = pack_colours(palette[shown]).tolist()
    id_of = dict(zip(packed, shown.tolist()))
    is_clear = len(id_of) == len(shown) and not id_of.items() <= palette_ids().items()
    return id_of if is_clear else {}


def _hard_edges(values, path):
    """Each pixel that is in no 3 x 3 equal ones takes the value of the nearest one that is."""
    inside = in_blocks(values)
    sure = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if sure.mean() < 0.5:
        raise DataError(
            f'{path}: is a picture and no mask: {100 * (1 - sure.mean()):.0f} % of its pixels lie '
            'in no place of one colour; a mask has one colour for each object'
        )
    rows, columns = ndimage.distance_transform_edt(
        ~sure, return_distances=False, return_indices=True
    )
    return values[rows, columns]


def _resized(ids, size, path):
    height, width = ids.shape
    # A rounded side may be a pixel off.
    if abs(size[1] * height / size[0] - width) > 1 and abs(size[0] * width / size[1] - height) > 1:
        raise DataError(
            f'{path}: is {height} x {width} (height x width), and the frames are {size[0]} x '
            f'{size[1]}: another shape; draw it on a frame of the video'
        )
    resized = cv2.resize(ids.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.int32)


def _unpacked(colour):
    return [int(colour) >> shift & 255 for shift in (16, 8, 0)]


def _hexadecimal(colour):
    return f'#{int(colour):06x}'
