"""Scores masks of any tool against true ones: J, F and J&F, as DAVIS's official evaluation.

PREDICTIONS and TRUTH are folders with a folder of PNG masks for each sequence, or folders of the
masks of one sequence. Files belong together by their names. Masks are palette PNGs, grey ones with
ids, or 0/255. The first and the last frame with a true mask are not scored.

    jaxprop score output/davis_crw/predictions DAVIS/Annotations/480p
    jaxprop score PREDICTIONS TRUTH --one_object --json
"""

import json

from absl import app, flags

from jaxprop.commands.command import Command, Option


def run(options, arguments, root):
    if len(arguments) != 2:
        raise app.UsageError('two folders are needed: PREDICTIONS TRUTH')
    from jaxprop.tasks import scoring

    found = scoring.score_folders(*arguments, one_object=options.one_object)
    if options.json:
        print(json.dumps(found._asdict(), indent=1))
        return
    names = list(found.summary)
    print('Global results')
    _print_row('', names)
    _print_row('', [f'{value:.3f}' for value in found.summary.values()])
    print('\nPer sequence results')
    _print_row('Sequence', ['J-Mean', 'F-Mean'])
    for row in found.per_object:
        name = f'{row["sequence"]}_{row["object"]}'
        _print_row(name, [f'{row[measure]:.3f}' for measure in ('J-Mean', 'F-Mean')])
    for note in found.notes:
        print(f'note: {note}')


def _print_row(heading, values):
    print(f'{heading:28}' + ''.join(f'{value:>10}' for value in values))


COMMAND = Command(
    run=run,
    usage='PREDICTIONS TRUTH [--one_object] [--json]',
    summary='scores masks that any tool has made',
    about=__doc__,
    extra='evaluate',
    options=(
        Option(
            'one_object',
            'true',
            'all ids together are one object, as in DAVIS-2016',
            flags.DEFINE_bool,
            False,
        ),
        Option('json', 'true', 'print everything as JSON', flags.DEFINE_bool, False),
    ),
)
