"""Writes the features of videos, or of a benchmark's sequences, to files.

Writes DIR/NAME.npy or .safetensors, one array [T, H, W, C] for each video, and
jaxprop-features.json, which says how they were made. With network.name=features:DIR, evaluate and
propagate read them, and write the same masks. Started again, an interrupted run goes on.

    jaxprop export-features clip.mp4 frames/dog --output=DIR
    jaxprop export-features --config=davis_crw --config.dataset.root=DAVIS --output=DIR
"""

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
    one_of,
    print_notes,
)


def run(options, arguments, root):
    if not options.output:
        raise app.UsageError('--output=DIR is needed, the folder for the features')
    from jaxprop import files
    from jaxprop.evaluation.folder_features import SUFFIXES
    from jaxprop.evaluation.sources import open_source

    check_source(options)
    config, output = options.config, pathlib.Path(options.output)
    videos = _named_videos(arguments) if arguments else _sequences(config)
    source = open_source(config)

    def kept():
        count = len(files.files_in(output, SUFFIXES))
        return (
            f'the features of {count} videos are kept in {output}, and the same command goes on '
            'with the others'
        )

    with files.locked(output), interruptible(kept):
        _export(videos, source, output, options.format, options.dtype, config.skip_bad)
    print_notes(source.warnings, source.trained)
    print(f'features: {output}')


def _sequences(config):
    """The sequences of a config's benchmark: their names, and functions that open them."""
    from jaxprop import tasks

    return tasks.open_task(config.dataset, config.get('measure')).sequences()


def _named_videos(paths):
    """Names the user's own videos, with functions that open them."""
    from jaxprop.data.sequences import check_name
    from jaxprop.data.video_files import open_video

    videos = [open_video(path) for path in paths]
    names = [check_name(video.name, video.path) for video in videos]
    for video in videos:
        if names.count(video.name) > 1:
            raise ValueError(f'{video.path}: two videos are called {video.name!r}: rename one')
    return [(video.name, lambda video=video: video) for video in videos]


def _export(videos, source, output, suffix, dtype, skip_bad):
    """Writes the features that are not there yet."""
    from tqdm import tqdm

    from jaxprop import files
    from jaxprop.data.sequences import DataError, identity_of
    from jaxprop.evaluation import results
    from jaxprop.evaluation.export import export_video
    from jaxprop.evaluation.features import frames_of
    from jaxprop.evaluation.folder_features import CARD, SUFFIXES, read_card

    # Take the folder, which may hold the features of an earlier run.
    there = files.files_in(output, SUFFIXES)
    if not there:
        (output / CARD).unlink(missing_ok=True)
    card = {
        'network': {'trained': source.trained, **source.description},
        **source.settings(),
        'feature_batch': source.batch,
        'format': suffix,
        'dtype': dtype,
        'warnings': list(source.warnings),
        'provenance': results.provenance(),
        'videos': read_card(output).get('videos', {}),
    }
    files.claim(
        output / CARD,
        card,
        changeable=('warnings', 'provenance', 'videos'),
        owned={path.relative_to(output).parts[0] for path in there},
    )
    files.remove_partial(output, [path.name for path in output.iterdir() if path.is_dir()])

    # Export the others, one by one.
    for name, open_video in videos:
        try:
            video = open_video()
            identity = getattr(video, 'identity', None) or identity_of(video.files)
            name, data = video.name, identity()
            path = output / f'{name}.{suffix}'
            known = card['videos'].get(name)
            # A rendered video has no identity, so it is always exported again.
            if known is not None and path.exists() and data:
                if known['data'] != data:
                    raise ValueError(
                        f'{path} holds the features of another video of this name: name another '
                        'folder'
                    )
                print(f'{name}: there already')
                continue
            frames = tqdm(frames_of(video), name, video.num_frames, unit='frame', disable=None)
            made = export_video(source, video, iter(frames), path, dtype)
        except DataError as error:
            if not skip_bad:
                raise
            print(f'skipped {name}: {error}')
            continue
        card['videos'] = {**card['videos'], name: {'data': data, **made}}
        files.write_json(output / CARD, card)


COMMAND = Command(
    run=run,
    usage='[VIDEO ...] --output=DIR [--config=CONFIG] [--config.FIELD=VALUE ...]',
    summary='writes the features of videos to files',
    about=__doc__,
    extra='evaluate',
    options=(
        Option('output', 'DIR', 'the folder for the features'),
        CACHE,
        Option(
            'format',
            'safetensors',
            'npy (default) or safetensors',
            one_of('npy', 'safetensors'),
            'npy',
        ),
        Option(
            'dtype',
            'float16',
            'float32 (default) or float16',
            one_of('float32', 'float16'),
            'float32',
        ),
    ),
    config='synthetic',
    folders=('eval',),
    section='network',
    fields=(
        Field('dataset.root', 'DAVIS', "the benchmark's folder, where no VIDEO is named"),
        Field('dataset.names', '"(\'dog\',)"', 'some of its sequences'),
        *FACTORS[:3],
    ),
)
