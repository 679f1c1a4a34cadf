"""MoCo's loss at each checkpoint that a run keeps, with queries, keys and queue by one network.

    python benchmarks/moco_loss.py RUN

While MoCo trains, the momentum encoder is behind the network, and older encoders made the keys of
the queue. Both change the loss that a run logs, and the more so the larger the learning rate is.
Here the momentum encoder is a copy of the network, and nothing is trained: batches of the run's
data fill the queue, and the loss is averaged over as many batches again. The first line is that of
random weights.
"""

import argparse
import json
import os
import pathlib
import tempfile

import checkout  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxprop.objectives import moco
from jaxprop.training import checkpoint, setup


def mean_loss(loss, params, state, batches, queue_size):
    """Means of loss and accuracy over the batches that follow those that fill the queue."""
    measured, seen = [], 0
    for number, batch in enumerate(batches):
        # At step 0 the objective copies the network into the momentum encoder.
        state = {**state, 'step': jnp.zeros((), jnp.int32)}
        value, (state, metrics) = loss(params, state, batch, jax.random.key(number))
        if seen >= queue_size:
            measured.append((float(value), float(metrics['accuracy'])))
        seen += len(batch['image'])
        if seen >= 2 * queue_size:
            return np.mean(measured, axis=0)
    raise AssertionError('batches do not end')


def restore_step(folder):
    """Reads one checkpoint: a folder that holds it alone has it as the newest."""
    with tempfile.TemporaryDirectory() as alone:
        os.symlink(folder, os.path.join(alone, folder.name))
        return checkpoint.restore_variables(alone)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('run', type=pathlib.Path, help='folder of a run of objective moco')
    run = parser.parse_args().run.resolve()
    logging.set_verbosity(logging.ERROR)
    config = ConfigDict(json.loads((run / 'config.json').read_text()))
    settings = config.objective.to_dict()
    if settings.pop('name') != 'moco':
        parser.error(f'{run}: its objective is {config.objective.name}; needed: moco')
    objective = moco.objective(setup.without_training(setup.make_backbone(config)), **settings)
    first = objective.init(jax.random.key(0), None)
    loss = jax.jit(objective.loss)
    steps = [int(path.name) for path in (run / 'checkpoints').iterdir() if path.name.isdigit()]
    for step in [0, *sorted(steps)]:
        params, state = first['params'], first['state']
        if step:
            trained = restore_step(run / 'checkpoints' / str(step))
            statistics = {name: trained['state'][name] for name in params if name in state}
            params, state = trained['params'], state | statistics
        value, accuracy = mean_loss(
            loss, params, state, setup.open_data(config), settings['queue_size']
        )
        print(f'step {step}: loss {value:.2f}, accuracy {accuracy:.3f}', flush=True)


if __name__ == '__main__':
    main()
