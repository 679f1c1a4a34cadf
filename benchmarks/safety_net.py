"""Shows whether another checkout labels videos as commit 1274a04 does, and how long it takes.

    python benchmarks/safety_net.py --base=CHECKOUT_OF_1274A04 [--tree=.] [--shared=../shared] \
        [--only=CONFIG,...] [--cache=FOLDER] [--quick] [--output=net.json]

For every config in the base's configs/eval:

1. evaluate.py of both checkouts, with the same flags, on a few frames: masks are compared pixel by
   pixel, files of joints byte for byte, scores exactly. Grids and radii are small, and such that
   the windowed and the dense implementation both are chosen wherever a config lets them.
2. `propagate_video` of both with the config's factors on the same made features: soft labels are
   compared bit by bit, and where they differ the largest difference is said and, of cells whose
   class changes, the margin between the two largest labels in the base: a tie has margin 0. Two
   processes take turns for the time; ratios are what to read.

The exit code is 1 where anything differs; time does not count. With --cache the base's results are
kept for later calls, and the tree's predictions of the last call.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

IMPLEMENTATIONS = ('windowed', 'dense')
NUM_FRAMES = 9  # Of a sequence: BADJA annotates two or three among the first nine.
NUM_LONG = 22  # MAST predicts a place in frames that are more than 15 frames away.
DAVIS_NAMES = ('blackswan', 'dog', 'schoolgirls')  # The last one has many objects.
SQUARED = ('dog', 'horsejump-low')  # Squeezed into a square: 24 x 24 cells.
BADJA_NAMES = ('bear', 'dog', 'horsejump-low')
SHORT_CELLS = 24  # Of 24 x 40 cells a window of radius 5 covers less than half, not of 24 x 24.
SQUARE_CELLS = 26  # As above: less than half.
RADIUS = 5.0
NUM_CONTEXT = 5  # At most, so that the queue of context frames goes round.
# Frames, rows and columns of the made features: the many frames fill queues, the many cells take
# time.
CASES = {'long': (24, 24, 36), 'large': (5, 40, 60)}
CHANNELS = 64
ROUNDS = 5
TIME_LIMIT = 1800  # Seconds for one process: longer than any takes, shorter than for ever.


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--base', type=pathlib.Path, help='Checkout of commit 1274a04.')
    parser.add_argument(
        '--tree', type=pathlib.Path, default=pathlib.Path('.'), help='The other checkout.'
    )
    parser.add_argument(
        '--shared',
        type=pathlib.Path,
        default=pathlib.Path('../shared'),
        help='Folder with data/DAVIS, data/DAVIS-multi and data/BADJA.',
    )
    parser.add_argument('--only', default='', help='Some configs, with commas between.')
    parser.add_argument('--cache', type=pathlib.Path, help="Folder to keep the base's results in.")
    parser.add_argument('--quick', action='store_true', help='Measure no time.')
    parser.add_argument('--output', type=pathlib.Path, help='The results as JSON.')
    parser.add_argument('--jobs', type=int, default=2, help='Evaluations at a time.')
    parser.add_argument('--role', choices=ROLES, help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    if arguments.role:
        return ROLES[arguments.role](*rest)
    if rest:
        parser.error(f'unknown argument {rest[0]!r}')
    if not arguments.base:
        parser.error('--base is needed: a checkout of commit 1274a04')
    base, tree = arguments.base.resolve(), arguments.tree.resolve()
    configs = json.loads(call(base, 'describe'))
    if arguments.only:
        chosen = arguments.only.split(',')
        if unknown := sorted(set(chosen) - set(configs)):
            parser.error(f'--only={unknown[0]} is no config in configs/eval of the base')
        configs = {name: configs[name] for name in chosen}
    commits = {'base': describe_commit(base), 'tree': describe_commit(tree)}
    print(*(f'{side}: {commit}' for side, commit in commits.items()), sep='\n', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        cache = arguments.cache and arguments.cache.resolve()
        if cache and commits['base'].endswith('changes'):
            print('note: the base has uncommitted changes; its results are not kept')
            cache = None
        identity = hashlib.sha256(json.dumps([commits['base'], machine()]).encode()).hexdigest()
        checkouts = {'base': base, 'tree': tree}
        started = time.time()
        found = compare_evaluations(
            configs, checkouts, arguments.shared.resolve(), folder, cache, identity, arguments.jobs
        )
        print(f'evaluations: {time.time() - started:.0f} s', flush=True)
        started = time.time()
        compare_propagation(configs, checkouts, folder, cache, identity, arguments.quick, found)
        print(f'propagation: {time.time() - started:.0f} s', flush=True)
    print_table(found)
    is_same = all(is_identical(row) for row in found.values())
    if arguments.output:
        arguments.output.write_text(
            json.dumps({**commits, 'identical': is_same, 'configs': found}, indent=1) + '\n'
        )
    print('all identical' if is_same else 'SOME DIFFER')
    return 0 if is_same else 1


# Processes that import from one of the checkouts.


def environment(checkout):
    return {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'PYTHONPATH': str(checkout),
        'PYTHONDONTWRITEBYTECODE': '1',
    }


def command(role):
    # -P: this script's folder holds a propagation.py, which is not to be imported.
    return [sys.executable, '-P', str(pathlib.Path(__file__).resolve()), f'--role={role}']


def call(checkout, role, *arguments):
    """The standard output of a role of this script that imports from the checkout."""
    done = subprocess.run(
        [*command(role), *map(str, arguments)],
        cwd=checkout,
        env=environment(checkout),
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIME_LIMIT,
        check=True,
    )
    return done.stdout


def describe():
    """Prints all configs of this checkout as JSON."""
    names = sorted(path.stem for path in pathlib.Path('configs/eval').glob('*.py'))
    print(
        json.dumps(
            {
                name: importlib.import_module(f'configs.eval.{name}').get_config().to_dict()
                for name in names
                if not name.startswith('_')
            }
        )
    )


def write_layouts(folder):
    """Writes JHMDB and VIP as this checkout's tests/layouts.py makes them."""
    spec = importlib.util.spec_from_file_location('layouts', 'tests/layouts.py')
    layouts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layouts)
    folder = pathlib.Path(folder)
    layouts.write_jhmdb(folder / 'jhmdb', num_frames=NUM_FRAMES)
    layouts.write_vip(folder / 'vip', num_frames=NUM_FRAMES)


def work():
    """Propagates labels for another process, which asks on standard input, a line at a time.

    {"case": "long", "settings": {...}, "save": PATH} computes soft labels and writes them, and
    {"again": true} computes the last ones again and answers {"seconds": S}.
    """
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # What a library prints is no answer.
    import jax

    import jaxprop

    answers.write(json.dumps({'jaxprop': jaxprop.__file__}) + '\n')
    run = None
    for line in sys.stdin:
        question = json.loads(line)
        if 'again' in question:
            started = time.perf_counter()
            jax.block_until_ready(run())
            answer = {'seconds': time.perf_counter() - started}
        else:
            jax.clear_caches()
            try:
                run = functools.partial(
                    propagation(jaxprop, question['settings']),
                    *map(jax.numpy.asarray, made_video(*CASES[question['case']])),
                )
                np.save(question['save'], np.asarray(run()))
                answer = {}
            except Exception as error:  # To be compared as well.
                answer = {'error': f'{type(error).__name__}: {error}'}
        answers.write(json.dumps(answer) + '\n')


def propagation(jaxprop, settings):
    """`propagate_video` with these settings, whichever way this checkout wants them."""
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    if hasattr(jaxprop, 'PropagationConfig'):
        return functools.partial(
            jaxprop.propagate_video, config=jaxprop.PropagationConfig(**settings)
        )
    from jaxprop import methods

    method = methods.from_settings(**settings)
    execution = methods.execution_from_settings(**settings)
    return lambda features, label: jaxprop.propagate_video(
        features, label, method, execution=execution
    )


ROLES = {'describe': describe, 'layouts': write_layouts, 'work': work}


def made_video(num_frames, height, width):
    """Features `[T, H, W, C]` of a texture that drifts and changes, and a label `[H, W, 4]`.

    The features are a random walk, not negative as behind a ReLU; the label has two objects with
    soft borders, and a class that is nowhere.
    """
    random = np.random.default_rng(0)

    def noise():
        values = random.normal(size=(height, width, CHANNELS))
        return values + 0.5 * (np.roll(values, 1, 0) + np.roll(values, 1, 1))

    def soften(values):
        around = sum(np.roll(values, move, axis) for move in (-1, 1) for axis in (0, 1))
        return (values + around) / 5

    walk, features = noise(), []
    for t in range(num_frames):
        features.append(np.maximum(walk, 0))
        walk = np.roll(0.95 * walk + 0.3 * noise(), int(t % 3 == 2), axis=1)
    label = np.zeros((height, width, 4))
    label[height // 4 : height // 2, width // 8 : width // 2, 1] = 1
    label[height // 2 : height - 4, width // 2 : width - 8, 2] = 1
    label = soften(label)
    label[..., 0] = 1 - label.sum(axis=-1)
    return np.stack(features).astype(np.float32), label.astype(np.float32)


# Evaluations.


def compare_evaluations(configs, checkouts, shared, folder, cache, identity, jobs):
    """For each config, what of the results of evaluate.py differs."""
    data = folder / 'data'
    call(checkouts['base'], 'layouts', data)
    write_davis(shared / 'data', data)
    identity += digest(data)
    outputs, tasks, key_of = {}, [], {}
    for name, config in configs.items():
        for run, flags in runs(config, data).items():
            plain = [flag.replace(str(data), '') for flag in flags]
            key = hashlib.sha256(json.dumps([identity, name, plain]).encode()).hexdigest()[:16]
            for side in checkouts:
                within = cache or folder
                if side == 'base':
                    output = within / 'base' / f'{name}-{run}-{key}'
                else:
                    output = within / 'tree' / f'{name}-{run}'
                outputs[name, run, side] = output
                if side == 'tree' or not output.exists():
                    tasks.append((name, run, side, flags, output))
            key_of[name, run] = key
    errors = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        pending = {
            pool.submit(evaluate, checkouts[side], name, flags, output): (name, run, side)
            for name, run, side, flags, output in tasks
        }
        for number, done in enumerate(concurrent.futures.as_completed(pending), 1):
            name, run, side = pending[done]
            if error := done.result():
                errors[name, run, side] = error
            state = 'failed' if error else 'done'
            print(f'{number}/{len(tasks)} {name} {run} in {side}: {state}', flush=True)
    found = {}
    for name, run in key_of:
        row = found.setdefault(name, {'files': 0, 'predictions': [], 'scores': [], 'summary': {}})
        sides = [outputs[name, run, side] for side in checkouts]
        failed = [
            f'{run}: {side} failed: {errors[name, run, side]}'
            for side in checkouts
            if (name, run, side) in errors
        ]
        if failed:
            row['predictions'] += failed
            continue
        number, differing = compare_predictions(*sides)
        row['files'] += number
        row['predictions'] += [f'{run}: {text}' for text in differing]
        row['scores'] += [f'{run}: {text}' for text in compare_scores(*sides)]
        row['summary'][run] = json.loads((sides[0] / 'metrics.json').read_text())['summary']
    return found


def runs(config, data):
    """The evaluations of a config, by name: the flags of each."""
    kind, factors = config['dataset']['kind'], config['propagation']
    pixels = 8 if config['network']['max_pool'] else 4  # Of a cell.
    is_square = config['input']['resize'] == 'square'
    flags = []
    if kind == 'synthetic':
        flags += ['dataset.num_sequences=3', 'dataset.num_frames=8']
    else:
        root = {
            'davis': 'davis_long' if factors['restriction'] == 'predicted' else 'davis',
            'badja': 'davis',
        }.get(kind, kind)
        flags.append(f'dataset.root={data / root}')
        if kind == 'badja':
            flags.append(f'dataset.folder={data / "badja"}')
        if config['input']['resize'] == 'native':
            flags.append('input.resize=short_side')
        flags.append(f'input.size={(SQUARE_CELLS if is_square else SHORT_CELLS) * pixels}')
    if factors['num_context'] > NUM_CONTEXT:
        flags.append(f'propagation.num_context={NUM_CONTEXT}')
    near = [*flags]
    if factors['restriction'] in ('radius', 'square', 'predicted'):
        near.append(f'propagation.radius={RADIUS}')
    if kind == 'synthetic':
        near.append('batch.videos_per_device=2')
    chosen = {'near': near}
    if factors['restriction'] in ('radius', 'square') and (is_square or kind == 'synthetic'):
        # All grids have one size: windows are used in the first run, not with the full radius.
        chosen['far'] = flags
    return {run: [f'--config.{flag}' for flag in flags] for run, flags in chosen.items()}


def evaluate(checkout, name, flags, output):
    """Runs evaluate.py; None, or what it says where it fails."""
    partial = output.with_name(f'.{output.name}.partial')
    for folder in (partial, output):
        shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run(
        [
            sys.executable,
            'evaluate.py',
            f'--config=configs/eval/{name}.py',
            *flags,
            f'--output={partial}',
        ],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return ' | '.join(lines[-3:]) or f'exit code {done.returncode}'
    partial.rename(output)
    return None


def compare_predictions(base, tree):
    """How many predictions there are, and a line for each that differs."""
    names = [
        {
            str(path.relative_to(folder))
            for kind in ('masks/**/*.png', 'keypoints/**/*.json')
            for path in folder.glob(kind)
        }
        for folder in (base, tree)
    ]
    differing = [f'{name}: only in the base' for name in sorted(names[0] - names[1])]
    differing += [f'{name}: only in the tree' for name in sorted(names[1] - names[0])]
    if not names[0]:
        differing.append('the base has written no prediction')
    for name in sorted(names[0] & names[1]):
        if (base / name).read_bytes() == (tree / name).read_bytes():
            continue
        if not name.endswith('.png'):
            differing.append(f'{name}: differs')
            continue
        with Image.open(base / name) as first, Image.open(tree / name) as second:
            if first.mode != second.mode or first.size != second.size:
                differing.append(
                    f'{name}: {first.mode} {first.size} became {second.mode} {second.size}'
                )
                continue
            changed = np.asarray(first) != np.asarray(second)
            if changed.any():
                differing.append(f'{name}: {changed.sum()} of {changed.size} pixels differ')
            elif first.getpalette() != second.getpalette():
                differing.append(f'{name}: the palette differs')
    return len(names[0]), differing


def compare_scores(base, tree):
    """A line for each part of the scores that differs."""
    differing = []
    first, second = ((folder / 'per_sequence.csv').read_text() for folder in (base, tree))
    if first != second:
        differing.append('per_sequence.csv differs')
    first, second = (json.loads((folder / 'metrics.json').read_text()) for folder in (base, tree))
    for part in ('summary', 'per_sequence'):
        # As text, where NaN is the same as NaN.
        if json.dumps(first[part]) != json.dumps(second.get(part)):
            differing.append(
                f'{part}: {json.dumps(first[part])} became {json.dumps(second.get(part))}'
            )
    return differing


def write_davis(shared, data):
    """Writes the first frames of some sequences as DAVIS and BADJA lay them out."""
    for root, names, num_frames in (
        ('davis', sorted({*DAVIS_NAMES, *BADJA_NAMES}), NUM_FRAMES),
        ('davis_long', DAVIS_NAMES[:1], NUM_LONG),
    ):
        for name in names:
            source = shared / ('DAVIS-multi' if name == 'schoolgirls' else 'DAVIS')
            for kind in ('JPEGImages', 'Annotations'):
                target = data / root / kind / '480p' / name
                target.mkdir(parents=True)
                for path in sorted((source / kind / '480p' / name).iterdir())[:num_frames]:
                    if name not in SQUARED:
                        shutil.copy(path, target)
                        continue
                    with Image.open(path) as image:
                        how = Image.NEAREST if kind == 'Annotations' else Image.BILINEAR
                        image.resize((480, 480), how).save(target / f'{path.stem}.png')
        lists = data / root / 'ImageSets' / '2017'
        lists.mkdir(parents=True)
        (lists / 'val.txt').write_text(''.join(f'{n}\n' for n in DAVIS_NAMES if n in names))
    (data / 'badja').mkdir()
    for name in BADJA_NAMES:
        entries = json.loads((shared / 'BADJA' / f'{name}.json').read_text())
        kept = [e for e in entries if int(pathlib.Path(e['image_path']).stem) < NUM_FRAMES]
        (data / 'badja' / f'{name}.json').write_text(json.dumps(kept))


# Soft labels and time.


class Worker:
    """A process that propagates labels with the code of a checkout; started when first asked."""

    def __init__(self, checkout):
        self.checkout, self.process = checkout, None

    def ask(self, **question):
        if self.process is None:
            self.process = subprocess.Popen(
                command('work'),
                cwd=self.checkout,
                env=environment(self.checkout),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            imported = self.answer().get('jaxprop')
            if imported and not pathlib.Path(imported).resolve().is_relative_to(self.checkout):
                raise RuntimeError(f'jaxprop of {self.checkout} is wanted, not {imported}')
        try:
            self.process.stdin.write(json.dumps(question) + '\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended, as the answer will say.

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {'error': 'its process has ended, see above'}

    def stop(self):
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait()


def compare_propagation(configs, checkouts, folder, cache, identity, quick, found):
    """Adds to `found` what of the soft labels differs, and the seconds of each checkout."""
    groups = {}
    for name, config in configs.items():
        groups.setdefault(json.dumps(config['propagation'], sort_keys=True), []).append(name)
    inputs = hashlib.sha256()
    for case in CASES.values():
        for array in made_video(*case):
            inputs.update(array.tobytes())
    identity += inputs.hexdigest()
    kept = (cache or folder) / 'labels'
    kept.mkdir(parents=True, exist_ok=True)
    workers = {side: Worker(checkout) for side, checkout in checkouts.items()}
    try:
        for number, (text, names) in enumerate(groups.items(), 1):
            for implementation in IMPLEMENTATIONS:
                settings = {**json.loads(text), 'implementation': implementation}
                key = hashlib.sha256(json.dumps([identity, settings]).encode()).hexdigest()[:16]
                result = compare_settings(workers, settings, kept / key, folder, quick)
                for name in names:
                    found[name][implementation] = result
                if result is None:
                    continue
                ratio = f', ratio {result["ratio"]:.2f}' if 'ratio' in result else ''
                labels = 'differ' if result['labels'] else 'identical'
                print(
                    f'{number}/{len(groups)} {", ".join(names)} {implementation}: '
                    f'labels {labels}{ratio}',
                    flush=True,
                )
    finally:
        for worker in workers.values():
            worker.stop()


def compare_settings(workers, settings, kept, folder, quick):
    """What differs with these settings and the seconds; None where the base refuses them."""
    result, refused = {'labels': []}, kept.with_suffix('.refused')
    if refused.exists():
        return None
    for case in ('long',) if quick else CASES:
        paths = {'base': kept.with_name(f'{kept.name}-{case}.npy'), 'tree': folder / 'tree.npy'}
        # For the time the base has to be ready as well.
        asked = [
            side
            for side in workers
            if side == 'tree' or case == 'large' or not paths[side].exists()
        ]
        for side in asked:
            workers[side].ask(case=case, settings=settings, save=str(paths[side]))
        errors = {side: workers[side].answer().get('error') for side in asked}
        if error := errors.get('base'):
            if not error.startswith('ValueError'):
                raise RuntimeError(f'the base failed with {settings}: {error}')
            refused.write_text(error)
            return None
        if errors['tree']:
            result['labels'].append(f'{case}: the tree failed: {errors["tree"]}')
            return result
        if text := compare_labels(*(np.load(paths[side]) for side in workers)):
            result['labels'].append(f'{case}: {text}')
    if not quick:
        seconds = {side: [] for side in workers}
        for _ in range(ROUNDS):
            for side, worker in workers.items():
                worker.ask(again=True)
                seconds[side].append(worker.answer()['seconds'])
        result.update({side: statistics.median(values) for side, values in seconds.items()})
        result['ratio'] = result['tree'] / result['base']
        # For a busy machine, which can only make a round longer.
        result['ratio of minima'] = min(seconds['tree']) / min(seconds['base'])
        result['rounds'] = seconds
    return result


def compare_labels(base, tree):
    """None, or how soft labels `[T, H, W, L]` differ."""
    if base.shape != tree.shape or base.dtype != tree.dtype:
        return f'{base.dtype} {list(base.shape)} became {tree.dtype} {list(tree.shape)}'
    if base.tobytes() == tree.tobytes():
        return None
    text = f'largest difference {np.max(np.abs(base - tree)):.3g}'
    changed = np.argmax(base, axis=-1) != np.argmax(tree, axis=-1)
    text += f', class of {changed.sum()} of {changed.size} cells differs'
    if changed.any():
        ordered = np.sort(base[changed], axis=-1)
        margins = ordered[:, -1] - ordered[:, -2]
        first = int(np.argmax(changed.any(axis=(1, 2))))
        text += (
            f', from frame {first} on, with margins of median {np.median(margins):.3g} and at '
            f'most {margins.max():.3g}'
        )
    return text


# What is said.


def is_identical(row):
    return not any(
        (
            row['predictions'],
            row['scores'],
            *(row[name]['labels'] for name in IMPLEMENTATIONS if row[name]),
        )
    )


def print_table(found):
    """Prints a row for each config, and below what differs."""
    state = {True: 'identical', False: 'DIFFER'}
    rows = [
        [
            'config',
            'predictions (files)',
            'scores',
            'windowed',
            'dense',
            'windowed, s: base',
            'tree',
            'ratio',
            'dense, s: base',
            'tree',
            'ratio',
        ]
    ]
    details = []
    for name, row in found.items():
        cells = [name, f'{state[not row["predictions"]]} ({row["files"]})']
        cells.append(state[not row['scores']] if row['summary'] else '-')
        cells += [state[not row[i]['labels']] if row[i] else '-' for i in IMPLEMENTATIONS]
        for implementation in IMPLEMENTATIONS:
            result = row[implementation] or {}
            cells += [
                f'{result[of]:.3f}' if of in result else '-' for of in ('base', 'tree', 'ratio')
            ]
        rows.append(cells)
        details += [f'{name}: {text}' for text in row['predictions'] + row['scores']]
        details += [
            f'{name} {i}: {text}' for i in IMPLEMENTATIONS if row[i] for text in row[i]['labels']
        ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print('-: the base refuses, or it was not measured')
    for line in details:
        print(line)


# What results depend on.


def describe_commit(checkout):
    """The commit of a checkout, and whether files in it were changed."""

    def git(*arguments):
        return subprocess.run(
            ['git', *arguments], cwd=checkout, capture_output=True, text=True
        ).stdout.strip()

    changes = ' with uncommitted changes' if git('status', '--porcelain', '-uno') else ''
    return (git('rev-parse', 'HEAD') or 'no commit') + changes


def machine():
    """What beside the code floating-point results depend on."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        processor = next((line for line in lines if line.startswith('model name')), '')
    except OSError:
        processor = platform.processor()
    versions = [importlib.metadata.version(of) for of in ('jax', 'jaxlib', 'flax', 'numpy')]
    return [platform.machine(), processor, os.cpu_count(), os.environ.get('XLA_FLAGS'), versions]


def digest(folder):
    """A hash of all files in a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            # A MATLAB file begins with 116 bytes of text that hold the date.
            content = path.read_bytes()[116 if path.suffix == '.mat' else 0 :]
            found.update(str(path.relative_to(folder)).encode() + content)
    return found.hexdigest()


if __name__ == '__main__':
    sys.exit(main())
