"""Labels the sequences of a task that are not finished, on all devices, and writes their records.

It pushes frames into a `Stream` and hands predictions to the task. While the devices work, threads
read the next frames, and write and score the last predictions.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import pathlib
import time
from collections.abc import Mapping

import jax
from tqdm import tqdm

from jaxprop import files
from jaxprop.data.sequences import DataError
from jaxprop.evaluation import results
from jaxprop.evaluation.features import frames_of
from jaxprop.evaluation.labeller import (
    Labeller,
    Plan,
    keeping,
    open_for_labels,
    plan_video,
    start_video,
)
from jaxprop.evaluation.stream import Stream
from jaxprop.tasks.task import NamedSequences, Start, Task

_READERS = 4  # Threads that read the frames of one sequence.


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
    """Labels and scores those of these sequences that are not finished, see `run.evaluate`.

    Args:
      sequences: of the task, names and functions that open them.
      task, labeller, output, skip_bad, videos_per_device: as for `run.evaluate`.
      device: the number of the only device to use, without a progress bar; None uses all devices.

    Returns:
      The seconds spent waiting until 'frames' were read, and until 'predictions' were written.
    """
    folder = results.Folder(output, task, results.made_by(task, labeller))
    labeller = dataclasses.replace(labeller, target=task.target(labeller.target))
    waits = collections.Counter({'frames': 0.0, 'predictions': 0.0})
    works, skipped = [], set()

    def skip(name, error):
        if not skip_bad:
            raise error
        skipped.add(name)
        folder.skip(name, str(error))

    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            # Open the sequences that are not finished, and group them by sizes, number of
            # labels and method: a group is labelled together.
            groups = collections.defaultdict(list)
            for name, open_sequence in sequences:
                results.skipped_path(output, name).unlink(missing_ok=True)
                try:
                    sequence = open_sequence()
                    if folder.record(name, sequence.identity()) is None:
                        start = task.start(sequence)
                        plan = plan_video(start.first, sequence, labeller, start.later)
                        work = _Work(start, plan, task, labeller, folder, pool, waits)
                        method = keeping(labeller.propagation, len(start.later))
                        groups[plan.sizes, plan.num_labels, method].append(work)
                        works.append(work)
                except DataError as error:
                    skip(name, error)
            if works:
                # Remove old scores first: they must not stand beside new predictions.
                for old in results.SUMMARIES:
                    (output / old).unlink(missing_ok=True)
            # Label the groups one after another.
            total = sum(work.num_frames for group in groups.values() for work in group)
            with tqdm(
                total=total,
                unit='frame',
                dynamic_ncols=True,
                mininterval=0.5,
                leave=None,  # The bar stays, unless it is below another one, such as training's.
                disable=not total or device is not None,
            ) as bar:
                for (sizes, num_labels, method), group in groups.items():
                    num_devices = (
                        1 if device is not None else min(jax.local_device_count(), len(group))
                    )
                    num_rows = min(videos_per_device, -(-len(group) // num_devices))
                    # The longest sequences come first, so that the last ones end together.
                    group.sort(key=lambda work: -work.num_frames)
                    queue = _Queue(group, pool, num_devices * num_rows, skip)
                    stream = Stream(
                        labeller.source,
                        method,
                        labeller.target,
                        sizes,
                        num_labels,
                        execution=labeller.execution,
                        num_rows=num_rows,
                        num_devices=num_devices,
                        first_device=device or 0,
                    )
                    _label_group(queue, stream, num_rows, num_devices, skip, skipped, bar)
    finally:
        for work in works:
            files.remove(work.partial)
    return waits


def _label_group(queue, stream, num_rows, num_devices, skip, skipped, bar):
    """Labels the sequences of a queue; the rows of the stream take turns."""
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
                    bar.set_description(work.name, refresh=False)
                    try:
                        bar.update(work.take(prediction))
                    except DataError as error:
                        work.stopped = True
                        skip(work.name, error)

    playing = {row: [None] * num_devices for row in range(num_rows)}
    while playing:
        for row, works in list(playing.items()):
            try:
                batches, frames = _next_batches(works, queue, skip)
            except BaseException:
                # Earlier frames are labelled already: write them before the error is raised.
                for other in playing:
                    take(stream.flush(other))
                raise
            if batches:
                take(stream.push(row, batches, frames))
            else:
                take(stream.flush(row))
                del playing[row]


def _next_batches(works, queue, skip):
    """Reads the next arrays and frames of a row's sequences, as `Stream.push` takes them.

    If a sequence has ended, the queue's next one takes its place in `works`.
    """
    batches, shown = {}, {}
    for device, work in enumerate(works):
        arrays, frames = ([], []) if work is None else work.next_arrays(skip)
        while not arrays and (work := queue.next()) is not None:
            arrays, frames = work.next_arrays(skip)
        works[device] = work
        if arrays:
            batches[device], shown[device] = (work.video, arrays), frames
    return batches, shown


class _Queue:
    """A queue of sequences that wait for a device; threads open some of them ahead of their turn.

    Attributes:
      opened: the sequences that have left the queue, by name.
    """

    def __init__(self, works, pool, ahead, skip):
        self.works, self.pool, self.ahead, self.skip = collections.deque(works), pool, ahead, skip
        self.opening, self.opened = collections.deque(), {}

    def next(self):
        """Takes the next sequence that opens without a DataError; None when the queue is empty."""
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
    """A sequence while it is labelled: threads read its frames and write its predictions."""

    def __init__(
        self,
        start: Start,
        plan: Plan,
        task: Task,
        labeller: Labeller,
        folder: results.Folder,
        pool: concurrent.futures.Executor,
        waits: collections.Counter,
    ):
        self.start, self.plan, self.task, self.labeller = start, plan, task, labeller
        self.folder, self.pool, self.waits = folder, pool, waits
        self.name, self.num_frames = start.sequence.name, start.sequence.num_frames
        self.batch = labeller.source.batch
        self.partial = files.partial_path(folder.predictions(self.name))
        self.jobs, self.taken = collections.deque(), []
        self.num_read = self.num_steps = self.num_taken = 0
        self.seconds, self.stopped = 0.0, False

    def open(self):
        """Prepares the first step, in a thread, while other sequences are labelled."""
        sequence = self.start.sequence
        ahead = frames_of(sequence, num_threads=_READERS)
        opened, frames = open_for_labels(sequence, ahead, self.labeller)
        self.arrays, self.frames = iter(opened.arrays), frames or iter(())
        self.spans = [1] * self.num_frames if opened.spans is None else list(opened.spans)
        if sum(self.spans) != self.num_frames:
            raise ValueError(
                f'{self.name}: the arrays of the source stand for {sum(self.spans)} frames; the '
                f'video has {self.num_frames}'
            )
        if self.start.later and max(self.spans) > 1:
            raise ValueError(
                f'{self.name}: objects appear in later frames, which needs features of each frame; '
                'an array of this source stands for several'
            )
        self.reading = self.pool.submit(self._read)
        self.video = start_video(
            self.name,
            self.start.first,
            self.plan,
            self.labeller,
            opened.variables,
            self.start.later,
        )

    def _read(self):
        count = min(self.batch, len(self.spans) - self.num_read)
        arrays = list(itertools.islice(self.arrays, count))
        if len(arrays) < count:
            raise ValueError(
                f'{self.name}: the source gives {self.num_read + len(arrays)} arrays for '
                f'{self.num_frames} frames'
            )
        return arrays, list(itertools.islice(self.frames, count))

    def next_arrays(self, skip):
        """Returns the next batch, which a thread has read meanwhile: arrays, [] at the end, and the
        frames of these arrays, [] unless the target needs them.
        """
        if self.stopped or self.num_read == len(self.spans):
            return [], []
        try:
            arrays, frames = self._wait('frames', self.reading)
        except DataError as error:
            self.stopped = True
            skip(self.name, error)
            return [], []
        self.num_read += len(arrays)
        if self.num_read < len(self.spans):
            self.reading = self.pool.submit(self._read)
        return arrays, frames

    def take(self, prediction):
        """Gives the next prediction to a thread; with the last one the sequence is finished.

        Returns:
          The number of frames for which the prediction stands.
        """
        count = self.spans[self.num_steps]
        for index in range(self.num_taken, self.num_taken + count):
            arguments = self.partial, self.start, index, prediction
            self.jobs.append(self.pool.submit(self.task.take, *arguments))
        self.num_steps += 1
        self.num_taken += count
        is_last = self.num_steps == len(self.spans)
        # Predictions that wait to be written are held in memory, so wait if there are many.
        while len(self.jobs) > (0 if is_last else 2 * self.batch):
            self.taken.append(self._wait('predictions', self.jobs.popleft()))
        if is_last:
            self._finish()
        return count

    def _finish(self):
        """Brings the predictions to their place and, last, writes the record."""
        record = {
            **self.task.record(self.partial, self.start, self.taken),
            'name': self.name,
            'num_frames': self.num_frames,
            'size': self.start.sequence.size,
            'seconds': self.seconds,
        }
        started = time.time()
        self.folder.finish(self.partial, record, self.start.sequence.identity())
        self.waits['predictions'] += time.time() - started
        # Free the label maps and frames.
        self.start = self.video = self.arrays = self.frames = None

    def _wait(self, what, future):
        started = time.time()
        try:
            return future.result()
        finally:
            self.waits[what] += time.time() - started
