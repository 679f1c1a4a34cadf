"""Draws every term of the loss over the steps of one or several runs, one after the other.

python benchmarks/plot_training.py RUN [RUN ...] --output=curve.png
"""

import json
import pathlib

import matplotlib
from absl import app, flags

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

OUTPUT = flags.DEFINE_string('output', 'curve.png', 'The picture.')
# What is logged beside the terms of the loss.
_OTHER = {
    'step',
    'epoch',
    'learning_rate',
    'unreadable',
    'examples_per_second',
    'wait_share',
    'gradient_norm',
    'loss',
    'video/loss',
}


def main(arguments):
    if len(arguments) < 2:
        raise app.UsageError('give the folder of a run')
    first, entries, starts = 0, [], []
    for run in arguments[1:]:
        starts.append(first)
        for line in (pathlib.Path(run) / 'metrics.jsonl').read_text().splitlines():
            entry = json.loads(line)
            entries.append({**entry, 'step': first + entry['step']})
        first = entries[-1]['step']
    names = [name for name in entries[0] if name not in _OTHER]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.2 * rows), layout='constrained', squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names):
        axis.plot([e['step'] for e in entries], [e.get(name) for e in entries], linewidth=1)
        axis.set(title=name, xlabel='step')
        axis.grid(alpha=0.3)
        for start in starts[1:]:
            axis.axvline(start, color='grey', linestyle=':')
    figure.savefig(OUTPUT.value, dpi=110)


if __name__ == '__main__':
    app.run(main)
