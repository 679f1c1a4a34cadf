"""What size a frame has when a network sees it: the rules of the released systems, as settings."""

import dataclasses

import cv2
import numpy as np

_SMALLEST_SIDE = 8
_RESIZES = ('native', 'square', 'short_side')
_FLOORED = ('both', 'long')
_PRECISIONS = ('uint8', 'float32')


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How a frame is resized before it enters the network.

    The steps, in this order: `resize`, then sides floored to a multiple, then `upsample`.

        CRW                    InputConfig()
        VFS                    InputConfig(size=480, resize='short_side')
        UVC, DINO              InputConfig(size=480, resize='short_side', multiple=64,
                                           floored='long')
        TimeCycle              InputConfig(size=320, resize='square', precision='float32')
        twice the usual grid   InputConfig(upsample=2)

    Attributes:
      size: pixels of the side that `resize` sets; None with 'native' only.
      resize: 'native' keeps the frame's size; 'square' makes both sides `size` and gives up the
        aspect ratio; 'short_side' makes the short side `size` and keeps the ratio.
      multiple: sides are floored to a multiple of this many pixels.
      floored: 'both' sides are floored, or the 'long' one alone (of a square frame: the width).
      upsample: the factor applied last to both sides, the product rounded.
      precision: a frame of another size is resized in 'uint8', after which pixels are whole levels
        again (UVC, VFS, DINO), or in 'float32' (CRW, TimeCycle, UVC on JHMDB). Only 'float32' takes
        the lightness of pixels before the resize, see `prepare_frame`.

    Raises:
      ValueError: a setting that no frame could be resized with.
    """

    size: int | None = None
    resize: str = 'native'
    multiple: int = 1
    floored: str = 'both'
    upsample: float = 1
    precision: str = 'uint8'

    def __post_init__(self) -> None:
        if self.resize not in _RESIZES:
            raise ValueError(f'resize is {self.resize!r}; it must be one of {_RESIZES}')
        if self.floored not in _FLOORED:
            raise ValueError(f'floored is {self.floored!r}; it must be one of {_FLOORED}')
        if self.precision not in _PRECISIONS:
            raise ValueError(f'precision is {self.precision!r}; it must be one of {_PRECISIONS}')
        if self.resize == 'native' and self.size is not None:
            raise ValueError(
                f"size is {self.size}, but resize 'native' sets none: leave size out, or resize by "
                "'square' or 'short_side'"
            )
        if self.resize != 'native' and (self.size is None or self.size < _SMALLEST_SIDE):
            raise ValueError(
                f'size is {self.size}; resize {self.resize!r} needs {_SMALLEST_SIDE} pixels or more'
            )
        if self.multiple < 1:
            raise ValueError(f'multiple is {self.multiple}; it must be 1 or more')
        if not self.upsample > 0:
            raise ValueError(f'upsample is {self.upsample}; it must be above 0')


def input_size(height: int, width: int, config: InputConfig) -> tuple[int, int]:
    """The size at which a frame of `height` x `width` pixels enters the network.

    Under 'short_side' the long side is size * long / short, floored to the multiple from that
    exact ratio.

    Args:
      height, width: of the frame, in pixels.
      config: the rule.

    Returns:
      (height, width) in pixels.

    Raises:
      ValueError: a side would be smaller than the multiple, or than 8 pixels in the end.

    Source: the input pipelines of the released UVC, CRW, TimeCycle and VFS evaluations.
    """
    landscape = width >= height
    if config.resize == 'native':
        sides = height, width
    elif config.resize == 'square':
        sides = config.size, config.size
    else:
        short, long = min(height, width), max(height, width)
        resized = config.size * long // short
        sides = (config.size, resized) if landscape else (resized, config.size)

    # Flooring twice, to pixels and then to the multiple, is flooring once: the ratio stays exact.
    floor_height = config.floored == 'both' or not landscape
    floor_width = config.floored == 'both' or landscape
    floored = (
        sides[0] - sides[0] % config.multiple if floor_height else sides[0],
        sides[1] - sides[1] % config.multiple if floor_width else sides[1],
    )
    if min(floored) == 0:
        raise ValueError(
            f'multiple is {config.multiple}, more than a side of {sides[0]} x {sides[1]} (from a '
            f'frame of {height} x {width}): choose a smaller multiple or a larger size'
        )
    result = round(floored[0] * config.upsample), round(floored[1] * config.upsample)
    if min(result) < _SMALLEST_SIDE:
        raise ValueError(
            f'a frame of {height} x {width} would become {result[0]} x {result[1]}; both sides '
            f'need {_SMALLEST_SIDE} pixels or more: choose a larger size or upsample'
        )
    return result


def prepare_frame(
    frame: np.ndarray, size: tuple[int, int], precision: str = 'uint8', lightness: bool = False
) -> np.ndarray:
    """Brings a frame to the size at which a network sees it, as one of the released systems does.

    Args:
      frame: uint8 RGB `[H, W, 3]`.
      size: (height, width) of the result in pixels, see `input_size`.
      precision: 'uint8' or 'float32', see `InputConfig`.
      lightness: the network sees the lightness alone.

    Returns:
      A frame of that size already, and one resized in 'uint8', as uint8 `[height, width, 3]`. One
      resized in 'float32' as float32 `[height, width, 3]` from 0 to 255, or with `lightness` as
      `[height, width, 1]`, its 8-bit lightness resized. `jaxprop.color.network_input` takes each.

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
    return resize_frame(frame, size)


def resize_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a frame bilinearly with half-pixel centres, without antialiasing.

    OpenCV's fixed-point result on 8 bits, as UVC's and VFS's released evaluations compute it. A
    frame of that size already is returned as it is.

    Args:
      frame: uint8 `[H, W, 3]`.
      size: (height, width) of the result in pixels, see `input_size`.

    Returns:
      uint8 `[height, width, 3]`.

    Raises:
      ValueError: `frame` is not a uint8 image of three channels.
    """
    _check_frame(frame)
    if frame.shape[:2] == tuple(size):
        return frame
    return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _check_frame(frame):
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f'frame is {frame.dtype} {list(frame.shape)}; it must be uint8 [H, W, 3]')
