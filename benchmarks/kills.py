"""Kills evaluate, propagate and train at random file operations, and goes on with what is left.

    python benchmarks/kills.py [evaluate|propagate|train ...] [--kills=30] [--output=FILE]

A program runs undisturbed first; an audit hook counts the operations by which it writes, makes,
renames or removes files in its output. Then chains of runs are killed (SIGKILL) at operations drawn
at random, each going on with what the one before left; the last run of a chain is left to finish.
What the finished run of each chain left is compared with what the undisturbed one did, byte for
byte but for times, checkpoints array by array; and files that only a chain has are counted:
leftovers. Data are rendered. The exit code is 1 where anything differs.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import runpy
import signal
import subprocess
import sys
import tempfile

import checkout  # noqa: F401

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
            str(data / '0'),
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


def render(folder, num_videos=1, num_frames=8):
    """A folder of frames for each video, and a mask for the first frame of the first one."""
    from jaxprop.data import image_files
    from jaxprop.data.synthetic import synthetic_sequences

    videos = synthetic_sequences(num_videos, num_frames, size=(64, 80))
    for number, video in enumerate(videos):
        (folder / str(number)).mkdir(parents=True)
        for t in range(num_frames):
            frame = image_files.encode_jpeg(video.read_frame(t))
            (folder / f'{number}/{t:05d}.jpg').write_bytes(frame)
    image_files.write_mask(folder / 'mask.png', videos[0].read_label(0))


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


def start(output, at, arguments, cache, devices=1):
    """Starts a child: a process."""
    return subprocess.Popen(
        [sys.executable, __file__, '--child', str(output), str(at), *arguments],
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'JAX_PLATFORMS': 'cpu',
            'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
            'JAX_COMPILATION_CACHE_DIR': str(cache),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """A child's return code, and the number of operations if it came to its end."""
    said, error = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        print(said[-2000:], error[-4000:])
    last = said.strip().rpartition('operations: ')[2]
    return process.returncode, int(last) if process.returncode == 0 else None


def content(path):
    """What must be equal in two runs of a file."""
    if path.name.startswith('events.') or path.suffix == '.html':
        return None  # Times, or pictures of what is compared.
    if path.is_dir():
        return arrays(path)
    if path.suffix == '.json':
        return without_times(json.loads(path.read_text()))
    if path.suffix == '.jsonl':
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def arrays(checkpoint):
    """The bytes of every array of a checkpoint, by its place."""
    import jax
    import orbax.checkpoint as ocp

    state = ocp.StandardCheckpointer().restore(checkpoint.resolve() / 'state')
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(key): jax.device_get(leaf).tobytes() for key, leaf in leaves}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    return value


def files(output):
    """By name. Of a checkpoint its folder; TensorBoard's files are named anew in each run."""
    found = {}
    for path in output.rglob('*'):
        name = path.relative_to(output)
        if path.is_file() and not path.name.startswith('events.'):
            if 'checkpoints' in name.parts:
                name = pathlib.Path(*name.parts[:2])
            found[str(name)] = output / name
    return found


def compare(undisturbed, output):
    """Names that differ, and names that only the second has."""
    expected, found = files(undisturbed), files(output)
    differing = [
        name
        for name, path in expected.items()
        if name not in found or content(path) != content(found[name])
    ]
    return differing, sorted(set(found) - set(expected))


def campaign(program, arguments, kills, seed, folder):
    """Kills chains of runs of a program.

    Args:
      program: a name, for what is printed and for folders.
      arguments: of `jaxprop`, by the output's folder.
      kills: at least so many.
      seed: of the operations drawn.
      folder: for what the runs write; NAME-whole is the undisturbed run, cache what is compiled.

    Returns:
      Counts, and the names of files that differ or are left over.
    """
    draw = random.Random(f'{program} {seed}')
    cache, undisturbed = folder / 'cache', folder / f'{program}-whole'
    code, total = finish(start(undisturbed, 0, arguments(undisturbed), cache))
    if code:
        raise SystemExit(f'{program} fails undisturbed')
    found = {'operations': total, 'kills': 0, 'chains': 0, 'errors': 0, 'differing': [], 'left': []}
    while found['kills'] < kills:
        output = folder / f'{program}-{found["chains"]}'
        for _ in range(CHAIN):
            at = draw.randint(1, total)
            code, _ = finish(start(output, at, arguments(output), cache))
            found['kills'] += code == -signal.SIGKILL
            found['errors'] += code not in (0, -signal.SIGKILL)
            if code == 0:
                break  # It had less to do than there are operations.
        code, _ = finish(start(output, 0, arguments(output), cache))
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
        folder = pathlib.Path(folder)
        render(folder / 'data')
        found = {
            program: campaign(
                program,
                functools.partial(arguments_of, program, folder / 'data'),
                arguments.kills,
                arguments.seed,
                folder,
            )
            for program in arguments.programs
        }
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + '\n')
    return any(failed(one) for one in found.values())


def failed(found):
    """Whether a campaign found anything."""
    return bool(found['errors'] or found['differing'] or found['left'])


if __name__ == '__main__':
    sys.exit(main())
