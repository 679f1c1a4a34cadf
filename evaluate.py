"""Evaluates a network's features by label propagation.

    python evaluate.py                                    the embedded synthetic videos
    python evaluate.py --config=configs/eval/davis_crw.py --config.dataset.root=DAVIS

Writes palette PNGs, metrics.json, per_sequence.csv and report.html to the output folder; a run that
was interrupted goes on where it stopped when it is started again. All devices are used. With
several hosts, start it on each with --coordinator, --num_processes, --process_id, and an --output
that all of them see.
"""

import functools
import pathlib

from absl import app, flags
from ml_collections import config_flags

from jaxprop import parallel
from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import runner

ROOT = pathlib.Path(__file__).resolve().parent
CONFIG = config_flags.DEFINE_config_file(
    'config', str(ROOT / 'configs/eval/synthetic.py'), 'The evaluation; see configs/eval.')
OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder for the results; output/ and the name of the config if not given.')
COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0, or JAX_COORDINATOR_ADDRESS.')
NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'How many processes, or JAX_NUM_PROCESSES.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, or JAX_PROCESS_ID.')


def open_dataset(dataset):
    """Names of a config's sequences, each with a function that opens it."""
    settings = dataset.to_dict()
    kind = settings.pop('kind')
    if kind == 'synthetic':
        return [(s.name, lambda s=s: s) for s in synthetic_sequences(**settings)]
    if kind == 'davis':
        if not settings['root']:
            raise app.UsageError(
                'dataset.root is empty: say --config.dataset.root=FOLDER, the folder that holds '
                'JPEGImages, Annotations and ImageSets')
        root, year = settings['root'], settings['year']
        names = settings['names'] or davis_names(root, year, settings['split'])
        return [
            (name, functools.partial(davis_sequence, root, name, year, settings['resolution']))
            for name in names
        ]
    raise app.UsageError(f"dataset.kind is {kind!r}; it must be 'synthetic' or 'davis'")


def main(arguments):
    if len(arguments) > 1:
        raise app.UsageError(f'unknown argument {arguments[1]!r}')
    parallel.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    config = CONFIG.value
    output = pathlib.Path(OUTPUT.value or ROOT / 'output' / config.name)
    metrics = runner.evaluate(
        open_dataset(config.dataset), runner.Labeller.from_config(config), output,
        title=config.title, dataset=config.dataset.to_dict(), skip_bad=config.skip_bad,
        report_frames=config.report_frames, **config.batch)
    if not parallel.is_writer():
        return
    for row in metrics['per_sequence']:
        print(f"{row['sequence']:24} object {row['object']:<4} "
              f"J {row['J-Mean']:.3f}  F {row['F-Mean']:.3f}")
    if metrics['summary']:
        summary = metrics['summary']
        print(f"{'all':36} J {summary['J-Mean']:.3f}  F {summary['F-Mean']:.3f}  "
              f"J&F {summary['J&F-Mean']:.3f}")
    for skipped in metrics['skipped']:
        print(f"skipped {skipped['sequence']}: {skipped['reason']}")
    for warning in metrics['warnings']:
        print(f'note: {warning}')
    if not metrics['network']['trained']:
        print('note: the network is untrained: random weights, batch statistics from each video')
    print(f'report: {output / "report.html"}')


if __name__ == '__main__':
    app.run(main)
