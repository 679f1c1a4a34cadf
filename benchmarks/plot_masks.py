"""Draws the picture at the top of the README: masks of a run over frames of its rendered videos.

python evaluate.py
python benchmarks/plot_masks.py --output=docs/result.jpg
"""

import argparse
import pathlib

import checkout  # noqa: F401
import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from jaxprop.data.image_files import read_mask  # noqa: E402
from jaxprop.data.synthetic import synthetic_sequences  # noqa: E402
from jaxprop.report.pictures import overlay  # noqa: E402

# Of objects 1 to 4: brighter than DAVIS's, so that they show on a small picture.
COLOURS = ((230, 25, 75), (0, 130, 255), (255, 225, 25), (245, 60, 230))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--run', type=pathlib.Path, default='output/synthetic', help='its folder')
    parser.add_argument('--names', nargs='+', default=['wobble', 'spin-and-grow', 'shoal'])
    parser.add_argument('--frames', nargs='+', type=int, default=[0, 5, 10, 23])
    parser.add_argument('--output', required=True, help='the picture')
    arguments = parser.parse_args()

    palette = np.zeros((256, 3), np.uint8)
    palette[1 : 1 + len(COLOURS)] = COLOURS
    sequences = {sequence.name: sequence for sequence in synthetic_sequences()}
    rows, columns = len(arguments.names), len(arguments.frames)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.4 * columns, 1.8 * rows + 0.25), squeeze=False
    )
    for row, name in zip(axes, arguments.names):
        sequence = sequences[name]
        for axis, index in zip(row, arguments.frames):
            ids = read_mask(arguments.run / 'masks' / name / f'{sequence.frame_names[index]}.png')
            axis.imshow(overlay(sequence.read_frame(index), ids, palette, opacity=0.6))
            axis.set_axis_off()
    for axis, index in zip(axes[0], arguments.frames):
        axis.set_title(f'frame {index}: {"found" if index else "given"}', fontsize=10)
    top = 1 - 0.25 / (1.8 * rows + 0.25)
    figure.subplots_adjust(0.002, 0.004, 0.998, top, wspace=0.01, hspace=0.02)
    figure.savefig(arguments.output, dpi=100)


if __name__ == '__main__':
    main()
