"""From sequences to predictions and scores: what `evaluate.py` and `propagate.py` do.

`label_frames` carries a first label map through frames as they come, in constant memory; `evaluate`
does a whole benchmark. Control runs in one direction: this module opens sequences, pushes their
frames into `stream`, hands the predictions to the task, and writes its records.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
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
from jaxprop.data.sequences import DataError
from jaxprop.evaluation.labeller import Labeller, Plan, plan_video, start_video
from jaxprop.evaluation.results import (
    partial_path,
    prediction_path,
    provenance,
    record_path,
    remove,
    skipped_path,
    write_csv,
)
from jaxprop.evaluation.stream import Stream
from jaxprop.files import claim, write_json
from jaxprop.report import page, pictures
from jaxprop.tasks.task import NamedSequences, Start, Task


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
      labeller: with the features of a network.
      variables: in place of the network's own.

    Yields:
      For each frame a label map `[h, w]` int32; for the first one `first_ids` itself.

    Raises:
      ValueError: frames of different sizes; features of the first frame that are not finite.
    """
    source, frames = labeller.source, iter(frames)
    plan = plan_video(first_ids, first_ids.shape, labeller)
    video = start_video('the video', first_ids, plan, labeller, variables)
    stream = Stream(
        source,
        labeller.propagation,
        labeller.target,
        plan.sizes,
        plan.num_labels,
        execution=labeller.execution,
    )
    failed = None
    while failed is None:
        try:
            batch = [
                source.prepare(frame, first_ids.shape)
                for frame in itertools.islice(frames, source.batch)
            ]
        except BaseException as error:
            # The frames before have been labelled: they are handed out first.
            failed, batch = error, []
        steps = stream.push(0, {0: (video, batch)}) if batch else stream.flush(0)
        for step in steps:
            for _, ids in step.fetch():
                yield ids
        if not batch:
            break
    if failed is not None:
        raise failed


def evaluate(
    task: Task,
    labeller: Labeller,
    output: pathlib.Path,
    *,
    title: str,
    dataset: Mapping[str, Any],
    skip_bad: bool = False,
    report_frames: int = 40,
    videos_per_device: int = 1,
) -> dict[str, Any]:
    """Labels and scores every sequence of a task, and writes the results.

    A sequence is finished when `output/sequences/NAME.json` exists; a later call with the same
    settings goes on with the others. Everything is written under another name and then renamed.

    Sequences of one frame size and similar numbers of objects are labelled together, on all devices
    of this process, see `Stream`; frames are read, and predictions written and scored,
    meanwhile. Of several processes, which must share `output`, each labels its part of the
    sequences, and the first one writes the results of all.

    Args:
      task: its sequences, what their first frames are labelled with, and how they are scored.
      labeller: labels them, with the task's variant of its target.
      output: the folder: `masks/NAME/00000.png` (palette PNGs as DAVIS has them) or
        `keypoints/NAME.json`, `metrics.json`, `per_sequence.csv`, `report.html`.
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
    sequences = [(name, opened_once(open_sequence)) for name, open_sequence in task.sequences()]
    settings = {
        'dataset': dict(dataset),
        'network': labeller.source.description,
        **labeller.settings(),
        **task.settings(),
    }
    claim(output / 'settings.json', settings, write=parallel.is_writer())
    started = time.time()
    waits = label_sequences(
        parallel.own_part(sequences),
        task,
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
                sequence, path = open_sequence(), prediction_path(output, task, name)
                chosen = evenly(sequence.num_frames, report_frames)
                view = task.shown(path, sequence, record, chosen)
                previews.append(pictures.draw_view(view))
            records[name] = record
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append({'sequence': name, 'reason': str(error)})
    scored = {name: record for name, record in records.items() if task.is_scored(record)}
    warnings = list(labeller.source.warnings)
    if skipped:
        warnings.append(f'{len(skipped)} of {len(sequences)} sequences were skipped.')
    unscored = [name for name in records if name not in scored]
    reasons = {name: task.unscored(records[name]) for name in unscored}
    for reason in sorted(set(reasons.values())):
        names = [name for name in unscored if reasons[name] == reason]
        warnings.append(f'Not scored, {reason}: {", ".join(names)}.')
    metrics = {
        'title': title,
        **(task.results(scored) if scored else {'summary': {}, 'per_sequence': []}),
        'skipped': skipped,
        'unscored': unscored,
        'network': {'trained': labeller.source.trained, **labeller.source.description},
        # How it was computed is recorded, but a run may go on with another way.
        'settings': {
            **settings,
            'execution': dataclasses.asdict(labeller.execution),
            'videos_per_device': videos_per_device,
        },
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
        network = labeller.source.description['name']
        write_csv(
            output / 'per_sequence.csv',
            [{**row, 'network': network} for row in metrics['per_sequence']],
        )
        page.write_report(output / 'report.html', metrics, previews, task.layout)
    parallel.wait_for_all()
    return metrics


def label_sequences(
    sequences: NamedSequences,
    task: Task,
    labeller: Labeller,
    output: pathlib.Path,
    *,
    skip_bad: bool = False,
    videos_per_device: int = 1,
    device: int | None = None,
) -> Mapping[str, float]:
    """Labels and scores those of these sequences that are not finished, see `evaluate`.

    Args:
      sequences: of the task, names and functions that open them.
      task, labeller, output, skip_bad, videos_per_device: as for `evaluate`.
      device: the number of the only device to use, silently; None for all of them.

    Returns:
      The seconds spent waiting, by what for: 'frames' to be read, 'predictions' to be written.
    """
    labeller = dataclasses.replace(labeller, target=task.target(labeller.target))
    waits = collections.Counter({'frames': 0.0, 'predictions': 0.0})
    skipped = set()

    def skip(name, error):
        if not skip_bad:
            raise error
        skipped.add(name)
        write_json(skipped_path(output, name), {'reason': str(error)})

    with concurrent.futures.ThreadPoolExecutor() as pool:
        # What has one frame size and number of labels is labelled together.
        groups = collections.defaultdict(list)
        for name, open_sequence in sequences:
            skipped_path(output, name).unlink(missing_ok=True)
            if not record_path(output, name).exists():
                try:
                    start = task.start(open_sequence())
                    plan = plan_video(start.first, start.sequence.size, labeller)
                    work = _Work(start, plan, task, labeller, output, pool, waits)
                    groups[plan.sizes, plan.num_labels].append(work)
                except DataError as error:
                    skip(name, error)
        total = sum(work.num_frames for group in groups.values() for work in group)
        with tqdm(
            total=total,
            unit='frame',
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not total or device is not None,
        ) as bar:
            for (sizes, num_labels), group in groups.items():
                num_devices = 1 if device is not None else min(jax.local_device_count(), len(group))
                num_rows = min(videos_per_device, -(-len(group) // num_devices))
                # The longest first, so that the last ones end together.
                group.sort(key=lambda work: -work.num_frames)
                queue = _Queue(group, pool, num_devices * num_rows, skip)
                stream = Stream(
                    labeller.source,
                    labeller.propagation,
                    labeller.target,
                    sizes,
                    num_labels,
                    execution=labeller.execution,
                    num_rows=num_rows,
                    num_devices=num_devices,
                    first_device=device or 0,
                )
                _label_group(queue, stream, num_rows, num_devices, skip, skipped, bar)
    for name in skipped:
        remove(partial_path(output, task, name))
    return waits


def _label_group(queue, stream, num_rows, num_devices, skip, skipped, bar):
    """Labels the sequences of a queue, rows of the stream taking turns."""
    last = time.time()

    def take(steps):
        nonlocal last
        for step in steps:
            moved = step.fetch()
            share, last = (time.time() - last) / len(moved), time.time()
            for video, prediction in moved:
                if video.name not in skipped:
                    work = queue.opened[video.name]
                    work.seconds += share
                    try:
                        work.take(prediction)
                    except DataError as error:
                        work.stopped = True
                        skip(work.name, error)
                    bar.set_description(work.name, refresh=False)
                    bar.update()

    playing = {row: [None] * num_devices for row in range(num_rows)}
    while playing:
        for row, works in list(playing.items()):
            try:
                batches = _next_batches(works, queue, skip)
            except BaseException:
                # The frames before have been labelled: they are written first.
                for other in playing:
                    take(stream.flush(other))
                raise
            if batches:
                take(stream.push(row, batches))
            else:
                take(stream.flush(row))
                del playing[row]


def _next_batches(works, queue, skip):
    """The next arrays of a row's sequences, by device, as `Stream.push` takes them.

    The place of a sequence that has ended goes to the next one of the queue, in `works`.
    """
    batches = {}
    for device, work in enumerate(works):
        arrays = [] if work is None else work.next_arrays(skip)
        while not arrays and (work := queue.next()) is not None:
            arrays = work.next_arrays(skip)
        works[device] = work
        if arrays:
            batches[device] = (work.video, arrays)
    return batches


class _Queue:
    """Sequences waiting for a device: opened in threads, some of them ahead of their turn.

    Attributes:
      opened: those that have left the queue, by name.
    """

    def __init__(self, works, pool, ahead, skip):
        self.works, self.pool, self.ahead, self.skip = collections.deque(works), pool, ahead, skip
        self.opening, self.opened = collections.deque(), {}

    def next(self):
        """The next one that could be opened; None where there is none."""
        while self.works or self.opening:
            while self.works and len(self.opening) <= self.ahead:
                work = self.works.popleft()
                self.opening.append((work, self.pool.submit(work.open)))
            work, opening = self.opening.popleft()
            try:
                opening.result()
            except DataError as error:
                self.skip(work.name, error)
            else:
                self.opened[work.name] = work
                return work
        return None


class _Work:
    """A sequence while it is labelled: frames read ahead, predictions written, scored behind."""

    def __init__(
        self,
        start: Start,
        plan: Plan,
        task: Task,
        labeller: Labeller,
        output: pathlib.Path,
        pool: concurrent.futures.Executor,
        waits: collections.Counter,
    ):
        self.start, self.plan, self.task, self.labeller = start, plan, task, labeller
        self.output, self.pool, self.waits = output, pool, waits
        self.name, self.num_frames = start.sequence.name, start.sequence.num_frames
        self.batch = labeller.source.batch
        self.partial = partial_path(output, task, self.name)
        self.jobs, self.taken = collections.deque(), []
        self.num_read, self.num_taken, self.seconds, self.stopped = 0, 0, 0.0, False

    def open(self):
        """Reads what comes before the first step: in a thread, while others are labelled."""
        remove(self.partial)
        opened = self.labeller.source.open(self.start.sequence)
        self.arrays = iter(opened.arrays)
        self.reading = self.pool.submit(self._read)
        self.video = start_video(
            self.name, self.start.first, self.plan, self.labeller, opened.variables
        )

    def _read(self):
        count = min(self.batch, self.num_frames - self.num_read)
        arrays = list(itertools.islice(self.arrays, count))
        if len(arrays) < count:
            raise ValueError(
                f'{self.name}: the source gives {self.num_read + len(arrays)} arrays for '
                f'{self.num_frames} frames'
            )
        return arrays

    def next_arrays(self, skip):
        """The next batch of arrays, read while the one before was used; [] where there is none."""
        if self.stopped or self.num_read == self.num_frames:
            return []
        try:
            arrays = self._wait('frames', self.reading)
        except DataError as error:
            self.stopped = True
            skip(self.name, error)
            return []
        self.num_read += len(arrays)
        if self.num_read < self.num_frames:
            self.reading = self.pool.submit(self._read)
        return arrays

    def take(self, prediction):
        """Gives the next prediction to a thread; with the last one the sequence is finished."""
        arguments = self.partial, self.start, self.num_taken, prediction
        self.jobs.append(self.pool.submit(self.task.take, *arguments))
        self.num_taken += 1
        is_last = self.num_taken == self.num_frames
        # Predictions that wait to be written are held in memory.
        while len(self.jobs) > (0 if is_last else 2 * self.batch):
            self.taken.append(self._wait('predictions', self.jobs.popleft()))
        if is_last:
            self._finish()

    def _finish(self):
        """Brings the predictions to their place and, last, writes the record."""
        record = {
            'name': self.name,
            'num_frames': self.num_frames,
            'size': self.start.sequence.size,
            'seconds': self.seconds,
            **self.task.record(self.partial, self.start, self.taken),
        }
        path = prediction_path(self.output, self.task, self.name)
        remove(path)
        self.partial.rename(path)
        write_json(record_path(self.output, self.name), record)
        self.start = self.video = self.arrays = None  # Finished ones hold no label maps.

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


def evenly(num_frames: int, count: int) -> list[int]:
    """At most `count` numbers of frames, the first and the last among them."""
    chosen = np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int)
    return np.unique(chosen).tolist()
