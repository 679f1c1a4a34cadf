"""The interface of feature sources, and the source that computes features by a network.

Shapes: D devices, B frames in one call of the network, h, w pixels of its input, H, W cells.
"""

import collections
import concurrent.futures
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

# The batch statistics of an untrained network are those of so many frames, evenly over the video.
_STATISTICS_FRAMES = 8


_estimate_statistics = jax.jit(
    lambda model, variables, frames, color_space: estimate_batch_statistics(
        model, variables, color.network_input(frames, color_space)
    ),
    static_argnums=(0, 3),
)


class OpenedVideo(NamedTuple):
    """A video as a source opens it: its features, or the frames of which a network computes them.

    Attributes:
      arrays: an iterator over features `[H, W, C]` in order of time. If the source has a network,
        they are frames instead, as `jaxprop.color.network_input` takes them. It raises DataError.
      variables: of the network, in place of its own; None takes its own.
      spans: the number of frames for which each array stands, from frame 0 on; None if each stands
        for one. They sum to the number of frames. If that is not known, the spans do not end, and
        the last array stands for the frames that are left.
    """

    arrays: Iterator[np.ndarray]
    variables: Mapping[str, Any] | None = None
    spans: Iterable[int] | None = None


class FeatureSource(Protocol):
    """A source of the features of videos.

    A source uses these attributes of a video: name, size (height, width), num_frames (None if it is
    not known), and read_frame if num_frames is known.

    Attributes:
      network: the network that is applied, on the devices, to the arrays of an opened video; None
        if these are features.
      color: the colours that the network sees, see `jaxprop.color.network_input`.
      description: the identity of the source with its 'name', recorded in every output.
      trained: whether the weights are trained; if not, outputs say that they are random.
      warnings: sentences about the source for every output, such as settings that differ from a
        card.
      batch: the number of arrays that are read, and of frames whose features are computed, at a
        time.
    """

    network: Network | None
    color: str
    description: Mapping[str, Any]
    trained: bool
    warnings: Sequence[str]
    batch: int

    def settings(self) -> dict[str, Any]:
        """Returns the settings that are recorded beside the description, by config sections."""

    def sizes(self, video: Any) -> Sizes:
        """Returns the sizes of a video's frames, of the network's input and of the features.

        It reads no frame. It raises DataError.
        """

    def open(self, video: Any, frames: Iterator[np.ndarray]) -> OpenedVideo:
        """Opens a video. It raises DataError.

        Args:
          video: the video.
          frames: an iterator over its frames, uint8 RGB `[h, w, 3]`, in order. A source that needs
            frames reads them only when its arrays are asked for, and holds at most `batch`.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkFeatures:
    """The features of a network: the `FeatureSource` that configs describe.

    Attributes:
      network: the network with its variables.
      input: how frames are resized for the network.
      color: the colours that the network sees, see `jaxprop.color.network_input`.
      batch: the number of frames in one call of the network.
    """

    network: Network
    input: InputConfig = InputConfig()
    color: str = 'rgb'
    batch: int = 2

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
        """Returns the network's variables; if it is untrained, with this video's batch statistics.

        Args:
          video: with num_frames and read_frame. If num_frames is None, the network's own variables
            are returned: frames that can be read only once give no statistics beforehand.
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
    """A source that keeps the features of one video once another source has computed them.

    Features are computed when they are first asked for. Several evaluations of the same video can
    share the source, in threads and on any device.
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
        # An iterator that has failed is at its end, so every later call raises the failure again.
        if self._failed is not None:
            raise self._failed
        try:
            self._features += itertools.islice(self._opened.arrays, 1)
        except Exception as error:
            self._failed = error
            raise


def frames_of(video: Any, num_threads: int = 0) -> Iterator[np.ndarray]:
    """Reads the frames of a video by its read_frame, in order. It raises DataError.

    Args:
      video: with num_frames and read_frame.
      num_threads: so many threads read as many frames before they are asked for. 0: a frame is read
        when it is asked for.
    """
    numbers = iter(range(video.num_frames))
    if not num_threads:
        yield from map(video.read_frame, numbers)
        return
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)

    def start(count):
        return [pool.submit(video.read_frame, t) for t in itertools.islice(numbers, count)]

    try:
        reading = collections.deque(start(num_threads))
        while reading:
            frame = reading.popleft().result()
            reading.extend(start(1))
            yield frame
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def check_frame(frame: np.ndarray, size: tuple[int, int]) -> None:
    """Raises ValueError if a frame has another (height, width) than its video."""
    if frame.shape[:2] != tuple(size):
        raise ValueError(f'a frame is {frame.shape[:2]}, the label map {tuple(size)}')


def cells_of(sizes: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    """Computes (height, width) of a cell in pixels from nothing but the features' grid.

    A side is the whole number nearest to pixels / cells, if cells of this side give the grid when
    an incomplete last cell is left out or kept. Else the side is pixels / cells.

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

    A network's features are computed on the first device, `source.batch` frames at a time.

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
    """Computes the features `[H, W, C]` of each frame, and brings them to the host.

    Args:
      source: the source that has the network.
      frames: as the source prepares them, at most `source.batch`.
      variables: of the network `[1, ...]`, on the first device.
    """
    extract = parallel.local_map(extract_each, 1, static=(0, 1))
    inputs = parallel.put(stack_frames({0: frames}, 1, source.batch))
    features = extract(source.network.model, source.color, variables, inputs)
    return [np.asarray(feature[0]) for feature in features[: len(frames)]]


def extract_each(model, color_space, variables, frames):
    """Computes the features `[H, W, C]` of each of the frames `[B, h, w, 3 or 1]`, as a tuple."""
    return tuple(extract_features(model, variables, frames, color_space=color_space))


@functools.partial(jax.jit, static_argnames=('model', 'color_space'))
def extract_features(model, variables, frames, *, color_space):
    """Computes features `[B, H, W, C]` of frames `[B, h, w, 3 or 1]` of `color.network_input`."""
    return model.apply(variables, color.network_input(frames, color_space))


def stack(trees: list[Any]) -> Any:
    """Stacks trees of arrays to one tree of NumPy arrays `[D, ...]`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(trees))


def stack_frames(
    batches: Mapping[int, list[np.ndarray]], num_devices: int, count: int
) -> np.ndarray:
    """Stacks the arrays of devices to one `[D, B, ...]`; a device without arrays gets zeros.

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
    """Computes (H, W) of a model's features from shapes alone."""

    def features(frames):
        inputs = color.network_input(frames, color_space)
        return model.init_with_output(jax.random.key(0), inputs)[0]

    return jax.eval_shape(features, jax.ShapeDtypeStruct((1, *size, 3), np.uint8)).shape[1:3]
