"""Labels videos on devices: a row is one video on each device, in step by `pmap`.

The caller pushes the next frames of a row's videos, and gets the predictions of the frames before.
All videos of a row advance by one frame at a time, so memory does not grow with a video's length.
Several rows take turns.

We do not `vmap` over videos: XLA then rounds the softmax differently for each batch position, and
nearly tied labels flip. One video per device and per program makes a video's masks independent of
the videos that are labelled beside it.

Shapes: D devices, B frames in one call of the network, H, W cells, L labels.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import parallel
from jaxprop.evaluation.features import FeatureSource, extract_each, stack, stack_frames
from jaxprop.evaluation.targets import Sizes, Target
from jaxprop.propagation import Propagation, give, init_context, propagate_step, remember
from jaxprop.rules.rule import Execution


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
    """A video to be labelled, before its first frame.

    Attributes:
      name: for messages.
      given: the prediction of the first frame, see `given` in `jaxprop.evaluation.targets`.
      labels: soft labels of the first frame, float32 `[H, W, L]`.
      values: the ids for which the labels stand, int32 `[L]`. Padding labels stand for the
        background.
      entry: the entry of the first frame in the rule's context, if the rule makes it of the label
        map and not of soft labels, see `Rule.init_from_ids`; else None.
      variables: of the network, in place of its own; None takes its own.
      later: by the number of a later frame, ids `[h, w]` of objects that appear in it, 0 elsewhere.
        There the ids are put over the prediction, and the result is taken as given. Each array of
        the video must then stand for one frame.
      take: makes of the annotation of any frame what `given` and `labels` are of the first one's;
        only needed for `later`.
    """

    name: str
    given: Any
    labels: np.ndarray
    values: np.ndarray
    entry: Any = None
    variables: Mapping[str, Any] | None = None
    later: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    take: Callable[[np.ndarray], tuple[Any, np.ndarray]] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One step of a row's videos: predictions, which the devices may still be computing.

    Attributes:
      predictions: of all devices, as arrays on the devices, or as a list of each device's on the
        host; None if no video went on.
      moved: of each device whose video advanced: its number, the video, and whether the step was
        the video's first.
    """

    predictions: Any
    moved: list[tuple[int, Video, bool]]

    def fetch(self) -> list[tuple[Video, Any]]:
        """Waits for the devices; returns the videos that advanced, each with its prediction."""
        predictions = self.predictions
        if not isinstance(predictions, list):
            predictions = jax.tree.map(np.asarray, predictions)
        return [
            (video, video.given if is_first else self._of(predictions, device))
            for device, video, is_first in self.moved
        ]

    @staticmethod
    def _of(predictions, device):
        return predictions[device] if isinstance(predictions, list) else _entry(predictions, device)


@dataclasses.dataclass(eq=False)
class _Row:
    """A row: one video on each device. Arrays on the devices are `[D, ...]`.

    Attributes:
      playing: the video of each device.
      times: how many frames of it were pushed.
      variables: of the network, on the devices.
      values: the ids for which the videos' labels stand, `[D, L]` on the host.
      device_values: the same values, on the devices.
      context: of the propagation, on the devices.
      waiting: the steps of the last push.
    """

    playing: list[Video | None]
    times: list[int]
    variables: Any
    values: np.ndarray
    device_values: Any = None
    context: Any = None
    waiting: list[Step] = dataclasses.field(default_factory=list)


class Stream:
    """Labels videos of one size, in one or more rows."""

    def __init__(
        self,
        source: FeatureSource,
        propagation: Propagation,
        target: Target,
        sizes: Sizes,
        num_labels: int,
        *,
        execution: Execution = Execution(),
        num_rows: int = 1,
        num_devices: int = 1,
        first_device: int = 0,
    ):
        """Prepares the devices.

        Args:
          source: of the arrays that are pushed.
          propagation: the method.
          target: makes predictions of soft labels.
          sizes: of every video.
          num_labels: L, of every video.
          execution: how the propagation is computed.
          num_rows: the number of rows, of D videos each, that take turns.
          num_devices: D, the number of this process's devices to use.
          first_device: the number of the first of these devices.

        Raises:
          ValueError: the target compares frames with frame 0, which the method does not keep.
        """
        if getattr(target, 'track_back', False) and not propagation.memory.keep_first:
            raise ValueError(
                'points are tracked back to frame 0, which must be context for the whole video: '
                'set propagation.keep_first to True'
            )
        self.source, self.network, self.propagation = source, source.network, propagation
        self.target, self.sizes, self.num_labels = target, sizes, num_labels
        self.execution = execution
        self.num_devices = num_devices
        self.put = functools.partial(parallel.put, first=first_device)
        map_devices = functools.partial(
            parallel.local_map, num_devices=num_devices, first=first_device
        )
        # The next features are computed beside the labels of the last frames.
        self.extract = parallel.beside(map_devices(extract_each, static=(0, 1)))
        self.start = map_devices(_start, static=(0, 1), donate=(2,))
        self.advance = map_devices(_advance, static=(0, 1, 2, 3), donate=(4,))
        self.predict = map_devices(_predict, static=(0, 1, 2, 3))
        self.insert = map_devices(_insert, static=(0, 1), donate=(2,))
        variables = None
        if self.network is not None:
            variables = self.put(stack([self.network.variables] * num_devices))
        self.rows = [
            _Row(
                [None] * num_devices,
                [0] * num_devices,
                variables,
                np.zeros((num_devices, num_labels), np.int32),
            )
            for _ in range(num_rows)
        ]

    def push(
        self,
        row: int,
        batches: Mapping[int, tuple[Video, list[np.ndarray]]],
        frames: Mapping[int, list[np.ndarray]] | None = None,
    ) -> list[Step]:
        """Puts the next frames of a row on the devices, and does not wait for them.

        Args:
          row: its number.
          batches: by the number of the device in the row, its video and the video's next arrays, as
            the source gives them, at most `source.batch`. If the video is another one than in the
            last push, it starts now, and its first array must be that of frame 0.
          frames: the frames of the same arrays, uint8 RGB `[h, w, 3]`, by the same numbers; None
            unless the target needs them.

        Returns:
          The steps of this row's last push. Fetch them while the devices work on this one.

        Raises:
          ValueError: features of a first frame are not finite; the message names the video.
        """
        # Compute the features of all frames of the batch.
        row = self.rows[row]
        starting = [d for d, (video, _) in batches.items() if video is not row.playing[d]]
        row.playing = [batches[d][0] if d in batches else None for d in range(self.num_devices)]
        for device in starting:
            row.times[device] = 0
        features = self._features(row, starting, {d: arrays for d, (_, arrays) in batches.items()})
        shown = None
        if self.target.needs_frame:
            shown = stack_frames(frames, self.num_devices, self.source.batch)
        # Propagate labels step by step; videos that start do so in the first step.
        steps = []
        for index in range(max(len(arrays) for _, arrays in batches.values())):
            moving = [d for d, (_, arrays) in batches.items() if index < len(arrays)]
            first = starting if index == 0 else []
            predictions, goes_on = None, len(first) < len(moving)
            appearing = {
                d: row.playing[d].later[row.times[d]]
                for d in moving
                if row.times[d] in row.playing[d].later
            }
            frame = None if shown is None else self.put(shown[:, index])
            if appearing:
                predictions = self._insert(row, features[index], appearing, frame)
            elif goes_on:
                row.context, predictions = self.advance(
                    self.propagation,
                    self.execution,
                    self.target,
                    self.sizes,
                    row.context,
                    features[index],
                    row.device_values,
                    frame,
                )
            if first:
                self._begin(row, first, features[0], goes_on)
            for device in moving:
                row.times[device] += 1
            steps.append(Step(predictions, [(d, row.playing[d], d in first) for d in moving]))
        steps, row.waiting = row.waiting, steps
        return steps

    def flush(self, row: int) -> list[Step]:
        """Returns the steps of this row's last push, and puts no new frames on the devices."""
        row = self.rows[row]
        steps, row.waiting = row.waiting, []
        return steps

    def _features(self, row, starting, arrays):
        """Computes the features of the frames, each `[D, H, W, C]`, on the devices."""
        stacked = stack_frames(arrays, self.num_devices, self.source.batch)
        if self.network is None:
            if stacked.shape[2:4] != tuple(self.sizes.grid):
                raise ValueError(
                    f'features are {list(stacked.shape[2:])}; the source says that their grid is '
                    f'{list(self.sizes.grid)}'
                )
            return [self.put(stacked[:, index]) for index in range(stacked.shape[1])]
        if any(row.playing[device].variables is not None for device in starting):
            row.variables = self.put(
                stack(
                    [
                        self.network.variables
                        if video is None or video.variables is None
                        else video.variables
                        for video in row.playing
                    ]
                )
            )
        return self.extract(self.network.model, self.source.color, row.variables, self.put(stacked))

    def _begin(self, row, first, features, goes_on):
        """Starts the videos of the devices in `first`; the context of videos that go on stays."""
        labels = np.zeros((*features.shape[:3], self.num_labels), np.float32)
        for device in first:
            video = row.playing[device]
            row.values[device], labels[device] = video.values, video.labels
        # `stack` needs an entry for every device. Devices whose videos go on get a copy of another
        # one's, which is not used.
        some = row.playing[first[0]].entry
        entries = [row.playing[d].entry if d in first else some for d in range(self.num_devices)]
        entry = None if some is None else stack(entries)
        row.device_values = self.put(row.values.copy())
        is_first = np.isin(np.arange(self.num_devices), first)
        row.context, finite = self.start(
            self.propagation,
            self.execution,
            row.context if goes_on else None,
            features,
            *self.put((labels, is_first, entry)),
        )
        finite = np.asarray(finite)
        for device in first:
            if not finite[device]:
                raise ValueError(
                    f'{row.playing[device].name}: features hold values that are not finite; check '
                    'the input and weights'
                )

    def _insert(self, row, features, appearing, frame):
        """Makes a step in which objects appear in the videos of some devices.

        Args:
          row: the row.
          features: of the step's frames.
          appearing: by the number of the device, the ids of the objects.
          frame: the frames themselves; None unless the target needs them.

        Returns:
          The predictions of all devices, on the host.
        """
        predictions = self.predict(
            self.propagation,
            self.execution,
            self.target,
            self.sizes,
            row.context,
            features,
            row.device_values,
            frame,
        )
        fetched = jax.device_get(predictions)
        predictions = [_entry(fetched, device) for device in range(self.num_devices)]
        labels = np.zeros((*features.shape[:3], self.num_labels), np.float32)
        slots = np.zeros(self.num_devices, np.int32)
        for device, ids in appearing.items():
            video = row.playing[device]
            merged = self.target.merge(predictions[device], ids)
            predictions[device], labels[device] = video.take(merged)
            slots[device] = sorted(video.later).index(row.times[device])
        is_given = np.isin(np.arange(self.num_devices), list(appearing))
        row.context = self.insert(
            self.propagation,
            self.execution,
            row.context,
            features,
            *self.put((labels, is_given, slots)),
        )
        return predictions


def _advance(propagation, execution, target, sizes, context, features, values, frame):
    """Propagates labels to one frame; returns the new context, and the prediction."""
    context, label = propagate_step(context, features, propagation, execution=execution)
    return context, target.decode(
        label, values, sizes, features=features, context=context, frame=frame
    )


def _predict(propagation, execution, target, sizes, context, features, values, frame):
    """Makes the prediction of a frame, and leaves the context as it is."""
    context, label = propagate_step(context, features, propagation, execution=execution)
    return target.decode(label, values, sizes, features=features, context=context, frame=frame)


def _insert(propagation, execution, context, features, given, is_given, slot):
    """Takes a frame into the context: with its given label if `is_given`, else the predicted.

    A frame with a given label is also kept, in one of the slots for such frames, if there are some.
    """
    predicted, _ = propagate_step(context, features, propagation, execution=execution)
    known = remember(context, features, given, propagation)
    if propagation.memory.num_given:
        known = give(known, features, given, propagation, slot, context.time)
    return jax.tree.map(lambda a, b: jnp.where(is_given, a, b), known, predicted)


def _start(propagation, execution, context, features, first_label, is_first, entry=None):
    """Makes the context of a device: new if its video begins (`is_first`), else `context`.

    Returns:
      The context, and whether the features are finite.
    """
    new = init_context(features, first_label, propagation, entry=entry, execution=execution)
    if context is not None:
        new = jax.tree.map(lambda a, b: jnp.where(is_first, a, b), new, context)
    return new, jnp.all(jnp.isfinite(features))


def _entry(tree, index):
    return jax.tree.map(lambda values: values[index], tree)
