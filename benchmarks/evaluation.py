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

import jax
import numpy as np
from absl import app, flags

from jaxprop import config_files, parallel
from jaxprop.commands.datasets import open_benchmark, open_dataset
from jaxprop.data.inputs import input_size
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import run as runner
from jaxprop.evaluation import stream, targets
from jaxprop.files import write_json
from jaxprop.keypoints import cell_size
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


def run_evaluation(sequences, config, labeller, benchmark):
    """Seconds of an evaluation, its sequences' records, and hashes of the predictions' files."""
    with tempfile.TemporaryDirectory() as folder:
        folder, start = pathlib.Path(folder), time.perf_counter()
        runner.evaluate(
            sequences,
            labeller,
            folder,
            benchmark=benchmark,
            title=config.title,
            dataset=config.dataset.to_dict(),
            report_frames=config.report_frames,
            **config.batch,
        )
        seconds = time.perf_counter() - start
        records = [json.loads(path.read_text()) for path in (folder / 'sequences').iterdir()]
        hashes = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder / benchmark.folder).rglob('*')
            if path.is_file()
        }
    return seconds, records, hashes


def propagate(config, context, features):
    return propagate_step(context, features, config=config)


def measure_stages(sequences, labeller, benchmark, num_labels, num_frames, folder):
    """Seconds a frame of each stage for these sequences, one on each device, as in `batch`."""
    count, size, model = len(sequences), tuple(sequences[0].size), labeller.network.model
    config, codec = labeller.propagation, benchmark.codec(labeller.codec)
    extract = parallel.local_map(stream._extract, count, static=(0, 1))
    start = parallel.local_map(stream._start, count, static=(0,), donate=(1,))
    advance = parallel.local_map(propagate, count, static=(0,), donate=(1,))
    decode = parallel.local_map(type(codec).decode, count, static=(0, 3))
    variables = parallel.put(
        stream._stack(
            [sources.video_variables(s.read_frame, s.num_frames, labeller) for s in sequences]
        )
    )
    firsts = [benchmark.first(sequence) for sequence in sequences]
    objects = [benchmark.objects(first) for first in firsts]
    paths = [folder / sequence.name for sequence in sequences]
    taken, seconds = [[] for _ in sequences], dict.fromkeys(STAGES, 0.0)

    def timed(stage, function, *arguments):
        begun = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        seconds[stage] += time.perf_counter() - begun
        return result

    for begin in range(0, num_frames, labeller.feature_batch):
        chosen = range(begin, min(begin + labeller.feature_batch, num_frames))
        frames = timed(
            'reading and resizing',
            lambda: {
                device: [runner.prepared_frame(s, t, labeller) for t in chosen]
                for device, s in enumerate(sequences)
            },
        )
        features = timed(
            'features',
            lambda: extract(
                model,
                labeller.color,
                variables,
                parallel.put(stream._stack_frames(frames, count, labeller.feature_batch)),
            ),
        )
        for t, current in zip(chosen, features):
            if t == 0:  # Once a video: in no stage.
                seen = input_size(*size, labeller.input)
                cell = cell_size(size, seen, model.stride)
                sizes = targets.Sizes(size, seen, current.shape[1:3], cell)
                labels = np.zeros((*current.shape[:3], num_labels), np.float32)
                values = np.zeros((count, num_labels), np.int32)
                for device, first in enumerate(firsts):
                    soft, own = codec.encode(first, sizes)
                    labels[device][..., : own.size], values[device, : own.size] = soft, own
                values, *inputs = parallel.put((values, labels, np.ones(count, bool)))
                context, _ = jax.block_until_ready(start(config, None, current, *inputs))
                predictions = [codec.given(first) for first in firsts]
            else:
                context, label = timed('propagation', advance, config, context, current)
                found = timed(
                    'decoding',
                    lambda: jax.tree.map(np.asarray, decode(codec, label, values, sizes)),
                )
                predictions = [jax.tree.map(lambda a: a[device], found) for device in range(count)]
            for own, *arguments, prediction in zip(taken, paths, sequences, objects, predictions):
                own.append(timed(STAGES[-1], benchmark.take, *arguments, t, prediction))
    for arguments in zip(paths, sequences, objects, taken):
        timed(STAGES[-1], benchmark.record, *arguments)
    return {stage: value / (count * num_frames) for stage, value in seconds.items()}


def measure(num_devices):
    """What the evaluation and its stages take on so many devices."""
    if jax.local_device_count() < num_devices:
        raise app.UsageError(f'only {jax.local_device_count()} of {num_devices} devices are there')
    jax.local_device_count = lambda: num_devices  # The evaluation takes all there are.
    config = flags.FLAGS.config
    labeller, benchmark = runner.Labeller.from_config(config), open_benchmark(config)
    sequences = [
        (name, functools.partial(open_cut, opened)) for name, opened in open_dataset(config.dataset)
    ]
    compiling, _, first_hashes = run_evaluation(sequences, config, labeller, benchmark)
    whole, records, hashes = run_evaluation(sequences, config, labeller, benchmark)
    total, labelling = (sum(record[of] for record in records) for of in ('num_frames', 'seconds'))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux.
    groups, codec = collections.defaultdict(list), benchmark.codec(labeller.codec)
    for sequence in (opened() for _, opened in sequences):
        seen = input_size(*sequence.size, labeller.input)
        num_labels = codec.num_labels(benchmark.first(sequence), seen)
        groups[sequence.size, num_labels].append(sequence)
    (_, num_labels), group = max(groups.items(), key=lambda item: len(item[1]))
    group = sorted(group, key=lambda sequence: -sequence.num_frames)[:num_devices]
    shortest = group[-1].num_frames
    for num_frames in (min(labeller.feature_batch + 1, shortest), shortest):  # The first compiles.
        with tempfile.TemporaryDirectory() as folder:
            stages = measure_stages(
                group, labeller, benchmark, num_labels, num_frames, pathlib.Path(folder)
            )
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
