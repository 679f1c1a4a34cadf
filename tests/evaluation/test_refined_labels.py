"""Labels refined by frames: each mask is made with its own frame, however it is computed."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxprop import labels
from jaxprop.data.image_files import read_mask
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.function_features import FunctionFeatures
from jaxprop.evaluation.targets import MaskTarget
from jaxprop.refine import enlarge_guided
from tests.evaluation.test_stream import make_labeller, run, sequences

GUIDED = MaskTarget(refine='guided')


def refined(**source):
    labeller = make_labeller()
    source = dataclasses.replace(labeller.source, **source)
    return dataclasses.replace(labeller, source=source, target=GUIDED)


@pytest.fixture(scope='module')
def expected():
    """For each sequence the soft labels of its frames, decoded one by one with these frames."""
    decode = jax.jit(
        lambda soft, values, frame: labels.decode(
            soft,
            values,
            frame.shape[:2],
            enlarge=functools.partial(enlarge_guided, frame=frame),
        )
    )
    keeps = dataclasses.replace(make_labeller(), target=MaskTarget(keep_soft=True))
    found = {}
    for video in sequences()[:3]:
        first = video.read_label(0)
        frames = map(video.read_frame, range(video.num_frames))
        soft = list(runner.label_frames(frames, first, keeps, video=video))
        found[video.name] = [
            first,
            *(decode(s, values, video.read_frame(t)) for t, (_, s, values) in enumerate(soft) if t),
        ]
    return found


@pytest.mark.parametrize('batch', [1, 3])
def test_frames_one_by_one(expected, batch):
    video = sequences()[1]
    frames = map(video.read_frame, range(video.num_frames))
    found = list(
        runner.label_frames(frames, video.read_label(0), refined(batch=batch), video=video)
    )
    np.testing.assert_array_equal(found, expected[video.name])
    frames = map(video.read_frame, range(video.num_frames))
    plain = runner.label_frames(frames, video.read_label(0), make_labeller(), video=video)
    assert np.any(np.array(list(plain)) != found)


def test_many_videos_at_a_time(expected, tmp_path):
    videos = sequences()[:3]
    metrics = run(videos, tmp_path, refined(), videos_per_device=2)
    recorded = metrics['settings']['labels']
    assert {name: recorded[name] for name in recorded if 'refine' in name} == {
        'refine': 'guided',
        'refine_radius': GUIDED.refine_radius,
        'refine_eps': GUIDED.refine_eps,
    }
    for video in videos:
        for name, ids in zip(video.frame_names, expected[video.name], strict=True):
            found = read_mask(tmp_path / 'masks' / video.name / f'{name}.png')
            np.testing.assert_array_equal(found, ids)


def test_a_feature_map_of_several_frames_is_refused():
    video = sequences()[1]
    source = FunctionFeatures(lambda f: np.ones((2, 8, 10, 3), np.float32), 'halves', '1', batch=4)
    labeller = dataclasses.replace(make_labeller(), source=source, target=GUIDED)
    frames = map(video.read_frame, range(video.num_frames))
    with pytest.raises(ValueError, match='halves stands for several .*refine=none'):
        next(runner.label_frames(frames, video.read_label(0), labeller, video=video))


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'refine': 'bilateral'}, "refine is 'bilateral'"),
        ({'refine': 'guided', 'refine_radius': 0.0}, 'refine_radius is 0.0'),
        ({'refine': 'guided', 'refine_eps': -1.0}, 'refine_eps is -1.0'),
        ({'refine': 'guided', 'decode_at': 'input'}, "decode_at 'input'"),
        ({'refine': 'guided', 'first_frame': 'decoded'}, "first_frame 'decoded'"),
    ],
)
def test_rejects(settings, named):
    with pytest.raises(ValueError, match=named):
        MaskTarget(**settings)


def test_without_the_frame_nothing_is_decoded():
    plan = runner.plan_video(sequences()[1].read_label(0), sequences()[1], refined())
    soft = np.zeros((*plan.sizes.grid, 2), np.float32)
    with pytest.raises(ValueError, match='there is no frame'):
        GUIDED.decode(soft, np.arange(2), plan.sizes)
