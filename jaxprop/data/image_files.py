"""Reads and writes image files: frames, masks, folders of images, and JPEG in memory.

A damaged file is never read silently: the error names the file and the damage.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image

from jaxprop.data.edges import smoothed_values
from jaxprop.data.image_formats import check_jpeg_data, opened
from jaxprop.data.sequences import DataError, davis_palette
from jaxprop.files import replacing

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
_VOID = 255
_MAX_BYTES = 1 << 29  # An image of 50 million pixels needs less.


def walk_folders(root: str | os.PathLike) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Goes through a folder and all folders below it, sorted, without hidden files and folders.

    Links are followed, except to a folder in which the link or `root` itself lies: that would not
    end, or list files twice.

    Yields:
      Each folder and the names of its files.
    """
    # There may be a million files: os.walk asks for no more than the names of files.
    for folder, subfolders, names in os.walk(root, followlinks=True):
        folder = pathlib.Path(folder)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith('.') and not _leads_above(folder / name, root)
        )
        yield folder, sorted(name for name in names if not name.startswith('.'))


def _leads_above(path, root):
    """Whether a path is a link to a folder in which `root`, or the way from there to it, lies."""
    if not path.is_symlink():
        return False
    target = path.resolve()
    above = [folder for folder in path.parents if folder.is_relative_to(root)]
    return any(folder.resolve().is_relative_to(target) for folder in above)


def list_image_classes(
    root: str | os.PathLike,
) -> tuple[list[pathlib.Path], np.ndarray, tuple[str, ...]]:
    """Lists the images of ImageNet's layout: root/CLASS/*.jpg, also in folders inside a class.

    Images directly in `root` are a class of their own, called '.', before the others.

    Args:
      root: the folder.

    Returns:
      The paths in the order of their names; the number of each one's class, int32 `[N]`, with
      classes numbered in the order of their names; and the names of the classes.

    Raises:
      DataError: there is no such folder, or no JPEG or PNG image in it.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataError(f'{root}: there is no such folder')
    by_class: dict[str, list[pathlib.Path]] = {}
    for folder, names in walk_folders(root):
        images = [folder / name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        if images:
            parts = folder.relative_to(root).parts
            by_class.setdefault(parts[0] if parts else '.', []).extend(images)
    if not by_class:
        raise DataError(f'{root}: holds no JPEG or PNG image')
    classes = tuple(sorted(by_class))
    paths = [path for name in classes for path in by_class[name]]
    labels = np.repeat(
        np.arange(len(classes), dtype=np.int32), [len(by_class[name]) for name in classes]
    )
    return paths, labels, classes


def resize_to_cover(
    image: np.ndarray, size: tuple[int, int], position: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """Resizes an image until it just covers a size, and crops it there.

    The aspect ratio is kept. For a square size the short side becomes that size, and the long side
    is cropped. Shrinking averages over pixels, enlarging is bilinear.

    Args:
      image: uint8 `[H, W, 3]`.
      size: (height, width) of the result in pixels.
      position: where the crop lies, (down, across): 0 at the start, 1 at the end.

    Returns:
      uint8 `[height, width, 3]`.
    """
    scale = max(size[0] / image.shape[0], size[1] / image.shape[1])
    resized = [max(want, round(scale * have)) for want, have in zip(size, image.shape)]
    if resized != list(image.shape[:2]):
        image = cv2.resize(
            image,
            (resized[1], resized[0]),
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
    top, left = (round(p * (have - want)) for p, have, want in zip(position, resized, size))
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


def encode_jpeg(image: np.ndarray, short_side: int = 256, quality: int = 95) -> bytes:
    """Encodes an image as JPEG, shrunk if its short side is too long.

    Args:
      image: uint8 RGB `[H, W, 3]`.
      short_side: the largest length of the short side in pixels.
      quality: 0 to 100.
    """
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale < 1:
        size = round(scale * width), round(scale * height)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    return data.tobytes()


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decodes an image of `encode_jpeg`: uint8 RGB `[H, W, 3]`.

    Raises:
      DataError: the data cannot be read as an image.
    """
    with _decoding('an image in memory'), opened(data) as image:
        return np.array(image.convert('RGB'))


def read_lines(path: pathlib.Path) -> list[str]:
    """Reads the lines of a text file that are not empty, without the space around them.

    Raises:
      DataError: there is no such regular file, or it is no text in UTF-8.
    """
    if not path.is_file():  # Reading a pipe or a device would never end.
        raise DataError(f'{path}: there is no such file, or it is no regular one')
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: is no text in UTF-8: {error}') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def list_images(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Lists the JPEG and PNG files of a folder in natural order: 'frame2' before 'frame10'.

    Raises:
      DataError: there is no such folder, or no image in it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f'{folder}: there is no such folder')
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')
    ]
    if not paths:
        raise DataError(f'{folder}: holds no JPEG or PNG image')

    def natural(path: pathlib.Path) -> list:
        parts = re.split('([0-9]+)', path.name)
        return [int(part) if index % 2 else part for index, part in enumerate(parts)]

    return sorted(paths, key=natural)


def frame_names(paths: Sequence[pathlib.Path]) -> tuple[str, ...]:
    """Names frames by their files without suffixes; their results are saved under these names.

    Raises:
      DataError: two images have one name, such as f0.jpg and f0.png.
    """
    by_name: dict[str, pathlib.Path] = {}
    for path in paths:
        if (other := by_name.setdefault(path.stem, path)) is not path:
            raise DataError(
                f'{path}: has the name of {other.name} with another suffix: one would overwrite '
                "the other's results; rename or remove one"
            )
    return tuple(by_name)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Reads (height, width) from an image's header, after a check that the file is whole.

    The check decodes no pixels: a JPEG must have its end, a PNG correct checksums.

    Raises:
      DataError: the file cannot be read, is no image, or is cut short.
    """
    with open_image(path) as image:
        return image.height, image.width


def common_size(paths: Sequence[pathlib.Path]) -> tuple[int, int]:
    """Reads the (height, width) that all of several images have, and checks each file.

    Raises:
      DataError: an error of `image_size`, or an image has another size than the first.
    """
    size = image_size(paths[0])
    for path in paths[1:]:
        check_size(path, image_size(path), size, paths[0])
    return size


def check_size(
    path: str | os.PathLike,
    size: tuple[int, int],
    expected: tuple[int, int],
    reference: str | os.PathLike,
) -> None:
    """Checks that the image at `path`, of `size`, has the `expected` size of `reference`.

    Raises:
      DataError: it has another; the message says both as height x width.
    """
    if size != expected:
        raise DataError(
            f'{path}: is {size[0]} x {size[1]} (height x width), but {reference} is '
            f'{expected[0]} x {expected[1]}'
        )


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decodes an image file: uint8 RGB `[H, W, 3]`.

    A JPEG has the values that Pillow and OpenCV give, which are equal.

    An orientation in a photograph's EXIF data is not applied. A second decoder checks the
    compressed data of a JPEG, see `image_formats.check_jpeg_data`.

    Raises:
      DataError: the file cannot be read, is cut short or corrupt, or has more than 8 bits a
        channel.
    """
    with _decoding(path):
        data = _read_bytes(pathlib.Path(path))
        with opened(data) as image:
            if image.format == 'JPEG':
                check_jpeg_data(data)
                # OpenCV decodes without Python's lock, so threads do not wait for each other.
                if image.mode == 'RGB' and (pixels := _decode_with_opencv(data)) is not None:
                    return pixels
            if image.mode.startswith('I'):
                raise DataError(f'{path}: has more than 8 bits a channel; save it with 8')
            return np.array(image.convert('RGB'))


def _decode_with_opencv(data):
    """Decodes a JPEG of three channels; None where OpenCV can't.

    OpenCV prints a warning where there are stray bytes between the parts of a file.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Reads object ids from a mask: int32 `[H, W]`, 0 is background.

    The ids are the indices of a palette image, or the values of a grey one. An RGB image must have
    the colours of the DAVIS palette, or white for 255, and these are turned into ids; if it has
    greys alone that are not all in that palette, its values are the ids.

    The id 255 has two meanings. If a mask holds no other id (DAVIS-2016: 0 and 255), it is the one
    object. Beside other ids it marks void pixels, which become background, as in the official
    evaluation.

    Raises:
      DataError: the file cannot be read, is a JPEG (whose values are not exact), holds a colour
        that is not in the DAVIS palette or an id above 255, or is a grey image with smoothed edges.
    """
    ids = read_ids(path)
    return resolve_full(ids, only_full(ids))


def read_palette(path: str | os.PathLike) -> np.ndarray | None:
    """Reads the palette of a palette image, uint8 `[256, 3]`; None for other images.

    Colours that a shorter palette lacks are black.

    Raises:
      DataError: the file cannot be read.
    """
    with open_image(path) as image:
        if image.mode != 'P':
            return None
        colours = np.array(image.getpalette('RGB'), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    return palette


def write_mask(
    path: str | os.PathLike,
    ids: np.ndarray,
    palette: np.ndarray | None = None,
    sync: bool = True,
) -> None:
    """Writes object ids as DAVIS has them: a PNG of 8-bit indices with a palette.

    Args:
      path: of the PNG; its folder is made where missing.
      ids: integers `[H, W]` from 0 to 255.
      palette: uint8 `[256, 3]`; None is the DAVIS palette.
      sync: whether to wait until the file is on the disk, see `jaxprop.files.replacing`.

    Raises:
      ValueError: `ids` or `palette` has another type, shape or range.
    """
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.dtype.kind not in 'iu':
        raise ValueError(f'ids is {ids.dtype} {list(ids.shape)}; it must be integers [H, W]')
    if ids.min() < 0 or ids.max() > 255:
        raise ValueError(f'ids run from {ids.min()} to {ids.max()}; a mask file holds 0 to 255')
    palette = davis_palette() if palette is None else np.asarray(palette)
    if palette.shape != (256, 3) or palette.dtype != np.uint8:
        raise ValueError(
            f'palette is {palette.dtype} {list(palette.shape)}; it must be uint8 [256, 3]'
        )
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette(palette.tobytes())
    with replacing(path, sync) as temporary:
        image.save(temporary, format='PNG')


@contextlib.contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Opens an image; any error in the `with` block becomes a DataError that names the file.

    A file is JPEG or PNG by its content, whatever its name. No other format is read.
    """
    with _decoding(path), opened(_read_bytes(pathlib.Path(path))) as image:
        yield image


@contextlib.contextmanager
def _decoding(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for malformed files, SyntaxError too.
        raise DataError(f'{path}: cannot be read as an image: {error}') from error


def _read_bytes(path: pathlib.Path) -> bytes:
    if path.exists() and not path.is_file():
        raise DataError(f'{path}: is no regular file')
    with path.open('rb') as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise DataError(f'{path}: is larger than {_MAX_BYTES >> 20} MB')
    return data


def read_ids(path: str | os.PathLike, check_edges: bool = True) -> np.ndarray:
    """Reads ids as a mask's file has them: int32 `[H, W]` from 0 to 255.

    The largest value of 16 bits, 65535, is read as 255.

    Args:
      path: of the mask.
      check_edges: refuse a grey image with smoothed edges.

    Raises:
      DataError: an error of `read_mask`.
    """
    with open_image(path) as image:
        if image.format == 'JPEG':
            raise DataError(f'{path}: a JPEG does not keep ids exactly; save masks as PNG')
        if image.mode in ('RGB', 'RGBA'):
            return _ids_of_colours(np.array(image.convert('RGB')), path)
        mode, values = image.mode, np.array(image)
    if values.ndim == 3:  # A grey image with an alpha channel: DAVIS-2016 has one such mask.
        values = values[..., 0]
    ids = values.astype(np.int32)
    ids[ids == 65535] = _VOID
    check_ids(ids, path)
    if check_edges and mode in ('L', 'LA', 'I;16', 'I'):
        _check_edges(ids, path)
    return ids


def check_ids(ids: np.ndarray, path: str | os.PathLike) -> None:
    """Checks that ids are at most 255, since results hold 8 bits a pixel.

    Raises:
      DataError: an id is larger; the message names `path`.
    """
    if ids.max() > _VOID:
        raise DataError(
            f'{path}: holds the id {ids.max()}; ids are 0 to 255: save it with 8 bits a pixel'
        )


def _check_edges(ids: np.ndarray, path: str | os.PathLike) -> None:
    if smoothed := smoothed_values(ids):
        raise DataError(
            f'{path}: has {smoothed[0]} grey values, of which {smoothed[1]} only lie in thin '
            'lines, as smoothed edges make them: save the mask without anti-aliasing (hard brush), '
            'or make it black and white by a threshold'
        )


def pack_colours(image: np.ndarray) -> np.ndarray:
    """Packs colours into numbers, 0xRRGGBB, with 192 for 191 as DAVIS's palette has it.

    DAVIS's own files have 191 where the palette has 192.

    Args:
      image: uint8 RGB `[..., 3]`.

    Returns:
      int32 `[...]`.
    """
    colours = np.where(image == 191, 192, image).astype(np.int32)
    return colours @ np.array([1 << 16, 1 << 8, 1], np.int32)


def palette_ids() -> dict[int, int]:
    """The id of each colour of the DAVIS palette, as `pack_colours` packs it; white is 255."""
    id_of = {colour: index for index, colour in enumerate(pack_colours(davis_palette()).tolist())}
    id_of[0xFFFFFF] = _VOID
    return id_of


def _ids_of_colours(image: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    id_of = palette_ids()
    colours, inverse = np.unique(pack_colours(image), return_inverse=True)
    unknown = [colour for colour in colours.tolist() if colour not in id_of]
    if unknown and np.all(image == image[..., :1]):  # Image editors save grey pictures as RGB.
        ids = image[..., 0].astype(np.int32)
        _check_edges(ids, path)
        return ids
    if unknown:
        rgb = (unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255)
        raise DataError(
            f'{path}: an RGB mask with the colour {rgb}, which is not in the DAVIS palette; '
            'save it as a palette or grey PNG whose values are the ids'
        )
    ids = np.array([id_of[colour] for colour in colours.tolist()], np.int32)
    return ids[inverse].reshape(image.shape[:2])


def only_full(ids: np.ndarray) -> bool:
    """Tells whether a mask has no ids but 0 and 255, as binary masks have."""
    return bool(((ids == 0) | (ids == _VOID)).all())


def resolve_full(ids: np.ndarray, full_is_object: bool) -> np.ndarray:
    """Turns id 255 of a mask `ids` into object 1 if `full_is_object`, else background: int32."""
    return np.where(ids == _VOID, int(full_is_object), ids).astype(np.int32)
