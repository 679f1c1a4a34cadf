"""Counts the pixels in which two implementations of the propagation differ on DAVIS-2016.

    python benchmarks/equal_masks.py DAVIS --sequences=dog,goat --implementations windowed screened

Both label each sequence at its own size from the same features, those of the network that comes
with the package, with CRW's factors. A pixel takes the object or the background, whichever has the
larger soft label, between 0 and 1. Where the implementations choose differently, the table shows
how far the two labels of the pixel are apart in the first one. It also shows by how much any soft
label differs between the two: some 1e-6 by rounding, more where k-th neighbours are equally near.
A pixel whose labels are apart by no more than rounding is a tie.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import init_context, labels, propagate_step
from jaxprop.config_files import load_config
from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.evaluation.features import frames_of, open_features
from jaxprop.evaluation.labeller import Labeller, plan_video, start_video
from jaxprop.rules.rule import IMPLEMENTATIONS, Execution

# All sequences of one size and number of labels share these programs.
step = jax.jit(propagate_step, static_argnames=('method', 'execution'))
resize = jax.jit(labels.resize, static_argnums=(1, 2))


def compare(sequence, labeller, implementations):
    """Labels a sequence in both ways.

    Returns:
      The number of pixels that were compared; the distance of the two labels of each pixel that
      differs; and the largest difference of soft labels.
    """
    ids, method = sequence.read_label(0), labeller.propagation
    plan = plan_video(ids, sequence, labeller)
    video = start_video(sequence.name, ids, plan, labeller)
    opened = open_features(labeller.source, sequence, frames_of(sequence))
    executions = [Execution(implementation=name) for name in implementations]
    contexts, distances, largest = [], [], 0.0
    for index, features in enumerate(map(jnp.asarray, opened.arrays)):
        if index == 0:
            contexts = [init_context(features, jnp.asarray(video.labels), method)] * 2
            continue
        found = [
            step(context, features, method=method, execution=execution)
            for context, execution in zip(contexts, executions)
        ]
        contexts = [context for context, _ in found]
        one, other = (np.asarray(resize(soft, ids.shape, 'bilinear')) for _, soft in found)
        largest = max(largest, float(jnp.max(jnp.abs(found[0][1] - found[1][1]))))
        differs = one.argmax(-1) != other.argmax(-1)
        chosen = np.take_along_axis(one[differs], other[differs].argmax(-1)[:, None], axis=-1)
        distances += list(one[differs].max(-1) - chosen[:, 0])
    return index * ids.size, distances, largest


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('davis', help='the folder of DAVIS')
    parser.add_argument('--sequences', type=lambda names: names.split(','), help='default: `val`')
    parser.add_argument('--network', default='', help='in place of the one that comes along')
    parser.add_argument(
        '--implementations', nargs=2, choices=IMPLEMENTATIONS, default=['windowed', 'screened']
    )
    options = parser.parse_args()
    config = load_config('davis_crw')
    config.network.name = options.network or config.network.name
    labeller = Labeller.from_config(config)
    total = 0
    print('| sequence | pixels | differ | their labels are apart by | labels differ by up to |')
    print('|---|---|---|---|---|')
    for name in options.sequences or davis_names(options.davis, '2016'):
        sequence = davis_sequence(options.davis, name, year='2016')
        pixels, distances, largest = compare(sequence, labeller, options.implementations)
        total += len(distances)
        apart = f'{max(distances):.1e} or less' if distances else ''
        print(f'| {name} | {pixels} | {len(distances)} | {apart} | {largest:.1e} |', flush=True)
    print(f'{total} pixels differ.')


if __name__ == '__main__':
    main()
