r"""Seconds and memory of a config's network and of its propagation, apart, for one frame.

    python benchmarks/network.py --config=davis_dinov3 [--frame=480,854] [--repeats=3]

The network is the config's, with random weights where it has no file; any flag of the config can be
given. The propagation is a step with a full context of features of the same size. Each has a
process of its own, whose memory is what the calls take beside their inputs and weights. Of a
vision transformer the parts are timed too, on random tokens of that size: the patches, the
attention, its four projections and the MLPs, each times the number of blocks; the rest are norms,
rotations and sums.

Ratios are what to read: seconds depend on the machine and what else it does. On CPU the memory is
Linux's.
"""

import json
import os
import pathlib
import subprocess
import sys

import checkout  # noqa: F401
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from propagation import matrix_rate, measure

from jaxprop import config_files
from jaxprop.data.inputs import input_size
from jaxprop.evaluation.features import extract_features
from jaxprop.evaluation.labeller import Labeller
from jaxprop.models import ViT, vit
from jaxprop.propagation import Context, propagate_step

FRAME = flags.DEFINE_list('frame', ['480', '854'], 'Height and width of a frame in pixels.')
REPEATS = flags.DEFINE_integer('repeats', 3, 'The median time of so many calls.', lower_bound=1)
ALONE = flags.DEFINE_string('alone', None, 'What to measure here: used by the benchmark itself.')
LABELS = 2


def measure_network(labeller, size):
    """The features of one batch of frames."""
    source = labeller.source
    variables = jax.device_put(source.network.variables)
    frames = np.random.default_rng(0).integers(0, 256, (source.batch, *size, 3), np.uint8)

    def run():
        model = source.network.model
        extract_features(model, variables, frames, color_space=source.color).block_until_ready()

    run()  # Compiles.
    return {**measure(run, REPEATS.value), 'frames': source.batch}


def measure_propagation(labeller, size):
    """A step with a full context."""
    model, method = labeller.source.network.model, labeller.propagation
    slots = method.memory.num_slots
    rng = np.random.default_rng(0)
    grid = model.grid_size(*size)
    features = rng.standard_normal((slots + 1, *grid, model.channels), np.float32)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    labels = np.eye(LABELS, dtype=np.float32)[rng.integers(LABELS, size=(slots, *grid))]
    context = Context(
        jnp.array(features[:-1]), jnp.array(labels), jnp.ones(slots, bool), jnp.array(slots)
    )
    target = jnp.array(features[-1])
    del features, labels

    def step(context, target):
        return propagate_step(context, target, method=method, execution=labeller.execution)

    step = jax.jit(step, donate_argnums=0).lower(context, target).compile()

    def run():
        nonlocal context
        context, label = step(context, target)
        label.block_until_ready()

    return {**measure(run, REPEATS.value), 'frames': 1}


def measure_parts(labeller, size):
    """Seconds of the parts of a vision transformer, for one frame."""
    model = labeller.source.network.model
    rows, columns = model.grid_size(*size)
    tokens = rows * columns + 1 + model.registers
    width, hidden = model.width, model.hidden or 4 * model.width
    x = jnp.full((1, tokens, width), 0.1)
    heads = jnp.ones((1, tokens, model.heads, width // model.heads))
    patch = (model.patch, model.patch)
    embed = nn.Conv(width, patch, strides=patch, padding='VALID')
    image = jnp.ones((1, *size, 3))
    weights = embed.init(jax.random.key(0), image)
    square, inner = jnp.ones((width, width)), jnp.ones((width, hidden))

    def mlp(x, inner):
        if model.mlp == 'swiglu':
            return (nn.silu(x @ inner) * (x @ inner[:, ::-1])) @ inner.T
        return nn.gelu(x @ inner, approximate=False) @ inner.T

    parts = {
        'patches': (1, embed.apply, (weights, image)),
        'attention': (model.depth, vit.attention, (heads, heads, heads)),
        'projections': (4 * model.depth, jnp.matmul, (x, square)),
        'MLPs': (model.depth, mlp, (x, inner)),
    }
    seconds = {}
    for name, (count, part, arrays) in parts.items():
        compiled = jax.jit(part).lower(*arrays).compile()

        def run(compiled=compiled, arrays=arrays):
            jax.block_until_ready(compiled(*arrays))

        seconds[name] = count * measure(run, REPEATS.value)['seconds']
    return {'parts': seconds, 'tokens': tokens}


MEASURES = {
    'network': measure_network,
    'propagation': measure_propagation,
    'parts': measure_parts,
}


def run_alone(name):
    """A measurement in a process of its own, with the same flags."""
    result = subprocess.run(
        [sys.executable, str(pathlib.Path(__file__).resolve()), *sys.argv[1:], f'--alone={name}'],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    )
    return json.loads(result.stdout.splitlines()[-1])


def main(_):
    logging.set_verbosity(logging.WARNING)
    labeller = Labeller.from_config(flags.FLAGS['config'].value)
    height, width = map(int, FRAME.value)
    size = input_size(height, width, labeller.source.input)
    if ALONE.value:
        print(json.dumps(MEASURES[ALONE.value](labeller, size)))
        return
    model = labeller.source.network.model
    rows, columns = model.grid_size(*size)
    print(
        f'{type(model).__name__}, frames of {height} x {width} seen at {size[0]} x {size[1]}: '
        f'{rows} x {columns} cells, {model.channels} channels; matrices at '
        f'{matrix_rate(2048, 2048) / 1e9:.0f} GFLOP/s'
    )
    found = {name: run_alone(name) for name in ('network', 'propagation')}
    seconds = {name: one['seconds'] / one['frames'] for name, one in found.items()}
    for name, one in found.items():
        print(
            f'{name:12} {seconds[name]:8.3f} s a frame   {one["mebibytes"]:7.1f} MiB for '
            f'{one["frames"]} at a time   {seconds[name] / sum(seconds.values()):4.0%}',
            flush=True,
        )
    if isinstance(model, ViT):
        parts = run_alone('parts')
        print(f'of the network, with {parts["tokens"]} tokens:')
        for name, part in parts['parts'].items():
            print(f'  {name:12} {part:8.3f} s   {part / seconds["network"]:4.0%}')


if __name__ == '__main__':
    app.run(main, config_files.define_flags(sys.argv, 'davis_dinov3', ('eval',)))
