"""Videos labelled from masks of several frames, against plain loops over the pure functions."""

import collections
import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxprop import blending, confidence, methods
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import any_order, networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.features import NetworkFeatures
from jaxprop.evaluation.function_features import FunctionFeatures
from jaxprop.evaluation.given_masks import label_with_masks
from jaxprop.evaluation.targets import KeypointTarget
from jaxprop.propagation import give, init_context, propagate_step

METHOD = methods.crw(k=3, num_frames=2, radius=4.0)
NUM_FRAMES = 8


def colours(frames):
    b, h, w, _ = frames.shape
    return frames.reshape(b, h // 8, 8, w // 8, 8, 3).mean((2, 4)) / 255 - 0.5


@functools.cache
def video():
    return synthetic_sequences(1, NUM_FRAMES, (64, 80), num_objects=2)[0]


@functools.cache
def labeller(kind='function'):
    if kind == 'function':
        source = FunctionFeatures(colours, name='colours', version='1', batch=3)
    else:
        network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
        source = NetworkFeatures(network, batch=3)
    return runner.Labeller(source, METHOD)


def masks(*numbers):
    return {number: video().read_label(number) for number in numbers}


def label(given, **settings):
    return list(label_with_masks(video(), given, labeller(), **settings))


@pytest.mark.parametrize('kind', ['function', 'network'])
def test_one_mask_gives_the_masks_of_an_evaluation(kind):
    frames = map(video().read_frame, range(NUM_FRAMES))
    expected = runner.label_frames(frames, video().read_label(0), labeller(kind), video=video())
    found = list(label_with_masks(video(), masks(0), labeller(kind)))
    assert [frame.number for frame in found] == list(range(NUM_FRAMES))
    for frame, ids in zip(found, expected, strict=True):
        assert frame.ids.dtype == np.uint8
        np.testing.assert_array_equal(frame.ids, ids)
    assert found[0].confidence == {1: 1.0, 2: 1.0}
    assert all(0 <= value <= 1 for frame in found for value in frame.confidence.values())


def test_between_two_masks_both_sides_count():
    """Against contexts that are made and read by hand."""
    before, after = 1, 6
    given = masks(before, after)
    found = label(given)
    np.testing.assert_array_equal(found[before].ids, given[before])
    np.testing.assert_array_equal(found[after].ids, given[after])
    assert found[after].confidence == {1: 1.0, 2: 1.0}

    method = dataclasses.replace(METHOD, memory=dataclasses.replace(METHOD.memory, num_given=1))
    features = [colours(video().read_frame(t)[None])[0] for t in range(NUM_FRAMES)]
    target, sizes = labeller().target, labeller().source.sizes(video())
    values = np.array([0, 1, 2, 0])
    soft = {
        t: np.pad(target.encode(ids, values[:3], sizes), [(0, 0), (0, 0), (0, 1)])
        for t, ids in given.items()
    }
    step = jax.jit(propagate_step, static_argnames='method')

    def carry(start, other, numbers):
        context = init_context(features[start], soft[start], method)
        distance = (other - start) * numbers.step
        context = give(context, features[other], soft[other], method, 0, distance)
        labels = {}
        for t in numbers:
            context, labels[t] = step(context, features[t], method)
        return labels

    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in features]
    forward = carry(before, after, range(before + 1, NUM_FRAMES))
    backward = carry(after, before, range(after - 1, -1, -1))
    # Frames beyond the outer masks are labelled from one side, anew from their mask.
    alone = {0: carry(before, after, range(0, -1, -1))[0]}
    alone[7] = carry(after, before, range(after + 1, NUM_FRAMES))[7]
    for t in range(NUM_FRAMES):
        if t in given:
            continue
        expected = alone.get(t)
        if expected is None:
            position = (t - before) / (after - before)
            sure = [
                confidence.of_frame(side[t], unit[t], soft[start], unit[start]).objects
                for side, start in ((forward, before), (backward, after))
            ]
            trusted = blending.trust(forward[t], backward[t], *sure)
            share = blending.backward_share(*trusted, position)
            expected = blending.blend(forward[t], backward[t], share)
        ids = target.decode(expected, values, sizes)
        # Labels of one side wait in 16 bits, which may change a few pixels at edges.
        assert np.mean(found[t].ids != np.asarray(ids)) < 0.005


def test_objects_begin_and_end_with_their_masks():
    first, middle, last = (video().read_label(t) for t in (0, 5, 6))
    given = {0: np.where(first == 2, 2, 0), 5: middle, 6: np.where(last == 1, 1, 0)}
    found = label(given)
    objects = [set(np.unique(frame.ids).tolist()) - {0} for frame in found]
    assert objects == [{2}] * 5 + [{1, 2}] + [{1}] * 2
    assert [sorted(frame.confidence) for frame in found[4:7]] == [[2], [1, 2], [1]]
    # After a mask without any object there is none.
    nothing = label({0: first, 3: np.zeros_like(first)})
    assert all(not frame.ids.any() and not frame.confidence for frame in nothing[3:])


def test_joints_are_refused():
    of_joints = dataclasses.replace(labeller(), target=KeypointTarget())
    with pytest.raises(ValueError, match='the target is KeypointTarget; masks need a config with'):
        label_with_masks(video(), masks(0), of_joints)


def test_backwards_is_forwards_in_the_reversed_video():
    back = dataclasses.replace(
        video(),
        read_frame=lambda t: video().read_frame(NUM_FRAMES - 1 - t),
        read_label=lambda t: video().read_label(NUM_FRAMES - 1 - t),
    )
    expected = list(label_with_masks(back, {0: video().read_label(7)}, labeller()))
    found = label(masks(7))
    for frame, other in zip(found, expected[::-1]):
        assert np.mean(frame.ids != other.ids) < 0.002
        assert frame.confidence == pytest.approx(other.confidence, abs=2e-3)


def test_a_range_of_frames_is_that_of_all():
    given = masks(1, 6)
    all_frames = label(given)
    for first, last in ((3, 4), (0, 0), (2, 7), (7, 7)):
        found = label(given, first=first, last=last)
        assert [frame.number for frame in found] == list(range(first, last + 1))
        for frame in found:
            np.testing.assert_array_equal(frame.ids, all_frames[frame.number].ids)


def test_waiting_labels_go_to_disk_and_frames_are_read_twice(tmp_path, monkeypatch):
    expected, reads = label(masks(0, 7)), collections.Counter()
    monkeypatch.setattr(any_order, '_IN_MEMORY', 1)

    def read_frame(t):
        reads[t] += 1
        return video().read_frame(t)

    counted = dataclasses.replace(video(), read_frame=read_frame)
    network = labeller('network')
    found = list(label_with_masks(counted, masks(0, 7), network, folder=tmp_path))
    # Once in each direction; eight frames give an untrained network its statistics.
    assert max(reads.values()) <= 3
    assert not list(tmp_path.iterdir())
    found = label(masks(0, 7), folder=tmp_path)
    for frame, other in zip(found, expected):
        np.testing.assert_array_equal(frame.ids, other.ids)


@pytest.mark.parametrize(
    ('given', 'settings', 'message'),
    [
        ({}, {}, 'no mask'),
        ({9: np.zeros((64, 80), int)}, {}, 'a mask is of frame 9; .* frames 0 to 7'),
        ({0: np.zeros((64, 80), int)}, {}, 'no mask has an object'),
        ({0: np.ones((80, 64), int)}, {}, r'the mask of frame 0 is \(80, 64\)'),
        ({0: np.ones((64, 80), int)}, {'first': 5, 'last': 4}, 'frames 5 to 4'),
        ({0: np.ones((64, 80), int)}, {'last': 8}, 'frames 0 to 8'),
        ({0: np.full((64, 80), 300)}, {}, 'frame 0 holds the id 300'),
        ({0: np.ones((64, 80))}, {}, 'frame 0 is float64'),
    ],
)
def test_wrong_masks_and_frames_are_refused(given, settings, message):
    with pytest.raises(ValueError, match=message):
        label_with_masks(video(), given, labeller(), **settings)
