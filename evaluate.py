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

import functools
import pathlib

from absl import app, flags
from ml_collections import config_flags

from jaxprop import parallel
from jaxprop.data.badja import badja_names, badja_sequence
from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.data.jhmdb import jhmdb_names, jhmdb_sequence
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.data.vip import vip_names, vip_sequence
from jaxprop.evaluation import benchmarks
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
# What each dataset's folders hold.
FOLDERS = {
    'davis': {'root': 'JPEGImages, Annotations and ImageSets'},
    'jhmdb': {'root': 'Rename_Images, joint_positions and splits'},
    'vip': {'root': 'Images, Annotations and lists: VIP_Fine'},
    'badja': {'root': 'JPEGImages and Annotations of DAVIS', 'folder': 'the annotations NAME.json'},
}


def open_dataset(dataset):
    """Names of a config's sequences, each with a function that opens it."""
    settings = dataset.to_dict()
    kind = settings.pop('kind')
    if kind == 'synthetic':
        return [(s.name, lambda s=s: s) for s in synthetic_sequences(**settings)]
    if kind not in FOLDERS:
        raise app.UsageError(
            f"dataset.kind is {kind!r}; it must be 'synthetic' or one of {tuple(FOLDERS)}"
        )
    for name, holds in FOLDERS[kind].items():
        if not settings[name]:
            raise app.UsageError(
                f'dataset.{name} is empty: say --config.dataset.{name}=FOLDER, the folder that '
                f'holds {holds}'
            )
    root, names = settings['root'], settings['names']
    if kind == 'davis':
        year = settings['year']
        names = names or davis_names(root, year, settings['split'])
        opened = functools.partial(
            davis_sequence, root, year=year, resolution=settings['resolution']
        )
    elif kind == 'jhmdb':
        names = names or jhmdb_names(root, settings['split'], settings['list'] or None)
        opened = functools.partial(jhmdb_sequence, root)
    elif kind == 'vip':
        names = names or vip_names(root, settings['split'])
        opened = functools.partial(vip_sequence, root, annotation=settings['annotation'])
    else:
        names = names or badja_names(settings['folder'])
        opened = functools.partial(
            badja_sequence, settings['folder'], root, resolution=settings['resolution']
        )
    return [(name, functools.partial(opened, name=name)) for name in names]


def open_benchmark(config):
    """How a config's sequences are labelled and scored."""
    kind = config.dataset.kind
    if kind in ('jhmdb', 'badja'):
        return benchmarks.Keypoints(**config.measure)
    if kind == 'vip':
        is_instance = config.dataset.annotation == 'instance'
        return (benchmarks.Instances if is_instance else benchmarks.Parts)(**config.measure)
    return benchmarks.Objects()


def compare(folders, output, report_frames):
    """Compares finished runs, and prints the scores over all."""
    try:
        compared = comparison.compare(
            folders, output, study.Opener(open_dataset, open_benchmark), report_frames=report_frames
        )
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
        run(config, output, study.Opener(open_dataset, open_benchmark))
        if parallel.is_writer():
            print((output / 'table.md').read_text())
            print(f'report: {output / "table.html"}')
        return
    benchmark = open_benchmark(config)
    metrics = runner.evaluate(
        open_dataset(config.dataset),
        runner.Labeller.from_config(config),
        output,
        benchmark=benchmark,
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
                for name in benchmark.printed
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
