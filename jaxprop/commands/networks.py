"""Lists networks that were published: where their files are, and which config evaluates them.

Any command takes such a file as it is, by its path or its hf:// address. A cell is empty where
nothing is known.

    jaxprop networks
    jaxprop evaluate --config=davis_crw --config.network.name=pretrained.pth
"""

import json

from absl import app, flags

from jaxprop.commands.command import Command, Option

_HEADINGS = ('network', 'layout', 'MB', 'licence', 'config', 'J&F')


def run(options, arguments, root):
    if arguments:
        raise app.UsageError(f'unknown argument {arguments[0]!r}')
    from jaxprop.checkpoints.catalogue import CATALOGUE

    if options.json:
        print(json.dumps([entry._asdict() for entry in CATALOGUE], indent=2))
    else:
        print('\n'.join(table(CATALOGUE)))


def table(entries):
    """Makes the lines of a table: two for each network, the second says where its file is."""
    rows = [_HEADINGS]
    for entry in entries:
        size = '' if entry.size is None else f'{entry.size:g}'
        score = '' if entry.score is None else f'{entry.score:.1f} ({entry.score_source})'
        rows.append((entry.name, entry.layout, size, entry.licence, entry.config, score))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row, source in zip(rows, ['', *(entry.source for entry in entries)], strict=True):
        lines.append('  '.join(f'{text:{width}}' for text, width in zip(row, widths)).rstrip())
        if source:
            lines.append(f'  {source}')
    return [
        *lines,
        'J&F: as published for DAVIS-2017 val, in percent, and by whom; McKee et al.: BMVC 2022.',
        'Layouts are names for network.layout, configs are those of configs/eval.',
    ]


COMMAND = Command(
    run=run,
    usage='[--json]',
    summary='lists published networks and where their files are',
    about=__doc__,
    extra='evaluate',
    options=(Option('json', 'true', 'as JSON, in place of a table', flags.DEFINE_boolean, False),),
)
