"""Where the features of videos come from: the sources, and how a network computes them.

Shapes: D devices, B frames in one call of the network, h, w pixels of its input, H, W cells.
"""

import dataclasses
import functools
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxprop import color, parallel
from jaxprop.data.inputs import InputConfig, input_size, prepare_frame
from jaxprop.evaluation.networks import Network
from jaxprop.evaluation.targets import Sizes
from jaxprop.keypoints import cell_size
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
      arrays: in order: features `[H, W, C]`, or, of a source with a network, frames as
        `jaxprop.color.network_input` takes them. Raises DataError.
      variables: of the network, in place of its own; None for these.
      spans: how many frames each array stands for, the first of them frame 0; None: one each. They
        sum to the number of frames. Where that is not known they go on, and the last array stands
        for the frames that are left.
    """

    arrays: Iterator[np.ndarray]
    variables: Mapping[str, Any] | None = None
    spans: Iterable[int] | None = None


class FeatureSource(Protocol):
    """Where the features of videos come from.

    A video, to a source, has name, size (height, width), num_frames (None: not known), and, where
    the number is known, read_frame.

    Attributes:
      network: applied on the devices to the arrays of an opened video; None: these are features.
      color: what the network sees of them, see `jaxprop.color.network_input`.
      description: the identity of the source, recorded in every output, with 'name'.
      trained: False: outputs say that the features come from random weights.
      warnings: what every output says of the source, such as settings that differ from a card.
      batch: how many arrays are read, and features of frames computed, at a time.
    """

    network: Network | None
    color: str
    description: Mapping[str, Any]
    trained: bool
    warnings: Sequence[str]
    batch: int

    def settings(self) -> dict[str, Any]:
        """What is recorded beside the description, by the names of sections."""

    def sizes(self, video: Any) -> Sizes:
        """The sizes of a video's frames, as they are seen, and of its features. Raises DataError.

        It reads no frame.
        """

    def open(self, video: Any, frames: Iterator[np.ndarray]) -> OpenedVideo:
        """Opens a video. Raises DataError.

        Args:
          video: whose features are wanted.
          frames: its frames, uint8 RGB `[h, w, 3]`, in order. A source that needs them reads them
            as its arrays are asked for, `batch` at a time, and holds no others.
        """


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
        if network.color is None:
            note = (
                f'{name} does not say what it was trained to see; it is shown {self.color!r}, and '
                "--config.input.color= another (many networks of its kind: 'rgb_half')."
            )
            return [*network.warnings, note]
        note = f'input.color is {self.color!r}, {name} was trained to see {network.color!r}.'
        return [*network.warnings, note]

    def settings(self) -> dict[str, Any]:
        return {'input': {**dataclasses.asdict(self.input), 'color': self.color}}

    def sizes(self, video: Any) -> Sizes:
        frame_size = tuple(video.size)
        seen = input_size(*frame_size, self.input)
        model = self.network.model
        cell = cell_size(frame_size, seen, model.stride)
        return Sizes(frame_size, seen, _grid(model, seen, self.color), cell)

    def open(self, video: Any, frames: Iterator[np.ndarray]) -> OpenedVideo:
        variables = self.variables(video)
        prepared = (self.prepare(frame, video.size) for frame in frames)
        return OpenedVideo(prepared, None if variables is self.network.variables else variables)

    def prepare(self, frame: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
        """Brings a frame `[h, w, 3]` to the network's size. Raises ValueError for other sizes."""
        check_frame(frame, frame_size)
        size, lightness = input_size(*frame_size, self.input), self.color == 'lightness'
        precision, interpolation = self.input.precision, self.input.interpolation
        return prepare_frame(frame, size, precision, lightness, interpolation)

    def variables(self, video: Any) -> Mapping[str, Any]:
        """The network's variables; if it is untrained, with the batch statistics of this video.

        Args:
          video: with num_frames and read_frame. The network's own variables are taken where the
            number is None: frames that can be read once alone give no statistics beforehand.
        """
        network = self.network
        is_whole = network.trained or 'batch_stats' not in network.variables
        if is_whole or video.num_frames is None:
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

    def __init__(self, source: FeatureSource):
        self._source, self._lock = source, threading.Lock()
        self._opened, self._features, self._failed = None, [], None
        self.color, self.batch = source.color, source.batch
        self.description, self.trained = source.description, source.trained
        self.warnings = source.warnings
        self.settings, self.sizes = source.settings, source.sizes

    def open(self, video: Any, frames: Iterator[np.ndarray]) -> OpenedVideo:
        with self._lock:
            if self._opened is None:
                self._opened = open_features(self._source, video, frames)
        return OpenedVideo(self._arrays(), spans=self._opened.spans)

    def _arrays(self):
        for index in itertools.count():
            with self._lock:
                if index == len(self._features):
                    self._read_next()
                if index == len(self._features):
                    return
                feature = self._features[index]
            yield feature

    def _read_next(self):
        # An iterator that has failed is at its end: whoever asks later is told of the failure.
        if self._failed is not None:
            raise self._failed
        try:
            self._features += itertools.islice(self._opened.arrays, 1)
        except Exception as error:
            self._failed = error
            raise


def frames_of(video: Any) -> Iterator[np.ndarray]:
    """The frames of a video by its read_frame, one at a time. Raises DataError."""
    return (video.read_frame(index) for index in range(video.num_frames))


def check_frame(frame: np.ndarray, size: tuple[int, int]) -> None:
    """Raises ValueError where a frame has another (height, width) than its video."""
    if frame.shape[:2] != tuple(size):
        raise ValueError(f'a frame is {frame.shape[:2]}, the label map {tuple(size)}')


def cells_of(sizes: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    """(height, width) of a cell in pixels, where nothing but the features' grid tells it.

    A side is the whole number nearest to pixels / cells if so many pixels a cell give the grid,
    the last cell being left out or cut; else it is pixels / cells.

    Args:
      sizes: (height, width) in pixels.
      grid: (H, W) in cells.
    """

    def side(pixels, cells):
        whole = max(1, round(pixels / cells))
        return whole if cells in (pixels // whole, -(-pixels // whole)) else pixels / cells

    return side(sizes[0], grid[0]), side(sizes[1], grid[1])


def open_features(source: FeatureSource, video: Any, frames: Iterator[np.ndarray]) -> OpenedVideo:
    """Opens a video of any source as features on the host, in float32 or the network's type.

    Those of a network are computed on the first device, `source.batch` frames at a time.

    Args:
      source: of the features.
      video, frames: as `FeatureSource.open` takes them.
    """
    opened = source.open(video, frames)
    if source.network is None:
        return opened
    variables = source.network.variables if opened.variables is None else opened.variables
    on_device = parallel.put(stack([variables]))

    def computed():
        while batch := list(itertools.islice(opened.arrays, source.batch)):
            yield from compute_features(source, batch, on_device)

    return OpenedVideo(computed(), spans=opened.spans)


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
