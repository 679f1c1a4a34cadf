r"""How many frames a second the threads of an evaluation read, score and write, stage by stage.

    python benchmarks/hosts.py --config=configs/eval/davis_crw.py --config.dataset.root=DAVIS

This is the work that threads do while the devices compute features and labels. Each stage runs on
real frames and masks, in one thread and in as many as there are cores. Last, evaluations run whole
with devices that take no time: their prediction of every frame is the first mask.
"""

import concurrent.futures
import functools
import os
import pathlib
import platform
import sys
import tempfile
import time
from unittest import mock

import checkout  # noqa: F401
import numpy as np
from absl import app, flags

from jaxprop import config_files, tasks
from jaxprop.evaluation import labelling
from jaxprop.evaluation.labeller import Labeller
from jaxprop.evaluation.stream import Step
from jaxprop.metrics import davis
from jaxprop.tasks import masks

CORES = len(os.sched_getaffinity(0))
REPEATS = flags.DEFINE_integer('repeats', 5, 'Each stage is measured so often.', lower_bound=1)


class InstantStream:
    """A `Stream` with one device, which takes no time: it predicts the first mask for any frame."""

    def __init__(self, *_, num_rows, **__):
        self.waiting = [[] for _ in range(num_rows)]

    def push(self, row, batches, frames=None):
        video, arrays = batches[0]
        return self._swap(row, [Step([video.given], [(0, video, False)]) for _ in arrays])

    def flush(self, row):
        return self._swap(row, [])

    def _swap(self, row, steps):
        steps, self.waiting[row] = self.waiting[row], steps
        return steps


def measure_stages(sequence, labeller, folder):
    """Seconds a frame of each stage, by the number of threads: a list of the repeats."""
    numbers = range(sequence.num_frames)
    frames, truth = ([*map(read, numbers)] for read in (sequence.read_frame, sequence.read_label))
    objects = [value for value in np.unique(truth[0]).tolist() if value]
    # In the place of a prediction: the true mask of the frame before.
    found = truth[-1:] + truth[:-1]
    stages = {
        'read a frame': sequence.read_frame,
        'resize it': lambda t: labeller.source.prepare(frames[t], sequence.size),
        'write a mask': lambda t: masks.write(folder, sequence, t, found[t]),
        'read the true mask': sequence.read_label,
        'score the mask': lambda t: davis.frame_scores(found[t], truth[t], objects),
    }
    return {name: [repeat(stage, numbers, n) for n in (1, CORES)] for name, stage in stages.items()}


def repeat(stage, numbers, num_threads):
    """Seconds of a thread for a frame, of each repeat."""
    seconds = []
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for _ in range(1 + REPEATS.value):
            started = time.perf_counter()
            list(pool.map(stage, numbers))
            seconds.append((time.perf_counter() - started) * num_threads / len(numbers))
    return seconds[1:]  # The first one warms up.


def measure_whole(opened, task, labeller, folder):
    """Seconds of a core for a frame, with instant devices, of each repeat."""
    sequences = [(sequence.name, functools.partial(lambda s: s, sequence)) for sequence in opened]
    seconds = []
    with mock.patch.object(labelling, 'Stream', InstantStream):
        for number in range(1 + REPEATS.value):
            started = time.perf_counter()
            labelling.label_sequences(sequences, task, labeller, folder / str(number), device=0)
            seconds.append(time.perf_counter() - started)
    num_frames = sum(sequence.num_frames for sequence in opened)
    return [CORES * one / num_frames for one in seconds[1:]]


def spread(rates):
    return f'{np.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})'


def main(_):
    config = flags.FLAGS.config
    labeller = Labeller.from_config(config)
    task = tasks.open_task(config.dataset.to_dict(), config.get('measure'))
    opened = [open_sequence() for _, open_sequence in task.sequences()]
    print(f'{CORES} cores; Python {platform.python_version()}; NumPy {np.__version__}')
    print(f'\n| frames a second of a core, of {REPEATS.value} | one thread | {CORES} threads |')
    print('|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        stages = [measure_stages(sequence, labeller, folder) for sequence in opened]
        for name in stages[0]:
            # Of each repeat: the mean over the sequences.
            rates = 1 / np.mean([found[name] for found in stages], axis=0)
            print(f'| {name} | {spread(rates[0])} | {spread(rates[1])} |')
        rates = 1 / np.array(measure_whole(opened, task, labeller, folder))
        print(f'| an evaluation with instant devices | | {spread(rates)} |')


if __name__ == '__main__':
    app.run(main, config_files.define_flags(sys.argv, 'davis_crw', ('eval',)))
