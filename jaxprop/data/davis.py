"""DAVIS on disk: frames, masks and sequences in the official layout.

    root/ImageSets/2017/val.txt              one sequence name a line
    root/JPEGImages/480p/NAME/00000.jpg ...
    root/Annotations/480p/NAME/00000.png ... the first is required, the others where there are any

Source: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675.
"""

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from jaxprop.data.sequences import DataError, LabelledSequence, davis_palette
from jaxprop.files import replacing

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
_VOID = 255


def davis_names(root: str | os.PathLike, year: str = '2017', split: str = 'val') -> tuple[str, ...]:
    """The sequence names of a split, in the order of its file ImageSets/{year}/{split}.txt.

    A line is a name, or (DAVIS-2016) the image and the mask of one frame, /JPEGImages/480p/NAME/...

    Raises:
      DataError: the file is missing or empty.
    """
    path = pathlib.Path(root) / 'ImageSets' / year / f'{split}.txt'
    if not path.is_file():
        raise DataError(f'{path}: there is no such list; root must be the folder that holds it')
    entries = [line.split()[0] for line in read_lines(path)]
    names = [entry.split('/')[-2] if '/' in entry else entry for entry in entries]
    if not names:
        raise DataError(f'{path}: names no sequence')
    return tuple(dict.fromkeys(names))


def davis_sequence(
    root: str | os.PathLike, name: str, year: str = '2017', resolution: str = '480p'
) -> LabelledSequence:
    """Opens one sequence after checking every file of it; pixels are decoded when they are read.

    Year '2016' has one object: all ids of a mask become 1. Later frames may lack a mask, as in the
    test sets: their `read_label` gives None. To skip bad sequences rather than stop at the first,
    catch DataError around this call and around reading: damage inside an image's compressed data
    shows only when it is decoded.

    Raises:
      DataError: naming the file: a missing folder, no frames, a gap in their numbers, a file that
        is no image or is cut short, an image of another size than the first frame, no mask for the
        first frame or one without an object, a mask without a frame.
    """
    root = pathlib.Path(root)
    frames = list_images(root / 'JPEGImages' / resolution / name)
    masks = {path.stem: path for path in list_images(root / 'Annotations' / resolution / name)}
    _check_numbering(frames)
    names = tuple(path.stem for path in frames)
    for stem, path in masks.items():
        if stem not in names:
            raise DataError(f'{path}: a mask without its frame in {frames[0].parent}')
    if names[0] not in masks:
        raise DataError(f'{frames[0]}: the first frame has no mask in {root / "Annotations"}')

    size = common_size([*frames, *masks.values()])

    # Whether 255 is the object or void is one question for the sequence: a later mask may hold
    # void alone, after every object has left.
    first = _read_ids(masks[names[0]])
    full_is_object = _only_full(first)

    def read_frame(index: int) -> np.ndarray:
        return read_image(frames[index])

    def read_label(index: int) -> np.ndarray | None:
        if names[index] not in masks:
            return None
        ids = _resolve_full(_read_ids(masks[names[index]]), full_is_object)
        return (ids > 0).astype(np.int32) if year == '2016' else ids

    if not read_label(0).any():
        raise DataError(f'{masks[names[0]]}: the first mask has no object')
    return LabelledSequence(
        name=name,
        num_frames=len(frames),
        size=size,
        read_frame=read_frame,
        read_label=read_label,
        frame_names=names,
        palette=read_palette(masks[names[0]]),
    )


def read_lines(path: pathlib.Path) -> list[str]:
    """The lines of a text file that hold something, without the space around it."""
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def list_images(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The JPEG and PNG files of a folder in natural order: 'frame2' before 'frame10'.

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


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) from an image's header, after a check that the file is whole.

    The check decodes no pixels: a JPEG must have its end, a PNG correct checksums.

    Raises:
      DataError: the file cannot be read, is no image, or is cut short.
    """
    with open_image(path) as image:
        width, height = image.size
        image.verify()
    return height, width


def common_size(paths: Sequence[pathlib.Path]) -> tuple[int, int]:
    """The `image_size` that all these images have; every one is checked as it does.

    Raises:
      DataError: as `image_size`, and where one differs from the first.
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
    """Checks that `size`, of the image at `path`, is `expected`, that of `reference`.

    Raises:
      DataError: it is not; the message says both as height x width.
    """
    if size != expected:
        raise DataError(
            f'{path}: is {size[0]} x {size[1]} (height x width), but {reference} is '
            f'{expected[0]} x {expected[1]}'
        )


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decodes an image file: uint8 RGB `[H, W, 3]`, for a JPEG the very values OpenCV gives.

    An orientation in a photograph's EXIF data is not applied.

    Raises:
      DataError: the file cannot be read, is cut short, or has more than 8 bits a channel.
    """
    with open_image(path) as image:
        if image.mode.startswith(('I', 'F')):
            raise DataError(f'{path}: has more than 8 bits a channel; save it with 8')
        return np.array(image.convert('RGB'))


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Reads object ids from a mask: int32 `[H, W]`, 0 is background.

    A palette image gives its indices, a grey one its values, an RGB one the ids whose colours in
    the DAVIS palette it shows, white for 255. 255 is the one object of a mask that holds nothing
    else (DAVIS-2016: 0 and 255); beside other ids it marks void pixels, which become background, as
    in the official evaluation.

    Raises:
      DataError: the file cannot be read, is a JPEG (whose values are not exact), or holds a colour
        that is not in the DAVIS palette.
    """
    ids = _read_ids(path)
    return _resolve_full(ids, _only_full(ids))


def read_palette(path: str | os.PathLike) -> np.ndarray | None:
    """The palette of a palette image, uint8 `[256, 3]`, black where it is shorter; None without.

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


def write_mask(path: str | os.PathLike, ids: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Writes object ids as the benchmark wants them: a PNG of 8-bit indices with a palette.

    Args:
      path: of the PNG; its folder is made where missing.
      ids: integers `[H, W]` from 0 to 255.
      palette: uint8 `[256, 3]`; the DAVIS palette where None.

    Raises:
      ValueError: `ids` or `palette` is not like that.
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
    with replacing(path) as temporary:
        image.save(temporary, format='PNG')


@contextlib.contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The opened image; whatever goes wrong inside becomes a DataError that names the file."""
    try:
        data = pathlib.Path(path).read_bytes()
        # A JPEG decoder fills what is missing with grey. The mark of the end (ff d9) must follow
        # the last start of compressed data (ff da); inside the data neither can occur.
        if data.startswith(b'\xff\xd8') and data.rfind(b'\xff\xd9') < data.rfind(b'\xff\xda'):
            raise DataError(f'{path}: is cut short: its compressed data has no end')
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for malformed files, SyntaxError too.
        raise DataError(f'{path}: cannot be read as an image: {error}') from error


def _check_numbering(frames: list[pathlib.Path]) -> None:
    for path in frames:
        if not re.fullmatch('[0-9]+', path.stem):
            raise DataError(f'{path}: the name of a frame must be its number')
    for previous, path in zip(frames, frames[1:]):
        expected = f'{int(previous.stem) + 1:0{len(previous.stem)}d}'
        if path.stem != expected:
            missing = previous.with_name(expected + previous.suffix)
            raise DataError(f'{missing}: missing: {previous.name} is followed by {path.name}')


def _read_ids(path: str | os.PathLike) -> np.ndarray:
    """int32 `[H, W]` as the file has them, with 255 for the full value of any depth."""
    with open_image(path) as image:
        if image.format == 'JPEG':
            raise DataError(f'{path}: a JPEG does not keep ids exactly; save masks as PNG')
        if image.mode in ('RGB', 'RGBA'):
            return _ids_of_colours(np.array(image.convert('RGB')), path)
        if image.mode not in ('P', '1', 'L', 'LA', 'I;16', 'I;16B', 'I'):
            raise DataError(
                f'{path}: is of mode {image.mode}; save the mask as a palette or grey PNG'
            )
        values = np.array(image)
    if values.ndim == 3:  # Grey with an alpha channel, as one mask of DAVIS-2016 is.
        values = values[..., 0]
    ids = values.astype(np.int32)
    ids[ids == 65535] = _VOID
    return ids


def _ids_of_colours(image: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    def pack(colours: np.ndarray) -> np.ndarray:
        return colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)

    id_of = {colour: index for index, colour in enumerate(pack(davis_palette()).tolist())}
    id_of[0xFFFFFF] = _VOID
    # DAVIS' own files have 191 where the palette has 192.
    colours, inverse = np.unique(pack(np.where(image == 191, 192, image)), return_inverse=True)
    for colour in colours.tolist():
        if colour not in id_of:
            rgb = (colour >> 16, colour >> 8 & 255, colour & 255)
            raise DataError(
                f'{path}: an RGB mask with the colour {rgb}, which is not in the DAVIS palette; '
                'save it as a palette or grey PNG whose values are the ids'
            )
    ids = np.array([id_of[colour] for colour in colours.tolist()], np.int32)
    return ids[inverse].reshape(image.shape[:2])


def _only_full(ids: np.ndarray) -> bool:
    return bool(np.isin(ids, (0, _VOID)).all())


def _resolve_full(ids: np.ndarray, full_is_object: bool) -> np.ndarray:
    return np.where(ids == _VOID, int(full_is_object), ids).astype(np.int32)
