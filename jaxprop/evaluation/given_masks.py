"""Labels a video from masks of one or several of its frames, with a confidence for each object.

A mask is the whole truth of its frame: its objects are those of the video until the next mask.
Frames after the last mask are labelled forwards from it, frames before the first one backwards.
Between two masks a frame is labelled from both sides, and the two labels are blended. Each pass
starts anew at its mask, and keeps the nearest other masks as context.

The video is labelled from one mask to the next. Labels of a backward pass wait in a temporary file,
so memory does not grow with the video's length.

Shapes: H, W feature cells, L labels, h, w pixels of a frame.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxprop import confidence
from jaxprop.affinity import l2_normalize
from jaxprop.blending import backward_share, blend, trust
from jaxprop.evaluation import any_order
from jaxprop.evaluation.labeller import Labeller, Plan, start_video
from jaxprop.propagation import give, init_context, propagate_step

# So many other masks are context of a pass at most: each costs as much as frame 0.
_MOST_GIVEN = 3


class LabelledFrame(NamedTuple):
    """A frame with its labels.

    Attributes:
      number: of the frame, from 0.
      ids: uint8 `[h, w]`, 0 for background.
      confidence: from 0 to 1, of each object that the video has there, by its id; 1 in a frame
        whose mask was given, and 0 for an object that is nowhere in the frame.
      cells: the confidence of each cell, float32 `[H, W]`.
    """

    number: int
    ids: np.ndarray
    confidence: dict[int, float]
    cells: np.ndarray


def label_with_masks(
    video: Any,
    masks: Mapping[int, np.ndarray],
    labeller: Labeller,
    *,
    first: int = 0,
    last: int | None = None,
    folder: str | os.PathLike | None = None,
) -> Iterator[LabelledFrame]:
    """Labels frames of a video from the masks of some of its frames.

    An object begins in the first frame whose mask has it, and has ended in a frame whose mask lacks
    it. Those of the first mask are also sought in the frames before it.

    Args:
      video: with name, size, num_frames and read_frame, as `jaxprop.data.video_files.open_video`
        returns it.
      masks: by the number of the frame, from 0: ids from 0 to 255 `[h, w]`, 0 for background. They
        may lie outside of `first` to `last`.
      labeller: labels the video; its target must be a `MaskTarget`.
      first, last: the numbers of the first and the last frame to label; None takes the video's
        last.
      folder: where temporary files are made; None takes the system's folder for them.

    Returns:
      An iterator over the frames from `first` to `last`, in order. It raises DataError where a
      frame can't be read.

    Raises:
      ValueError: there is no mask, none has an object, one is of another size than the video, or a
        number is not that of a frame.
      DataError: the source has no features of this video.
    """
    last = video.num_frames - 1 if last is None else last
    if not 0 <= first <= last < video.num_frames:
        raise ValueError(
            f'frames {first} to {last} are asked for; {video.name} has frames 0 to '
            f'{video.num_frames - 1}'
        )
    if not masks:
        raise ValueError('there is no mask; at least one frame needs one')
    masks = {number: np.asarray(mask) for number, mask in masks.items()}
    for number, mask in masks.items():
        if not 0 <= number < video.num_frames:
            raise ValueError(
                f'a mask is of frame {number}; {video.name} has frames 0 to {video.num_frames - 1}'
            )
        if mask.dtype.kind not in 'iub':
            raise ValueError(f'the mask of frame {number} is {mask.dtype}; it must hold integers')
        if mask.size and not 0 <= mask.min() <= mask.max() <= 255:
            wrong = mask.max() if mask.max() > 255 else mask.min()
            raise ValueError(f'the mask of frame {number} holds the id {wrong}; ids are 0 to 255')
        if mask.shape != tuple(video.size):
            raise ValueError(
                f'the mask of frame {number} is {mask.shape}, frames are {tuple(video.size)}'
            )
    work = _Work(video, {n: masks[n] for n in sorted(masks)}, labeller, folder)
    return work.label(range(first, last + 1))


class Carried(NamedTuple):
    """What was carried to a frame.

    Attributes:
      label: `[H, W, L]`.
      cells, objects: as of `jaxprop.confidence.Confidence`.
    """

    label: Any
    cells: Any
    objects: Any


class _Work:
    """The labelling of one video."""

    def __init__(self, video, masks, labeller, folder):
        self.video, self.masks, self.labeller, self.folder = video, masks, labeller, folder
        sizes, target = labeller.source.sizes(video), labeller.target
        values = np.unique([v for mask in masks.values() for v in target.values(mask, sizes.seen)])
        if len(values) < 2:
            raise ValueError('no mask has an object; at least one frame needs one')
        self.plan = Plan(sizes, values.astype(np.int32), target.num_labels(values))
        num_given = min(len(masks) - 1, _MOST_GIVEN)
        memory = dataclasses.replace(labeller.propagation.memory, num_given=num_given)
        self.method = dataclasses.replace(labeller.propagation, memory=memory)
        self.features = any_order.open_features(labeller.source, video, folder)
        # Features of the frames with masks, for the masks near the current frame.
        self.features_of = functools.lru_cache(_MOST_GIVEN + 2)(self._features_of)

    def label(self, wanted: range) -> Iterator[LabelledFrame]:
        """Labels the frames of these numbers, which ascend."""
        numbers = list(self.masks)
        for before, after in zip([None, *numbers], [*numbers, None]):
            if before in wanted:
                yield self._given(before)
            start = wanted.start if before is None else max(wanted.start, before + 1)
            stop = wanted.stop if after is None else min(wanted.stop, after)
            if start < stop:
                yield from self._between(before, after, range(start, stop))

    def _given(self, number):
        """The frame of a mask."""
        start = self._start(number, self._objects(number))
        ids = np.asarray(start.given).astype(np.uint8)
        found = dict.fromkeys(self._objects(number), 1.0)
        return LabelledFrame(number, ids, found, np.ones(self.plan.sizes.grid, np.float32))

    def _between(self, before, after, wanted):
        """Labels frames between two masks; one of the two may be None."""
        objects = self._objects(after if before is None else before)
        kept = any_order.KeptArrays(self.folder)
        if after is not None:
            numbers = range(after - 1, wanted.start - 1, -1)
            for number, found in self._carry(after, before, numbers, objects):
                kept.append(number, _pack(jax.device_get(found)))
        if before is None:
            carried = ((number, self._unpack(kept.read(number))) for number in wanted)
        else:
            carried = self._carry(before, after, range(before + 1, wanted.stop), objects)
        for number, found in carried:
            if number in wanted:
                if None not in (before, after):
                    position = (number - before) / (after - before)
                    found = _blend(found, self._unpack(kept.read(number)), position)
                yield self._labelled(number, found, objects)

    def _carry(self, start, towards, numbers, objects):
        """Carries the mask of frame `start` through frames, towards another mask or None.

        Yields:
          The frame's number and what was found there, which the device may still be computing.
        """
        method, execution = self.method, self.labeller.execution
        given = self._start(start, objects)
        features = self.features_of(start)
        context = _begin(features, given.labels, given.entry, method, execution)
        end = start if towards is None else towards
        others = sorted(set(self.masks) - {start}, key=lambda n: (abs(n - end), n))
        for slot, other in enumerate(others[: method.memory.num_given]):
            mask = self._start(other, objects)
            distance = (other - start) * numbers.step
            arrays = self.features_of(other), mask.labels, mask.entry
            context = _give(context, *arrays, method, slot, distance)
        # Hand out the labels of a batch while the device computes the next one.
        waiting = []
        for batch in self.features.read(numbers):
            found = []
            for number, frame in batch:
                context, label = _advance(context, frame, method, execution)
                given_frame = given.labels, features, method.normalize_features
                found.append((number, _judge(label, frame, *given_frame)))
            yield from waiting
            waiting = found
        yield from waiting

    def _labelled(self, number, found, objects):
        """Makes the frame of its soft label."""
        values = np.zeros(self.plan.num_labels, np.int32)
        values[: self.plan.values.size] = self.plan.values
        ids = _decode(found.label, values, self.labeller.target, self.plan.sizes)
        ids, cells, of_labels = jax.device_get((ids, found.cells, found.objects))
        ids = ids.astype(np.uint8)
        # What is nowhere in the frame may be hidden or lost: nothing shows which.
        seen = np.unique(ids)
        of_ids = dict(zip(self.plan.values.tolist(), of_labels.tolist()))
        confident = {value: of_ids[value] if value in seen else 0.0 for value in objects}
        return LabelledFrame(number, ids, confident, cells)

    def _unpack(self, array):
        """Makes again what `_pack` has made one array of."""
        (height, width), labels = self.plan.sizes.grid, self.plan.num_labels
        num_cells = height * width
        label, cells, objects = np.split(array.astype(np.float32), [num_cells * labels, -labels])
        return Carried(label.reshape(height, width, labels), cells.reshape(height, width), objects)

    def _start(self, number, objects):
        """The soft label and more of a mask's frame; other objects than these are background."""
        mask = np.asarray(self.masks[number], np.int32)
        mask = np.where(np.isin(mask, objects), mask, 0)
        return start_video(self.video.name, mask, self.plan, self.labeller)

    def _features_of(self, number):
        [[(_, features)]] = self.features.read(range(number, number + 1))
        if not np.isfinite(features).all():
            raise ValueError(
                f'{self.video.name}: features hold values that are not finite; check the input and '
                'weights'
            )
        return features

    def _objects(self, number):
        """The ids of the objects in a mask."""
        found = np.unique(self.masks[number])
        return [value for value in self.plan.values[1:].tolist() if value in found]


@functools.partial(jax.jit, static_argnames=('method', 'execution'))
def _begin(features, label, entry, method, execution):
    return init_context(features, label, method, entry=entry, execution=execution)


@functools.partial(jax.jit, static_argnames='method', donate_argnames='context')
def _give(context, features, label, entry, method, slot, number):
    return give(context, features, label, method, slot, number, entry=entry)


@functools.partial(jax.jit, static_argnames=('method', 'execution'), donate_argnames='context')
def _advance(context, features, method, execution):
    return propagate_step(context, features, method, execution=execution)


# This is a program of its own: within another one XLA would round the labels differently.
@functools.partial(jax.jit, static_argnames='normalize')
def _judge(label, features, given_label, given_features, normalize):
    """What is carried to a frame, judged by the frame of the mask from which it comes."""
    if normalize:
        features, given_features = map(l2_normalize, (features, given_features))
    return Carried(label, *confidence.of_frame(label, features, given_label, given_features))


@jax.jit
def _blend(forward, backward, position):
    trusted = trust(forward.label, backward.label, forward.objects, backward.objects)
    share = backward_share(*trusted, position)
    of_objects = backward_share(forward.objects, backward.objects, position)
    return Carried(
        blend(forward.label, backward.label, share),
        (1 - share) * forward.cells + share * backward.cells,
        (1 - of_objects) * forward.objects + of_objects * backward.objects,
    )


@functools.partial(jax.jit, static_argnames=('target', 'sizes'))
def _decode(label, values, target, sizes):
    return target.decode(label, values, sizes)


def _pack(carried):
    """Makes one array of small numbers of all arrays."""
    return np.concatenate([array.ravel() for array in carried]).astype(np.float16)
