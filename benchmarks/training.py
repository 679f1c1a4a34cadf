r"""Examples a second of training, and what is lost to input.

    python benchmarks/training.py --config=small_rotation [--config.data.root=FOLDER]
    python benchmarks/training.py --all_small [--config.data.root=FOLDER]

A run of the config in a folder of its own, without its first steps, which compile; beside it the
input alone (reading, decoding and batching, nothing trained) and the step alone (one batch on the
device, over and over). `--all_small` does so for every config small_*, but those that need a
network which is not given. Without a folder of videos, rendered ones are written and read. Ratios
are what to read; rates depend on the machine and what else it does.
"""

import json
import pathlib
import sys
import tempfile
import time

import jax
from absl import app, flags, logging
from PIL import Image

from jaxprop import config_files, parallel
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.training import loop, setup
from jaxprop.training.state import create_state
from jaxprop.training.step import make_train_step

STEPS = flags.DEFINE_integer('steps', 12, 'Timed steps.', lower_bound=1)
ALL_SMALL = flags.DEFINE_bool('all_small', False, 'Every config small_*, one after the other.')
_WARM_UP = 4  # Steps until nothing is compiled and the queues are as they stay.


def write_videos(folder):
    for sequence in synthetic_sequences():
        (folder / sequence.name).mkdir(parents=True)
        for t in range(sequence.num_frames):
            Image.fromarray(sequence.read_frame(t)).save(folder / sequence.name / f'{t:05d}.jpg')


def run_rate(config, folder):
    """Examples a second and the share of time spent waiting for input, in a run."""
    config = config.copy_and_resolve_references()
    config.steps = _WARM_UP + STEPS.value
    config.log_every = 1
    config.checkpoint_every = config.steps + 1  # Only the last one, after the last step.
    loop.train(config, folder)
    entries = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    # The last entry holds the time of nothing else, as it is written before its checkpoint.
    timed = entries[_WARM_UP:]
    seconds = [config.data.batch_size / entry['examples_per_second'] for entry in timed]
    waited = sum(s * entry['wait_share'] for s, entry in zip(seconds, timed))
    return len(timed) * config.data.batch_size / sum(seconds), waited / sum(seconds)


def input_rate(config):
    iterator = setup.open_data(config)
    for _ in range(_WARM_UP):
        next(iterator)
    start = time.perf_counter()
    for _ in range(STEPS.value):
        next(iterator)
    return STEPS.value * config.data.batch_size / (time.perf_counter() - start)


def step_rate(config):
    config = config.copy_and_resolve_references()
    iterator = setup.open_data(config)
    steps_per_epoch = iterator.examples_per_epoch / config.data.batch_size
    _, objective, _, optimizer = setup.make_training(config, steps_per_epoch)
    batch = next(iterator)
    example = jax.tree.map(lambda values: values[0], parallel.split(batch))
    state = parallel.replicate(create_state(objective, optimizer, example, config.seed))
    step, batch = make_train_step(objective, optimizer, config.accumulate), parallel.shard(batch)
    for repeat in range(_WARM_UP + STEPS.value):
        if repeat == _WARM_UP:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    return STEPS.value * config.data.batch_size / (time.perf_counter() - start)


def main(arguments):
    if len(arguments) > 1:
        raise app.UsageError(f'unknown argument {arguments[1]!r}')
    logging.set_verbosity(logging.ERROR)
    config = flags.FLAGS.config
    configs = [config]
    if ALL_SMALL.value:
        names = [name for name in config_files.config_names(('train',)) if 'small_' in name]
        configs = [config_files.load_config(name, ('train',)) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        root = config.data.root
        if not root:
            if config.data.kind != 'videos':
                raise app.UsageError('data.root is empty: say --config.data.root=FOLDER')
            root = str(folder / 'videos')
            write_videos(folder / 'videos')
        for one in configs:
            if ALL_SMALL.value and one.objective.get('color_autoencoder') == '':
                print(f'{one.name}: left out, it needs objective.color_autoencoder')
                continue
            one.data.root = root
            measure(one, folder / f'run {one.name}')


def measure(config, folder):
    """Prints what a config's training, input and step give."""
    rate, waited = run_rate(config, folder)
    alone = {'input': input_rate(config), 'step': step_rate(config)}
    batch_size = config.data.batch_size
    print(
        f'{config.name} on {jax.device_count()} x {jax.devices()[0].device_kind}, batches of '
        f'{batch_size}, {batch_size / alone["step"]:.2f} s a step:'
    )
    print(f'  training    {rate:8.1f} examples/s, {100 * waited:.1f} % of the time without input')
    for name, value in alone.items():
        print(f'  {name} alone {value:9.1f} examples/s, {value / rate:.2f} x training', flush=True)


if __name__ == '__main__':
    app.run(main, config_files.define_flags(sys.argv, 'small_rotation', ('train',)))
