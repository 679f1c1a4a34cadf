"""Runs every shell command of the README and docs/ as it stands, and prints the time of each.

    python benchmarks/docs_commands.py
    python benchmarks/docs_commands.py --pages=PROPAGATE,DATA --limit=300 \
        --autoencoder=FOLDER

Commands are the lines of blocks that are marked `sh`. They run in a copy of the checkout where the
names that the documents use (DAVIS, VIDEOS, FIRST_MASK, ...) are small rendered data of the right
layout; so a command is not changed, but for `REPLACED` below. `output/` and `DIR` are removed
before each command, since the documents' commands are alternatives to each other. A command that
needs what is not here, such as a published file of weights, is skipped, and the reason printed. One
that takes longer than the limit is stopped; it counts as begun, not as failed, and what it should
have left for the commands after it is missing. `--autoencoder` is the folder of UVC's released
colour autoencoder, which some trainings need.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import checkout  # noqa: F401
import numpy as np

from jaxprop.data.image_files import write_mask
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.data.video_files import write_video
from tests.layouts import (
    tapvid_video,
    write_davis_sequences,
    write_jhmdb,
    write_vip,
    write_youtube_vos,
)

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What a command cannot be run without here, by a part of it.
SKIPPED = {
    'venv': 'installs packages',
    'pip install': 'installs packages',
    'hf://': 'downloads a network',
    'pretrain': 'needs a published file of weights',
    'convert FILE': 'needs a published file of weights',
    'name=FILE': 'needs a published file of weights',
    'MOCO.safetensors': 'needs a published file of weights',
    'start_from=crw ': 'needs a published file of weights',
    'HOST:PORT': 'needs several machines',
    'whole_frame.py': 'needs PyTorch',
    'moco_loss.py': 'needs a run of MoCo',
    'GLIBC_TUNABLES': 'an evaluation of any other command',
}
# Parts of commands that stand for something that has no name of its own.
REPLACED = {
    'VIDEO...': 'clip.mp4',
    'my_module:my_function': 'my_features:colours',
    '00000.png 00040.png': 'FOLDER_OF_MASKS/00000.png FOLDER_OF_MASKS/00002.png',
    'plot_training.py RUN': 'plot_training.py TRAINED',
    'workdir=RUN ': 'workdir=RUN_OF_TRAINING ',
}
VAL, TRAIN = ('dog', 'libby'), ('bear', 'dog-agility')
OTHERS = ('blackswan', 'bmx-trees', 'car-shadow', 'horsejump-low')


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--pages', default='', help='some pages: README,DATA; all by default')
    parser.add_argument('--only', default='', help='commands in which this expression is found')
    parser.add_argument('--limit', type=float, default=600, help='seconds for a command')
    parser.add_argument('--autoencoder', type=pathlib.Path, help="UVC's, for some trainings")
    parser.add_argument('--list', action='store_true', help='print the commands, run none')
    arguments = parser.parse_args()

    pages = {path.stem: path for path in [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md'))]}
    chosen = arguments.pages.split(',') if arguments.pages else list(pages)
    commands = [
        (page, command)
        for page in chosen
        for command in find_commands(pages[page])
        if re.search(arguments.only, command)
    ]
    if arguments.list:
        print('\n'.join(f'{page}: {command}' for page, command in commands))
        return
    if arguments.autoencoder is None:
        SKIPPED['color_autoencoder=FOLDER'] = "needs UVC's released autoencoder (--autoencoder)"
    else:
        REPLACED['color_autoencoder=FOLDER'] = (
            f'color_autoencoder={arguments.autoencoder.resolve()}'
        )

    results = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder) / 'checkout'
        prepare(work)
        for page, command in commands:
            outcome, wall, processor = run(command, work, arguments.limit)
            results.append(outcome)
            print(
                f'| {page} | `{command}` | {outcome} | {wall:.0f} | {processor:.0f} |', flush=True
            )
    failed = sum(outcome.startswith('FAILED') for outcome in results)
    print(f'{len(results)} commands, {results.count("ok")} ok, {failed} failed')
    sys.exit(failed > 0)


def find_commands(path):
    """The commands of a page's blocks, each on one line."""
    found = []
    for block in re.findall(r'^```sh\n(.*?)^```$', path.read_text(), re.M | re.S):
        lines = re.sub(r'\s*\\\n\s*', ' ', block).splitlines()
        found += [re.sub(r'\s+#.*', '', line) for line in lines if line.strip()]
    return found


def run(command, work, limit):
    """Runs a command in the copy: what became of it, seconds, and seconds of processor time."""
    for part, reason in SKIPPED.items():
        if part in command:
            return f'skipped: {reason}', 0, 0
    for part, instead in REPLACED.items():
        command = command.replace(part, instead)
    for name in ('output', 'DIR'):
        shutil.rmtree(work / name, ignore_errors=True)
    began, before = time.monotonic(), _processor_time()
    environment = {
        **os.environ,
        'PYTHONPATH': str(work),
        'PATH': f'{work / "bin"}:{os.environ["PATH"]}',
        'JAX_PLATFORMS': os.environ.get('JAX_PLATFORMS', ''),
    }
    with open(work / 'log.txt', 'w+') as log:
        child = subprocess.Popen(
            ['bash', '-c', command],
            cwd=work,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code, outcome = child.wait(limit), 'ok'
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            code, outcome = 0, f'begun, stopped after {limit:.0f} s'
        if code:
            log.seek(0)
            lines = [line for line in log.read().splitlines() if _says_something(line)]
            last = lines[-1] if lines else 'no output'
            outcome = f'FAILED with {code}: {last[-300:]}'
    return outcome, time.monotonic() - began, _processor_time() - before


def _says_something(line):
    """Whether a line is more than JAX's note under a traceback, and its rule."""
    return bool(line.strip('- ')) and not line.startswith('For simplicity, JAX has removed')


def _processor_time():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def prepare(work):
    """A copy of the checkout with small data under the names that the documents use."""
    listed = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (work / 'bin').mkdir()
    command = work / 'bin' / 'jaxprop'
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m jaxprop "$@"\n')
    command.chmod(0o755)

    # Masks, joints and parts.
    names = (*VAL, *TRAIN, *OTHERS)
    rendered = synthetic_sequences(len(names), num_frames=6, size=(96, 128))
    videos = {name: dataclasses.replace(video, name=name) for name, video in zip(names, rendered)}
    write_davis_sequences(
        work / 'DAVIS', videos.values(), {'val': VAL, 'train': TRAIN, 'test-dev': VAL}
    )
    frames = work / 'DAVIS/JPEGImages/480p'
    write_vip(work / 'VIP')
    write_jhmdb(work / 'JHMDB')
    for name in ('valid', 'val', 'valid_all_frames'):
        (work / name).mkdir()
        write_youtube_vos(work / name, [videos['dog']], {2: 3}, {2: 'zebra'})
    (work / 'tapvid_davis.pkl').write_bytes(pickle.dumps({'disc': tapvid_video(4)}))
    (work / 'BADJA').mkdir()
    joints = np.random.default_rng(0).uniform(300, 700, (37, 2)).tolist()
    entries = [
        {'image_path': f'bear/{index:05d}.jpg', 'joints': joints, 'visibility': [True] * 37}
        for index in (0, 3)
    ]
    (work / 'BADJA/bear.json').write_text(json.dumps(entries))

    # One's own video, features and function, and data to train on.
    video = videos['dog']
    read = [video.read_frame(index) for index in range(video.num_frames)]
    for path in (work / 'clip.mp4', work / 'VIDEOS/one.mp4', work / 'VIDEOS/two.mp4'):
        path.parent.mkdir(exist_ok=True)
        write_video(path, 4 * read)
    write_mask(work / 'first.png', video.read_label(0))
    for name, target in (
        ('VIDEO_OR_FOLDER', frames / 'dog'),
        ('FIRST_MASK', work / 'first.png'),
        ('FOLDER_OF_MASKS', work / 'DAVIS/Annotations/480p/dog'),
        ('PREDICTIONS', work / 'DAVIS/Annotations/480p'),
        ('TRUTH', work / 'DAVIS/Annotations/480p'),
        ('frames/dog', frames / 'dog'),
        *((f'IMAGENET/{i % 2}/{i}.jpg', frames / 'dog/00000.jpg') for i in range(300)),
    ):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(target)
    text = (ROOT / 'docs/FEATURES.md').read_text()
    [source] = re.findall(r'<!-- file: my_features.py -->\n```python\n(.*?)```', text, re.S)
    (work / 'my_features.py').write_text(source)

    # What other commands make: finished runs, and a folder of features.
    small = '--config.dataset.num_sequences=1 --config.dataset.num_frames=4'
    for command in (
        f'python evaluate.py --output=RUN_A {small}',
        f'python evaluate.py --output=RUN_B {small} --config.propagation.temperature=1.0',
        'cp -r RUN_A RUN && cp -r RUN_B OTHER_RUN',
        'jaxprop train --workdir=TRAINED --config.data.root=VIDEOS --config.steps=2'
        ' --config.log_every=1 --config.data.batch_size=2',
        'cp TRAINED/backbone.safetensors mine.safetensors && cp TRAINED/backbone.json mine.json',
        'jaxprop export-features --config=davis_crw --config.dataset.root=DAVIS --output=FOLDER',
        'jaxprop export-features clip.mp4 --output=CLIP && cp CLIP/clip.npy FOLDER',
    ):
        outcome, *_ = run(command, work, 600)
        if outcome != 'ok':
            raise SystemExit(f'{command}: {outcome}')


if __name__ == '__main__':
    main()
