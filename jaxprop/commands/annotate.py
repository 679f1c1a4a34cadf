"""Opens a page on which masks are drawn, propagated through a video, and corrected.

The page is on this machine alone, at an address that nobody can guess. All that is drawn is kept in
DIR as it is made: the same command goes on where it was. Ctrl-C ends it. "Save masks" on the page
writes DIR/masks/*.png, a palette PNG for each frame.

    jaxprop annotate clip.mp4 --output=DIR
"""

import contextlib
import os
import pathlib
import sys
import threading
import webbrowser

from absl import app, flags

from jaxprop.commands.command import (
    CACHE,
    FACTORS,
    Command,
    Interrupted,
    Option,
    check_source,
    interruptible,
    print_notes,
)


def run(options, arguments, root):
    if len(arguments) != 1:
        raise app.UsageError('one argument is needed: VIDEO_OR_FOLDER')
    if not options.output:
        raise app.UsageError('--output=DIR is needed, the folder for the masks')
    from jaxprop import files
    from jaxprop.annotation.server import AnnotationServer
    from jaxprop.annotation.session import Session
    from jaxprop.data.sequences import identity_of
    from jaxprop.data.video_files import open_video
    from jaxprop.evaluation.given_masks import label_with_masks
    from jaxprop.evaluation.labeller import Labeller

    check_source(options)
    video = open_video(arguments[0])
    labeller = Labeller.from_config(options.config)
    settings = {
        'video': {
            'name': video.path.name,
            'num_frames': video.num_frames,
            'size': list(video.size),
            'sha256': identity_of(video.files)(),
        },
        'network': {'trained': labeller.source.trained, **labeller.source.description},
        'labeller': labeller.settings(),
    }

    def label(video, masks, first, last):
        return label_with_masks(video, masks, labeller, first=first, last=last)

    output = pathlib.Path(options.output)
    with files.locked(output):
        session = Session(video, output, label, settings)
        with AnnotationServer(session, options.port) as server:
            print_notes([*session.notes, *labeller.warnings], labeller.source.trained)
            print(f'the page: {server.address}\nEnd it with Ctrl-C.', flush=True)
            if not getattr(options, 'no-browser'):
                _open_browser(server.address_for_once())
            with contextlib.suppress(Interrupted), interruptible(str):
                server.serve_forever()
    print(f'\nthe work is in {output}; the same command goes on with it')


def _open_browser(address):
    """Opens the page, unless that would be in a browser that takes the terminal."""
    has_windows = sys.platform in ('darwin', 'win32') or bool(
        os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')
    )
    if has_windows:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


COMMAND = Command(
    run=run,
    usage='VIDEO_OR_FOLDER --output=DIR [--port=N] [--no-browser] [--config.FIELD=VALUE ...]',
    summary='a page to draw masks, propagate and correct them',
    about=__doc__,
    extra='evaluate',
    options=(
        Option('output', 'DIR', 'the folder in which all work is kept'),
        Option('port', '8000', 'of the page; a free one if left out', flags.DEFINE_integer, 0),
        Option('no-browser', 'true', 'only print the address', flags.DEFINE_bool, False),
        CACHE,
    ),
    config='own_video',
    folders=('eval',),
    section='propagation',
    fields=FACTORS,
)
