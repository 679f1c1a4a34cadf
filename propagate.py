"""Carries the mask of a first frame through any video.

    python propagate.py VIDEO_OR_FOLDER FIRST_MASK --output DIR

writes DIR/masks/*.png, palette PNGs, DIR/overlay.mp4, the masks over the frames, and
DIR/settings.json, every factor. Frames are read, labelled and written one after another: memory
does not grow with the video's length.
"""

import itertools
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from jaxprop.data.image_files import write_mask
from jaxprop.data.sequences import DataError, davis_palette
from jaxprop.data.video_files import open_video, video_sequence, write_video
from jaxprop.evaluation import results
from jaxprop.evaluation import run as runner
from jaxprop.files import write_json
from jaxprop.report import pictures

CONFIG = config_flags.DEFINE_config_file(
    'config',
    str(pathlib.Path(__file__).resolve().parent / 'configs/eval/synthetic.py'),
    'The network and the factors; see configs/eval. The dataset of the config is not used.',
)
OUTPUT = flags.DEFINE_string('output', None, 'Folder for the results.', required=True)


def main(arguments):
    if len(arguments) != 3:
        raise app.UsageError('two arguments are needed: VIDEO_OR_FOLDER FIRST_MASK')
    output = pathlib.Path(OUTPUT.value)
    try:
        video = open_video(arguments[1])
        sequence = video_sequence(video, arguments[2])
        labeller = runner.Labeller.from_config(CONFIG.value)
        palette = davis_palette() if sequence.palette is None else sequence.palette
        variables = labeller.source.variables(video)
        # Labelling is a batch of frames ahead of the overlay; these are held, not decoded twice.
        frames, shown = itertools.tee(video.iterate())
        label_maps = runner.label_frames(frames, sequence.read_label(0), labeller, variables)

        def overlays():
            bar = tqdm(zip(label_maps, shown), total=video.num_frames, unit='frame')
            for (ids, frame), name in zip(bar, video.frame_names):
                write_mask(output / 'masks' / f'{name}.png', ids, palette)
                yield pictures.overlay(frame, ids, palette)

        write_video(output / 'overlay.mp4', overlays(), video.frames_per_second or 24)
    except DataError as error:
        sys.exit(f'propagate.py: {error}')
    write_json(
        output / 'settings.json',
        {
            'network': {'trained': labeller.source.trained, **labeller.source.description},
            **labeller.settings(),
            'provenance': results.provenance(),
        },
    )
    for warning in labeller.source.warnings:
        print(f'note: {warning}')
    if not labeller.source.trained:
        print('note: the network is untrained: random weights, batch statistics from this video')
    print(f'masks: {output / "masks"}\noverlay: {output / "overlay.mp4"}')


if __name__ == '__main__':
    app.run(main)
