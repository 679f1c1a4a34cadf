"""Damages files of every kind that is read, and counts how reading ends: tests/fuzz at length.

    python benchmarks/fuzz.py [--count=1000] [--seed=1] [--only=KIND,...] [--output=FILE]

For each kind a whole file is made and damaged `count` times (bits flipped, bytes set, zeroed, cut,
removed, doubled, inserted). A reading ends with the value of the whole file (same), with another
value (silent), with one line that names the file (clear), or with what must not be: an error of
another kind, or one that does not name the file (traceback), no end within 20 seconds (hang), a
program that is started (execution), or a file that is written, renamed or removed outside of the
folder of the data (outside). An audit hook counts the last two. The exit code is 1 where one of
the last four is not 0.
"""

import argparse
import json
import os
import pathlib
import pickle
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import checkout  # noqa: F401
import jax
import numpy as np
from flax import traverse_util

from jaxprop import files
from jaxprop.checkpoints.native import load_pretrained, save_pretrained
from jaxprop.checkpoints.torch_file import load_torch_weights
from jaxprop.data import image_files, mat_file, sequences, video_files
from jaxprop.data.badja import badja_sequence
from jaxprop.data.davis import davis_names
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.data.tapvid import tapvid_videos
from jaxprop.data.youtube_vos import youtube_vos_sequence
from jaxprop.evaluation.results import Folder, record_path
from jaxprop.models import ResNet
from jaxprop.tasks.objects import Objects
from tests.checkpoints.test_torch_file import old_bytes, storage, tensor, write_zip
from tests.fuzz.mutations import classify, mutate
from tests.fuzz.test_images import encoded
from tests.fuzz.test_json import entry
from tests.fuzz.test_masks import blobs
from tests.layouts import tapvid_video, write_davis, write_youtube_vos

COLUMNS = ('tried', 'same', 'clear', 'silent', 'traceback', 'hang', 'execution', 'outside')
STARTS = ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'pty.spawn')
CHANGES = ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.link', 'os.symlink')


class Kind(NamedTuple):
    """A whole file, and the function that reads it; `errors` are meant for wrong files."""

    path: pathlib.Path
    read: Callable[[], Any]
    errors: type[Exception] = sequences.DataError


def frames(count=6):
    generator = np.random.default_rng(0)
    start = generator.integers(0, 256, (48, 64, 3), np.uint8)
    return [np.roll(start, 2 * t, axis=1) for t in range(count)]


def images(folder, suffix, kind, **options):
    path = folder / f'frame.{suffix}'
    path.write_bytes(encoded(kind=kind, **options))
    return Kind(path, lambda: image_files.read_image(path))


def mask(folder):
    path = folder / 'mask.png'
    image_files.write_mask(path, blobs(20, 16))
    return Kind(path, lambda: image_files.read_mask(path))


def video(folder, suffix):
    path = folder / f'clip.{suffix}'
    video_files.write_video(path, frames())
    return Kind(path, lambda: np.stack(list(video_files.open_video(path).iterate())))


def names(folder):
    path = folder / 'ImageSets' / '2017' / 'val.txt'
    path.parent.mkdir(parents=True)
    path.write_text('bear\nblackswan\n../dog\ndog-agility\n'.replace('../', ''))
    return Kind(path, lambda: davis_names(folder))


def annotations(folder):
    write_davis(folder, 4)
    path = folder / 'cat.json'
    path.write_text(json.dumps([entry(1), entry(3)]))
    return Kind(path, lambda: badja_sequence(folder, folder, 'cat').positions)


def objects(folder):
    made = synthetic_sequences(num_sequences=1, num_frames=3, size=(64, 80), num_objects=2)
    write_youtube_vos(folder, made, {2: 1}, {2: 'zebra'})
    return Kind(folder / 'meta.json', lambda: youtube_vos_sequence(folder, made[0].name).asked)


def points(folder):
    path = folder / 'tapvid.pkl'
    path.write_bytes(pickle.dumps({'disc': tapvid_video(2, (16, 16))}))

    def read():
        (video,) = (opened() for opened in tapvid_videos(path, (16, 16)).values())
        return np.stack([video.read_frame(0), video.read_frame(1)]), video.points, video.occluded

    return Kind(path, read)


def mat(folder, compressed):
    from scipy import io as scipy_io

    path = folder / 'joint_positions.mat'
    values = np.random.default_rng(0).normal(160, 40, (2, 15, 30))
    scipy_io.savemat(path, {'pos_img': values}, do_compression=compressed)
    return Kind(path, lambda: mat_file.read_array(path, 'pos_img'))


def pth(folder, is_zip):
    path = folder / 'weights.pth'
    state = {'state_dict': {'weight': tensor(storage(key='weight'))}, 'epoch': 3}
    data = np.arange(4, dtype='<f4').tobytes()
    if is_zip:
        write_zip(path, state, {'weight': data})
    else:
        path.write_bytes(old_bytes(state, {'weight': (4, data)}))
    return Kind(path, lambda: load_torch_weights(path), ValueError)


def network(folder, suffix):
    model = ResNet(output='res1')
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    save_pretrained(folder / 'net', model, jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes))

    def read():
        return traverse_util.flatten_dict(load_pretrained(folder / 'net')[1], sep='/')

    return Kind(folder / f'net.{suffix}', read, ValueError)


def settings(folder):
    path = folder / 'settings.json'
    files.claim(path, {'propagation': {'k': 10, 'radius': 12.0}, 'dataset': {'root': 'D'}})
    return Kind(path, lambda: files.read_json(path), ValueError)


def record(folder):
    results = Folder(folder, Objects(lambda: []), {'k': 10})
    partial = folder / 'masks' / '.dog'
    image_files.write_mask(partial / '00000.png', np.zeros((4, 5), int))
    results.finish(partial, {'name': 'dog', 'J': [0.5]}, 'digest')

    def read():
        found = results.record('dog', 'digest')
        if found is None:
            raise ValueError(f'{path}: is not finished')  # It is labelled again.
        return found

    path = record_path(folder, 'dog')
    return Kind(path, read, ValueError)


KINDS = {
    'JPEG': lambda folder: images(folder, 'jpg', 'JPEG', quality=85),
    'JPEG, progressive': lambda folder: images(folder, 'jpg', 'JPEG', progressive=True),
    'PNG': lambda folder: images(folder, 'png', 'PNG'),
    'mask': mask,
    'MP4': lambda folder: video(folder, 'mp4'),
    'AVI': lambda folder: video(folder, 'avi'),
    'Matroska': lambda folder: video(folder, 'mkv'),
    'list of names': names,
    'BADJA': annotations,
    'YouTube-VOS': objects,
    'TAP-Vid': points,
    '.mat': lambda folder: mat(folder, False),
    '.mat, compressed': lambda folder: mat(folder, True),
    '.pth': lambda folder: pth(folder, True),
    '.pth, before 2020': lambda folder: pth(folder, False),
    'safetensors': lambda folder: network(folder, 'safetensors'),
    'card': lambda folder: network(folder, 'json'),
    'settings': settings,
    'record': record,
}


class Watch:
    """Counts programs that are started, and files changed outside of a folder."""

    def __init__(self):
        self.folder, self.counts = None, {'execution': 0, 'outside': 0}
        sys.addaudithook(self.note)

    def note(self, event, values):
        if self.folder is None:
            return
        if event in STARTS:
            self.counts['execution'] += 1
        elif event in CHANGES or (event == 'open' and self._writes(values[2])):
            path = values[0]
            if isinstance(path, (str, bytes, os.PathLike)):
                if not os.path.realpath(os.fsdecode(path)).startswith(self.folder):
                    self.counts['outside'] += 1

    @staticmethod
    def _writes(flags):
        return isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


def equal(left, right):
    leaves, structure = jax.tree.flatten(left)
    others, other = jax.tree.flatten(right)
    return structure == other and all(map(np.array_equal, leaves, others))


def run(make, count, seed, watch):
    found = dict.fromkeys(COLUMNS, 0)
    with tempfile.TemporaryDirectory() as folder:
        kind = make(pathlib.Path(folder))
        whole, data = kind.read(), kind.path.read_bytes()
        watch.folder, watch.counts = os.path.realpath(folder), {'execution': 0, 'outside': 0}
        for label, damaged in mutate(data, count, seed):
            kind.path.write_bytes(damaged)
            outcome, value = classify(kind.read, kind.path.parent, kind.errors)
            if outcome == 'ok':
                outcome = 'same' if equal(value, whole) else 'silent'
            if outcome in ('unnamed', 'traceback', 'hang'):
                print(f'{kind.path.name}, {label}: {outcome}: {value}', file=sys.stderr)
            found['traceback' if outcome == 'unnamed' else outcome] += 1
            found['tried'] += 1
        watch.folder = None
    return {**found, **watch.counts}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--count', type=int, default=1000, help='Damaged files of each kind.')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--only', default='', help='Some kinds, with commas between.')
    parser.add_argument('--output', type=pathlib.Path, help='The counts as JSON.')
    arguments = parser.parse_args()
    chosen = [name for name in KINDS if not arguments.only or name in arguments.only.split(',')]
    watch, rows = Watch(), {}
    print(f'| kind | {" | ".join(COLUMNS)} |\n|---|{"---|" * len(COLUMNS)}')
    for name in chosen:
        rows[name] = run(KINDS[name], arguments.count, arguments.seed, watch)
        print(f'| {name} | {" | ".join(str(rows[name][c]) for c in COLUMNS)} |', flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + '\n')
    return any(row[column] for row in rows.values() for column in COLUMNS[4:])


if __name__ == '__main__':
    sys.exit(main())
