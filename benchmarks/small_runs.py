"""Compares all objectives that train on frames alone by small runs on the same frames and time.

    python benchmarks/small_runs.py --videos=FOLDER --davis=DAVIS --uvc=FOLDER --output=DIR
    python benchmarks/small_runs.py ... --start=rotation --objectives=crw,crw_plus --seeds=0,1,2

Each config `small_*` is trained for as many steps as an idle core does in 30 minutes, or in
`--times` as long, on all videos but three. A run starts from scratch, or with `--start` from the
backbone of another objective's run from scratch. No training sees the frames and masks of the three
videos. While a network trains, it labels these three: the scores are the curves. After the
training, temperature, k and radius are chosen on the three. With the chosen values the network
labels the sequences of DAVIS's `val` that are in the folder, at a short side of 240.

Two runs go on at a time, or `--parallel` many, each on its share of the cores. With `--gpu` they
use one GPU and all cores together. If the script is started again, it goes on where it was.
Networks that were trained on another machine, with `--train_only`, are evaluated here if each run's
folder holds its `backbone.*`. `DIR/table.md`, `loss.png` and `curves.png` show all results so far;
with `--summary` the script only writes these.

Folders: `--videos` has a folder of JPEG frames for each video, `--davis` is a DAVIS-2016 folder
with masks, `--uvc` has the two files of UVC's released colour autoencoder.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading

import checkout  # noqa: F401

# Training videos that have masks. No run trains on them, and all runs are compared on them.
HELD_OUT = ('bear', 'dog-agility', 'horsejump-low')
SHORT_SIDE = 240


@dataclasses.dataclass(frozen=True)
class Small:
    """The training and the evaluation of an objective's small run.

    Attributes:
      steps: the number of steps in 30 minutes on one idle core. A step there takes 1.57 times the
        seconds that `python benchmarks/training.py --all_small` gave for two cores. By later
        measurements of these seconds the steps are 18 to 26 minutes (docs/TRAINING.md).
      temperature: the value of T at which the search starts.
      normalize: whether features are L2-normalised in evaluations. If not, they are compared as in
        the objective.
      evaluations: the number of evaluations while training.
      own_network: whether no other objective's backbone fits, so that it only trains from scratch.
      pixels: the side of a cell in pixels. With 4 an evaluation takes many minutes.
    """

    steps: int
    temperature: float = 0.05
    normalize: bool = True
    evaluations: int = 3
    own_network: bool = False
    pixels: int = 8

    @property
    def factors(self):
        """The factors with which networks label while they train; the choice starts from these."""
        return {
            'temperature': self.temperature,
            'normalize_features': self.normalize,
            'num_neighbors': 10,
            'num_context': 10,
            'radius': 9.0,
        }

    @property
    def candidates(self):
        """The values of each factor that are tried on the three sequences."""
        found = {'temperature': tuple(self.temperature * factor for factor in (0.5, 1.0, 2.0))}
        if self.pixels == 8:
            found |= {'num_neighbors': (5, 10, 20), 'radius': (6.0, 9.0, 12.0)}
        return found


OBJECTIVES = {
    'untrained': Small(0),
    'rotation': Small(390),
    'moco': Small(820),
    'uvc': Small(900),
    'uvc_plus': Small(620),
    'crw': Small(285),
    'crw_plus': Small(250),
    'vfs': Small(680),
    'timecycle': Small(605, temperature=128**-0.5, own_network=True),
    'corrflow': Small(1275, 32**0.5, False, evaluations=2, own_network=True, pixels=4),
    'mast': Small(1080, 32**0.5, False, evaluations=2, own_network=True, pixels=4),
}


def training_config(name, start, seed, options):
    """Makes the config of a small run."""
    from jaxprop import config_files

    small = OBJECTIVES[name]
    steps = round(options.times * small.steps)
    shown = 'rotation' if name == 'untrained' else name
    config = config_files.load_config(f'small_{shown}', ('train',))
    config.seed, config.steps = seed, steps
    network = run_folder(options.output, start, '', 0) / 'backbone'
    config.start_from = str(network) if start else ''
    videos = options.output / 'videos'
    config.data.root = str(videos)
    if config.image_data is not None:
        config.image_data.root = str(videos)
    if 'color_autoencoder' in config.objective:
        config.objective.color_autoencoder = str(options.uvc)
    # Let schedules end with the run.
    epoch = len(os.listdir(videos)) * config.data.examples_per_video / config.data.batch_size
    config.epochs = steps / epoch
    if config.schedule.get('epochs'):
        config.schedule.epochs = config.epochs
    if 'truth_steps_epoch' in config.objective:
        config.objective.truth_steps_epoch = config.epochs
    every = max(1, steps // small.evaluations)
    config.checkpoint_every = every
    # All networks label by the same rule, so that curves may be compared.
    config.evaluation.update(every=every, config='davis_crw')
    config.evaluation.input.update(resize='short_side', size=SHORT_SIDE)
    config.evaluation.dataset.update(root=str(options.davis), names=HELD_OUT)
    config.evaluation.propagation.update(small.factors)
    return config


def train(config, folder):
    """Trains a run, or goes on with it."""
    from jaxprop import config_files
    from jaxprop.evaluation.while_training import make_evaluate
    from jaxprop.training import loop, setup

    evaluate = make_evaluate(
        config_files.load_config('davis_crw', ('eval',)),
        config.evaluation,
        folder / 'evaluation',
        name=config.name,
        network=setup.without_training(setup.make_backbone(config)),
    )
    if not loop.train(config, folder, evaluate)['finished']:
        sys.exit(f'{folder}: stopped before its end; start again to go on')


def choose_and_report(small, trained, folder):
    """Chooses a network's factors on the three sequences, and labels the reported ones by them.

    If a run has no steps, its network is that of the training config with random weights.
    """
    from jaxprop import config_files
    from jaxprop.study import tuning

    config = config_files.load_config('tune', ('study',))
    config.title = f'{trained.name}: factors chosen on {", ".join(HELD_OUT)}'
    config.report_frames = 1
    if small.steps:
        config.network.name = str(folder / 'backbone')
    else:
        config.network.name = 'untrained'
        for key in ('output', 'strides', 'padding'):
            config.network[key] = trained.backbone[key]
    for key, value in trained.evaluation.network.items():
        if value is not None:
            config.network[key] = value
    config.input.update(resize='short_side', size=SHORT_SIDE)
    config.dataset.update(root=trained.evaluation.dataset.root, year='2016')
    config.propagation.update(small.factors)
    with config.tuning.unlocked():
        config.tuning.on = {'split': 'train', 'names': HELD_OUT}
        config.tuning.start_chosen_on = ''
        config.tuning.order = tuple(small.candidates)
        config.tuning.candidates = small.candidates
    tuning.run(config, folder / 'tune')


def run_folder(output, name, start, seed):
    return output / (f'from_{start}' if start else 'scratch') / name / f'seed{seed}'


def run_here(options):
    """Does one run in this process: training, choice of factors, report."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    (name,), (seed,) = options.objectives, options.seeds
    folder = run_folder(options.output, name, options.start, seed)
    config = training_config(name, options.start, seed, options)
    if config.steps and not is_trained(folder, config.steps):
        train(config, folder)
    if not options.train_only:
        choose_and_report(OBJECTIVES[name], config, folder)


def is_trained(folder, steps):
    """Whether a run's folder holds the network of its last step."""
    card = folder / 'backbone.json'
    return card.exists() and json.loads(card.read_text())['description'].get('steps') == steps


def run_all(options, runs):
    """Does all runs, `parallel` at a time; returns the folders of those that failed."""
    cores = sorted(os.sched_getaffinity(0))
    options.parallel = options.parallel if options.gpu else min(options.parallel, len(cores))
    share = max(1, len(cores) // options.parallel)
    waiting, failed = queue.Queue(), []
    for run in runs:
        waiting.put(run)

    def work(own):
        while True:
            try:
                name, seed = waiting.get_nowait()
            except queue.Empty:
                return
            folder = run_folder(options.output, name, options.start, seed)
            if (folder / 'tune/chosen.json').exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, __file__, *sys.argv[1:], '--here']
            command += [f'--objectives={name}', f'--seeds={seed}']
            print(f'{folder}: begins', flush=True)
            with open(folder.with_suffix('.log'), 'ab') as log:
                done = subprocess.run(
                    command,
                    stdout=log,
                    stderr=log,
                    preexec_fn=None if options.gpu else lambda: os.sched_setaffinity(0, own),
                )
            print(f'{folder}: ends, exit code {done.returncode}', flush=True)
            if done.returncode:
                failed.append(folder)

    threads = [
        threading.Thread(target=work, args=(cores[number * share :][:share],))
        for number in range(options.parallel)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def read_runs(output):
    """Reads the results of all runs so far: start, objective, seed, curves and chosen factors."""
    runs = []
    for name in OBJECTIVES:
        for folder in sorted(output.glob(f'*/{name}/seed*')):
            if not folder.is_dir():
                continue
            files = {'metrics': 'metrics.jsonl', 'evaluations': 'evaluation.jsonl'}
            run = {
                'start': folder.parts[-3].removeprefix('from_'),
                'objective': name,
                'seed': int(folder.name.removeprefix('seed')),
            }
            for key, file in files.items():
                path = folder / file
                lines = path.read_text().splitlines() if path.exists() else []
                run[key] = [json.loads(line) for line in lines]
            chosen = folder / 'tune/chosen.json'
            run['tuned'] = json.loads(chosen.read_text()) if chosen.exists() else None
            runs.append(run)
    return runs


def write_table(path, runs):
    """Writes the J&F of all runs in percent: while training, and after it with chosen factors."""
    lines = [
        f'J&F at a short side of {SHORT_SIDE} pixels. "Kept": {", ".join(HELD_OUT)}, which no run '
        'sees, after each part of a run, and with the factors chosen there. "Reported": the '
        'sequences of `val`, with the same factors for all and with those.',
        '',
        '| start | objective | seed | steps | loss | kept, while training | T | k | r '
        '| kept, chosen | reported, same | reported, chosen |',
        '|' + 12 * '---|',
    ]
    for run in runs:
        losses = [f'{entry["loss"]:.2f}' for entry in run['metrics']]
        curve = [f'{100 * entry["mean"]:.1f}' for entry in run['evaluations']]
        steps = run['metrics'][-1]['step'] if run['metrics'] else 0
        cells = [run['start'], run['objective'], run['seed'], steps]
        cells += [' to '.join([losses[0], losses[-1]]) if losses else '', ', '.join(curve)]
        if run['tuned']:
            factors, scores = run['tuned']['chosen'], run['tuned']['scores']
            found = [scores['davis/train']['chosen'], *scores['davis/val'].values()]
            cells += [f'{factors["temperature"]:.3g}', factors.get('num_neighbors', 10)]
            cells += [f'{factors.get("radius", 9.0):g}', *(f'{100 * one:.1f}' for one in found)]
        else:
            cells += [''] * 6
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    path.write_text('\n'.join(lines) + '\n')


def draw(path, runs, points, label):
    """Draws a panel for each objective: its runs in colour, and all others in grey behind them."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    names = list(dict.fromkeys(run['objective'] for run in runs if points(run)))
    starts = list(dict.fromkeys(run['start'] for run in runs))
    columns = min(5, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(2.5 * columns, 2.2 * rows), layout='constrained', squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names):
        for run in runs:
            if points(run) and label == 'J&F' and run['objective'] != name:
                axis.plot(*zip(*points(run)), color='0.85', linewidth=0.8)
        for run in runs:
            if points(run) and run['objective'] == name:
                colour = f'C{starts.index(run["start"])}'
                marker = 'o' if label == 'J&F' else ''
                axis.plot(*zip(*points(run)), color=colour, marker=marker, markersize=3)
        axis.set(title=name, xlabel='minutes of a core', ylabel=label)
        axis.grid(alpha=0.3)
    for number, start in enumerate(starts):
        axes.flat[0].plot([], [], color=f'C{number}', label=start)
    axes.flat[0].legend(title='start', fontsize='small')
    figure.savefig(path, dpi=110)


def summarize(output):
    """Writes the table and both figures of all runs so far."""
    runs = read_runs(output)
    first = {
        run['objective']: 100 * run['tuned']['scores']['davis/train']['before']
        for run in runs
        if run['start'] == 'scratch' and run['tuned']
    }

    def minutes(run, step):
        return 30 * step / OBJECTIVES[run['objective']].steps

    def losses(run):
        return [(minutes(run, entry['step']), entry['loss']) for entry in run['metrics']]

    def scores(run):
        curve = [(minutes(run, one['step']), 100 * one['mean']) for one in run['evaluations']]
        began = first.get('untrained' if run['start'] == 'scratch' else run['start'])
        # The score of the untrained network does not count for an objective with its own network.
        own = OBJECTIVES[run['objective']].own_network
        return [(0, began), *curve] if curve and began and not own else curve

    write_table(output / 'table.md', runs)
    trained = [run for run in runs if run['objective'] != 'untrained']
    draw(output / 'loss.png', trained, losses, 'loss')
    draw(output / 'curves.png', trained, scores, 'J&F')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ('videos', 'davis', 'uvc', 'output'):
        parser.add_argument(f'--{name}', type=pathlib.Path, required=True)
    parser.add_argument('--start', default='', choices=('', *OBJECTIVES))
    parser.add_argument('--objectives', type=lambda names: names.split(','))
    parser.add_argument(
        '--seeds', type=lambda seeds: [int(s) for s in seeds.split(',')], default=[0]
    )
    parser.add_argument('--times', type=float, default=1.0, help='times 30 minutes of a core')
    parser.add_argument('--parallel', type=int, default=2, help='runs at a time')
    parser.add_argument('--gpu', action='store_true', help='runs share a GPU and all cores')
    parser.add_argument('--train_only', action='store_true', help='do not evaluate afterwards')
    parser.add_argument('--summary', action='store_true', help='write table and figures alone')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.output, options.davis = options.output.resolve(), options.davis.resolve()
    if options.objectives is None:
        own = [name for name, small in OBJECTIVES.items() if options.start and small.own_network]
        options.objectives = [name for name in OBJECTIVES if name not in own]
    if unknown := set(options.objectives) - set(OBJECTIVES):
        parser.error(f'unknown objective {unknown.pop()}; known: {", ".join(OBJECTIVES)}')
    if options.here:
        run_here(options)
        return
    if options.summary:
        summarize(options.output)
        return
    seen = options.output / 'videos'
    seen.mkdir(parents=True, exist_ok=True)
    for video in options.videos.resolve().iterdir():
        if video.name not in HELD_OUT and not (seen / video.name).exists():
            (seen / video.name).symlink_to(video)
    failed = run_all(
        options, [(name, seed) for seed in options.seeds for name in options.objectives]
    )
    summarize(options.output)
    for folder in failed:
        print(f'{folder} failed: see {folder.with_suffix(".log")}', file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
