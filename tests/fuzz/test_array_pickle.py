"""Damaged and random pickles of arrays are read, or named in an error; nothing in them is run."""

import pickle

import numpy as np

from jaxprop.data.image_files import encode_jpeg
from jaxprop.data.tapvid import tapvid_videos
from tests.fuzz.mutations import classify, count, mutate
from tests.fuzz.test_pth import watched
from tests.layouts import tapvid_video


def read(path):
    return [open_video().read_frame(0) for open_video in tapvid_videos(path).values()]


def test_damaged_files(tmp_path):
    video = {**tapvid_video(2, (32, 32))}
    files = {**video, 'video': [encode_jpeg(frame) for frame in video['video']]}
    path = tmp_path / 'damaged.pkl'

    def outcomes():
        for protocol in (3, 4, 5):
            data = pickle.dumps({'a': video, 'b': files}, protocol=protocol)
            # Damage to pixels is none. Cut most of them out, so that the rest is hit.
            for label, damaged in mutate(data, 300, seed=protocol):
                path.write_bytes(damaged)
                yield f'{protocol} {label}', classify(lambda: read(path), path)

    assert count(outcomes())['clear'] > 300


def test_random_programs(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / 'x.pkl'
    names = [b'cnumpy\nndarray\n', b'cnumpy\ndtype\n', b'cos\nsystem\n',
             b'cnumpy.core.multiarray\n_reconstruct\n', b'cbuiltins\nexec\n']  # fmt: skip
    known = [
        bytes([code]) for code in b'()}].0NKMJGXUILhqjrtsuaeRQbCB\x81\x85\x86\x87\x88\x89\x93\x94'
    ]

    def outcomes():
        for index in range(300):
            parts = rng.choice(len(names) + len(known), 60)
            path.write_bytes(b'\x80\x04' + b''.join((names + known)[part] for part in parts) + b'.')
            with watched() as events:
                outcome = classify(lambda: read(path), path)
            assert events == []
            yield index, outcome

    assert count(outcomes())['clear'] == 300
