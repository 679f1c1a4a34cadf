r"""Where the time of an evaluation goes, and whether the number of devices changes the answer.

    python benchmarks/evaluation.py --devices=1,4 --frames=20 \
        --config=configs/eval/davis_crw.py --config.dataset.root=FOLDER

For each number of devices, in a process of its own: the evaluation twice, where the first run
compiles and the second is timed; then each stage alone, of a video on each device in step. What
their sum is above the time of labelling, overlap saves. All runs' predictions are compared, file by
file; where some differ the exit code is 1. A CPU's devices are simulated and share its cores.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import checkout  # noqa: F401
import jax
import numpy as np
from absl import app, flags

from jaxprop import config_files, parallel, tasks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation import stream
from jaxprop.evaluation.features import extract_each, stack, stack_frames
from jaxprop.evaluation.labeller import plan_video, start_video
from jaxprop.files import write_json
from jaxprop.propagation import propagate_step

DEVICES = flags.DEFINE_list('devices', ['1', '4'], 'Numbers of devices.')
FRAMES = flags.DEFINE_integer('frames', 0, 'At most so many of a sequence; 0: all.', lower_bound=0)
OUTPUT = flags.DEFINE_string('output', None, 'A JSON file of every number.')
MEASURE = flags.DEFINE_integer('measure', None, 'Used by the benchmark itself.', lower_bound=1)
STAGES = ('reading and resizing', 'features', 'propagation', 'decoding', 'writing and scoring')


def open_cut(open_sequence):
    """The first frames of a sequence."""
    sequence = open_sequence()
    count = min(FRAMES.value, sequence.num_frames) or sequence.num_frames
    return dataclasses.replace(
        sequence,
        num_frames=count,
        **{
            name: getattr(sequence, name)[:count]
            for name in ('frame_names', 'classes', 'positions', 'scales')
            if getattr(sequence, name, None) is not None
        },
    )


def run_evaluation(task, config, labeller):
    """Seconds of an evaluation, its sequences' records, and hashes of the predictions' files."""
    with tempfile.TemporaryDirectory() as folder:
        folder, start = pathlib.Path(folder), time.perf_counter()
        runner.evaluate(
            task,
            labeller,
            folder,
            title=config.title,
            dataset=config.dataset.to_dict(),
            report_frames=config.report_frames,
            **config.batch,
        )
        seconds = time.perf_counter() - start
        records = [json.loads(path.read_text()) for path in (folder / 'sequences').iterdir()]
        hashes = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder / task.folder).rglob('*')
            if path.is_file()
        }
    return seconds, records, hashes


def propagate(method, execution, context, features):
    return propagate_step(context, features, method, execution=execution)


def measure_stages(starts, plans, task, labeller, num_frames, folder):
    """Seconds a frame of each stage for these sequences, one on each device, as in `stream`."""
    source, method, target = labeller.source, labeller.propagation, labeller.target
    count, sizes, sequences = len(starts), plans[0].sizes, [start.sequence for start in starts]
    extract = parallel.local_map(extract_each, count, static=(0, 1))
    begin = parallel.local_map(stream._start, count, static=(0, 1), donate=(2,))
    advance = parallel.local_map(propagate, count, static=(0, 1), donate=(2,))
    decode = parallel.local_map(type(target).decode, count, static=(0, 3))
    variables = parallel.put(stack([source.variables(sequence) for sequence in sequences]))
    paths = [folder / sequence.name for sequence in sequences]
    taken, seconds = [[] for _ in sequences], dict.fromkeys(STAGES, 0.0)

    def timed(stage, function, *arguments):
        begun = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        seconds[stage] += time.perf_counter() - begun
        return result

    for batch in range(0, num_frames, source.batch):
        chosen = range(batch, min(batch + source.batch, num_frames))
        frames = timed(
            'reading and resizing',
            lambda: {
                device: [source.prepare(s.read_frame(t), s.size) for t in chosen]
                for device, s in enumerate(sequences)
            },
        )
        features = timed(
            'features',
            lambda: extract(
                source.network.model,
                source.color,
                variables,
                parallel.put(stack_frames(frames, count, source.batch)),
            ),
        )
        for t, current in zip(chosen, features):
            if t == 0:  # Once a video: in no stage.
                videos = [
                    start_video(start.sequence.name, start.first, plan, labeller)
                    for start, plan in zip(starts, plans)
                ]
                labels, values, entry = stack(
                    [(video.labels, video.values, video.entry) for video in videos]
                )
                values, *inputs = parallel.put((values, labels, np.ones(count, bool), entry))
                context, _ = jax.block_until_ready(
                    begin(method, labeller.execution, None, current, *inputs)
                )
                predictions = [video.given for video in videos]
            else:
                context, label = timed(
                    'propagation', advance, method, labeller.execution, context, current
                )
                found = timed(
                    'decoding',
                    lambda: jax.tree.map(np.asarray, decode(target, label, values, sizes)),
                )
                predictions = [jax.tree.map(lambda a: a[device], found) for device in range(count)]
            for own, *arguments, prediction in zip(taken, paths, starts, predictions):
                own.append(timed(STAGES[-1], task.take, *arguments, t, prediction))
    for arguments in zip(paths, starts, taken):
        timed(STAGES[-1], task.record, *arguments)
    return {stage: value / (count * num_frames) for stage, value in seconds.items()}


def measure(num_devices):
    """What the evaluation and its stages take on so many devices."""
    if jax.local_device_count() < num_devices:
        raise app.UsageError(f'only {jax.local_device_count()} of {num_devices} devices are there')
    jax.local_device_count = lambda: num_devices  # The evaluation takes all there are.
    config = flags.FLAGS.config
    labeller = runner.Labeller.from_config(config)
    task = tasks.open_task(config.dataset, config.get('measure'))
    sequences = [(name, functools.partial(open_cut, opened)) for name, opened in task.sequences()]
    task = dataclasses.replace(task, sequences=lambda: sequences)
    compiling, _, first_hashes = run_evaluation(task, config, labeller)
    whole, records, hashes = run_evaluation(task, config, labeller)
    total, labelling = (sum(record[of] for record in records) for of in ('num_frames', 'seconds'))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux.
    groups = collections.defaultdict(list)
    labeller = dataclasses.replace(labeller, target=task.target(labeller.target))
    for start in (task.start(opened()) for _, opened in sequences):
        plan = plan_video(start.first, start.sequence, labeller)
        groups[plan.sizes, plan.num_labels].append((start, plan))
    group = max(groups.values(), key=len)
    group = sorted(group, key=lambda item: -item[0].sequence.num_frames)[:num_devices]
    starts, plans = zip(*group)
    shortest = starts[-1].sequence.num_frames
    # The first one compiles.
    for num_frames in (min(labeller.source.batch + 1, shortest), shortest):
        with tempfile.TemporaryDirectory() as folder:
            stages = measure_stages(starts, plans, task, labeller, num_frames, pathlib.Path(folder))
    return {
        'device': jax.devices()[0].device_kind,
        'numbers': {
            'devices': num_devices,
            'frames': total,
            'seconds, with compiling': compiling,
            'seconds': whole,
            'frames a second': total / whole,
            'peak memory, MiB': peak / 2**10,
            'seconds a frame': whole / total,
            '  labelling': labelling / total,
            **{f'    {stage}': value for stage, value in stages.items()},
            '    sum of these stages': sum(stages.values()),
            '    videos in step': len(group),
        },
        'hashes': {'first': first_hashes, 'second': hashes},
    }


def main(_):
    if MEASURE.value:
        return print(json.dumps(measure(MEASURE.value)))
    results = {}
    for number in DEVICES.value:
        xla = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={number}'
        done = subprocess.run(
            [sys.executable, *sys.argv, f'--measure={number}'],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'XLA_FLAGS': xla},
        )
        if done.returncode:
            sys.exit(done.returncode)  # It has said why.
        results[number] = json.loads(done.stdout.splitlines()[-1])
    if OUTPUT.value:
        write_json(OUTPUT.value, results)
    first = results[DEVICES.value[0]]
    print(f'{flags.FLAGS.config.name} on {first["device"]}')
    for name in first['numbers']:
        print(f'{name:26}' + ''.join(f'{r["numbers"][name]:10.4g}' for r in results.values()))
    expected, are_identical = first['hashes']['first'], True
    for number, result in results.items():
        for run, found in result['hashes'].items():
            if names := sorted(dict(expected.items() ^ found.items())):
                are_identical = False
                print(
                    f'masks: in the {run} run on {number} devices {len(names)} differ from '
                    f'the first run on {DEVICES.value[0]}: {", ".join(names)}'
                )
    if not are_identical:
        sys.exit(1)
    print('masks: identical')


if __name__ == '__main__':
    app.run(main, config_files.define_flags(sys.argv, 'synthetic', ('eval',)))
