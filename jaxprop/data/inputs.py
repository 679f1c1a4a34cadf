"""Resizes frames for a network: `InputConfig` has the rules of the released systems as settings."""

import dataclasses

import cv2
import numpy as np
from PIL import Image

_SMALLEST_SIDE = 8
_RESIZES = ('native', 'square', 'short_side', 'fixed')
_FLOORED = ('both', 'long')
_ROUNDINGS = ('floor', 'ceil')
_INTERPOLATIONS = ('linear', 'bicubic')
_PRECISIONS = ('uint8', 'float32')


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How a frame is resized before it enters the network.

    The steps, in this order: `resize`, then sides brought to a multiple, then `upsample`.

        CRW                    InputConfig()
        VFS                    InputConfig(size=480, resize='short_side')
        UVC, DINO              InputConfig(size=480, resize='short_side', multiple=64,
                                           floored='long')
        DINOv3                 InputConfig(size=960, resize='short_side', multiple=16,
                                           rounding='ceil', interpolation='bicubic')
        CropMAE, SiamMAE       InputConfig(resize='fixed', height=480, width=880,
                                           precision='float32')
        TimeCycle              InputConfig(size=320, resize='square', precision='float32')
        twice the usual grid   InputConfig(upsample=2)

    Sides that the patch of a vision transformer does not divide are avoided, in each release in
    another way. DINO floors the long side to a multiple of 64 pixels; patches of 8 and 16 divide
    that, and also the short side of 480. DINOv3 rounds both sides up to a multiple of the patch:
    first the short side, then the long one at the ratio of the rounded short side. CropMAE, and
    others that are compared with MAE, make all frames 480 x 880, which patches of 16 divide. If a
    patch does not divide a side, `jaxprop.models.ViT` leaves out the rest of that side.

    Attributes:
      size: pixels of the side that `resize` sets; only with 'square' and 'short_side'.
      resize: 'native' keeps the frame's size; 'square' makes both sides `size` and gives up the
        aspect ratio; 'short_side' makes the short side `size` and keeps the ratio; 'fixed' makes
        every frame `height` x `width`.
      multiple: sides are brought to a multiple of this many pixels.
      floored: which sides are brought to the multiple: 'both', or only the 'long' one (of a square
        frame the width).
      rounding: to the multiple, 'floor' or 'ceil'.
      upsample: the factor applied last to both sides, the product rounded.
      precision: a frame of another size is resized in 'uint8', after which pixels are whole levels
        again (UVC, VFS, DINO), or in 'float32' (CRW, TimeCycle, UVC on JHMDB). Only 'float32' takes
        the lightness of pixels before the resize, see `prepare_frame`.
      interpolation: of the resize. 'linear': OpenCV's, without antialiasing. 'bicubic': Pillow's,
        with antialiasing where a side shrinks, only in 'uint8' (DINOv3).
      height: of all frames in pixels; only with 'fixed'.
      width: likewise.

    Raises:
      ValueError: no frame can be resized with these settings.
    """

    size: int | None = None
    resize: str = 'native'
    multiple: int = 1
    floored: str = 'both'
    upsample: float = 1
    precision: str = 'uint8'
    rounding: str = 'floor'
    interpolation: str = 'linear'
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        for name, known in {
            'resize': _RESIZES,
            'floored': _FLOORED,
            'precision': _PRECISIONS,
            'rounding': _ROUNDINGS,
            'interpolation': _INTERPOLATIONS,
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be one of {known}')
        self._check_sides()
        if self.multiple < 1:
            raise ValueError(f'multiple is {self.multiple}; it must be 1 or more')
        if self.rounding == 'ceil' and self.floored != 'both':
            raise ValueError(
                f"floored is {self.floored!r}, but rounding 'ceil' brings both sides to a "
                "multiple: leave floored out, or take rounding 'floor'"
            )
        if self.interpolation == 'bicubic' and self.precision != 'uint8':
            raise ValueError(
                f"precision is {self.precision!r}, but interpolation 'bicubic' is in 'uint8' alone"
            )
        if not self.upsample > 0:
            raise ValueError(f'upsample is {self.upsample}; it must be above 0')

    def _check_sides(self) -> None:
        """Raises ValueError for sides that `resize` doesn't take, and for those that it lacks."""
        needed = {'native': (), 'fixed': ('height', 'width')}.get(self.resize, ('size',))
        for name in ('size', 'height', 'width'):
            side = getattr(self, name)
            if name in needed:
                if side is None or side < _SMALLEST_SIDE:
                    raise ValueError(
                        f'{name} is {side}; resize {self.resize!r} needs {_SMALLEST_SIDE} pixels '
                        'or more'
                    )
            elif side is not None:
                way = "'fixed'" if name != 'size' else "'square' or 'short_side'"
                raise ValueError(
                    f'{name} is {side}, but resize {self.resize!r} does not take it: leave it out, '
                    f'or resize by {way}'
                )


def input_size(height: int, width: int, config: InputConfig) -> tuple[int, int]:
    """Computes the size at which a frame of `height` x `width` pixels enters the network.

    Under 'short_side' the long side is the exact size * long / short, floored once, to the
    multiple. With the rounding 'ceil' the short side is rounded up first, and the long side is that
    short side * long / short, rounded up.

    Args:
      height, width: of the frame, in pixels.
      config: the rule.

    Returns:
      (height, width) in pixels.

    Raises:
      ValueError: a side would be smaller than the multiple, or than 8 pixels in the end.

    Source: the input pipelines of the released UVC, CRW, TimeCycle and VFS evaluations; for
    rounding up, the notebook on tracking segmentations of DINOv3's release.
    """
    # Resize.
    landscape = width >= height
    short, long = min(height, width), max(height, width)
    up = config.rounding == 'ceil'
    if config.resize == 'native':
        sides = height, width
    elif config.resize == 'square':
        sides = config.size, config.size
    elif config.resize == 'fixed':
        sides = config.height, config.width
    else:
        # Rounding to pixels and then to the multiple gives the same as rounding to the multiple
        # alone, so the ratio stays exact.
        new_short = _up(config.size, config.multiple) if up else config.size
        new_long = -(-new_short * long // short) if up else new_short * long // short
        sides = (new_short, new_long) if landscape else (new_long, new_short)

    # Bring sides to the multiple.
    if up:
        rounded = tuple(_up(side, config.multiple) for side in sides)
    else:
        floor_height = config.floored == 'both' or not landscape
        floor_width = config.floored == 'both' or landscape
        rounded = (
            sides[0] - sides[0] % config.multiple if floor_height else sides[0],
            sides[1] - sides[1] % config.multiple if floor_width else sides[1],
        )
    if min(rounded) == 0:
        raise ValueError(
            f'multiple is {config.multiple}, more than a side of {sides[0]} x {sides[1]} (from a '
            f'frame of {height} x {width}): choose a smaller multiple or a larger size'
        )
    # Upsample.
    result = round(rounded[0] * config.upsample), round(rounded[1] * config.upsample)
    if min(result) < _SMALLEST_SIDE:
        raise ValueError(
            f'a frame of {height} x {width} would become {result[0]} x {result[1]}; both sides '
            f'need {_SMALLEST_SIDE} pixels or more: choose a larger size or upsample'
        )
    return result


def _up(side, multiple):
    return -(-side // multiple) * multiple


def prepare_frame(
    frame: np.ndarray,
    size: tuple[int, int],
    precision: str = 'uint8',
    lightness: bool = False,
    interpolation: str = 'linear',
) -> np.ndarray:
    """Brings a frame to the size at which a network sees it, as one of the released systems does.

    Args:
      frame: uint8 RGB `[H, W, 3]`.
      size: (height, width) of the result in pixels, see `input_size`.
      precision: 'uint8' or 'float32', see `InputConfig`.
      lightness: whether the network sees the lightness alone.
      interpolation: in 'uint8', see `InputConfig`.

    Returns:
      uint8 `[height, width, 3]`, if the frame has that size already or is resized in 'uint8'. If it
      is resized in 'float32': float32 `[height, width, 3]` from 0 to 255, or with `lightness` its
      8-bit lightness, resized, `[height, width, 1]`. `jaxprop.color.network_input` takes all three.

    Raises:
      ValueError: `frame` is not a uint8 image of three channels.
    """
    if precision == 'float32' and frame.shape[:2] != tuple(size):
        _check_frame(frame)
        if lightness:
            frame = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)[..., :1]
        resized = cv2.resize(
            frame.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR
        )
        return resized.reshape(*size, -1)  # OpenCV drops a single channel.
    return resize_frame(frame, size, interpolation)


def resize_frame(
    frame: np.ndarray, size: tuple[int, int], interpolation: str = 'linear'
) -> np.ndarray:
    """Resizes a frame of 8 bits with half-pixel centres.

    A frame of that size already is returned as it is.

    Args:
      frame: uint8 `[H, W, 3]`.
      size: (height, width) of the result in pixels, see `input_size`.
      interpolation: 'linear': bilinear without antialiasing, OpenCV's fixed-point result, as UVC's
        and VFS's released evaluations compute it; 'bicubic': Pillow's, whose kernel widens where a
        side shrinks.

    Returns:
      uint8 `[height, width, 3]`.

    Raises:
      ValueError: `frame` is not a uint8 image of three channels.
    """
    _check_frame(frame)
    if frame.shape[:2] == tuple(size):
        return frame
    if interpolation == 'bicubic':
        image = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return np.asarray(image)
    return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _check_frame(frame):
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f'frame is {frame.dtype} {list(frame.shape)}; it must be uint8 [H, W, 3]')
