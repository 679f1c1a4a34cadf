"""Still images: in folders of classes, brought to one size without bars, and as JPEG."""

import os
import pathlib

import cv2
import numpy as np

from jaxprop.data.davis import IMAGE_SUFFIXES
from jaxprop.data.sequences import DataError


def list_image_classes(
    root: str | os.PathLike,
) -> tuple[list[pathlib.Path], np.ndarray, tuple[str, ...]]:
    """The images of ImageNet's layout: root/CLASS/*.jpg, also in folders inside a class.

    Images directly in `root` are one class more, called '.', before the others.

    Args:
      root: the folder.

    Returns:
      The paths in the order of their names, the class of each (int32 `[N]`, by the order of the
      classes' names), and the names of the classes.

    Raises:
      DataError: there is no such folder, or no JPEG or PNG image in it.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataError(f'{root}: there is no such folder')
    by_class: dict[str, list[pathlib.Path]] = {}
    # A million files: os.walk asks for no more of each than its name.
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
        images = [
            pathlib.Path(folder, name)
            for name in sorted(names)
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')
        ]
        if images:
            parts = pathlib.Path(folder).relative_to(root).parts
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
    """Resizes an image to just cover a size, its aspect ratio kept, and cuts off what sticks out.

    For a square size: short side to it, then a crop. Shrinking averages over pixels, enlarging is
    bilinear.

    Args:
      image: uint8 `[H, W, 3]`.
      size: (height, width) of the result in pixels.
      position: where the crop lies, down and across: 0 at the start, 1 at the end.

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
    """An image as JPEG, shrunk so that its short side has at most so many pixels.

    Args:
      image: uint8 RGB `[H, W, 3]`.
      short_side: in pixels.
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
    """uint8 RGB `[H, W, 3]` from an encoded image.

    Raises:
      DataError: it is none.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError('cannot be decoded as an image')
    return image[..., ::-1]
