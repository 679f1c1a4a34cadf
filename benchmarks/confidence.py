"""How well confidence tells where masks are bad: its rank correlation with J, frame by frame.

Each sequence is labelled from its first mask. Spearman's correlation of a frame's confidence with
its J is computed for each object, over all frames but the first, and averaged over the objects of a
sequence. Beside it stands that of the entropy alone, the mean certainty of an object's cells.

    python benchmarks/confidence.py DAVIS --split=val
"""

import argparse
import functools

import checkout  # noqa: F401
import jax
import numpy as np
from scipy import stats
from tqdm import tqdm

from jaxprop import affinity, confidence, config_files, init_context, propagate_step
from jaxprop.data import davis
from jaxprop.evaluation.any_order import open_features
from jaxprop.evaluation.labeller import Labeller, plan_video, start_video
from jaxprop.metrics.davis import region_similarity


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('root', help='the folder of DAVIS')
    parser.add_argument('--year', default='2016')
    parser.add_argument('--split', default='val')
    parser.add_argument('--names', nargs='*', help='sequences, in place of those of the split')
    parser.add_argument(
        '--size', type=int, default=240, help='the short side that the network sees'
    )
    parser.add_argument('--radius', type=float, default=6.0, help='of the search, in cells')
    arguments = parser.parse_args()

    config = config_files.load_config('synthetic')
    config.input.update(resize='short_side', size=arguments.size)
    config.propagation.radius = arguments.radius
    labeller = Labeller.from_config(config)
    names = arguments.names or davis.davis_names(arguments.root, arguments.year, arguments.split)
    print(f'{"sequence":20}{"confidence":>12}{"entropy":>12}{"mean J":>12}', flush=True)
    rows = []
    for name in names:
        sequence = davis.davis_sequence(arguments.root, name, arguments.year)
        confident, certain, region = judge(sequence, labeller)
        rows.append((correlation(confident, region), correlation(certain, region), region.mean()))
        print(f'{name:20}' + ''.join(f'{value:12.3f}' for value in rows[-1]), flush=True)
    print(f'{"mean":20}' + ''.join(f'{value:12.3f}' for value in np.mean(rows, axis=0)))


def correlation(signal, region):
    """The mean over objects of Spearman's correlation of two arrays `[O, T - 1]`."""
    return np.mean([stats.spearmanr(*pair).statistic for pair in zip(signal, region)])


def judge(sequence, labeller):
    """Labels a sequence; returns confidence, certainty and J of its objects, `[O, T - 1]` each."""
    first, method = sequence.read_label(0), labeller.propagation
    plan = plan_video(first, sequence, labeller)
    start = start_video(sequence.name, first, plan, labeller)
    features = open_features(labeller.source, sequence)
    [[(_, given)]] = features.read(range(1))
    context = init_context(given, start.labels, method, entry=start.entry)
    step = jax.jit(functools.partial(propagate_step, method=method), donate_argnums=0)

    @jax.jit
    def signals(label, frame):
        unit = affinity.l2_normalize if method.normalize_features else lambda array: array
        found = confidence.of_frame(label, unit(frame), start.labels, unit(given))
        certain = confidence.of_objects(label, confidence.certainty(label))
        return found.objects, certain, labeller.target.decode(label, start.values, plan.sizes)

    rows = []
    with tqdm(total=sequence.num_frames, desc=sequence.name, leave=False) as bar:
        for batch in features.read(range(1, sequence.num_frames)):
            for number, frame in batch:
                context, label = step(context, frame)
                confident, certain, ids = map(np.asarray, signals(label, frame))
                truth = sequence.read_label(number)
                objects = range(1, plan.values.size)
                region = [
                    region_similarity(ids == plan.values[o], truth == plan.values[o])
                    for o in objects
                ]
                rows.append(
                    (confident[1 : plan.values.size], certain[1 : plan.values.size], region)
                )
                bar.update()
    return np.transpose(rows, (1, 2, 0))


if __name__ == '__main__':
    main()
