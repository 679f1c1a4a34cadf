"""Compares the outputs of finished evaluations of one benchmark.

Writes comparison.html (scores, settings, and the same frames under one slider) and comparison.csv.

    jaxprop compare output/davis_crw output/davis_uvc --output=DIR
"""

import pathlib

from absl import app, flags

from jaxprop.commands.command import Command, Option


def run(options, arguments, root):
    output = pathlib.Path(options.output or root / 'output' / 'comparison')
    compare(arguments, output, options.report_frames)


def compare(folders, output, report_frames):
    """Compares finished runs, and prints the scores over all."""
    if len(folders) < 2:
        raise app.UsageError('the outputs of two finished runs or more are needed: RUN_A RUN_B')
    from jaxprop.study import comparison

    compared = comparison.compare(folders, output, report_frames=report_frames)
    names = [run['name'] for run in compared['runs']]
    for row in compared['tables']['summary']:
        print(
            f'{row["measure"]:36} '
            + '  '.join(
                f'{name} {value:.3f}'
                for name, value in zip(names, row['values'])
                if value is not None
            )
        )
    for warning in compared['warnings']:
        print(f'note: {warning}')
    print(f'comparison: {output / "comparison.html"}')


COMMAND = Command(
    run=run,
    usage='RUN_A RUN_B [...] [--output=DIR]',
    summary='compares finished evaluations',
    about=__doc__,
    extra='evaluate',
    options=(
        Option('output', 'DIR', 'the folder for the results; default output/comparison'),
        Option('report_frames', '40', 'frames shown of a sequence', flags.DEFINE_integer, 40),
    ),
)
