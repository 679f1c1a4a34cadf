"""From a labelled sequence to label maps and scores: what `evaluate.py` and `propagate.py` do.

`Labeller` holds every factor between a video's frames and its label maps; `label_frames` carries a
first label map through frames as they come, in constant memory; `evaluate` does a whole benchmark.
"""

import collections
import concurrent.futures
import csv
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxprop import color, labels, parallel
from jaxprop.data import davis as davis_data
from jaxprop.data.inputs import InputConfig, input_size, resize_frame
from jaxprop.data.sequences import DataError, LabelledSequence, davis_palette
from jaxprop.evaluation import davis, report
from jaxprop.evaluation.batch import Video, extract_features, label_videos, padded_labels
from jaxprop.files import claim, replacing, write_json
from jaxprop.models import (
    ResNet,
    describe_pretrained,
    estimate_batch_statistics,
    load_pretrained,
)
from jaxprop.propagation import PropagationConfig

# Frames from which an untrained network's batch statistics are taken, evenly over the video.
_STATISTICS_FRAMES = 8


@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its variables, and what is known of them.

    `description` goes into every output; `trained` is False for random weights, whose batch
    statistics are estimated on each video itself. `color` is what it was trained to see, as
    `jaxprop.color.network_input` names it.
    """

    model: ResNet
    variables: Mapping[str, Any]
    trained: bool
    description: Mapping[str, Any]
    color: str = 'rgb'


@dataclasses.dataclass(frozen=True)
class Labeller:
    """Every factor between frames and label maps.

    Attributes:
      network: the features.
      propagation: the factors of propagation.
      input: the frames' size in the network.
      color: what the network sees, see `jaxprop.color.network_input`.
      encode: how the first label map comes to the feature grid: 'area', 'nearest', 'bilinear'.
      min_max: scale each class to [0, 1] before the largest one is taken.
      decode_at: 'frame': labels are upsampled to the frame, then the largest class is taken;
        'input': they are upsampled to the network's input, and the label map is resized by nearest.
      feature_batch: frames in one call of the network.
    """

    network: Network
    propagation: PropagationConfig
    input: InputConfig = InputConfig()
    color: str = 'rgb'
    encode: str = 'bilinear'
    min_max: bool = False
    decode_at: str = 'frame'
    feature_batch: int = 4

    def __post_init__(self):
        if self.decode_at not in ('frame', 'input'):
            raise ValueError(f"decode_at is {self.decode_at!r}; it must be 'frame' or 'input'")
        if self.feature_batch < 1:
            raise ValueError(f'feature_batch is {self.feature_batch}; it must be at least 1')

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> 'Labeller':
        """From the parts `network`, `input`, `propagation`, `labels` of a config in configs/eval."""
        network = load_network(**config['network'])
        size = dict(config['input'])
        seen = size.pop('color') or network.color
        return cls(
            network, PropagationConfig(**config['propagation']), InputConfig(**size), seen,
            **config['labels'], feature_batch=config['feature_batch'])

    def settings(self) -> dict[str, Any]:
        """Every factor by name, as plain values for JSON."""
        return {
            'propagation': dataclasses.asdict(self.propagation),
            'input': {**dataclasses.asdict(self.input), 'color': self.color},
            'labels': {
                'encode': self.encode, 'min_max': self.min_max, 'decode_at': self.decode_at,
            },
            'feature_batch': self.feature_batch,
        }


def load_network(name: str, *, seed: int = 0, **attributes: Any) -> Network:
    """A shipped network or a saved one by its path; 'untrained' for one with random weights.

    Args:
      name: as `load_pretrained` takes it, or 'untrained'.
      seed: of the random weights.
      **attributes: of the `ResNet`, in place of the saved ones.
    """
    if name == 'untrained':
        model = ResNet(**attributes)
        variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)))
        return Network(model, variables, False, {'name': name, 'seed': seed, **_attributes(model)})
    model, variables = load_pretrained(name, **attributes)
    seen = describe_pretrained(name)['description'].get('color', 'rgb')
    return Network(model, variables, True, {'name': str(name), **_attributes(model)}, seen)


_estimate_statistics = jax.jit(
    lambda model, variables, frames, color_space: estimate_batch_statistics(
        model, variables, color.network_input(frames, color_space)
    ),
    static_argnums=(0, 3),
)

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
    video = Video('the video', first_ids, prepared, variables)
    for step in label_videos([video], labeller, padded_labels(first_ids)):
        for _, ids in step:
            yield ids


def video_variables(
    read_frame: Callable[[int], np.ndarray], num_frames: int, labeller: Labeller
) -> Mapping[str, Any]:
    """The network's variables; if it is untrained, with the batch statistics of this video."""
    network = labeller.network
    if network.trained:
        return network.variables
    chosen = np.unique(np.linspace(0, num_frames - 1, _STATISTICS_FRAMES).round().astype(int))
    frames = [read_frame(int(t)) for t in chosen]
    size = input_size(*frames[0].shape[:2], labeller.input)
    inputs = np.stack([resize_frame(frame, size) for frame in frames])
    return _estimate_statistics(network.model, network.variables, inputs, labeller.color)


def evaluate(
    sequences: Iterable[tuple[str, Callable[[], LabelledSequence]]],
    labeller: Labeller,
    output: pathlib.Path,
    *,
    title: str,
    dataset: Mapping[str, Any],
    skip_bad: bool = False,
    report_frames: int = 40,
    videos_per_device: int = 1,
) -> dict[str, Any]:
    """Labels and scores every sequence, DAVIS's way, and writes the results.

    A sequence is finished when `output/sequences/NAME.json` exists; a later call with the same
    settings goes on with the others. Everything is written under another name and then renamed.

    Sequences of one frame size and similar numbers of objects are labelled together, on all devices
    of this process, see `label_videos`; frames are read and masks written and scored meanwhile. Of
    several processes, which must share `output`, each labels its part of the sequences, and the
    first one writes the results of all.

    Args:
      sequences: names, and functions that open them (raising DataError).
      labeller: the factors.
      output: the folder: `masks/NAME/00000.png` (palette PNGs as DAVIS has them),
        `metrics.json`, `per_sequence.csv`, `report.html`.
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
    sequences = list(sequences)
    settings = {
        'dataset': dict(dataset), 'network': labeller.network.description, **labeller.settings()}
    claim(output / 'settings.json', settings, write=parallel.is_writer())
    started = time.time()
    waits = _label_sequences(
        sequences[jax.process_index()::jax.process_count()], labeller, output, skip_bad,
        videos_per_device)
    parallel.wait_for_all()
    skipped, records, previews = [], {}, []
    for name, open_sequence in sequences:
        try:
            if (reason := _skipped_path(output, name)).exists():
                raise DataError(json.loads(reason.read_text())['reason'])
            record = json.loads(_record_path(output, name).read_text())
            if parallel.is_writer():
                previews.append(
                    _preview(open_sequence(), record, output / 'masks' / name, report_frames))
            records[name] = record
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append({'sequence': name, 'reason': str(error)})
    results = {
        name: _result(record) for name, record in records.items() if record['J'] is not None
    }
    warnings = []
    if skipped:
        warnings.append(f'{len(skipped)} of {len(sequences)} sequences were skipped.')
    unscored = [name for name in records if name not in results]
    if unscored:
        warnings.append(f'Not scored, for lack of annotations: {", ".join(unscored)}.')
    metrics = {
        'title': title,
        'summary': davis.summarize(results) if results else {},
        'per_sequence': davis.sequence_table(results),
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
        _write_csv(
            output / 'per_sequence.csv',
            [{**row, 'network': network} for row in metrics['per_sequence']])
        report.write_report(output / 'report.html', metrics, previews)
    parallel.wait_for_all()
    return metrics


def provenance() -> dict[str, Any]:
    """Where a number comes from: command, commit, versions, device, date."""
    folder = pathlib.Path(__file__).parent

    def git(*arguments):
        try:
            done = subprocess.run(
                ['git', *arguments], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git('rev-parse', 'HEAD')
    if commit and git('status', '--porcelain', '--untracked-files=no', '--', str(folder)):
        commit += ' with uncommitted changes'
    packages = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
    return {
        'command': ' '.join(sys.argv),
        'git commit': commit,
        'date': time.strftime('%Y-%m-%d %H:%M:%S %z'),
        'python': platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }


def _label_sequences(sequences, labeller, output, skip_bad, videos_per_device):
    """Labels those of these sequences that are not finished.

    Returns:
      The seconds spent waiting, by what for: 'frames' to be read, 'masks' to be written.
    """
    waits = collections.Counter({'frames': 0.0, 'masks': 0.0})
    skipped = set()

    def skip(name, error):
        if not skip_bad:
            raise error
        skipped.add(name)
        write_json(_skipped_path(output, name), {'reason': str(error)})

    groups = {}
    for name, open_sequence in sequences:
        _skipped_path(output, name).unlink(missing_ok=True)
        if not _record_path(output, name).exists():
            try:
                sequence = open_sequence()
                key = sequence.size, padded_labels(sequence.read_label(0))
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
    bar = tqdm(total=total, unit='frame', dynamic_ncols=True, mininterval=0.5, disable=not total)
    with concurrent.futures.ThreadPoolExecutor() as pool, bar:
        for (_, num_labels), group in groups.items():
            num_devices = min(jax.local_device_count(), len(group))
            rows = min(videos_per_device, -(-len(group) // num_devices))
            # The longest first, so that the last ones end together.
            group.sort(key=lambda sequence: -sequence.num_frames)
            works = collections.deque(
                _Work(sequence, labeller, output, pool, waits, skip) for sequence in group)
            by_name = {work.name: work for work in works}
            last = time.time()
            for step in label_videos(
                    videos(pool, works, num_devices * rows), labeller, num_labels,
                    num_devices=num_devices, videos_per_device=rows):
                share, last = (time.time() - last) / len(step), time.time()
                for video, ids in step:
                    if video.name not in skipped:
                        work = by_name[video.name]
                        work.seconds += share
                        try:
                            work.take(ids)
                        except DataError as error:
                            work.stopped = True
                            skip(work.name, error)
                        bar.set_description(work.name, refresh=False)
                        bar.update()
    for name in skipped:
        shutil.rmtree(_partial_path(output, name), ignore_errors=True)
    return waits


class _Work:
    """A sequence while it is labelled: frames read ahead, masks written and scored behind."""

    def __init__(self, sequence, labeller, output, pool, waits, skip):
        self.name = sequence.name
        self.sequence, self.labeller, self.output = sequence, labeller, output
        self.pool, self.waits, self.skip = pool, waits, skip
        self.partial = _partial_path(output, sequence.name)
        self.jobs, self.scores = collections.deque(), []
        self.num_taken, self.seconds, self.stopped = 0, 0.0, False

    def open(self):
        """Reads what comes before the first step: in a thread, while others are labelled."""
        sequence = self.sequence
        shutil.rmtree(self.partial, ignore_errors=True)
        self.palette = davis_palette() if sequence.palette is None else sequence.palette
        self.first_ids = sequence.read_label(0)
        self.objects = [int(value) for value in labels.label_values(self.first_ids)[1:]]
        variables = None
        if not self.labeller.network.trained:
            variables = video_variables(sequence.read_frame, sequence.num_frames, self.labeller)
        self.next_frames = self.pool.submit(self._read, 0)
        return Video(self.name, self.first_ids, self._frames(), variables)

    def _read(self, start):
        stop = min(start + self.labeller.feature_batch, self.sequence.num_frames)
        return [
            _prepare(self.sequence.read_frame(t), self.sequence.size, self.labeller)
            for t in range(start, stop)
        ]

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

    def take(self, ids):
        """Gives the next label map to a thread; with the last one the sequence is finished."""
        self.jobs.append(self.pool.submit(self._write, self.num_taken, ids))
        self.num_taken += 1
        is_last = self.num_taken == self.sequence.num_frames
        # Label maps that wait to be written are held in memory.
        while len(self.jobs) > (0 if is_last else 2 * self.labeller.feature_batch):
            self.scores.append(self._wait('masks', self.jobs.popleft()))
        if is_last:
            self._finish()

    def _write(self, index, ids):
        """Writes a mask; its J and F, `[O]` each, or None where there is no annotation."""
        davis_data.write_mask(
            self.partial / f'{self.sequence.frame_names[index]}.png', ids, self.palette)
        truth = self.sequence.read_label(index)
        if truth is None:
            return None
        masks = [(ids == value, truth == value) for value in self.objects]
        return (
            [float(davis.region_similarity(*pair)) for pair in masks],
            [float(davis.boundary_accuracy(*pair)) for pair in masks],
        )

    def _finish(self):
        """Brings the masks to their place and, last, writes the record."""
        sequence = self.sequence
        record = {
            'name': self.name, 'num_frames': sequence.num_frames, 'size': sequence.size,
            'seconds': self.seconds, 'objects': self.objects, 'J': None, 'F': None,
        }
        if None not in self.scores and sequence.num_frames > 2:
            region, boundary = (np.transpose(scores).tolist() for scores in zip(*self.scores))
            record.update(J=region, F=boundary)
        masks = self.output / 'masks' / self.name
        shutil.rmtree(masks, ignore_errors=True)
        self.partial.rename(masks)
        write_json(_record_path(self.output, self.name), record)

    def _wait(self, what, future):
        started = time.time()
        try:
            return future.result()
        finally:
            self.waits[what] += time.time() - started


def _prepare(frame, frame_size, labeller):
    """A frame as the network sees it: `[h, w, 3]` -> its input size."""
    if frame.shape[:2] != tuple(frame_size):
        raise ValueError(f'a frame is {frame.shape[:2]}, the label map {frame_size}')
    return resize_frame(frame, input_size(*frame_size, labeller.input))


def _partial_path(output, name):
    return output / 'masks' / f'.{name}.partial'


def _record_path(output, name):
    return output / 'sequences' / f'{name}.json'


def _skipped_path(output, name):
    return output / 'skipped' / f'{name}.json'


def _result(record):
    """A `SequenceResult` from what was written of it."""
    region, boundary = np.array(record['J']), np.array(record['F'])

    def statistics(values):
        return tuple(davis.sequence_statistics(row[1:-1]) for row in values)

    return davis.SequenceResult(
        tuple(record['objects']), region, boundary, statistics(region), statistics(boundary))


def _preview(sequence, record, masks, num_frames):
    chosen = np.unique(
        np.linspace(0, sequence.num_frames - 1, min(num_frames, sequence.num_frames))
        .round().astype(int)).tolist()
    palette = davis_palette() if sequence.palette is None else sequence.palette
    pictures = [
        report.encode_picture(report.overlay(
            sequence.read_frame(t),
            davis_data.read_mask(masks / f'{sequence.frame_names[t]}.png'), palette))
        for t in chosen
    ]
    shape = (len(record['objects']), record['num_frames'])
    scores = [np.full(shape, np.nan) if record[m] is None else np.array(record[m]) for m in 'JF']
    return report.SequenceReport(
        sequence.name, *scores, tuple(record['objects']), pictures, chosen, palette=palette)


def _write_csv(path, rows):
    with replacing(path) as temporary, temporary.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ['sequence'])
        writer.writeheader()
        writer.writerows(rows)


def _attributes(model):
    return {
        field.name: getattr(model, field.name) for field in dataclasses.fields(model)
        if field.name not in ('parent', 'name', 'dtype', 'norm_momentum', 'norm_axis_name')
    }
