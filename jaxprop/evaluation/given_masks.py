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
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxprop import confidence
from jaxprop.affinity import l2_normalize
from jaxprop.blending import backward_share, blend, trust
from jaxprop.evaluation import any_order
from jaxprop.evaluation.labeller import Labeller, Plan, start_video
from jaxprop.evaluation.targets import MaskTarget
from jaxprop.propagation import give, init_context, propagate_step

# So many other masks are context of a pass at most: each costs as much as frame 0.
_MOST_GIVEN = 3


class Place(NamedTuple):
    """A place in a video after which its labelling can go on, in another process too.

    Attributes:
      number: of the frame.
      start: the number of the frame whose mask has been carried to this one.
      context: the arrays of the context after this frame, on the host.
    """

    number: int
    start: int
    context: list[np.ndarray]


class LabelledFrame(NamedTuple):
    """A frame with its labels.

    Attributes:
      number: of the frame, from 0.
      ids: uint8 `[h, w]`, 0 for background.
      confidence: from 0 to 1, of each object that the video has there, by its id; 1 in a frame
        whose mask was given, and 0 for an object that is nowhere in the frame.
      cells: the confidence of each cell, float32 `[H, W]`.
      place: the place of this frame, in some of the frames if places are asked for, else None.
    """

    number: int
    ids: np.ndarray
    confidence: dict[int, float]
    cells: np.ndarray
    place: Place | None = None


def label_with_masks(
    video: Any,
    masks: Mapping[int, np.ndarray],
    labeller: Labeller,
    *,
    first: int = 0,
    last: int | None = None,
    folder: str | os.PathLike | None = None,
    after: Place | None = None,
    seconds_between_places: float | None = None,
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
      after: a place of an earlier call with the same arguments; only frames after it are labelled,
        and they get the same labels.
      seconds_between_places: so many seconds after the last place a frame that is labelled forwards
        gets one; None gives no places. A place is as large as a context.

    Returns:
      An iterator over the frames from `first` to `last`, in order. It raises DataError where a
      frame can't be read.

    Raises:
      ValueError: there is no mask, none has an object, one is of another size than the video, a
        number is not that of a frame, or the labeller's target is of joints.
      DataError: the source has no features of this video.
    """
    if not isinstance(labeller.target, MaskTarget):
        raise ValueError(
            f'the target is {type(labeller.target).__name__}; masks need a config with labels, '
            'such as synthetic or davis_crw'
        )
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
    work = _Work(
        video, {n: masks[n] for n in sorted(masks)}, labeller, folder, after, seconds_between_places
    )
    return work.label(range(first if after is None else after.number + 1, last + 1))


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

    def __init__(self, video, masks, labeller, folder, after, seconds_between_places):
        self.video, self.masks, self.labeller, self.folder = video, masks, labeller, folder
        self.after, self.seconds_between_places, self.last_place = (
            after,
            seconds_between_places,
            time.monotonic(),
        )
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
            for number, found, _ in self._carry(after, before, numbers, objects):
                kept.append(number, _pack(jax.device_get(found)))
        if before is None:
            carried = ((number, self._unpack(kept.read(number)), None) for number in wanted)
        else:
            carried = self._carry(before, after, range(before + 1, wanted.stop), objects)
        for number, found, place in carried:
            if number in wanted:
                if None not in (before, after):
                    position = (number - before) / (after - before)
                    found = _blend(found, self._unpack(kept.read(number)), position)
                yield self._labelled(number, found, objects)._replace(place=place)

    def _carry(self, start, towards, numbers, objects):
        """Carries the mask of frame `start` through frames, towards another mask or None.

        Yields:
          The frame's number; what was found there, which the device may still be computing; and a
          place or None.
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
        # Go on where an earlier call was.
        if self.after is not None and self.after.start == start and numbers.step > 0:
            context = jax.tree.unflatten(jax.tree.structure(context), self.after.context)
            context = jax.device_put(context)
            numbers = range(self.after.number + 1, numbers.stop)
        # Hand out the labels of a batch while the device computes the next one.
        waiting = []
        for batch in self.features.read(numbers):
            found = []
            for number, frame in batch:
                context, label = _advance(context, frame, method, execution)
                given_frame = given.labels, features, method.normalize_features
                found.append((number, _judge(label, frame, *given_frame), None))
            # Places lie between batches, so that a network sees the same batches from there on.
            if numbers.step > 0 and self._place_is_due():
                place = Place(number, start, jax.device_get(jax.tree.leaves(context)))
                found[-1] = *found[-1][:2], place
            yield from waiting
            waiting = found
        yield from waiting

    def _place_is_due(self):
        now = time.monotonic()
        if (
            self.seconds_between_places is None
            or now - self.last_place < self.seconds_between_places
        ):
            return False
        self.last_place = now
        return True

    def _labelled(self, number, found, objects):
        """Makes the frame of its soft label."""
        values = np.zeros(self.plan.num_labels, np.int32)
        values[: self.plan.values.size] = self.plan.values
        frame = self.video.read_frame(number) if self.labeller.target.needs_frame else None
        ids = _decode(found.label, values, self.labeller.target, self.plan.sizes, frame)
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
def _decode(label, values, target, sizes, frame):
    return target.decode(label, values, sizes, frame=frame)


def _pack(carried):
    """Makes one array of small numbers of all arrays."""
    return np.concatenate([array.ravel() for array in carried]).astype(np.float16)
