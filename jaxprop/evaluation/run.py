"""From a labelled sequence to predictions and scores: what `evaluate.py` and `propagate.py` do.

`Labeller` holds every factor between a video's frames and its predictions; `label_frames` carries a
first label map through frames as they come, in constant memory; `evaluate` does a whole benchmark.
"""

import collections
import concurrent.futures
import dataclasses
import json
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxprop import parallel
from jaxprop.data.inputs import InputConfig, input_size, resize_frame
from jaxprop.data.sequences import DataError, KeypointSequence, LabelledSequence
from jaxprop.evaluation.benchmarks import Benchmark, Objects
from jaxprop.evaluation.features import Network, load_network, video_variables
from jaxprop.evaluation.results import (
    partial_path,
    prediction_path,
    provenance,
    record_path,
    remove,
    skipped_path,
    write_csv,
)
from jaxprop.evaluation.stream import Video, label_videos
from jaxprop.evaluation.targets import KeypointCodec, MaskCodec
from jaxprop.files import claim, write_json
from jaxprop.propagation import PropagationConfig
from jaxprop.report import page


@dataclasses.dataclass(frozen=True)
class Labeller:
    """Every factor between frames and predictions.

    Attributes:
      network: the features.
      propagation: the factors of propagation.
      input: the frames' size in the network.
      color: what the network sees, see `jaxprop.color.network_input`.
      encode, min_max, decode_at, resize_first: of label maps, see `MaskCodec`.
      keypoints: what labels stand for where they are joints, in place of these four.
      feature_batch: frames in one call of the network.
    """

    network: Network
    propagation: PropagationConfig
    input: InputConfig = InputConfig()
    color: str = 'rgb'
    encode: str = 'bilinear'
    min_max: bool = False
    decode_at: str = 'frame'
    resize_first: str | None = None
    keypoints: KeypointCodec | None = None
    feature_batch: int = 4

    def __post_init__(self):
        _ = self.codec  # Raises ValueError for settings that it cannot have.
        if self.feature_batch < 1:
            raise ValueError(f'feature_batch is {self.feature_batch}; it must be at least 1')

    @property
    def codec(self) -> MaskCodec | KeypointCodec:
        """What labels stand for."""
        if self.keypoints is not None:
            return self.keypoints
        return MaskCodec(self.encode, self.min_max, self.decode_at, self.resize_first)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], network: Network | None = None) -> 'Labeller':
        """From a config in configs/eval: its `network`, `input`, `propagation`, and `labels` or
        `keypoints`; the network is not loaded again if it is given."""
        network = network or load_network(**config['network'])
        size = dict(config['input'])
        seen = size.pop('color') or network.color
        if 'keypoints' in config:
            meaning = {'keypoints': KeypointCodec(**config['keypoints'])}
        else:
            meaning = config['labels']
        return cls(
            network,
            PropagationConfig(**config['propagation']),
            InputConfig(**size),
            seen,
            **meaning,
            feature_batch=config['feature_batch'],
        )

    def settings(self) -> dict[str, Any]:
        """Every factor by name, as plain values for JSON."""
        if self.keypoints is not None:
            meaning = {'keypoints': dataclasses.asdict(self.keypoints)}
        else:
            meaning = {
                'labels': {
                    'encode': self.encode,
                    'min_max': self.min_max,
                    'decode_at': self.decode_at,
                    **({} if self.resize_first is None else {'resize_first': self.resize_first}),
                }
            }
        return {
            'propagation': dataclasses.asdict(self.propagation),
            'input': {**dataclasses.asdict(self.input), 'color': self.color},
            **meaning,
            'feature_batch': self.feature_batch,
        }


def label_frames(
    frames: Iterable[np.ndarray],
    first_ids: np.ndarray,
    labeller: Labeller,
    variables: Mapping[str, Any] | None = None,
) -> Iterator[np.ndarray]:
    """Carries a label map through a video, one frame at a time.

    Args:
      frames: uint8 RGB `[h, w, 3]`, the first one being that of `first_ids`.
      first_ids: label map `[h, w]`, 0 background; ids need not be contiguous.
      labeller: the factors.
      variables: in place of the network's own.

    Yields:
      For each frame a label map `[h, w]` int32; for the first one `first_ids` itself.

    Raises:
      ValueError: frames of different sizes; features of the first frame that are not finite.
    """
    prepared = (_prepare(frame, first_ids.shape, labeller) for frame in frames)
    video = Video('the video', first_ids.shape, first_ids, prepared, variables)
    num_labels = labeller.codec.num_labels(first_ids, input_size(*first_ids.shape, labeller.input))
    for step in label_videos([video], labeller, labeller.codec, num_labels):
        for _, ids in step:
            yield ids


def evaluate(
    sequences: Iterable[tuple[str, Callable[[], LabelledSequence | KeypointSequence]]],
    labeller: Labeller,
    output: pathlib.Path,
    *,
    benchmark: Benchmark = Objects(),
    title: str,
    dataset: Mapping[str, Any],
    skip_bad: bool = False,
    report_frames: int = 40,
    videos_per_device: int = 1,
) -> dict[str, Any]:
    """Labels and scores every sequence, and writes the results.

    A sequence is finished when `output/sequences/NAME.json` exists; a later call with the same
    settings goes on with the others. Everything is written under another name and then renamed.

    Sequences of one frame size and similar numbers of objects are labelled together, on all devices
    of this process, see `label_videos`; frames are read, and predictions written and scored,
    meanwhile. Of several processes, which must share `output`, each labels its part of the
    sequences, and the first one writes the results of all.

    Args:
      sequences: names, and functions that open them (raising DataError).
      labeller: the factors.
      output: the folder: `masks/NAME/00000.png` (palette PNGs as DAVIS has them) or
        `keypoints/NAME.json`, `metrics.json`, `per_sequence.csv`, `report.html`.
      benchmark: what is labelled, and how it is scored; DAVIS's way if not given.
      title: of the report.
      dataset: how the sequences were chosen, to be recorded.
      skip_bad: list a sequence that raises DataError with its reason, and go on.
      report_frames: how many frames of a sequence the report shows.
      videos_per_device: how many videos a device labels at a time; the same masks.

    Returns:
      What `metrics.json` holds. A sequence's seconds are its share of the time: that of each step
      goes to the videos that advanced in it, in equal parts.

    Raises:
      DataError: a sequence that cannot be used, unless `skip_bad`.
      ValueError: `output` holds results of other settings; features are not finite;
        `videos_per_device` is below 1.
    """
    if videos_per_device < 1:
        raise ValueError(f'videos_per_device is {videos_per_device}; it must be at least 1')
    # Opening checks every file: once for labelling and for the report.
    sequences = [(name, opened_once(open_sequence)) for name, open_sequence in sequences]
    settings = {
        'dataset': dict(dataset),
        'network': labeller.network.description,
        **labeller.settings(),
        **benchmark.settings(),
    }
    claim(output / 'settings.json', settings, write=parallel.is_writer())
    started = time.time()
    waits = label_sequences(
        parallel.own_part(sequences),
        benchmark,
        labeller,
        output,
        skip_bad=skip_bad,
        videos_per_device=videos_per_device,
    )
    parallel.wait_for_all()
    skipped, records, previews = [], {}, []
    for name, open_sequence in sequences:
        try:
            if (reason := skipped_path(output, name)).exists():
                raise DataError(json.loads(reason.read_text())['reason'])
            record = json.loads(record_path(output, name).read_text())
            if parallel.is_writer():
                sequence, path = open_sequence(), prediction_path(output, benchmark, name)
                chosen = evenly(sequence.num_frames, report_frames)
                previews.append(benchmark.shown(path, sequence, record, chosen))
            records[name] = record
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append({'sequence': name, 'reason': str(error)})
    scored = {name: record for name, record in records.items() if benchmark.is_scored(record)}
    warnings = list(labeller.network.warnings)
    if skipped:
        warnings.append(f'{len(skipped)} of {len(sequences)} sequences were skipped.')
    unscored = [name for name in records if name not in scored]
    if unscored:
        warnings.append(f'Not scored, for lack of annotations: {", ".join(unscored)}.')
    metrics = {
        'title': title,
        **(benchmark.results(scored) if scored else {'summary': {}, 'per_sequence': []}),
        'skipped': skipped,
        'unscored': unscored,
        'network': {'trained': labeller.network.trained, **labeller.network.description},
        'settings': {**settings, 'videos_per_device': videos_per_device},
        'provenance': provenance(),
        'timing': {
            'this run, seconds': round(time.time() - started, 1),
            'labelling, seconds': round(sum(r['seconds'] for r in records.values()), 1),
            'frames labelled': sum(r['num_frames'] - 1 for r in records.values()),
            **{f'waiting for {what}, seconds': round(waits[what], 1) for what in sorted(waits)},
        },
        'warnings': warnings,
    }
    if parallel.is_writer():
        write_json(output / 'metrics.json', metrics)
        network = labeller.network.description['name']
        write_csv(
            output / 'per_sequence.csv',
            [{**row, 'network': network} for row in metrics['per_sequence']],
        )
        page.write_report(output / 'report.html', metrics, previews)
    parallel.wait_for_all()
    return metrics


def label_sequences(
    sequences: Iterable[tuple[str, Callable[[], LabelledSequence | KeypointSequence]]],
    benchmark: Benchmark,
    labeller: Labeller,
    output: pathlib.Path,
    *,
    skip_bad: bool = False,
    videos_per_device: int = 1,
    features: Callable[[int, int], list[np.ndarray]] | None = None,
    device: int | None = None,
) -> Mapping[str, float]:
    """Labels and scores those of these sequences that are not finished, see `evaluate`.

    Args:
      sequences, benchmark, labeller, output, skip_bad, videos_per_device: as for `evaluate`.
      features: of the only sequence, where they are known: a function of the first and the last
        frame's number, the latter excluded.
      device: the number of the only device to use, silently; None for all of them.

    Returns:
      The seconds spent waiting, by what for: 'frames' to be read, 'predictions' to be written.
    """
    waits = collections.Counter({'frames': 0.0, 'predictions': 0.0})
    skipped, codec = set(), benchmark.codec(labeller.codec)

    def skip(name, error):
        if not skip_bad:
            raise error
        skipped.add(name)
        write_json(skipped_path(output, name), {'reason': str(error)})

    groups = {}
    for name, open_sequence in sequences:
        skipped_path(output, name).unlink(missing_ok=True)
        if not record_path(output, name).exists():
            try:
                sequence = open_sequence()
                seen = input_size(*sequence.size, labeller.input)
                key = sequence.size, codec.num_labels(benchmark.first(sequence), seen)
                groups.setdefault(key, []).append(sequence)
            except DataError as error:
                skip(name, error)

    def videos(pool, works, ahead):
        """Opens the sequences of a group, some ahead of their turn."""
        pending = collections.deque()
        while works or pending:
            while works and len(pending) <= ahead:
                work = works.popleft()
                pending.append((work, pool.submit(work.open)))
            work, opened = pending.popleft()
            try:
                yield opened.result()
            except DataError as error:
                skip(work.name, error)

    total = sum(sequence.num_frames for group in groups.values() for sequence in group)
    bar = tqdm(
        total=total,
        unit='frame',
        dynamic_ncols=True,
        mininterval=0.5,
        disable=not total or device is not None,
    )
    with concurrent.futures.ThreadPoolExecutor() as pool, bar:
        for (_, num_labels), group in groups.items():
            num_devices = 1 if device is not None else min(jax.local_device_count(), len(group))
            rows = min(videos_per_device, -(-len(group) // num_devices))
            # The longest first, so that the last ones end together.
            group.sort(key=lambda sequence: -sequence.num_frames)
            works = collections.deque(
                _Work(sequence, benchmark, labeller, output, pool, waits, skip, features)
                for sequence in group
            )
            by_name = {work.name: work for work in works}
            last = time.time()
            for step in label_videos(
                videos(pool, works, num_devices * rows),
                labeller,
                codec,
                num_labels,
                num_devices=num_devices,
                videos_per_device=rows,
                first_device=device or 0,
            ):
                share, last = (time.time() - last) / len(step), time.time()
                for video, prediction in step:
                    if video.name not in skipped:
                        work = by_name[video.name]
                        work.seconds += share
                        try:
                            work.take(prediction)
                        except DataError as error:
                            work.stopped = True
                            skip(work.name, error)
                        bar.set_description(work.name, refresh=False)
                        bar.update()
    for name in skipped:
        remove(partial_path(output, benchmark, name))
    return waits


class _Work:
    """A sequence while it is labelled: frames read ahead, predictions written, scored behind."""

    def __init__(self, sequence, benchmark, labeller, output, pool, waits, skip, features):
        self.name = sequence.name
        self.sequence, self.benchmark = sequence, benchmark
        self.labeller, self.output = labeller, output
        self.pool, self.waits, self.skip, self.features = pool, waits, skip, features
        self.partial = partial_path(output, benchmark, sequence.name)
        self.jobs, self.taken = collections.deque(), []
        self.num_taken, self.seconds, self.stopped = 0, 0.0, False

    def open(self):
        """Reads what comes before the first step: in a thread, while others are labelled."""
        sequence = self.sequence
        remove(self.partial)
        first = self.benchmark.first(sequence)
        self.objects = self.benchmark.objects(first)
        variables = None
        if self.features is None and not self.labeller.network.trained:
            variables = video_variables(sequence.read_frame, sequence.num_frames, self.labeller)
        self.next_frames = self.pool.submit(self._read, 0)
        return Video(self.name, sequence.size, first, self._frames(), variables)

    def _read(self, start):
        stop = min(start + self.labeller.feature_batch, self.sequence.num_frames)
        if self.features is not None:
            return self.features(start, stop)
        return [prepared_frame(self.sequence, t, self.labeller) for t in range(start, stop)]

    def _frames(self):
        """The frames; a batch is read, one frame after another, while the one before is used."""
        step = self.labeller.feature_batch
        for start in range(0, self.sequence.num_frames, step):
            if self.stopped:
                return
            try:
                frames = self._wait('frames', self.next_frames)
            except DataError as error:
                self.stopped = True
                return self.skip(self.name, error)
            if start + step < self.sequence.num_frames:
                self.next_frames = self.pool.submit(self._read, start + step)
            yield from frames

    def take(self, prediction):
        """Gives the next prediction to a thread; with the last one the sequence is finished."""
        self.jobs.append(
            self.pool.submit(
                self.benchmark.take,
                self.partial,
                self.sequence,
                self.objects,
                self.num_taken,
                prediction,
            )
        )
        self.num_taken += 1
        is_last = self.num_taken == self.sequence.num_frames
        # Predictions that wait to be written are held in memory.
        while len(self.jobs) > (0 if is_last else 2 * self.labeller.feature_batch):
            self.taken.append(self._wait('predictions', self.jobs.popleft()))
        if is_last:
            self._finish()

    def _finish(self):
        """Brings the predictions to their place and, last, writes the record."""
        sequence = self.sequence
        record = {
            'name': self.name,
            'num_frames': sequence.num_frames,
            'size': sequence.size,
            'seconds': self.seconds,
            **self.benchmark.record(self.partial, sequence, self.objects, self.taken),
        }
        path = prediction_path(self.output, self.benchmark, self.name)
        remove(path)
        self.partial.rename(path)
        write_json(record_path(self.output, self.name), record)

    def _wait(self, what, future):
        started = time.time()
        try:
            return future.result()
        finally:
            self.waits[what] += time.time() - started


def opened_once(open_sequence: Callable[[], Any]) -> Callable[[], Any]:
    """The function, which keeps what it opened, and the error of what it could not open."""
    lock, opened = threading.Lock(), []

    def once():
        with lock:
            if not opened:
                try:
                    opened.append(open_sequence())
                except DataError as error:
                    opened.append(error)
        if isinstance(opened[0], DataError):
            raise opened[0]
        return opened[0]

    return once


def prepared_frame(sequence: LabelledSequence, index: int, labeller: Labeller) -> np.ndarray:
    """A frame of a sequence as the network sees it, uint8 RGB. Raises DataError."""
    return _prepare(sequence.read_frame(index), sequence.size, labeller)


def _prepare(frame, frame_size, labeller):
    """A frame as the network sees it: `[h, w, 3]` -> its input size."""
    if frame.shape[:2] != tuple(frame_size):
        raise ValueError(f'a frame is {frame.shape[:2]}, the label map {frame_size}')
    return resize_frame(frame, input_size(*frame_size, labeller.input))


def evenly(num_frames: int, count: int) -> list[int]:
    """At most `count` numbers of frames, the first and the last among them."""
    chosen = np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int)
    return np.unique(chosen).tolist()
