"""Carries the mask of a first frame through any video.

Writes DIR/masks/*.png (palette PNGs), DIR/overlay.mp4 (the masks over the frames) and
DIR/settings.json (every factor). The mask is a palette PNG, a grey one with ids, or 0/255. Frames
are read, labelled and written one after another: memory does not grow with the video's length.

    jaxprop propagate clip.mp4 first.png --output=DIR
"""

import pathlib

from absl import app

from jaxprop.commands.command import FACTORS, Command, Option


def run(options, arguments, root):
    if len(arguments) != 2:
        raise app.UsageError('two arguments are needed: VIDEO_OR_FOLDER FIRST_MASK')
    if not options.output:
        raise app.UsageError('--output=DIR is needed, the folder for the results')
    import itertools

    from tqdm import tqdm

    from jaxprop.data.image_files import write_mask
    from jaxprop.data.sequences import davis_palette
    from jaxprop.data.video_files import open_video, video_sequence, write_video
    from jaxprop.evaluation import results
    from jaxprop.evaluation import run as runner
    from jaxprop.files import write_json
    from jaxprop.report import pictures

    output = pathlib.Path(options.output)
    video = open_video(arguments[0])
    sequence = video_sequence(video, arguments[1])
    labeller = runner.Labeller.from_config(options.config)
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


COMMAND = Command(
    run=run,
    usage='VIDEO_OR_FOLDER FIRST_MASK --output=DIR [--config.FIELD=VALUE ...]',
    summary='carries the mask of a first frame through any video',
    about=__doc__,
    extra='evaluate',
    options=(Option('output', 'DIR', 'the folder for the results'),),
    config='synthetic',
    folders=('eval',),
    section='propagation',
    fields=FACTORS,
)
