"""PCK against loops that follow the released evaluation, and by hand."""

import numpy as np
import pytest

from jaxprop.metrics.pck import (
    box_scales,
    joint_table,
    normalized_distances,
    pck,
    sequence_table,
    summarize,
)

NAN = np.nan


def slow_jhmdb(clips, thresholds):
    """Computes PCK as released, joint by joint over clips; lost joints do not count."""
    num_joints = clips[0][0].shape[1]
    distances = [[] for _ in range(num_joints)]
    for prediction, truth in clips:
        for frame in range(1, len(truth)):
            seen = [j for j in range(num_joints) if not np.isnan(prediction[frame, j, 0])]
            if not seen:
                continue
            xs, ys = [[truth[frame, j, axis] for j in seen] for axis in (0, 1)]
            size = 0.6 * ((max(xs) - min(xs)) ** 2 + (max(ys) - min(ys)) ** 2) ** 0.5
            for j in seen:
                dx, dy = prediction[frame, j] - truth[frame, j]
                distances[j].append((dx**2 + dy**2) ** 0.5 / size)
    return [
        np.mean([sum(d <= t for d in joint) / len(joint) for joint in distances])
        for t in thresholds
    ]


def random_clips():
    rng = np.random.default_rng(0)
    clips = {}
    for index, num_frames in enumerate((5, 8, 3)):
        truth = rng.uniform(20, 200, (num_frames, 15, 2))
        prediction = truth + rng.normal(0, 14, truth.shape)
        prediction[rng.random(truth.shape[:2]) < 0.2] = NAN
        clips[f'clip {index}'] = prediction, truth
    clips['clip 0'][0][2] = NAN  # A frame in which every joint is lost.
    return clips


def test_equals_a_slow_evaluation_of_jhmdb():
    clips = random_clips()
    results = {name: normalized_distances(*clip) for name, clip in clips.items()}
    expected = slow_jhmdb(list(clips.values()), (0.1, 0.2, 0.5))
    summary = summarize(results, (0.1, 0.2, 0.5))
    np.testing.assert_allclose(
        [summary['PCK@0.1'], summary['PCK@0.2'], summary['PCK@0.5']], expected
    )
    assert 0.1 < expected[0] < expected[1] < expected[2] <= 1


def square(num_frames=2):
    """Makes joints at the corners of 30 x 40, with the diagonal 50 and the scale 30."""
    corners = np.array([[0, 0], [30, 0], [0, 40], [30, 40]], float)
    return np.tile(corners, (num_frames, 1, 1))


def test_distances_by_hand():
    truth = square()
    np.testing.assert_allclose(box_scales(truth), 30)
    prediction = truth.copy()
    prediction[1, 0] += (0, 3)
    prediction[1, 1] += (6, 0)
    prediction[1, 2] += (3, 4)
    distances = normalized_distances(prediction, truth)
    np.testing.assert_allclose(distances, [[NAN] * 4, [0.1, 0.2, 5 / 30, 0]])
    # The threshold itself is near enough.
    np.testing.assert_array_equal(pck(distances, 0.1), [1, 0, 0, 1])
    np.testing.assert_array_equal(pck(distances, 0.2), [1, 1, 1, 1])


def test_frame_0_counts_if_asked():
    distances = normalized_distances(square(), square(), count_first=True)
    np.testing.assert_array_equal(distances, 0)


def test_a_lost_joint_is_skipped_or_wrong():
    truth, prediction = square(), square()
    prediction[1, 3] = NAN
    prediction[1, 0] += (0, 15)
    # Without the lost corner the box is the same; without two it is a side of it.
    np.testing.assert_allclose(normalized_distances(prediction, truth)[1], [0.5, 0, 0, NAN])
    np.testing.assert_allclose(
        normalized_distances(prediction, truth, lost='wrong')[1], [0.5, 0, 0, np.inf]
    )
    prediction[1, 2] = NAN
    np.testing.assert_allclose(
        normalized_distances(prediction, truth)[1], [15 / (0.6 * 30), 0, NAN, NAN]
    )
    np.testing.assert_allclose(
        normalized_distances(prediction, truth, lost='wrong')[1], [0.5, 0, np.inf, np.inf]
    )


def test_a_box_without_extent_makes_its_joint_wrong():
    prediction = square()
    prediction[1, :3] = NAN
    assert normalized_distances(prediction, square())[1, 3] == np.inf


def test_hidden_joints_and_frames_are_not_scored():
    truth = square(3)
    truth[1] = NAN  # Not annotated.
    truth[0, 1] = NAN  # Was never given.
    truth[2, 2] = NAN
    distances = normalized_distances(square(3), truth, np.array([9, NAN, 9]), 'wrong')
    expected = np.full((3, 4), NAN)
    expected[2, [0, 3]] = 0
    np.testing.assert_array_equal(distances, expected)


def test_scales_that_are_given():
    prediction = square() + (3, 4)
    distances = normalized_distances(prediction, square(), np.array([1.0, 20.0]))
    np.testing.assert_allclose(distances[1], 0.25)


def test_averages():
    results = {
        'a': np.array([[NAN, NAN], [0.05, 0.3], [0.05, 0.3]]),
        'b': np.array([[NAN, NAN], [0.15, NAN]]),
    }
    assert summarize(results) == {
        'PCK@0.1': pytest.approx((2 / 3 + 0) / 2),
        'PCK@0.2': pytest.approx((1 + 0) / 2),
    }
    assert summarize(results, average='sequences') == {
        'PCK@0.1': pytest.approx((0.5 + 0) / 2),
        'PCK@0.2': pytest.approx((0.5 + 1) / 2),
    }
    assert sequence_table(results) == [
        {'sequence': 'a', 'points': 4, 'PCK@0.1': 0.5, 'PCK@0.2': 0.5},
        {'sequence': 'b', 'points': 1, 'PCK@0.1': 0.0, 'PCK@0.2': 1.0},
    ]
    assert joint_table(results, ('neck', 'nose'), (0.2,)) == [
        {'joint': 'neck', 'PCK@0.2': 1.0},
        {'joint': 'nose', 'PCK@0.2': 0.0},
    ]
    # A joint that is never scored takes no part in the mean.
    never = {'a': np.array([[0.0, NAN]])}
    assert summarize(never)['PCK@0.1'] == 1
    assert [row['joint'] for row in joint_table(never, ('neck', 'nose'))] == ['neck']


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: normalized_distances(square(2), square(3)), r'\[2, 4, 2\]'),
        (lambda: normalized_distances(square(), square(), lost='found'), "lost is 'found'"),
        (lambda: normalized_distances(square(), square(), np.ones(3)), r'scales have the shape'),
        (lambda: normalized_distances(square(), square(), np.array([1, NAN])), 'is nan in frame 1'),
        (lambda: summarize({}), 'results is empty'),
        (lambda: summarize({'a': np.zeros((1, 1))}, average='frames'), "average is 'frames'"),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
