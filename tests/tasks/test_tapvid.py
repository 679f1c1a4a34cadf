"""Whole evaluations of TAP-Vid: tracks, occlusion, and the scores of the official definition."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from jaxprop import tasks
from jaxprop.data.tapvid import tapvid_videos
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.targets import KeypointTarget
from jaxprop.methods import from_settings
from jaxprop.metrics import points
from tests.layouts import tapvid_video

NUM_FRAMES = 7


@pytest.fixture(scope='module')
def labeller():
    network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    network = dataclasses.replace(network, trained=True)  # No statistics of each video.
    method = from_settings(num_context=2, num_neighbors=3, radius=6)
    return runner.Labeller(
        sources.NetworkFeatures(network, batch=4), method, KeypointTarget('gaussian', 0.75, 5)
    )


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A disc that moves, and a picture that shifts by whole cells behind a wall."""
    path = tmp_path_factory.mktemp('tapvid') / 'tapvid_davis.pkl'
    picture = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    frames = np.stack([picture[:, 64 - 8 * t :][:, :256] for t in range(NUM_FRAMES)])
    x, y = np.meshgrid(np.arange(20, 150, 32), np.arange(40, 220, 64))
    first = np.stack([x.ravel(), y.ravel()], axis=-1) + 0.5
    tracks = np.stack([first + [8 * t, 0] for t in range(NUM_FRAMES)], axis=1)
    occluded = np.zeros(tracks.shape[:2], bool)
    frames[3:5, :, 100:140] = 128
    occluded[:, 3:5] = (tracks[:, 3:5, 0] > 96) & (tracks[:, 3:5, 0] < 144)
    shift = {'video': frames, 'points': tracks / 256, 'occluded': occluded}
    path.write_bytes(pickle.dumps({'disc': tapvid_video(NUM_FRAMES), 'shift': shift}))
    return path


def run(root, labeller, output, query_mode):
    task = tasks.open_task({'kind': 'tapvid', 'root': str(root), 'query_mode': query_mode})
    return runner.evaluate(task, labeller, output, title='test', dataset={})


@pytest.fixture(scope='module', params=points.QUERY_MODES)
def finished(request, root, labeller, tmp_path_factory):
    output = tmp_path_factory.mktemp(request.param)
    return request.param, output, run(root, labeller, output, request.param)


def test_scores_are_those_of_the_official_definition(root, finished):
    mode, output, metrics = finished
    expected = {}
    for name, open_video in tapvid_videos(root).items():
        video = open_video()
        queries = video.queries(mode)
        numbers = queries[:, 0].astype(int)
        found = {key: np.ones((len(queries), NUM_FRAMES, *end)) for key, end in
                 (('tracks', (2,)), ('occluded', ()))}  # fmt: skip
        for path in sorted((output / 'keypoints' / name).iterdir()):
            record = json.loads(path.read_text())
            rows = [
                list(map(tuple, queries[:, :2])).index((number, record['frames'][0]))
                for number in record['points']
            ]
            for key, array in found.items():
                array[np.ix_(rows, record['frames'])] = record[key]
        expected[name] = points.tapvid(
            queries[None, :, 1:],
            video.occluded[numbers][None],
            video.points[numbers][None],
            found['occluded'][None],
            found['tracks'][None],
            query_mode=mode,
        )
    for row in metrics['per_video']:
        own = expected[row['video']]
        assert row['AJ'] == pytest.approx(own['average_jaccard'][0])
        assert row['delta avg'] == pytest.approx(own['average_pts_within_thresh'][0])
        assert row['OA'] == pytest.approx(own['occlusion_accuracy'][0])
    mean = np.mean([own['average_jaccard'][0] for own in expected.values()])
    assert metrics['summary']['AJ'] == pytest.approx(mean)
    assert [row['distance'] for row in metrics['per_distance']] == [
        f'{d} px' for d in points.THRESHOLDS
    ]
    assert 'occlusion accuracy' in (output / 'report.html').read_text()


def test_points_of_a_picture_that_shifts_by_whole_cells(finished):
    """Points that are seen are followed, and those behind the wall are found to be hidden."""
    mode, output, metrics = finished
    (row,) = [row for row in metrics['per_video'] if row['video'] == 'shift']
    assert row['delta avg'] > 0.9 and row['OA'] > 0.9 and row['AJ'] > 0.8
    record = json.loads((output / 'keypoints/shift/00000.json').read_text())
    assert record['frames'] == list(range(NUM_FRAMES)) and not np.any(record['occluded'], axis=0)[0]


def test_passes_of_a_video(root):
    for mode, ends in (('first', ('',)), ('strided', ('', '-back'))):
        task = tasks.open_task(
            {'kind': 'tapvid', 'root': str(root), 'query_mode': mode, 'names': ('disc',)}
        )
        names = [name for name, _ in task.sequences()]
        # Point 3 is first seen in frame 2. A pass of one frame is none.
        starts = (0, 2) if mode == 'first' else (0, 5)
        passes = [f'disc/{start:05d}{end}' for start in starts for end in ends]
        assert names == [name for name in passes if name != 'disc/00000-back']


def test_wrong_settings(root, labeller, tmp_path):
    with pytest.raises(ValueError, match="query_mode is 'last'"):
        tasks.open_task({'kind': 'tapvid', 'root': str(root), 'query_mode': 'last'})
    with pytest.raises(ValueError, match='seen_within is 0'):
        tasks.open_task({'kind': 'tapvid', 'root': str(root)}, {'seen_within': 0})
    queue = dataclasses.replace(labeller.propagation.memory, keep_first=False)
    method = dataclasses.replace(labeller.propagation, memory=queue)
    with pytest.raises(ValueError, match='keep_first'):
        run(root, dataclasses.replace(labeller, propagation=method), tmp_path, 'first')
