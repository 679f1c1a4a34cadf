"""Evaluates a network's features by label propagation.

    python evaluate.py                                    the embedded synthetic videos
    python evaluate.py --config=configs/eval/davis_crw.py --config.dataset.root=DAVIS

Writes predictions (palette PNGs, or a JSON file of joints for each sequence), metrics.json,
per_sequence.csv and report.html to the output folder; a run that was interrupted goes on where it
stopped when it is started again. All devices are used. With several hosts, start it on each with
--coordinator, --num_processes, --process_id, and an --output that all of them see.

    python evaluate.py --compare=RUN_A --compare=RUN_B --output=DIR

Compares the outputs of finished runs of one benchmark: comparison.html and comparison.csv.
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from jaxprop import parallel, tasks
from jaxprop.evaluation import run as runner
from jaxprop.study import comparison, study, tuning

ROOT = pathlib.Path(__file__).resolve().parent
CONFIG = config_flags.DEFINE_config_file(
    'config', str(ROOT / 'configs/eval/synthetic.py'), 'The evaluation; see configs/eval.'
)
OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder for the results; output/ and the name of the config if not given.'
)
COMPARE = flags.DEFINE_multi_string(
    'compare', [], 'Output of a finished run, twice or more: these are compared instead.'
)
COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0, or JAX_COORDINATOR_ADDRESS.'
)
NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'How many processes, or JAX_NUM_PROCESSES.'
)
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, or JAX_PROCESS_ID.')


def compare(folders, output, report_frames):
    """Compares finished runs, and prints the scores over all."""
    try:
        compared = comparison.compare(folders, output, report_frames=report_frames)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
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


def main(arguments):
    if len(arguments) > 1:
        raise app.UsageError(f'unknown argument {arguments[1]!r}')
    if COMPARE.value:
        output = pathlib.Path(OUTPUT.value or ROOT / 'output' / 'comparison')
        return compare(COMPARE.value, output, CONFIG.value.report_frames)
    parallel.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    config = CONFIG.value
    output = pathlib.Path(OUTPUT.value or ROOT / 'output' / config.name)
    if 'study' in config or 'tuning' in config:
        run = study.run if 'study' in config else tuning.run
        try:
            run(config, output)
        except tasks.SettingsError as error:
            raise app.UsageError(str(error)) from error
        if parallel.is_writer():
            print((output / 'table.md').read_text())
            print(f'report: {output / "table.html"}')
        return
    try:
        task = tasks.open_task(config.dataset, config.get('measure'))
    except tasks.SettingsError as error:
        raise app.UsageError(str(error)) from error
    metrics = runner.evaluate(
        task,
        runner.Labeller.from_config(config),
        output,
        title=config.title,
        dataset=config.dataset.to_dict(),
        skip_bad=config.skip_bad,
        report_frames=config.report_frames,
        **config.batch,
    )
    if not parallel.is_writer():
        return

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
    for warning in metrics['warnings']:
        print(f'note: {warning}')
    if not metrics['network']['trained']:
        print('note: the network is untrained: random weights, batch statistics from each video')
    print(f'report: {output / "report.html"}')


if __name__ == '__main__':
    app.run(main)
