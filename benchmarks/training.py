r"""Examples a second of training, what is lost to input, and how much of the machine a step uses.

    python benchmarks/training.py --config=small_rotation [--config.data.root=FOLDER]
    python benchmarks/training.py --all_small [--color_autoencoder=FOLDER]

A run of the config in a folder of its own, without its first steps, which compile; beside it the
input alone (reading, decoding and batching, nothing trained) and the step alone (one batch on the
device, over and over). `--all_small` does so for every config small_*, but those that need a colour
autoencoder where `--color_autoencoder` does not give it. Without a folder of videos, rendered ones
are written and read. Ratios are what to read; rates depend on the machine and what else it does.

The share of the matrix rate is a step's floating point operations a second, by those that one large
product of float32 matrices does in the same process, both of one device. Operations are XLA's count
of the compiled step. Of the gradient of a ResNet18 it is that of the products of pixels and weights
to 1 %, those with the zeros of padding left out (`--check_count`). It has a loop's body once: with
`accumulate` it is multiplied by that, and of CorrFlow's and MAST's windows 8 of 9 rounds are
missing, less than 5 % of a step.
"""

import json
import pathlib
import sys
import tempfile
import time

import checkout  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import shipped_network
from absl import app, flags, logging
from PIL import Image
from propagation import matrix_rate

from jaxprop import config_files, parallel
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.models import ResNet
from jaxprop.training import loop, setup
from jaxprop.training.state import create_state
from jaxprop.training.step import make_train_step

STEPS = flags.DEFINE_integer('steps', 12, 'Timed steps.', lower_bound=1)
ALL_SMALL = flags.DEFINE_bool('all_small', False, 'Every config small_*, one after the other.')
COLOR_AUTOENCODER = flags.DEFINE_string(
    'color_autoencoder', '', 'objective.color_autoencoder of the configs that need one.'
)
CHECK_COUNT = flags.DEFINE_bool(
    'check_count', False, "XLA's count of a ResNet18's gradient beside one by hand; no more."
)
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
    """Examples a second of the step alone, and its operations on a device, counted by XLA."""
    config = config.copy_and_resolve_references()
    iterator = setup.open_data(config)
    steps_per_epoch = iterator.examples_per_epoch / config.data.batch_size
    _, objective, _, optimizer = setup.make_training(config, steps_per_epoch)
    batch = next(iterator)
    example = jax.tree.map(lambda values: values[0], parallel.split(batch))
    state = parallel.replicate(create_state(objective, optimizer, example, config.seed))
    step, batch = make_train_step(objective, optimizer, config.accumulate), parallel.shard(batch)
    step = step.lower(state, batch).compile()
    for repeat in range(_WARM_UP + STEPS.value):
        if repeat == _WARM_UP:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    rate = STEPS.value * config.data.batch_size / (time.perf_counter() - start)
    return rate, config.accumulate * operations(step)


def operations(compiled):
    """Floating point operations of a compiled function on a device; None where XLA has no count."""
    found = compiled.cost_analysis() or {}
    found = found[0] if isinstance(found, list) else found
    return found.get('flops')


def check_count():
    """Prints XLA's count of the gradient of a ResNet18, and one by hand."""
    batch, size = 2, 96
    model = ResNet(output='res4', strides=(1, 2, 2, 2))
    images = jnp.ones((batch, size, size, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def loss(params):
        inputs = {**variables, 'params': params}
        return jnp.mean(model.apply(inputs, images, train=True, mutable=['batch_stats'])[0] ** 2)

    counted = operations(jax.jit(jax.value_and_grad(loss)).lower(variables['params']).compile())

    def products(size, kernel, stride, inputs, outputs):
        """Of a convolution, without those with padding."""
        places = np.arange(0, size, stride)[:, None] + np.arange(kernel) - (kernel - 1) // 2
        return 2 * batch * inputs * outputs * np.sum((places >= 0) & (places < size)) ** 2

    first = products(size, 7, 2, 3, 64)
    others, size = 0, size // 4  # After a convolution and a pooling of stride 2 each.
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        others += products(size, 3, stride, inputs, outputs)
        if stride > 1:
            others += products(size, 1, stride, inputs, outputs)  # Of the shortcut.
        size //= stride
        others += 3 * products(size, 3, 1, outputs, outputs)
        inputs = outputs
    # Backwards once more for the weights and once for the inputs, but for those of the first.
    by_hand = 2 * first + 3 * others
    print(
        f'gradient of a ResNet18: XLA counts {counted / 1e9:.3f} GFLOP, by hand '
        f'{by_hand / 1e9:.3f} GFLOP in convolutions, {counted / by_hand:.3f} of it'
    )


def main(arguments):
    if len(arguments) > 1:
        raise app.UsageError(f'unknown argument {arguments[1]!r}')
    logging.set_verbosity(logging.ERROR)
    if CHECK_COUNT.value:
        check_count()
        return
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
            if one.objective.get('color_autoencoder') == '':
                one.objective.color_autoencoder = COLOR_AUTOENCODER.value
            if ALL_SMALL.value and one.objective.get('color_autoencoder') == '':
                print(f'{one.name}: left out, it needs --color_autoencoder')
                continue
            one.data.root = root
            measure(one, folder / f'run {one.name}')


def measure(config, folder):
    """Prints what a config's training, input and step give."""
    print(shipped_network.describe_machine())
    matrices = matrix_rate(2048, 2048)
    rate, waited = run_rate(config, folder)
    step, count = step_rate(config)
    alone = {'input': input_rate(config), 'step': step}
    batch_size = config.data.batch_size
    seconds = batch_size / step
    print(
        f'{config.name} on {jax.device_count()} x {jax.devices()[0].device_kind}, batches of '
        f'{batch_size}, {seconds:.2f} s a step:'
    )
    print(f'  training    {rate:8.1f} examples/s, {100 * waited:.1f} % of the time without input')
    for name, value in alone.items():
        print(f'  {name} alone {value:9.1f} examples/s, {value / rate:.2f} x training')
    if count is not None:
        matrices = max(matrices, matrix_rate(2048, 2048))  # Another process may have disturbed one.
        print(f'  GFLOP a step {count / 1e9:8.1f}')
        print(f'  GFLOP/s {count / seconds / 1e9:13.1f}')
        share = count / seconds / matrices
        print(f'  share of matrix rate {share:.2f}, of {matrices / 1e9:.0f} GFLOP/s', flush=True)


if __name__ == '__main__':
    app.run(main, config_files.define_flags(sys.argv, 'small_rotation', ('train',)))
