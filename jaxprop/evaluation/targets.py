"""Targets: they turn a first frame's mask or joints into soft labels, and soft labels back.

A target is a frozen dataclass, so that it can be a static argument of a compiled function, with

    values(first, seen)             the ids `[l]` for which a video's labels stand
    num_labels(values)              the number of labels L with which a video is computed, l or more
    encode(first, values, sizes)    soft labels `[H, W, l]` of the first frame
    decode(label, values, sizes, *, features, context, frame)
                                    the prediction from soft labels `[H, W, L]` with the ids `[L]`,
                                    for some targets also from the frame's features, the
                                    propagation's context, and the frame itself, uint8 RGB
                                    `[h, w, 3]`, which is None unless `needs_frame`; can be compiled
    needs_frame                     whether `decode` needs the frame
    given(first, label, values, sizes)
                                    the prediction of the first frame itself: its annotation, or
                                    its soft labels `[H, W, L]` decoded like those of any frame
    ids(first, seen)                the first frame's label map; None if it has joints
    merge(prediction, appearing)    the annotation of a frame in which objects appear: the predicted
                                    one, and over it the ids of these objects (label maps alone)
    settings()                      its settings by the name of a config's section, to be recorded

where `first` is the given annotation of frame 0, a label map or joints, and `seen` is the (height,
width) of the network's input.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jaxprop import confidence, keypoints, labels
from jaxprop.data.vip import resize_ids
from jaxprop.refine import enlarge_guided


class Sizes(NamedTuple):
    """The sizes of a video, its features and their cells, each (height, width).

    Attributes:
      frame: in pixels.
      seen: of the network's input, in pixels.
      grid: of the features, in cells.
      cell: of a cell, in pixels of the frame, see `jaxprop.keypoints.cell_size`.
    """

    frame: tuple[int, int]
    seen: tuple[int, int]
    grid: tuple[int, int]
    cell: tuple[float, float]


def padded_labels(count: int) -> int:
    """Rounds a number of labels up to the next power of two.

    With few different numbers, few compiled programs serve all videos, alone and in batches.
    Padding labels are zero everywhere. Of equal labels the first one wins, so a padding label is
    never chosen.
    """
    return 1 << (count - 1).bit_length()


@dataclasses.dataclass(frozen=True)
class MaskTarget:
    """The target of label maps: `first` and predictions are ids `[h, w]` int32, 0 background.

    Attributes:
      encode_by: how the first label map is resized to the feature grid: 'area', 'nearest' or
        'bilinear'.
      min_max: whether each class is scaled to [0, 1] before the largest one is taken.
      decode_at: 'frame': labels are upsampled to the frame, then the largest class is taken;
        'input': they are upsampled to the network's input, and the label map is resized by nearest.
      resize_first: how the first ids are resized to the network's input before they are made
        one-hot: 'nearest' or 'bilinear', see `jaxprop.data.vip.resize_ids`; 'pillow_nearest' takes
        the pixel that holds the centre (TimeCycle). None does not resize them.
      smallest: an object of fewer pixels in the first ids, after `resize_first`, is background.
      first_frame: the prediction of the first frame. 'given': its annotation, as most systems write
        and score it; 'decoded': its soft labels decoded, as CRW does.
      refine: how labels are enlarged. 'none': bilinear; 'guided': their edges follow the colours of
        the frame, see `jaxprop.refine.enlarge_guided`. The labels in the context stay as they are.
      refine_radius: with 'guided', of the boxes in which labels are fitted by colours, in cells.
      refine_eps: with 'guided', the variance of colours from which on labels follow them.
      keep_soft: whether a prediction is (ids, the soft labels `[H, W, L]`, the ids `[L]` for which
        they stand). If the first frame is 'given', its prediction is then (ids, None, None).
    """

    encode_by: str = 'bilinear'
    min_max: bool = False
    decode_at: str = 'frame'
    resize_first: str | None = None
    smallest: int = 0
    first_frame: str = 'given'
    refine: str = 'none'
    refine_radius: float = 1.5
    refine_eps: float = 1e-5
    keep_soft: bool = False

    def __post_init__(self):
        if self.encode_by not in labels.METHODS:
            raise ValueError(
                f'encode (encode_by) is {self.encode_by!r}; it must be one of '
                f'{", ".join(labels.METHODS)}'
            )
        if self.decode_at not in ('frame', 'input'):
            raise ValueError(f"decode_at is {self.decode_at!r}; it must be 'frame' or 'input'")
        if self.resize_first not in (None, 'nearest', 'bilinear', 'pillow_nearest'):
            raise ValueError(
                f"resize_first is {self.resize_first!r}; it must be 'nearest', 'bilinear', "
                "'pillow_nearest' or None"
            )
        if self.smallest < 0:
            raise ValueError(f'smallest is {self.smallest}; it must be a number of pixels')
        if self.first_frame not in ('given', 'decoded'):
            raise ValueError(
                f"first_frame is {self.first_frame!r}; it must be 'given' or 'decoded'"
            )
        if self.refine not in ('none', 'guided'):
            raise ValueError(f"refine is {self.refine!r}; it must be 'none' or 'guided'")
        for name in ('refine_radius', 'refine_eps'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name} is {getattr(self, name)}; it must be above 0')
        if self.needs_frame and (self.decode_at, self.first_frame) != ('frame', 'given'):
            raise ValueError(
                f"refine is 'guided' with decode_at {self.decode_at!r} and first_frame "
                f"{self.first_frame!r}; it needs 'frame' and 'given': change these, or say "
                "refine 'none'"
            )

    @property
    def needs_frame(self) -> bool:
        return self.refine == 'guided'

    def settings(self):
        settings = {'encode': self.encode_by, 'min_max': self.min_max, 'decode_at': self.decode_at}
        if self.resize_first is not None:
            settings['resize_first'] = self.resize_first
        if self.smallest:
            settings['smallest'] = self.smallest
        settings['first_frame'] = self.first_frame
        settings['refine'] = self.refine
        if self.refine == 'guided':
            settings.update(refine_radius=self.refine_radius, refine_eps=self.refine_eps)
        return {'labels': settings}

    def values(self, first, seen):
        ids = self.ids(first, seen)
        values = labels.label_values(ids)
        is_large = [value == 0 or np.sum(ids == value) >= self.smallest for value in values]
        return values[is_large]

    def num_labels(self, values):
        return padded_labels(values.size)

    def encode(self, first, values, sizes):
        return labels.encode(self.ids(first, sizes.seen), values, sizes.grid, self.encode_by)

    def decode(self, label, values, sizes, *, features=None, context=None, frame=None):
        decode_size = sizes.seen if self.decode_at == 'input' else None
        enlarge = None
        if self.refine == 'guided':
            if frame is None:
                raise ValueError("refine is 'guided', but there is no frame")
            enlarge = functools.partial(
                enlarge_guided, frame=frame, radius=self.refine_radius, eps=self.refine_eps
            )
        ids = labels.decode(label, values, sizes.frame, self.min_max, decode_size, enlarge)
        return (ids, label, values) if self.keep_soft else ids

    def given(self, first, label, values, sizes):
        if self.first_frame == 'decoded':
            decoded = self.decode(label, values, sizes)
            return tuple(map(np.asarray, decoded)) if self.keep_soft else np.asarray(decoded)
        ids = np.asarray(first, np.int32)
        return (ids, None, None) if self.keep_soft else ids

    def merge(self, prediction, appearing):
        ids = prediction[0] if self.keep_soft else prediction
        return np.where(appearing > 0, appearing, ids)

    def ids(self, first, seen):
        if self.resize_first is None:
            return first
        if self.resize_first == 'pillow_nearest':
            rows, columns = (
                labels.resize_matrix(*sides, 'nearest').argmax(axis=1)
                for sides in zip(first.shape, seen)
            )
            return np.asarray(first)[rows][:, columns]
        return resize_ids(first, seen, self.resize_first)


@dataclasses.dataclass(frozen=True)
class KeypointTarget:
    """The target of joints: `first` and predictions are positions `[J, 2]` (x, y) in pixels.

    A joint that is lost is NaN.

    Attributes:
      encode_by: the map of a joint: 'stamp', 'gaussian' or 'cell', see `encode_keypoints`.
      sigma: of the map, in cells of the grid, or in pixels if `at` is 'frame'.
      num_cells: a joint's position is the weighted mean of so many of its strongest cells.
      at: 'grid': maps are drawn and read on the feature grid; 'frame': maps are drawn on the frame
        and resized to the grid, and labels are resized to the frame and read there, where cells are
        pixels (VFS).
      track_back: whether a prediction is (positions, distances `[J]`): how far in pixels the place
        that looks like a position lies, in frame 0, from the joint's position there, see
        `jaxprop.confidence.tracked_back`. The number of joints is then padded by lost ones.
    """

    encode_by: str = 'stamp'
    sigma: float = 0.5
    num_cells: int = 3
    at: str = 'grid'
    track_back: bool = False

    needs_frame: ClassVar[bool] = False

    def __post_init__(self):
        if self.encode_by not in keypoints.METHODS:
            raise ValueError(
                f'encode (encode_by) is {self.encode_by!r}; it must be one of {keypoints.METHODS}'
            )
        if self.at not in ('grid', 'frame'):
            raise ValueError(f"at is {self.at!r}; it must be 'grid' or 'frame'")

    def settings(self):
        settings = dataclasses.asdict(self)
        if not settings.pop('track_back'):
            return {'keypoints': settings}
        return {'keypoints': {**settings, 'track_back': True}}

    def values(self, first, seen):
        return np.arange(len(first) + 1)

    def num_labels(self, values):
        # Points are given in many frames, in all numbers: let one program serve most of them.
        return max(padded_labels(values.size), 16) if self.track_back else values.size

    def encode(self, first, values, sizes):
        on_frame = self.at == 'frame'
        soft = keypoints.encode_keypoints(
            first,
            sizes.frame if on_frame else sizes.grid,
            (1.0, 1.0) if on_frame else sizes.cell,
            self.encode_by,
            self.sigma,
        )
        if on_frame:
            soft = labels.resize(soft, sizes.grid, 'bilinear')
        return soft

    def decode(self, label, values, sizes, *, features=None, context=None, frame=None):
        positions = self._positions(label, sizes)
        if not self.track_back:
            return positions
        # Compare cells, (row, column), with those of frame 0, which is in the first slot.
        cell = np.array(sizes.cell)
        origins = self._positions(context.labels[0], sizes)
        places, origins = (p[:, ::-1] / cell for p in (positions, origins))
        distances = confidence.tracked_back(features, context.features[0], places, origins)
        return positions, distances * cell.mean()

    def _positions(self, label, sizes):
        if self.at == 'frame':
            label = labels.resize(label, sizes.frame, 'bilinear')
            return keypoints.decode_keypoints(label, (1.0, 1.0), self.num_cells)
        return keypoints.decode_keypoints(label, sizes.cell, self.num_cells)

    def given(self, first, label, values, sizes):
        positions = np.asarray(first, np.float32)
        return (positions, np.zeros(len(first), np.float32)) if self.track_back else positions

    def ids(self, first, seen):
        return None


Target = MaskTarget | KeypointTarget


def from_config(config: Mapping[str, Any]) -> Target:
    """Makes the target of a config's `keypoints`, or, if it has none, of its `labels`."""
    if 'keypoints' in config:
        return KeypointTarget(**config['keypoints'])
    settings = dict(config['labels'])
    return MaskTarget(settings.pop('encode'), **settings)
