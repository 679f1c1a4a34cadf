"""Carries the mask of a first frame through any video.

Writes DIR/masks/*.png (palette PNGs), DIR/overlay.mp4 (the masks over the frames) and
DIR/settings.json (every factor). The mask is a PNG: with a palette, grey with ids or 0/255, or with
a colour for each object. Smoothed edges and another size are mended, with a note. Frames are read,
labelled and written one after another: memory does not grow with the video's length. Masks and
overlay come to DIR together, when all frames are labelled.

    jaxprop propagate clip.mp4 first.png --output=DIR
"""

import itertools
import pathlib

from absl import app

from jaxprop.commands.command import (
    CACHE,
    FACTORS,
    Command,
    Field,
    Option,
    check_source,
    interruptible,
    print_notes,
)
from jaxprop.commands.quality import QUALITY, set_quality

# The names of the results in the folder.
_OWNED = ('masks', 'overlay.mp4', 'finished.json')


def run(options, arguments, root):
    if len(arguments) != 2:
        raise app.UsageError('two arguments are needed: VIDEO_OR_FOLDER FIRST_MASK')
    if not options.output:
        raise app.UsageError('--output=DIR is needed, the folder for the results')
    from jaxprop import files
    from jaxprop.data.video_files import open_video, video_sequence
    from jaxprop.evaluation import results
    from jaxprop.evaluation import run as runner

    check_source(options)
    set_quality(options)
    # Open the video, its first mask, and the network and method that label it.
    output = pathlib.Path(options.output)
    video = open_video(arguments[0])
    sequence = video_sequence(video, arguments[1])
    labeller = runner.Labeller.from_config(options.config)
    settings = {
        'network': {'trained': labeller.source.trained, **labeller.source.description},
        **labeller.settings(),
        'video': {
            'name': video.path.name,
            'first_mask': pathlib.Path(arguments[1]).name,
            'num_frames': video.num_frames,
            'sha256': sequence.identity(),
        },
    }

    # Take the folder, and label the video unless that is done.
    with files.locked(output):
        files.claim(
            output / 'settings.json',
            {**settings, 'command': results.command()},
            changeable=('command',),
            owned=_OWNED,
        )
        files.remove_partial(output, _OWNED)
        if (output / 'finished.json').exists():
            _check_finished(output)
            print('these results are there already, whole: nothing is left to do')
        else:
            with interruptible(lambda: 'no mask is kept, and the same command starts anew'):
                _label(video, sequence, labeller, output)
    print_notes([*sequence.notes, *labeller.warnings], labeller.source.trained)
    print(f'masks: {output / "masks"}\noverlay: {output / "overlay.mp4"}')


def _label(video, sequence, labeller, output):
    """Labels all frames; masks and overlay come to their places together, at the end."""
    from tqdm import tqdm

    from jaxprop import files
    from jaxprop.data.image_files import write_mask
    from jaxprop.data.sequences import davis_palette
    from jaxprop.data.video_files import write_video
    from jaxprop.evaluation import results
    from jaxprop.evaluation import run as runner
    from jaxprop.report import pictures

    palette = davis_palette() if sequence.palette is None else sequence.palette
    masks, overlay = (output / name for name in _OWNED[:2])
    partial_masks, partial_overlay = map(files.partial_path, (masks, overlay))
    # Labelling is a batch of frames ahead of the overlay. `tee` keeps these frames for the overlay,
    # so that none is decoded twice.
    frames, shown = itertools.tee(video.iterate())
    label_maps = runner.label_frames(frames, sequence.read_label(0), labeller, video=video)

    def overlays():
        bar = tqdm(zip(label_maps, shown), total=video.num_frames, unit='frame')
        for (ids, frame), name in zip(bar, video.frame_names):
            write_mask(partial_masks / f'{name}.png', ids, palette)
            yield pictures.overlay(frame, ids, palette)

    try:
        write_video(partial_overlay, overlays(), video.frames_per_second or 24)
        files.move(partial_masks, masks)
        files.move(partial_overlay, overlay)
    finally:
        files.remove(partial_masks)
        files.remove(partial_overlay)
    files.write_json(
        output / 'finished.json',
        {'results': files.digest([masks, overlay]), 'provenance': results.provenance()},
    )


def _check_finished(output):
    """Raises ValueError where masks or overlay are no longer as they were written."""
    from jaxprop import files

    try:
        made = files.read_json(output / 'finished.json')['results']
        is_whole = made == files.digest(output / name for name in _OWNED[:2])
    except (OSError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f'the masks or the overlay in {output} are not as they were written, and may hold your '
            'work: name another folder, or remove this one'
        )


COMMAND = Command(
    run=run,
    usage='VIDEO_OR_FOLDER FIRST_MASK --output=DIR [--config.FIELD=VALUE ...]',
    summary='carries the mask of a first frame through any video',
    about=__doc__,
    extra='evaluate',
    options=(Option('output', 'DIR', 'the folder for the results'), QUALITY, CACHE),
    config='own_video',
    folders=('eval',),
    section='propagation',
    fields=(
        *FACTORS,
        Field('labels.refine', 'none', 'edges between cells; guided (default): those of the frame'),
    ),
)
