"""Kills evaluate, propagate and train at random file operations, and goes on with what is left.

    python benchmarks/kills.py [evaluate|propagate|train ...] [--kills=30] [--output=FILE]

A program runs undisturbed first; an audit hook counts the operations by which it writes, makes,
renames or removes files in its output. Then chains of runs are killed (SIGKILL) at operations drawn
at random, each going on with what the one before left; the last run of a chain is left to finish.
What the finished run of each chain left is compared with what the undisturbed one did, byte for
byte but for times, and files that only a chain has are counted: leftovers. Data are rendered. The
exit code is 1 where anything differs.
"""

import argparse
import json
import os
import pathlib
import random
import runpy
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHAIN = 5  # Kills before a run is left to finish.
SMALL = [
    '--config.network.name=untrained',
    '--config.network.output=res1',
    '--config.network.strides=(1,2,1,1)',
    '--config.propagation.num_context=2',
    '--config.propagation.num_neighbors=3',
    '--config.propagation.radius=3.0',
    '--config.input.resize=short_side',
    '--config.input.size=48',
]
# Fields of JSON files that no two runs have in common; a seal is a digest of them.
TIMES = ('seal', 'date', 'timing', 'seconds', 'command', 'examples_per_second', 'wait_share')


def arguments_of(program, data, output):
    """The command line of a small run, after `jaxprop`."""
    if program == 'evaluate':
        small = ['--config.dataset.num_frames=6', '--config.dataset.num_sequences=4']
        return ['evaluate', *SMALL, *small, f'--output={output}']
    if program == 'propagate':
        return [
            'propagate',
            str(data / 'clip'),
            str(data / 'mask.png'),
            *SMALL,
            f'--output={output}',
        ]
    return [
        'train',
        '--config=small_rotation',
        f'--config.data.root={data}',
        f'--workdir={output}',
        '--config.backbone.output=res1',
        '--config.objective.size=24',
        '--config.data.size=(24,24)',
        '--config.data.batch_size=4',
        '--config.data.examples_per_video=8',
        '--config.steps=8',
        '--config.log_every=1',
        '--config.checkpoint_every=2',
    ]


def render(folder):
    """A folder of frames with a mask for the first."""
    from jaxprop.data import image_files
    from jaxprop.data.synthetic import synthetic_sequences

    (video,) = synthetic_sequences(num_sequences=1, num_frames=8, size=(64, 80))
    (folder / 'clip').mkdir(parents=True)
    for t in range(8):
        frame = image_files.encode_jpeg(video.read_frame(t))
        (folder / 'clip' / f'{t:05d}.jpg').write_bytes(frame)
    image_files.write_mask(folder / 'mask.png', video.read_label(0))


def child(output, at, *arguments):
    """Runs `jaxprop` with these arguments, and is killed at the operation number `at`; 0: never."""
    output, at, count = os.path.realpath(output), int(at), 0

    def note(event, values):
        nonlocal count
        if event == 'open':
            path, _, flags = values
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate'):
            path = values[0]
        else:
            return
        if isinstance(path, (str, bytes, os.PathLike)):
            if os.path.realpath(os.fsdecode(path)).startswith(output):
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    sys.argv = ['jaxprop', *arguments]
    try:
        runpy.run_module('jaxprop', run_name='__main__')
    except SystemExit as stop:
        if stop.code:
            raise
    print(f'operations: {count}')


def start(output, at, arguments, cache):
    """Runs a child: its return code, and the number of operations if it came to its end."""
    done = subprocess.run(
        [sys.executable, __file__, '--child', str(output), str(at), *arguments],
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'JAX_PLATFORMS': 'cpu',
            'JAX_COMPILATION_CACHE_DIR': str(cache),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
        },
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, -signal.SIGKILL):
        print(done.stdout[-2000:], done.stderr[-4000:])
    last = done.stdout.strip().rpartition('operations: ')[2]
    return done.returncode, int(last) if done.returncode == 0 else None


def content(path):
    """What must be equal in two runs of a file."""
    if path.name.startswith('events.') or path.suffix == '.html' or 'checkpoints' in path.parts:
        return None  # Times, or pictures of what is compared; checkpoints by what follows of them.
    if path.suffix == '.json':
        return without_times(json.loads(path.read_text()))
    if path.suffix == '.jsonl':
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    return value


def files(output):
    """By name. Of a checkpoint the step; TensorBoard's files have a name of their own each run."""
    found = {}
    for path in output.rglob('*'):
        name = path.relative_to(output)
        if path.is_file() and not path.name.startswith('events.'):
            if 'checkpoints' in name.parts:
                name = pathlib.Path(*name.parts[:2])
            found[str(name)] = path
    return found


def compare(undisturbed, output):
    """Names that differ, and names that only the second has."""
    expected, found = files(undisturbed), files(output)
    differing = [
        name
        for name, path in expected.items()
        if name not in found
        or ('checkpoints' not in name and content(path) != content(found[name]))
    ]
    return differing, sorted(set(found) - set(expected))


def campaign(program, kills, seed, folder):
    draw = random.Random(f'{program} {seed}')
    data, cache, undisturbed = (folder / name for name in ('data', 'cache', f'{program}-whole'))
    if not data.exists():
        render(data)
    code, total = start(undisturbed, 0, arguments_of(program, data, undisturbed), cache)
    if code:
        raise SystemExit(f'{program} fails undisturbed')
    found = {'operations': total, 'kills': 0, 'chains': 0, 'errors': 0, 'differing': [], 'left': []}
    while found['kills'] < kills:
        output = folder / f'{program}-{found["chains"]}'
        for _ in range(CHAIN):
            at = draw.randint(1, total)
            code, _ = start(output, at, arguments_of(program, data, output), cache)
            found['kills'] += code == -signal.SIGKILL
            found['errors'] += code not in (0, -signal.SIGKILL)
            if code == 0:
                break  # It had less to do than there are operations.
        code, _ = start(output, 0, arguments_of(program, data, output), cache)
        found['errors'] += code != 0
        differing, left = compare(undisturbed, output)
        found['differing'] += [f'{output.name}/{name}' for name in differing]
        found['left'] += [f'{output.name}/{name}' for name in left]
        found['chains'] += 1
        print(program, found, flush=True)
    return found


def main():
    if sys.argv[1:2] == ['--child']:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('programs', nargs='*', default=['evaluate', 'propagate', 'train'])
    parser.add_argument('--kills', type=int, default=30, help='Of each program.')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--output', type=pathlib.Path, help='The counts as JSON.')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            program: campaign(program, arguments.kills, arguments.seed, pathlib.Path(folder))
            for program in arguments.programs
        }
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + '\n')
    return any(one['errors'] or one['differing'] or one['left'] for one in found.values())


if __name__ == '__main__':
    sys.exit(main())
