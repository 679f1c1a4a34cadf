"""Where the features of videos come from: the sources, and how a network computes them.

Shapes: D devices, B frames in one call of the network, h, w pixels of its input, H, W cells.
"""

import dataclasses
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxprop import color, parallel
from jaxprop.data.inputs import InputConfig, input_size, prepare_frame
from jaxprop.evaluation.networks import Network
from jaxprop.models import estimate_batch_statistics

# Frames from which an untrained network's batch statistics are taken, evenly over the video.
_STATISTICS_FRAMES = 8


_estimate_statistics = jax.jit(
    lambda model, variables, frames, color_space: estimate_batch_statistics(
        model, variables, color.network_input(frames, color_space)
    ),
    static_argnums=(0, 3),
)


class OpenedVideo(NamedTuple):
    """A video as a source opens it.

    Attributes:
      arrays: one for each frame, in order: features `[H, W, C]`, or, of a source with a network,
        a frame as `jaxprop.color.network_input` takes it. Raises DataError.
      variables: of the network, in place of its own; None for these.
    """

    arrays: Iterator[np.ndarray]
    variables: Mapping[str, Any] | None = None


class FeatureSource(Protocol):
    """Where the features of videos come from.

    Attributes:
      network: applied on the devices to the arrays of an opened video; None: these are features.
      color: what the network sees of them, see `jaxprop.color.network_input`.
      description: the identity of the source, recorded in every output, with 'name'.
      trained: False: outputs say that the features come from random weights.
      warnings: what every output says of the source, such as settings that differ from a card.
      stride: pixels of the frame, at the size where it is seen, in a side of a cell.
      batch: how many frames are read, and their features computed, at a time.
    """

    network: Network | None
    color: str
    description: Mapping[str, Any]
    trained: bool
    warnings: Sequence[str]
    stride: int
    batch: int

    def settings(self) -> dict[str, Any]:
        """What is recorded beside the description, by the names of sections."""

    def seen_size(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which a frame of this size is seen."""

    def grid(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the features of a frame of this size."""

    def open(self, video: Any) -> OpenedVideo:
        """Opens a video that has name, num_frames, size and read_frame. Raises DataError."""


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkFeatures:
    """The features of a network: the `FeatureSource` that configs describe.

    Attributes:
      network: with its variables.
      input: the frames' size in the network.
      color: what the network sees, see `jaxprop.color.network_input`.
      batch: frames in one call of the network.
    """

    network: Network
    input: InputConfig = InputConfig()
    color: str = 'rgb'
    batch: int = 4

    def __post_init__(self):
        if self.batch < 1:
            raise ValueError(f'feature_batch is {self.batch}; it must be at least 1')
        color.network_input(np.zeros((1, 1, 3), np.uint8), self.color)  # Raises for a wrong color.

    @property
    def description(self) -> Mapping[str, Any]:
        return self.network.description

    @property
    def trained(self) -> bool:
        return self.network.trained

    @property
    def warnings(self) -> Sequence[str]:
        network = self.network
        if not network.trained or self.color == network.color:
            return network.warnings
        name = network.description['name']
        note = f'input.color is {self.color!r}, {name} was trained to see {network.color!r}.'
        return [*network.warnings, note]

    @property
    def stride(self) -> int:
        return self.network.model.stride

    def settings(self) -> dict[str, Any]:
        return {'input': {**dataclasses.asdict(self.input), 'color': self.color}}

    def seen_size(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        return input_size(*frame_size, self.input)

    def grid(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        return _grid(self.network.model, self.seen_size(frame_size), self.color)

    def open(self, video: Any) -> OpenedVideo:
        variables = self.variables(video)
        frames = (self.read(video, index) for index in range(video.num_frames))
        return OpenedVideo(frames, None if variables is self.network.variables else variables)

    def read(self, video: Any, index: int) -> np.ndarray:
        """A frame of a video at the network's size, see `prepare_frame`. Raises DataError."""
        return self.prepare(video.read_frame(index), video.size)

    def prepare(self, frame: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
        """Brings a frame `[h, w, 3]` to the network's size. Raises ValueError for other sizes."""
        if frame.shape[:2] != tuple(frame_size):
            raise ValueError(f'a frame is {frame.shape[:2]}, the label map {frame_size}')
        size, lightness = self.seen_size(frame_size), self.color == 'lightness'
        precision, interpolation = self.input.precision, self.input.interpolation
        return prepare_frame(frame, size, precision, lightness, interpolation)

    def variables(self, video: Any) -> Mapping[str, Any]:
        """The network's variables; if it is untrained, with the batch statistics of this video.

        Args:
          video: with read_frame and num_frames.
        """
        network = self.network
        if network.trained or 'batch_stats' not in network.variables:
            return network.variables
        ends = 0, video.num_frames - 1
        chosen = np.unique(np.linspace(*ends, _STATISTICS_FRAMES).round().astype(int))
        frames = [video.read_frame(int(t)) for t in chosen]
        size = frames[0].shape[:2]
        inputs = np.stack([self.prepare(frame, size) for frame in frames])
        return _estimate_statistics(network.model, network.variables, inputs, self.color)


class KeptFeatures:
    """The features of one video, computed when they are first asked for, and kept.

    A source that several evaluations of the same video can share, in threads and on any device.
    """

    network = None

    def __init__(self, source: NetworkFeatures):
        self._source, self._lock = source, threading.Lock()
        self._variables, self._features = None, []
        self.color, self.batch = source.color, source.batch
        self.description, self.trained = source.description, source.trained
        self.warnings, self.stride = source.warnings, source.stride
        self.settings = source.settings
        self.seen_size, self.grid = source.seen_size, source.grid

    def open(self, video: Any) -> OpenedVideo:
        return OpenedVideo(self._feature(video, index) for index in range(video.num_frames))

    def _feature(self, video, index):
        source = self._source
        with self._lock:
            if self._variables is None:
                self._variables = parallel.put(stack([source.variables(video)]))
            while len(self._features) <= index:
                start = len(self._features)
                stop = min(start + self.batch, video.num_frames)
                frames = [source.read(video, t) for t in range(start, stop)]
                self._features += compute_features(source, frames, self._variables)
            return self._features[index]


def compute_features(
    source: NetworkFeatures, frames: list[np.ndarray], variables: Mapping[str, Any]
) -> list[np.ndarray]:
    """The features `[H, W, C]` of each frame, on the host.

    Args:
      source: of the network.
      frames: as the source prepares them, at most `source.batch`.
      variables: of the network `[1, ...]`, on the first device.
    """
    extract = parallel.local_map(extract_each, 1, static=(0, 1))
    inputs = parallel.put(stack_frames({0: frames}, 1, source.batch))
    features = extract(source.network.model, source.color, variables, inputs)
    return [np.asarray(feature[0]) for feature in features[: len(frames)]]


def extract_each(model, color_space, variables, frames):
    """The features `[H, W, C]` of each of the frames `[B, h, w, 3 or 1]`."""
    return tuple(extract_features(model, variables, frames, color_space=color_space))


@functools.partial(jax.jit, static_argnames=('model', 'color_space'))
def extract_features(model, variables, frames, *, color_space):
    """Features `[B, H, W, C]` of frames `[B, h, w, 3 or 1]`, see `color.network_input`."""
    return model.apply(variables, color.network_input(frames, color_space))


def stack(trees: list[Any]) -> Any:
    """Trees of arrays as one tree of NumPy arrays `[D, ...]`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(trees))


def stack_frames(
    batches: Mapping[int, list[np.ndarray]], num_devices: int, count: int
) -> np.ndarray:
    """Arrays of devices as one `[D, B, ...]`; zeros where a device has none.

    Args:
      batches: by the number of the device, at most `count` arrays each.
      num_devices: D.
      count: B. The last array of a short batch is repeated, so that one program serves all.
    """
    some = next(iter(batches.values()))[0]
    frames = np.zeros((num_devices, count, *some.shape), some.dtype)
    for device, batch in batches.items():
        frames[device] = np.stack(batch + batch[-1:] * (count - len(batch)))
    return frames


@functools.lru_cache
def _grid(model, size, color_space):
    """(H, W) of a model's features, from shapes alone."""

    def features(frames):
        inputs = color.network_input(frames, color_space)
        return model.init_with_output(jax.random.key(0), inputs)[0]

    return jax.eval_shape(features, jax.ShapeDtypeStruct((1, *size, 3), np.uint8)).shape[1:3]
