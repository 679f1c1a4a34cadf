"""Evaluates a network's features, or your own, by label propagation.

Writes predictions (palette PNGs, or a JSON file of joints for each sequence), metrics.json,
per_sequence.csv and report.html to the output folder; started again, an interrupted run goes on.

    jaxprop evaluate                                    rendered videos; no data is needed
    jaxprop evaluate --config=davis_crw --config.dataset.root=DAVIS         or --config=table4
    jaxprop evaluate --config=suite_crw:davis,jhmdb --config.davis.dataset.root=DAVIS ...
    jaxprop evaluate --config.network.name=my_module:my_function
"""

import pathlib

from absl import app, flags

from jaxprop.commands import compare
from jaxprop.commands.command import (
    CACHE,
    FACTORS,
    PROCESSES,
    Command,
    Field,
    Option,
    check_source,
    interruptible,
    print_notes,
)


def run(options, arguments, root):
    if arguments:
        raise app.UsageError(f'unknown argument {arguments[0]!r}')
    config = options.config
    if options.compare:
        output = pathlib.Path(options.output or root / 'output' / 'comparison')
        return compare.compare(options.compare, output, config.report_frames)
    from jaxprop import parallel

    parallel.initialize(options.coordinator, options.num_processes, options.process_id)
    check_source(options)
    output = pathlib.Path(options.output or root / 'output' / config.name)
    with interruptible(lambda: _kept(output)):
        _evaluate(config, output)


def _kept(output):
    """Says what a stopped run keeps, and how to go on."""
    count = sum(1 for _ in output.glob('**/sequences/**/*.json'))
    return (
        f'{count} finished sequences are kept in {output}, and the same command goes on with the '
        'others'
    )


def _evaluate(config, output):
    from jaxprop import parallel, tasks
    from jaxprop.evaluation import run as runner
    from jaxprop.study import study, suite, tuning

    # Several benchmarks on one network.
    if 'suite' in config:
        scores = suite.run(config, output)
        if parallel.is_writer():
            print('\n'.join(suite.line(scores)))
            for name in config.suite:
                print(f'report: {output / name / "report.html"}')
        return
    # A study, or settings to be chosen.
    if 'study' in config or 'tuning' in config:
        run = study.run if 'study' in config else tuning.run
        run(config, output)
        if parallel.is_writer():
            print((output / 'table.md').read_text())
            print(f'report: {output / "table.html"}')
        return
    # One evaluation.
    metrics = runner.evaluate_config(config, output)
    if not parallel.is_writer():
        return
    task = tasks.open_task(config.dataset, config.get('measure'))

    def print_row(heading, row):
        print(
            f'{heading:36} '
            + '  '.join(
                f'{name.removesuffix("-Mean")} {row[name]:.3f}'
                for name in task.printed
                if row.get(name) is not None
            )
        )

    for row in metrics['per_sequence']:
        print_row(
            f'{row["sequence"]:24} ' + (f'object {row["object"]}' if 'object' in row else ''), row
        )
    if metrics['summary']:
        print_row('all', metrics['summary'])
    for skipped in metrics['skipped']:
        print(f'skipped {skipped["sequence"]}: {skipped["reason"]}')
    print_notes(metrics['warnings'], metrics['network']['trained'])
    print(f'report: {output / "report.html"}')


COMMAND = Command(
    run=run,
    usage='[--config=CONFIG] [--config.FIELD=VALUE ...] [--output=DIR]',
    summary="evaluates a network's features by label propagation",
    about=__doc__,
    extra='evaluate',
    options=(
        Option('output', 'DIR', "the folder for the results; default output/ and config's name"),
        Option(
            'compare', 'RUN', 'twice or more: as jaxprop compare', flags.DEFINE_multi_string, []
        ),
        *PROCESSES,
        CACHE,
    ),
    config='synthetic',
    folders=('eval', 'study', 'suite'),
    section='network',
    fields=(
        Field('dataset.root', 'DAVIS', "the benchmark's folder"),
        Field('dataset.names', '"(\'dog\',)"', 'some of its sequences'),
        Field('dataset.num_sequences', '1', 'how many videos are rendered'),
        *FACTORS,
    ),
)
