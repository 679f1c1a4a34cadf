"""Samplings: a small dataclass for each way of choosing the frames of a video for an example.

A sampling is called with the number of frames, the frames a second (None for a folder of frames,
which has no rate) and a generator; it returns the indices of the frames. It raises DataError if the
video is too short. A new way is a dataclass here and its name in `_SAMPLINGS`; its fields are
settings of `jaxprop.data.pipeline.DatasetConfig`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxprop.data.sequences import DataError

Sampling = Callable[[int, float | None, np.random.Generator], list[int]]


def make_sampling(name: str, num_frames: int, **settings: Any) -> Sampling:
    """Makes the sampling of a name, with those of the settings that it has.

    Args:
      name: one of `_SAMPLINGS`.
      num_frames: T. If it is 1, a frame is taken at random, whatever the name.
      **settings: the settings of all samplings.

    Raises:
      ValueError: there is no such sampling, or it refuses its settings.
    """
    if name not in _SAMPLINGS:
        raise ValueError(f'sampling is {name!r}; it must be one of {tuple(_SAMPLINGS)}')
    if type(num_frames) is not int or num_frames < 1:
        raise ValueError(f'num_frames is {num_frames}; it must be at least 1, a whole number')
    if num_frames == 1:
        return one_frame
    settings['num_frames'] = num_frames
    kind = _SAMPLINGS[name]
    return kind(**{field.name: settings[field.name] for field in dataclasses.fields(kind)})


def one_frame(count: int, rate: float | None, rng: np.random.Generator) -> list[int]:
    """Draws one index by `rng` in a video of `count` frames; `rate` does not matter."""
    del rate
    return [int(rng.integers(count))]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Takes two frames (`num_frames` is 2), 1 to `max_gap` apart, in either order of time."""

    num_frames: int
    max_gap: int

    def __post_init__(self):
        if self.num_frames != 2:
            raise ValueError(
                f"num_frames is {self.num_frames}; sampling 'pair' takes 1 or 2, 'clip' more"
            )
        _check_whole('max_gap', self.max_gap)

    def __call__(self, count, rate, rng):
        del rate
        if count < 2:
            raise DataError('has one frame only')
        gap = int(rng.integers(1, min(self.max_gap, count - 1) + 1))
        first = int(rng.integers(count - gap))
        pair = [first, first + gap]
        return pair if rng.integers(2) else pair[::-1]


@dataclasses.dataclass(frozen=True)
class Clip:
    """Takes `num_frames` frames in order of time, `frame_gap` apart, from a random start.

    With a `frame_rate` the clip of a video file has so many frames a second: frame i is
    floor(i * rate of the file / frame_rate) after the first. If the file's rate is lower, as in a
    time lapse, frames are repeated; if it is far lower, a clip is one frame again and again. Leave
    such files out. Folders of frames, and files that do not tell their rate, have the `frame_gap`.

    In a short video the gap is lowered until `num_frames` gaps fit. A video of fewer than
    `num_frames` frames is too short.

    Source: the released code of CRW (Jabri et al., NeurIPS 2020).
    """

    num_frames: int
    frame_gap: int
    frame_rate: float | None

    def __post_init__(self):
        _check_whole('frame_gap', self.frame_gap)
        if self.frame_rate is not None and not 0 < self.frame_rate < math.inf:
            raise ValueError(f'frame_rate is {self.frame_rate}; it must be above 0, or None')

    def __call__(self, count, rate, rng):
        _check_count(count, self.num_frames)
        if self.frame_rate is None or rate is None:
            gap = min(self.frame_gap, count // self.num_frames)
        else:
            gap = min(rate / self.frame_rate, count / self.num_frames)
        return _from_random_start([math.floor(i * gap) for i in range(self.num_frames)], count, rng)


@dataclasses.dataclass(frozen=True)
class DrawnGap:
    """Takes a `Clip` of `num_frames` whose gap is one of `gaps`, drawn with odds `gap_odds`.

    Source: the released code of MAST (Lai et al., CVPR 2020), which draws the gap once for a video
    and epoch; here it is drawn for each example.
    """

    num_frames: int
    gaps: tuple[int, ...]
    gap_odds: tuple[float, ...]

    def __post_init__(self):
        if not self.gaps:
            raise ValueError('gaps is empty; it must hold the gaps to draw from')
        for gap in self.gaps:
            _check_whole('a number of gaps', gap)
        odds = self.gap_odds
        if len(odds) != len(self.gaps) or not all(0 <= n < math.inf for n in odds) or not sum(odds):
            raise ValueError(f'gap_odds is {odds}; it must hold a weight for each of {self.gaps}')

    def __call__(self, count, rate, rng):
        odds = np.array(self.gap_odds) / sum(self.gap_odds)
        gap = self.gaps[rng.choice(len(self.gaps), p=odds)]
        return Clip(self.num_frames, gap, None)(count, rate, rng)


@dataclasses.dataclass(frozen=True)
class Offsets:
    """Takes the frames at `num_frames` given offsets from a random start.

    If a video has no room for the last offset, all offsets are scaled down and truncated to whole
    numbers, so a frame may be taken twice. A video with fewer frames than offsets is too short.

    Source: the released code of TimeCycle (Wang et al., CVPR 2019), which shortens clips to two
    thirds of the video instead.
    """

    num_frames: int
    offsets: tuple[int, ...]

    def __post_init__(self):
        offsets = self.offsets
        rises = all(a < b for a, b in zip(offsets, offsets[1:]))
        if not (offsets and offsets[0] == 0 and rises and all(type(n) is int for n in offsets)):
            raise ValueError(f'offsets is {offsets}; it must be 0 and rising whole numbers')
        if self.num_frames != len(offsets):
            raise ValueError(
                f'num_frames is {self.num_frames}; it must be {len(offsets)}, as offsets is '
                f'{offsets}, or 1'
            )

    def __call__(self, count, rate, rng):
        del rate
        _check_count(count, self.num_frames)
        last = min(self.offsets[-1], count - 1)
        return _from_random_start([n * last // self.offsets[-1] for n in self.offsets], count, rng)


@dataclasses.dataclass(frozen=True)
class Segments:
    """Takes a random frame from each of `num_frames` equal parts of a video, in order of time.

    A part has count // num_frames frames; the frames left over at the end are in no part. A video
    of fewer than `num_frames` frames is too short.

    Source: the released code of VFS (Xu, Wang, ICCV 2021).
    """

    num_frames: int

    def __call__(self, count, rate, rng):
        del rate
        _check_count(count, self.num_frames)
        length = count // self.num_frames
        return [i * length + int(rng.integers(length)) for i in range(self.num_frames)]


def _from_random_start(offsets, count, rng):
    first = int(rng.integers(count - offsets[-1]))
    return [first + offset for offset in offsets]


def _check_whole(name, value):
    if type(value) is not int or value < 1:
        raise ValueError(f'{name} is {value}; it must be at least 1')


def _check_count(count, num_frames):
    if count < num_frames:
        raise DataError(
            f'has {count} frame{"s" * (count != 1)}; needed are at least {num_frames}, the '
            'num_frames of an example'
        )


_SAMPLINGS = {
    'pair': Pair,
    'clip': Clip,
    'drawn_gap': DrawnGap,
    'offsets': Offsets,
    'segments': Segments,
}
