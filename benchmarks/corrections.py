"""How much a second mask helps, and whether the frame that is asked for is a good one.

A sequence is labelled from its first mask alone, then from the first mask and one more: that of the
frame that `jaxprop propagate` would ask for, which is chosen by confidence alone, and those of
frames drawn at random. J&F is over all frames but the first and the last, as in DAVIS, so the
frame of the second mask counts as 1; beside it, it is over the frames without a mask.

    python benchmarks/corrections.py DAVIS schoolgirls --masks 40
"""

import argparse
import dataclasses

import checkout  # noqa: F401
import numpy as np
from tqdm import tqdm

from jaxprop import config_files
from jaxprop.data import davis
from jaxprop.evaluation import doubt
from jaxprop.evaluation.features import KeptFeatures
from jaxprop.evaluation.given_masks import label_with_masks
from jaxprop.evaluation.labeller import Labeller
from jaxprop.metrics.davis import frame_scores


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('root', help='the folder of DAVIS')
    parser.add_argument('names', nargs='+', help='of sequences')
    parser.add_argument('--year', default='2017')
    parser.add_argument('--masks', type=int, nargs='*', default=[], help='frames to try as well')
    parser.add_argument('--draws', type=int, default=10, help='how many random frames')
    parser.add_argument(
        '--size', type=int, default=240, help='the short side that the network sees'
    )
    parser.add_argument('--radius', type=float, default=6.0, help='of the search, in cells')
    parser.add_argument('--seed', type=int, default=0, help='of the random frames')
    arguments = parser.parse_args()

    config = config_files.load_config('synthetic')
    config.input.update(resize='short_side', size=arguments.size)
    config.propagation.radius = arguments.radius
    rng = np.random.default_rng(arguments.seed)
    for name in arguments.names:
        labeller = Labeller.from_config(config)
        # Features are computed once for all runs.
        labeller = dataclasses.replace(labeller, source=KeptFeatures(labeller.source))
        sequence = davis.davis_sequence(arguments.root, name, arguments.year)
        confidence, scores = label(sequence, labeller, [0])
        report(name, 'frame 0 alone', scores, [0])
        for number in arguments.masks:
            _, scores = label(sequence, labeller, [0, number])
            report(name, f'and frame {number}', scores, [0, number])
        asked = doubt.most_helpful(confidence, [0])
        _, scores = label(sequence, labeller, [0, asked])
        report(name, f'and frame {asked}, asked for', scores, [0, asked])
        drawn = rng.choice(np.arange(1, sequence.num_frames), arguments.draws, replace=False)
        found = []
        for number in drawn.tolist():
            _, scores = label(sequence, labeller, [0, number])
            found.append(report(name, f'and frame {number}, drawn', scores, [0, number]))
        if found:
            print_row(name, f'mean of {len(found)} drawn', np.mean(found, axis=0))


def label(sequence, labeller, numbers):
    """Labels a sequence from its masks of these frames.

    Returns:
      The confidence in its objects, `[O, T]`, and J and F, `[2, O, T]`.
    """
    masks = {number: sequence.read_label(number) for number in numbers}
    objects = np.unique(masks[0][masks[0] > 0]).tolist()
    confidence, scores = [], []
    frames = tqdm(
        label_with_masks(sequence, masks, labeller), total=sequence.num_frames, leave=None
    )
    for frame in frames:
        confidence.append([frame.confidence.get(value, np.nan) for value in objects])
        scores.append(frame_scores(frame.ids, sequence.read_label(frame.number), objects))
    return np.transpose(confidence), np.transpose(scores, (1, 2, 0))


def report(name, run, scores, numbers):
    """Prints a run's J&F over frames 1 to T - 2, and over those of them that have no mask."""
    mean = scores.mean(axis=(0, 1))
    inner = np.arange(1, len(mean) - 1)
    values = mean[inner].mean(), mean[np.setdiff1d(inner, numbers)].mean()
    print_row(name, run, values)
    return values


def print_row(name, run, values):
    cells = ''.join(f'{100 * value:9.2f}' for value in values)
    print(f'{name:16}{run:26}{cells}', flush=True)


if __name__ == '__main__':
    main()
