"""Carries masks of one or several frames through any video.

Writes DIR/masks/*.png (palette PNGs), DIR/overlay.mp4 (masks over frames, curves of confidence
under them), DIR/confidence.csv and DIR/settings.json (every factor), all together at the end. A
command that was stopped goes on near the frame where it was. A mask is a PNG: with a palette, grey
with ids or 0/255, or with a colour for each object.

    jaxprop propagate clip.mp4 first.png --output=DIR
    jaxprop propagate FRAMES MASKS --from=10 --to=90 --output=DIR

Several masks, or a folder of them, are named after their frames: 00012.png, or 12.png. Between two
of them labels come from both sides. A mask is the whole truth of its frame: an object begins in the
first mask that has it, and has ended in a mask that lacks it.
"""

import contextlib
import math
import pathlib

from absl import app, flags

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

_SECONDS_BETWEEN_PLACES = 20.0
# The names of the results in the folder.
_OWNED = ('masks', 'overlay.mp4', 'confidence.csv', 'confidence', 'finished.json')


def run(options, arguments, root):
    if len(arguments) < 2:
        raise app.UsageError('two arguments or more are needed: VIDEO_OR_FOLDER MASK [MASK ...]')
    if not options.output:
        raise app.UsageError('--output=DIR is needed, the folder for the results')
    from jaxprop import files
    from jaxprop.data.mask_files import read_masks
    from jaxprop.data.sequences import identity_of
    from jaxprop.data.video_files import open_video
    from jaxprop.evaluation import results
    from jaxprop.evaluation.labeller import Labeller
    from jaxprop.evaluation.unfinished import Unfinished

    check_source(options)
    set_quality(options)
    # Open the video, its masks, and the network and method that label it.
    output = pathlib.Path(options.output)
    video = open_video(arguments[0])
    first, last = _range(options, video)
    masks = read_masks(arguments[1:], video, first)
    labeller = Labeller.from_config(options.config)
    names = video.frame_names
    settings = {
        'network': {'trained': labeller.source.trained, **labeller.source.description},
        **labeller.settings(),
        'video': {
            'name': video.path.name,
            'masks': {names[number]: path.name for number, path in masks.paths.items()},
            'from': names[first],
            'to': names[last],
            'num_frames': video.num_frames,
            'sha256': identity_of([*video.files, *masks.paths.values()])(),
        },
        'confidence_maps': options.confidence_maps,
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
            doubts = _check_finished(output)
            print('these results are there already, whole: nothing is left to do')
        else:
            unfinished = Unfinished(output / '.jaxprop_unfinished', settings)
            wanted, with_maps = range(first, last + 1), options.confidence_maps
            with interruptible(lambda: _kept(unfinished, names)), contextlib.closing(unfinished):
                doubts = _label(video, masks, labeller, output, wanted, with_maps, unfinished)
    print_notes([*masks.notes, *labeller.warnings], labeller.source.trained)
    for sentence in doubts:
        print(sentence)
    for name in _OWNED[:3]:
        print(f'{name.partition(".")[0]}: {output / name}')


def _range(options, video):
    """The numbers of the first and the last frame to label."""
    from jaxprop.data.mask_files import frame_number

    numbers = []
    for flag, default in (('from', 0), ('to', video.num_frames - 1)):
        name = getattr(options, flag)
        number = default if name is None else frame_number(name, video)
        if number is None:
            raise ValueError(
                f'--{flag} is {name!r}, which is no frame; the frames are '
                f'{video.frame_names[0]} to {video.frame_names[-1]}'
            )
        numbers.append(number)
    if numbers[0] > numbers[1]:
        raise ValueError(f'--from is {getattr(options, "from")}, after --to, {options.to}')
    return numbers


def _kept(unfinished, names):
    """Says what is kept of a labelling that was stopped."""
    if unfinished.place is None:
        return 'no mask is kept, and the same command starts anew'
    name = names[unfinished.place.number]
    return f'the masks up to frame {name} are kept, and the same command goes on after it'


def _label(video, masks, labeller, output, wanted, with_maps, unfinished):
    """Labels the wanted frames; all results come to their places together, at the end.

    Returns:
      Sentences on what is doubtful.
    """
    import numpy as np
    from tqdm import tqdm

    from jaxprop import files
    from jaxprop.data.image_files import write_mask
    from jaxprop.evaluation import doubt, results
    from jaxprop.evaluation.given_masks import label_with_masks

    names = [video.frame_names[number] for number in wanted]
    partial = {name: unfinished.folder / name for name in _OWNED[:4]}
    # Label the frames that are not labelled yet.
    place, done, confidence = unfinished.place, 0, {}
    if place is not None:
        done = place.number + 1 - wanted[0]
        confidence = {value: found.copy() for value, found in unfinished.confidence.items()}
        print(f'going on after frame {names[done - 1]}')
    labelled = label_with_masks(
        video,
        masks.ids,
        labeller,
        first=wanted[0],
        last=wanted[-1],
        folder=output,
        after=place,
        seconds_between_places=_SECONDS_BETWEEN_PLACES,
    )
    bar = tqdm(labelled, initial=done, total=len(wanted), unit='frame')
    for index, frame in enumerate(bar, done):
        write_mask(partial['masks'] / f'{names[index]}.png', frame.ids, masks.palette)
        if with_maps:
            _write_map(partial['confidence'] / f'{names[index]}.png', frame.cells, video.size)
        for value, found in frame.confidence.items():
            confidence.setdefault(value, np.full(len(wanted), np.nan))[index] = found
        if frame.place is not None:
            unfinished.keep(frame.place, confidence)
    # Write what is made of all frames together, and give the results their names.
    objects = sorted(confidence)
    values = np.array([confidence[value] for value in objects]).reshape(-1, len(wanted))
    _write_confidence(partial['confidence.csv'], objects, values, names, wanted, masks)
    _write_overlay(partial, video, masks, wanted, objects, values)
    given = [number - wanted[0] for number in masks.ids]
    doubts = doubt.sentences(values, objects, given, names)
    unfinished.forget()
    for name, path in partial.items():
        if path.exists():
            files.move(path, output / name)
    files.write_json(
        output / 'finished.json',
        {
            'results': _digest(output),
            'doubts': doubts,
            'provenance': results.provenance(),
        },
    )
    return doubts


def _write_confidence(path, objects, values, names, wanted, masks):
    """Writes a row for each object of each frame."""
    from jaxprop import files

    rows = [('frame', 'object', 'confidence', 'mask_given')]
    for index, (name, number) in enumerate(zip(names, wanted)):
        for value, found in zip(objects, values[:, index]):
            if not math.isnan(found):  # It is where the video does not have the object.
                rows.append((name, value, f'{found:.4f}', int(number in masks.ids)))
    files.write_csv(path, rows)


def _write_map(path, cells, size):
    """Writes the confidence of each pixel: a grey PNG, 0 is none and 255 is 1."""
    import cv2
    import numpy as np

    from jaxprop.data.image_files import write_mask

    full = cv2.resize(cells, size[::-1], interpolation=cv2.INTER_LINEAR)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    write_mask(path, np.rint(255 * full).astype(np.uint8), grey)


def _write_overlay(partial, video, masks, wanted, objects, values):
    """Writes the masks over the frames, above the curves of confidence."""
    import numpy as np

    from jaxprop.data.image_files import read_ids
    from jaxprop.data.video_files import read_range, write_video
    from jaxprop.report import pictures
    from jaxprop.report.strip import draw_strip, with_cursor

    colours = [tuple(masks.palette[value].tolist()) for value in objects]
    given = [number - wanted[0] for number in masks.ids if number in wanted]
    strip = draw_strip(values, colours, given, video.size[1])

    def frames():
        for index, frame in enumerate(read_range(video, wanted)):
            ids = read_ids(partial['masks'] / f'{video.frame_names[wanted[index]]}.png')
            picture = pictures.overlay(frame, ids, masks.palette)
            yield np.concatenate([picture, with_cursor(strip, index, len(wanted))])

    write_video(partial['overlay.mp4'], frames(), video.frames_per_second or 24)


def _digest(output):
    """The digest of all results but finished.json."""
    from jaxprop import files

    return files.digest(path for name in _OWNED[:4] if (path := output / name).exists())


def _check_finished(output):
    """Raises ValueError where results are no longer as they were written.

    Returns:
      The sentences on what is doubtful.
    """
    from jaxprop import files

    try:
        finished = files.read_json(output / 'finished.json')
        doubts, is_whole = finished['doubts'], finished['results'] == _digest(output)
    except (OSError, KeyError, TypeError, ValueError):
        doubts, is_whole = [], False
    if not is_whole:
        raise ValueError(
            f'the results in {output} are not as they were written, and may hold your work: name '
            'another folder, or remove this one'
        )
    return doubts


COMMAND = Command(
    run=run,
    usage='VIDEO_OR_FOLDER MASK [MASK ...] --output=DIR [--config.FIELD=VALUE ...]',
    summary='carries masks of one or several frames through any video',
    about=__doc__,
    extra='evaluate',
    options=(
        Option('output', 'DIR', 'the folder for the results'),
        Option('from', 'FRAME', 'the first frame to label, by its name or number'),
        Option('to', 'FRAME', 'the last one'),
        Option(
            'confidence_maps',
            'true',
            'write the confidence of each pixel, too',
            flags.DEFINE_bool,
            False,
        ),
        QUALITY,
        CACHE,
    ),
    config='own_video',
    folders=('eval',),
    section='propagation',
    fields=(
        *FACTORS,
        Field('labels.refine', 'none', 'edges between cells; guided (default): those of the frame'),
    ),
)
