"""Counts the pixels in which two implementations of the propagation differ on DAVIS-2016.

    python benchmarks/equal_masks.py DAVIS --sequences=dog,goat --implementations windowed screened

Both label each sequence at its own size from the same features, those of the network that comes
with the package, with CRW's factors. A pixel takes the object or the background, whichever has the
larger soft label, between 0 and 1. Where the implementations choose differently, the table shows
how far the two labels of the pixel are apart in the first one. It also shows by how much any soft
label differs between the two: some 1e-6 by rounding, more where k-th neighbours are equally near.

With `--ties` the second implementation also labels each frame from the context of the first one.
Counted are the cells whose labels then differ by more than 1e-5. For these the table shows the
largest gap between the k-th and the next affinity, in parts of the k-th: where it is below 1e-6,
either of the two may be selected.
"""

import argparse
import math

import checkout  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np

from jaxprop import affinity, init_context, labels, memory, propagate_step
from jaxprop.config_files import load_config
from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.evaluation.features import frames_of, open_features
from jaxprop.evaluation.labeller import Labeller, plan_video, start_video
from jaxprop.rules.rule import IMPLEMENTATIONS, Execution

# All sequences of one size and number of labels share these programs.
step = jax.jit(propagate_step, static_argnames=('method', 'execution'))
resize = jax.jit(labels.resize, static_argnums=(1, 2))


def compare(sequence, labeller, implementations, ties):
    """Labels a sequence in both ways.

    Returns:
      The number of pixels that were compared; the distance of the two labels of each pixel that
      differs; the largest difference of soft labels; and with `ties` the gaps of the cells that
      differ from equal contexts.
    """
    ids, method = sequence.read_label(0), labeller.propagation
    plan = plan_video(ids, sequence, labeller)
    video = start_video(sequence.name, ids, plan, labeller)
    opened = open_features(labeller.source, sequence, frames_of(sequence))
    executions = [Execution(implementation=name) for name in implementations]
    contexts, distances, largest, gaps = [], [], 0.0, []
    for index, features in enumerate(map(jnp.asarray, opened.arrays)):
        if index == 0:
            contexts = [init_context(features, jnp.asarray(video.labels), method)] * 2
            continue
        found = [
            step(context, features, method=method, execution=execution)
            for context, execution in zip(contexts, executions)
        ]
        if ties:
            _, again = step(contexts[0], features, method=method, execution=executions[1])
            cells = np.argwhere(np.abs(again - found[0][1]).max(-1) > 1e-5)
            if len(cells):
                gaps += find_gaps(contexts[0], features, method, cells)
        contexts = [context for context, _ in found]
        one, other = (np.asarray(resize(soft, ids.shape, 'bilinear')) for _, soft in found)
        largest = max(largest, float(jnp.max(jnp.abs(found[0][1] - found[1][1]))))
        differs = one.argmax(-1) != other.argmax(-1)
        chosen = np.take_along_axis(one[differs], other[differs].argmax(-1)[:, None], axis=-1)
        distances += list(one[differs].max(-1) - chosen[:, 0])
    return index * ids.size, distances, largest, gaps


def find_gaps(context, features, method, cells):
    """How far the k-th and the next affinity of each cell are apart, in parts of the k-th."""
    frames, rule = memory.read(method.memory, context), method.rule
    keys, valid = np.asarray(frames.features, np.float64), np.asarray(frames.valid)
    grid = np.stack(np.meshgrid(*map(np.arange, frames.grid), indexing='ij'), axis=-1)
    gaps = []
    for cell in cells:
        target = np.asarray(affinity.l2_normalize(features[tuple(cell)]), np.float64)
        allowed = np.tile(rule.region.allows(jnp.asarray(cell - grid)), (len(keys), 1, 1))
        if not rule.region.bind_first:
            allowed[: int(frames.keep_first)] = True
        allowed &= valid[:, None, None]
        best = np.sort((keys @ target)[allowed])[::-1]
        if len(best) > rule.k:
            gaps.append((best[rule.k - 1] - best[rule.k]) / abs(best[rule.k - 1]))
        else:
            gaps.append(math.inf)
    return gaps


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
    parser.add_argument('--ties', action='store_true', help='look at the cells that differ')
    options = parser.parse_args()
    config = load_config('davis_crw')
    config.network.name = options.network or config.network.name
    labeller = Labeller.from_config(config)
    total = 0
    header = ['sequence', 'pixels', 'differ', 'their labels are apart by', 'labels differ by up to']
    if options.ties:
        header += ['cells that differ from equal contexts', 'gap']
    print('|', ' | '.join(header), '|')
    print('|---' * len(header) + '|')
    for name in options.sequences or davis_names(options.davis, '2016'):
        sequence = davis_sequence(options.davis, name, year='2016')
        pixels, distances, largest, gaps = compare(
            sequence, labeller, options.implementations, options.ties
        )
        total += len(distances)
        apart = f'{max(distances):.1e} or less' if distances else ''
        columns = [name, pixels, len(distances), apart, f'{largest:.1e}']
        if options.ties:
            columns += [len(gaps), f'{max(gaps):.1e} or less' if gaps else '']
        print('|', ' | '.join(map(str, columns)), '|', flush=True)
    print(f'{total} pixels differ.')


if __name__ == '__main__':
    main()
