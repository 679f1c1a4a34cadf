"""Seconds of a whole frame, network and labels, beside the same in plain PyTorch.

    python benchmarks/whole_frame.py --video=FOLDER

CRW's setting with a full context: the shipped network and a step of label propagation, from a frame
of 480x854 to soft labels on the grid of cells. PyTorch, installed by hand, gets the same weights,
context and frame, this one already in the network's colours; it computes the whole affinity of all
context frames, masks it, and takes the top k. Each has a process of its own; its time is the median
of five, with the least and the largest. The labels of both are compared: they may differ where the
k-th and the next cell are equally near.

`--video` is a folder with at least 42 frames of that size, as for `propagation.py`. The ratio is
what to read: seconds depend on the machine and what else it does.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import checkout  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import propagation
import shipped_network
from absl import app, flags, logging
from flax import traverse_util

from jaxprop import color
from jaxprop.checkpoints.native import load_pretrained
from jaxprop.data.image_files import list_images
from jaxprop.propagation import Context, propagate_step

CASE = propagation.Case(path='auto')
ALONE = flags.DEFINE_string('alone', None, 'What to measure: used by the benchmark itself.')


def read_target():
    """The frame after the context."""
    return propagation.read_frame(list_images(propagation.VIDEO.value)[CASE.num_context + 1])


def measure_jax(case):
    extract = propagation.make_extract()
    features, labels = propagation.inputs(case)
    num_slots = case.num_context + 1
    context = Context(
        jnp.array(features[0, :-1]),
        jnp.array(labels[0]),
        jnp.ones(num_slots, bool),
        jnp.array(num_slots),
    )
    frame = read_target()

    @jax.jit
    def step(context, target):
        return propagate_step(context, target, method=case.method(), execution=case.execution())[1]

    def label():
        return step(context, extract(frame)).block_until_ready()

    measured = propagation.measure(label, case.repeats)
    return {**measured, 'label': np.asarray(label()).ravel().tolist()}


def torch_network(variables):
    """The ResNet18 of the shipped network: images `[1, 3, h, w]` to features `[H * W, C]`."""
    import torch
    from torch.nn import functional

    arrays = traverse_util.flatten_dict(jax.device_get(variables), sep='/')
    tensors = {name.partition('/')[2]: torch.tensor(array) for name, array in arrays.items()}
    for name in [name for name in tensors if name.endswith('/kernel')]:
        kernel = tensors[name].permute(3, 2, 0, 1)
        tensors[name] = kernel.contiguous(memory_format=torch.channels_last)

    def conv_norm(x, conv, norm, stride=1):
        kernel = tensors[f'{conv}/kernel']
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return functional.batch_norm(
            x, *(tensors[f'{norm}/{name}'] for name in ('mean', 'var', 'scale', 'bias'))
        )

    def network(images):
        x = functional.relu(conv_norm(images, 'stem_conv', 'stem_norm', 2))
        x = functional.max_pool2d(x, 3, 2, 1)
        for block, stride in {
            'res1_0': 1, 'res1_1': 1, 'res2_0': 2, 'res2_1': 1, 'res3_0': 1, 'res3_1': 1
        }.items():  # fmt: skip
            y = functional.relu(conv_norm(x, f'{block}/conv1', f'{block}/norm1', stride))
            y = conv_norm(y, f'{block}/conv2', f'{block}/norm2')
            if f'{block}/shortcut_conv/kernel' in tensors:
                x = conv_norm(x, f'{block}/shortcut_conv', f'{block}/shortcut_norm', stride)
            x = functional.relu(x + y)
        return functional.normalize(x[0].flatten(1).T, dim=1)

    return network


def measure_torch(case):
    import torch

    network = torch_network(load_pretrained(propagation.NETWORK.value)[1])
    step = propagation.torch_step(case)
    images = np.asarray(color.network_input(read_target()[None], 'lightness'))
    images = torch.tensor(images).permute(0, 3, 1, 2)  # Channels last in memory.
    with torch.no_grad():
        measured = propagation.measure(lambda: step(network(images)), case.repeats)
        return {**measured, 'label': step(network(images)).ravel().tolist()}


def run_alone(name, features):
    given = (f'--{flag.name}={flag.value}' for flag in (propagation.VIDEO, propagation.NETWORK))
    command = [sys.executable, __file__, *given]
    done = subprocess.run(
        [*command, f'--alone={json.dumps({"name": name, "features": features})}'],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(argv):
    del argv
    logging.set_verbosity(logging.ERROR)
    if ALONE.value is not None:
        wanted = json.loads(ALONE.value)
        case = dataclasses.replace(CASE, features=wanted['features'])
        print(json.dumps({'jax': measure_jax, 'torch': measure_torch}[wanted['name']](case)))
        return
    with tempfile.TemporaryDirectory() as folder:
        features = os.path.join(folder, 'features.npy')
        propagation.write_features(propagation.VIDEO.value, features)
        found = {name: run_alone(name, features) for name in ('jax', 'torch')}
    print(shipped_network.describe_machine())
    for name, row in found.items():
        least, most = row['least_and_most_seconds']
        print(f'{name:6} {row["seconds"]:7.3f} s a frame ({least:.3f} to {most:.3f})')
    differences = np.abs(np.subtract(*(np.array(row['label']) for row in found.values())))
    print(f'ratio {found["torch"]["seconds"] / found["jax"]["seconds"]:.1f}')
    differing = np.sum(differences.reshape(-1, propagation.LABELS).max(axis=1) > 1e-4)
    print(f'labels of {differing} of {CASE.height * CASE.width} cells differ by more than 1e-4')


if __name__ == '__main__':
    flags.mark_flag_as_required('video')
    app.run(main)
