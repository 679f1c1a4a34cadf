"""Labels several videos at a time: one on each device in step, by `pmap`, and several such rows.

All videos of a row advance by one frame at a time, so what is held does not grow with a video's
length; the place of a video that ends goes to the next one. Rows take turns with the devices. Each
is a run of the same compiled programs, and no program sees two videos of one device: under `vmap`
the softmax of a video is rounded differently from place to place, which turns ties of labels.
So a video's label maps are the same whatever is labelled beside it.

What a first frame is labelled with, and what soft labels become, is up to a codec.

Shapes: D devices, B frames in one call of the network, h, w pixels, L labels.
"""

import dataclasses
import functools
import itertools
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import parallel
from jaxprop.data.inputs import input_size
from jaxprop.evaluation.features import extract_features
from jaxprop.evaluation.targets import KeypointCodec, MaskCodec, Sizes
from jaxprop.keypoints import cell_size
from jaxprop.propagation import init_context, propagate_step

if typing.TYPE_CHECKING:
    from jaxprop.evaluation.run import Labeller


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
    """A video to be labelled.

    Attributes:
      name: for messages.
      size: (height, width) of its frames, in pixels.
      first: what the first frame is labelled with, as the codec has it.
      frames: uint8 RGB of the network's input size, the first one being that of `first`; or the
        network's features of these, `[H, W, C]`. The video is over where this ends.
      variables: in place of the network's own; None for these.
    """

    name: str
    size: tuple[int, int]
    first: np.ndarray
    frames: Iterator[np.ndarray]
    variables: Mapping[str, Any] | None = None


def label_videos(
    videos: Iterable[Video],
    labeller: 'Labeller',
    codec: MaskCodec | KeypointCodec,
    num_labels: int,
    *,
    num_devices: int = 1,
    videos_per_device: int = 1,
    first_device: int = 0,
) -> Iterator[list[tuple[Video, Any]]]:
    """Carries the first labels of videos through their frames.

    While the devices work on a batch of `labeller.feature_batch` frames of each video, the results
    of the batch before are handed out.

    Args:
      videos: of one frame size, none with more than `num_labels` labels; all with frames, or all
        with features.
      labeller: the factors.
      codec: what the labels stand for.
      num_labels: L, see the codec.
      num_devices: D, of this process's devices.
      videos_per_device: how many rows of D videos take turns.
      first_device: the number of the first one of the devices.

    Yields:
      For each step of a row the videos that advanced, with their predictions of one more frame, as
      the codec makes them. What is done when reading a frame raises is handed out first.

    Raises:
      ValueError: features of a first frame that are not finite; the message names the video.
    """
    videos = iter(videos)
    variables = parallel.put(_stack([labeller.network.variables] * num_devices), first=first_device)
    rows = [
        _label_row(videos, labeller, codec, variables, num_labels, num_devices, first_device)
        for _ in range(videos_per_device)
    ]
    while rows:
        for row in list(rows):
            step = next(row, None)
            if step is None:
                rows.remove(row)
            else:
                yield step


def _label_row(videos, labeller, codec, variables, num_labels, num_devices, first_device):
    """`label_videos` of one row. Arrays on the devices are `[D, ...]`."""
    network, config = labeller.network, labeller.propagation
    playing: list[Video | None] = [None] * num_devices
    values = np.zeros((num_devices, num_labels), np.int32)
    context, waiting = None, []
    put = functools.partial(parallel.put, first=first_device)
    map_devices = functools.partial(parallel.local_map, num_devices=num_devices, first=first_device)
    extract = map_devices(_extract, static=(0, 1))
    start = map_devices(_start, static=(0,), donate=(1,))
    advance = map_devices(_advance, static=(0, 1, 2), donate=(3,))

    while True:
        before = list(playing)
        try:
            batches = _next_frames(playing, videos, labeller.feature_batch)
        except BaseException:
            yield from _handed_out(waiting, codec)
            raise
        if not batches:
            break
        starting = [device for device in batches if playing[device] is not before[device]]
        if any(playing[device].variables is not None for device in starting):
            variables = put(
                _stack(
                    [
                        network.variables
                        if video is None or video.variables is None
                        else video.variables
                        for video in playing
                    ]
                )
            )
        frames = _stack_frames(batches, num_devices, labeller.feature_batch)
        if frames.dtype == np.uint8:
            features = extract(network.model, labeller.color, variables, put(frames))
        else:
            features = [put(frames[:, index]) for index in range(frames.shape[1])]

        steps = []
        for index in range(max(map(len, batches.values()))):
            moving = [device for device in batches if index < len(batches[device])]
            first = starting if index == 0 else []
            predictions, goes_on = None, len(first) < len(moving)
            if goes_on:
                context, predictions = advance(
                    config, codec, sizes, context, features[index], device_values
                )
            if first:
                size = tuple(playing[first[0]].size)
                seen = input_size(*size, labeller.input)
                sizes = Sizes(
                    size, seen, features[0].shape[1:3], cell_size(size, seen, network.model.stride)
                )
                first_labels = np.zeros((*features[0].shape[:3], num_labels), np.float32)
                boxes = None
                if config.restriction == 'track' and codec.has_boxes:
                    boxes = np.zeros((num_devices, num_labels, 4), np.int32)
                for device in first:
                    soft, own = codec.encode(playing[device].first, sizes)
                    # Labels that no object has stand for the background.
                    values[device] = np.pad(own, (0, num_labels - own.size))
                    first_labels[device][..., : own.size] = soft
                    if boxes is not None:
                        boxes[device][: own.size] = codec.boxes(playing[device].first, sizes)
                device_values = put(values.copy())
                is_first = np.isin(np.arange(num_devices), first)
                context, finite = start(
                    config,
                    context if goes_on else None,
                    features[0],
                    *put((first_labels, is_first, boxes)),
                )
                for device in first:
                    if not np.asarray(finite)[device]:
                        raise ValueError(
                            f'{playing[device].name}: features hold values that are not finite; '
                            'check the input and weights'
                        )
            steps.append(
                (predictions, [(device, playing[device], device in first) for device in moving])
            )
        yield from _handed_out(waiting, codec)
        waiting = steps
    yield from _handed_out(waiting, codec)


def put_variables(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """A network's variables as `compute_features` takes them, on the first device."""
    return parallel.put(_stack([variables]))


def compute_features(
    frames: list[np.ndarray], labeller: 'Labeller', variables: Mapping[str, Any]
) -> list[np.ndarray]:
    """The features `[H, W, C]` of each frame, which `label_videos` takes in place of the frames.

    Args:
      frames: uint8 RGB of the network's input size, at most `labeller.feature_batch`.
      labeller: the factors.
      variables: of the network, from `put_variables`.
    """
    extract = parallel.local_map(_extract, 1, static=(0, 1))
    features = extract(
        labeller.network.model,
        labeller.color,
        variables,
        parallel.put(_stack_frames({0: frames}, 1, labeller.feature_batch)),
    )
    return [np.asarray(feature[0]) for feature in features[: len(frames)]]


def _extract(model, color_space, variables, frames):
    """The features of each frame, `[H, W, C]`."""
    return tuple(extract_features(model, variables, frames, color_space=color_space))


def _advance(config, codec, sizes, context, features, values):
    """One frame: the new context, and the prediction."""
    context, label = propagate_step(context, features, config=config)
    return context, codec.decode(label, values, sizes)


def _start(config, context, features, first_label, is_first, boxes=None):
    """The context of a video that begins; `context`, if there is one, where none does.

    Returns:
      The context, and whether the features are finite.
    """
    new = init_context(features, first_label, config=config, boxes=boxes)
    if context is not None:
        new = jax.tree.map(lambda a, b: jnp.where(is_first, a, b), new, context)
    return new, jnp.all(jnp.isfinite(features))


def _next_frames(playing, videos, count):
    """The next `count` frames of each video, by device; fewer where it ends.

    The place of a video that has ended goes to the next one, in `playing`.
    """
    batches = {}
    for device, video in enumerate(playing):
        frames = [] if video is None else list(itertools.islice(video.frames, count))
        while not frames and (video := next(videos, None)) is not None:
            frames = list(itertools.islice(video.frames, count))
        playing[device] = video
        if frames:
            batches[device] = frames
    return batches


def _stack_frames(batches, num_devices, count):
    """`[D, B, ...]`; zeros where there is no video."""
    some = next(iter(batches.values()))[0]
    frames = np.zeros((num_devices, count, *some.shape), some.dtype)
    for device, batch in batches.items():
        # A short last batch is filled up, so that one compiled program serves all.
        frames[device] = np.stack(batch + batch[-1:] * (count - len(batch)))
    return frames


def _stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(trees))


def _handed_out(steps, codec):
    for predictions, moving in steps:
        predictions = jax.tree.map(np.asarray, predictions)
        yield [
            (
                video,
                codec.given(video.first)
                if is_first
                else jax.tree.map(lambda values: values[device], predictions),
            )
            for device, video, is_first in moving
        ]
