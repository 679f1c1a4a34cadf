"""Makes batches for training from videos and images on disk: reads, shuffles and shards them.

A batch holds uint8 arrays of one size; augmentation happens on the device, in the objective. The
seed and the place in the order of batches alone decide which example stands at a place, and its
random choices. So an iterator's state is little more than a number, a run can go on exactly where
it was, and several processes together read the same batches as one process would.
"""

import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import grain
import numpy as np

from jaxprop.data.clips import list_videos, read_frames
from jaxprop.data.image_files import decode_jpeg, list_image_classes, read_image, resize_to_cover
from jaxprop.data.inputs import resize_frame
from jaxprop.data.sampling import Sampling, make_sampling
from jaxprop.data.sequences import DataError

# If so many files, drawn at random one after another, are unreadable, the run stops.
_TRIES = 10
# So many unreadable files never stop a run, however small its folder, unless none are allowed.
_FEW = 2
_MOST = 1024  # The largest number of threads or processes that read.
_SHOWN = 5  # The number of unreadable files that an error lists.
# More than any run has. Of an endless number Grain cannot count the batches of one example.
_EPOCHS = 10**9


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Settings of the training data: which files are read, and how batches are made of them.

    Attributes:
      kind: 'videos': every folder of frames and every video file below `root`, at any depth
        (DAVIS's root/VIDEO/*.jpg, Kinetics's root/class/VIDEO.mp4). 'images': root/CLASS/*.jpg,
        ImageNet's layout. 'tfds': a data set built by one of `jaxprop.data.builders`.
      root: the folder; for 'tfds' that of the data set's version, which holds dataset_info.json.
      split: of a 'tfds' data set.
      num_frames: T, the frames of a video in an example. Batches of videos are {'frames': uint8
        `[B, T, h, w, 3]`}. If T is 1, the frame is taken at random, and batches are {'image': uint8
        `[B, h, w, 3]`}. Batches of images are that, too, with {'label': int32 `[B]`} added.
      sampling: how frames are chosen, see `jaxprop.data.sampling`: 'pair' (`max_gap`), 'clip'
        (`frame_gap`, `frame_rate`), 'drawn_gap' (`gaps`, `gap_odds`), 'offsets' (`offsets`) or
        'segments'. A video too short for it counts as unreadable. In a 'tfds' data set each record,
        a clip of up to 64 frames, counts as a video.
      max_gap, frame_gap, frame_rate, gaps, gap_odds, offsets: of the samplings that have them.
      examples_per_video: the number of examples that an epoch takes of each video.
      size: (height, width) to which a frame is brought.
      fit: 'cover' resizes frames at their aspect ratio and crops them, see `resize_to_cover`; the
        crop is at a random place, the same for all frames of an example. 'stretch' only resizes,
        bilinear.
      batch_size: of all processes and devices together.
      num_threads: the number of threads that read ahead; with 0 a batch is read when it is asked
        for.
      num_workers: the number of processes that read, each with `num_threads`; with 0 only this
        process reads.
      max_unreadable: the share of files that may be unreadable. Unless it is 0, two files may be in
        any case. An unreadable file is replaced by another at random; if there are more, the run
        stops.

    Raises:
      ValueError: a setting has another value than those above.
    """

    kind: str
    root: str
    batch_size: int
    size: tuple[int, int] = (256, 256)
    fit: str = 'cover'
    num_frames: int = 2
    sampling: str = 'pair'
    max_gap: int = 50
    frame_gap: int = 1
    frame_rate: float | None = None
    gaps: tuple[int, ...] = ()
    gap_odds: tuple[float, ...] = ()
    offsets: tuple[int, ...] = ()
    examples_per_video: int = 1
    split: str = 'train'
    num_threads: int = 16
    num_workers: int = 0
    max_unreadable: float = 0.05

    def __post_init__(self) -> None:
        for name in ('size', 'gaps', 'gap_odds', 'offsets'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind not in _SOURCES:
            raise ValueError(f'kind is {self.kind!r}; it must be one of {tuple(_SOURCES)}')
        if not self.root:
            raise ValueError('root is empty; it must be the folder that holds the data')
        self.chooser()
        if self.fit not in _FITS:
            raise ValueError(f'fit is {self.fit!r}; it must be one of {tuple(_FITS)}')
        if len(self.size) != 2 or any(type(n) is not int or n < 1 for n in self.size):
            raise ValueError(f'size is {self.size}; it must be (height, width), whole numbers')
        for name in ('num_threads', 'num_workers'):
            if not 0 <= getattr(self, name) <= _MOST:
                raise ValueError(f'{name} is {getattr(self, name)}; it must be from 0 to {_MOST}')
        if not 0 <= self.max_unreadable <= 1:
            raise ValueError(f'max_unreadable is {self.max_unreadable}; it must be from 0 to 1')
        for name in ('batch_size', 'max_gap', 'examples_per_video'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}; it must be at least 1')

    def chooser(self) -> Sampling:
        """Makes the sampling that chooses an example's frames.

        Raises:
          ValueError: the sampling refuses its settings.
        """
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return make_sampling(settings.pop('sampling'), **settings)


class Source(Protocol):
    """The files from which examples are read by index; a reader may choose frames at random."""

    is_video: bool

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names the file of an index for the list of unreadable files."""

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Reads the example of an index; raises DataError if it cannot be read."""


class BatchIterator:
    """An endless iterator of batches; `make_iterator` makes it.

    Args:
      dataset: yields the batches, each with the files that could not be read for it.
      num_files: the number of files that an epoch reads.
      max_unreadable: the share of them that may be unreadable.

    Attributes:
      examples_per_epoch: of all processes together.
      unreadable: the files that this process could not read so far: the reason by the file's name.
    """

    def __init__(
        self,
        dataset: grain.IterDataset,
        examples_per_epoch: int,
        num_files: int,
        max_unreadable: float,
    ) -> None:
        self._iterator = iter(dataset)
        self._num_files = num_files
        self._max_unreadable = max_unreadable
        self.examples_per_epoch = examples_per_epoch
        self.unreadable: dict[str, str] = {}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch of this process: a dict of arrays `[batch_size / processes, ...]`.

        Raises:
          DataError: too many files are unreadable; the message lists some of them.
        """
        try:
            batch, unreadable = next(self._iterator)
        except RuntimeError as error:
            if 'process was terminated' not in str(error):
                raise
            raise DataError(f'a process that reads data (num_workers) has died: {error}') from error
        self.unreadable.update(unreadable)
        allowed = max(_FEW, self._max_unreadable * self._num_files) if self._max_unreadable else 0
        if len(self.unreadable) > allowed:
            raise DataError(
                f'{len(self.unreadable)} of {self._num_files} files are unreadable so far, more '
                f'than the share of {self._max_unreadable} that max_unreadable allows (flag '
                '--config.data.max_unreadable):\n' + _first(self.unreadable.values())
            )
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the iterator's place in the order of batches, in values that JSON can write."""
        return {'position': self._iterator.get_state(), 'unreadable': dict(self.unreadable)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the place at which `get_state` was called."""
        self._iterator.set_state(state['position'])
        self.unreadable = dict(state['unreadable'])


class CombinedIterator:
    """An iterator over several iterators at once: a batch is a dict of their batches, by name."""

    def __init__(self, iterators: Mapping[str, BatchIterator]) -> None:
        self._iterators = dict(iterators)
        # Epochs of the iterators differ in length: the first iterator's are counted.
        self.examples_per_epoch = next(iter(self._iterators.values())).examples_per_epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return {name: next(iterator) for name, iterator in self._iterators.items()}

    def get_state(self) -> dict[str, Any]:
        return {name: iterator.get_state() for name, iterator in self._iterators.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name, iterator in self._iterators.items():
            iterator.set_state(state[name])


def unreadable_files(state: Mapping[str, Any]) -> dict[str, str]:
    """The examples that could not be read up to an iterator's state: name to reason."""
    if 'position' in state:
        return state['unreadable']
    return {name: why for part in state.values() for name, why in unreadable_files(part).items()}


def make_iterator(
    config: DatasetConfig, seed: int, process_index: int = 0, process_count: int = 1
) -> BatchIterator:
    """Makes the endless iterator of one process's batches; every epoch is shuffled anew.

    The processes' parts of a batch, one after the other, are the batch of a single process.

    Args:
      config: the settings of the data.
      seed: of the order and of every random choice.
      process_index, process_count: which part of each batch is wanted.

    Returns:
      The iterator; `DatasetConfig.num_frames` says what a batch holds.

    Raises:
      ValueError: the batch size is no multiple of the processes, or `root` holds too few examples
        for a batch.
      DataError: there is nothing to read in `root`.
    """
    if config.batch_size % process_count:
        raise ValueError(
            f'batch_size is {config.batch_size}; it must be a multiple of the {process_count} '
            'processes'
        )
    source = _SOURCES[config.kind](config)
    length = len(source) * (config.examples_per_video if source.is_video else 1)
    if length < config.batch_size:
        raise ValueError(
            f'{config.root} gives {length} examples an epoch, less than a batch of '
            f'{config.batch_size}: choose a smaller batch_size or a larger examples_per_video'
        )
    dataset = (
        grain.MapDataset.range(length)
        .seed(seed)
        .shuffle()
        .repeat(_EPOCHS)
        .random_map(_Read(source, config.size, _FITS[config.fit]))
        # A worker makes whole batches, so that the content of a batch does not depend on workers.
        .batch(config.batch_size // process_count, batch_fn=_stack)
    )
    # The parts of one global batch, for all processes, stand in a row: take this process's.
    dataset = dataset[process_index::process_count].to_iter_dataset(
        grain.ReadOptions(
            num_threads=config.num_threads, prefetch_buffer_size=max(1, config.num_threads)
        )
    )
    if config.num_workers:
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=config.num_workers, per_worker_buffer_size=2),
            worker_init_fn=_ignore_interrupts,
        )
    return BatchIterator(dataset, length, len(source), config.max_unreadable)


def _video_example(frames):
    return {'image': frames[0]} if len(frames) == 1 else {'frames': frames}


class _Videos:
    is_video = True

    def __init__(self, config: DatasetConfig) -> None:
        self._choose = config.chooser()
        self._paths = list_videos(config.root)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        choose = functools.partial(self._choose, rng=rng)
        return _video_example(read_frames(self._paths[index], choose))


class _Images:
    is_video = False

    def __init__(self, config: DatasetConfig) -> None:
        self._paths, self._labels, _ = list_image_classes(config.root)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return {'image': read_image(self._paths[index]), 'label': self._labels[index]}


class _BuiltDataset:
    """A data set that one of `jaxprop.data.builders` wrote: clips or images."""

    def __init__(self, config: DatasetConfig) -> None:
        import tensorflow_datasets as tfds  # Imported here: it is slow to load, and seldom needed.

        self._root, self._choose = config.root, config.chooser()
        try:
            builder = tfds.builder_from_directory(config.root)
        except OSError as error:
            raise DataError(
                f'{config.root}: is no data set that jaxprop.data.builders wrote; name the folder '
                'of its version, which holds dataset_info.json'
            ) from error
        try:
            builder.info.splits[config.split]
        except (KeyError, ValueError) as error:
            raise DataError(
                f'{config.root}: has no split {config.split!r}; it has '
                f'{", ".join(builder.info.splits)}'
            ) from error
        self.is_video = 'frames' in builder.info.features
        self._records = builder.as_data_source(split=config.split)

    def __len__(self) -> int:
        return len(self._records)

    def name(self, index: int) -> str:
        return f'record {index} of {self._root}'

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self._records[index]
        if not self.is_video:
            return {'image': record['image'], 'label': np.int32(record['label'])}
        frames = record['frames']
        chosen = self._choose(len(frames), None, rng)
        return _video_example([decode_jpeg(frames[index]) for index in chosen])


class _Read:
    """Reads the example of an index, and brings its frames to one size.

    If a file is unreadable, it tries others at random. It returns the example, and a dict of the
    files that it could not read with the reasons.
    """

    def __init__(
        self, source: Source, size: tuple[int, int], fit: Callable[..., np.ndarray]
    ) -> None:
        self._source = source
        self._size = size
        self._fit_one = fit

    def __call__(self, index: int, rng: np.random.Generator):
        unreadable = {}
        index %= len(self._source)
        for _ in range(_TRIES):
            try:
                example = self._source.read(index, rng)
            except DataError as error:
                name, reason = self._source.name(index), str(error)
                unreadable[name] = reason if name in reason else f'{name}: {reason}'
                index = int(rng.integers(len(self._source)))
            else:
                return self._fit(example, rng.random(2)), unreadable
        raise DataError(f'{_TRIES} files in a row are unreadable:\n' + _first(unreadable.values()))

    def _fit(self, example, position):
        fitted = dict(example)
        if 'image' in example:
            fitted['image'] = self._fit_one(example['image'], self._size, position)
        else:
            fitted['frames'] = np.stack(
                [self._fit_one(frame, self._size, position) for frame in example['frames']]
            )
        return fitted


def _stretch(image, size, position):
    del position
    return resize_frame(image, size)


def _first(reasons):
    """Lists the first of several reasons, a line each."""
    reasons = list(reasons)
    more = [f'and {len(reasons) - _SHOWN} more'] * (len(reasons) > _SHOWN)
    return '\n'.join((*reasons[:_SHOWN], *more))


def _ignore_interrupts(*_):
    """Makes a reading process ignore Ctrl-C: its parent gets it too, and decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stack(examples):
    batch = {name: np.stack([example[name] for example, _ in examples]) for name in examples[0][0]}
    return batch, {name: why for _, unreadable in examples for name, why in unreadable.items()}


_SOURCES = {'videos': _Videos, 'images': _Images, 'tfds': _BuiltDataset}
_FITS = {'cover': resize_to_cover, 'stretch': _stretch}
