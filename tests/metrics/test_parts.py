"""Parts and instances against loops, and by hand."""

import numpy as np
import pytest

from jaxprop import labels
from jaxprop.metrics.parts import (
    THRESHOLDS,
    average_precision,
    class_iou,
    confusion_matrix,
    frame_confusions,
    instance_scores,
    match_instances,
    part_table,
    summarize_instances,
    summarize_parts,
)


def slow_iou(pairs, num_classes=20):
    """Computes IoU class by class from sets of pixels of all pairs (prediction, truth)."""
    values = []
    for index in range(num_classes):
        intersection = union = 0
        for prediction, truth in pairs:
            for predicted, true in zip(prediction.ravel(), truth.ravel()):
                if 0 <= true < num_classes:
                    intersection += predicted == index and true == index
                    union += predicted == index or true == index
        values.append(intersection / union if union else np.nan)
    return values


def random_videos():
    rng = np.random.default_rng(0)
    videos = {}
    for index, num_frames in enumerate((3, 2)):
        truth = rng.integers(0, 15, (num_frames, 9, 11))
        noise = rng.integers(0, 17, truth.shape)  # 15 and 16 are predicted alone, 17 to 19 never.
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, noise)
        truth[rng.random(truth.shape) < 0.1] = 255
        videos[f'videos{index}'] = prediction, truth
    return videos


@pytest.mark.parametrize('count_first', [True, False])
def test_parts_equal_a_slow_evaluation(count_first):
    videos = random_videos()
    results = {name: frame_confusions(*video) for name, video in videos.items()}
    start = 0 if count_first else 1
    frames = [pair for p, t in videos.values() for pair in zip(p[start:], t[start:])]
    expected = slow_iou(frames)
    summary = summarize_parts(results, count_first)
    np.testing.assert_allclose(summary['IoU'], expected)
    assert np.isnan(expected[17:]).all() and expected[15:17] == [0, 0]
    assert summary['mIoU'] == pytest.approx(np.nanmean(expected))
    for row, (prediction, truth) in zip(part_table(results, count_first), videos.values()):
        alone = slow_iou([(prediction[start:], truth[start:])])
        assert row['mIoU'] == pytest.approx(np.nanmean(alone))


def test_confusion_by_hand():
    truth = np.array([[0, 0, 1], [1, 255, -1]])
    prediction = np.array([[0, 1, 1], [1, 2, 2]])
    confusion = confusion_matrix(prediction, truth, 3)
    np.testing.assert_array_equal(confusion, [[1, 1, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(class_iou(confusion), [1 / 2, 2 / 3, np.nan])


def test_pixels_are_pooled_before_the_mean():
    """A large bad video counts for more than a small good one."""
    bad = np.zeros((1, 20, 20), int)
    bad[0, 1, 0] = 98
    good = np.zeros((1, 20, 20), int)
    good[0, 1, 1] = 2
    summary = summarize_parts({'bad': bad, 'good': good})
    assert summary['mIoU'] == pytest.approx((0 + 0.02) / 2)
    assert [row['mIoU'] for row in part_table({'bad': bad, 'good': good})] == [0, 1]


def rectangles(*boxes, size=(20, 30)):
    """Draws ids 1, 2, ... in boxes (top, bottom, left, right)."""
    ids = np.zeros(size, np.int32)
    for index, (top, bottom, left, right) in enumerate(boxes, 1):
        ids[top:bottom, left:right] = index
    return ids


def test_matches_by_hand():
    truth = rectangles((0, 10, 0, 10), (0, 10, 10, 20), (10, 20, 0, 10), (0, 4, 24, 28))
    prediction = rectangles((0, 10, 0, 10), (0, 10, 15, 25), (10, 15, 0, 10), (15, 20, 0, 5))
    matches = match_instances(
        prediction,
        {1: 5, 2: 5, 3: 4, 4: 4, 9: 4},
        {1: 0.9, 2: 0.8, 3: 0.3, 4: 0.2},
        truth,
        {1: 5, 2: 5, 3: 4, 8: 4},
    )
    np.testing.assert_array_equal(matches.classes, [5, 5, 4, 4])
    np.testing.assert_allclose(matches.scores, [0.9, 0.8, 0.3, 0.2])
    # 50 of 150; and two on the same true instance, which both keep it.
    np.testing.assert_allclose(matches.overlaps, [1, 1 / 3, 0.5, 0.25])
    assert matches.num_true[5] == 2 and matches.num_true[4] == 1 and matches.num_true.sum() == 3


def test_an_instance_of_another_class_is_no_match():
    ids = rectangles((0, 10, 0, 10))
    matches = match_instances(ids, {1: 3}, {1: 1.0}, ids, {1: 4})
    np.testing.assert_array_equal(matches.overlaps, [0])


def slow_average_precision(scores, overlaps, num_true, threshold):
    """Computes the area under the envelope from all prefixes of the ranking."""
    ranking = sorted(zip(scores, overlaps), reverse=True)
    points = []
    for length in range(1, len(ranking) + 1):
        right = sum(overlap > threshold for _, overlap in ranking[:length])
        points.append((right / num_true, right / length))
    area = previous = 0
    for recall in sorted({recall for recall, _ in points}):
        precision = max(p for r, p in points if r >= recall)
        area += (recall - previous) * precision
        previous = recall
    return area


def test_average_precision_equals_a_slow_computation():
    rng = np.random.default_rng(3)
    for num_predictions, num_true in ((12, 9), (30, 40), (1, 1), (9, 3)):
        scores, overlaps = rng.random(num_predictions), rng.random(num_predictions)
        for threshold in (0.1, 0.5, 0.9):
            assert average_precision(scores, overlaps, num_true, threshold) == pytest.approx(
                slow_average_precision(scores, overlaps, num_true, threshold)
            )


def test_average_precision_by_hand():
    scores, overlaps = np.array([0.9, 0.7, 0.5]), np.array([0.8, 0.2, 0.6])
    # Precision 1, 1/2, 2/3 at recall 1/4, 1/4, 2/4.
    assert average_precision(scores, overlaps, 4, 0.5) == pytest.approx(1 / 4 + 2 / 3 / 4)
    # An overlap must be above the threshold, not at it.
    assert average_precision(scores, overlaps, 4, 0.6) == pytest.approx(1 / 4)
    # Without predictions 0; without anything to find undefined.
    none = np.zeros(0)
    assert average_precision(none, none, 4, 0.5) == 0
    assert np.isnan(average_precision(none, none, 0, 0.5))


def test_equal_scores_count_at_once():
    scores, overlaps = np.ones(4), np.array([0.9, 0.0, 0.9, 0.0])
    for order in ([0, 1, 2, 3], [1, 3, 0, 2]):
        assert average_precision(scores, overlaps[order], 4, 0.5) == pytest.approx(2 / 4 * 2 / 4)


def test_volume_is_the_mean_over_classes_and_thresholds():
    truth = rectangles((0, 10, 0, 10), (0, 10, 10, 20))
    prediction = rectangles((0, 10, 0, 10), (0, 10, 10, 15), (15, 20, 0, 5))
    classes = {1: 13, 2: 4, 3: 7}
    matches = match_instances(prediction, classes, {1: 0.9, 2: 0.8, 3: 0.7}, truth, {1: 13, 2: 4})
    summary = summarize_instances([matches])
    # Class 13 is right at all thresholds, class 4 at the four below its overlap of 1/2; class 7
    # is predicted but nowhere true.
    assert summary['AP^r_vol'] == pytest.approx((1 + 4 / 9) / 2)
    np.testing.assert_allclose(summary['AP^r'], [1] * 4 + [0.5] * 5)
    by_class = summary['AP^r_vol by class']
    assert len(by_class) == 19 and len(THRESHOLDS) == 9
    np.testing.assert_allclose([by_class[12], by_class[3], by_class[6]], [1, 4 / 9, np.nan])
    # A frame without any prediction adds what it lacks.
    missed = match_instances(0 * truth, classes, {}, truth, {1: 13, 2: 4})
    assert summarize_instances([matches, missed])['AP^r_vol'] == pytest.approx((1 + 4 / 9) / 4)


def test_scores_are_mean_shares():
    soft = np.random.default_rng(4).random((5, 6, 4)).astype(np.float32) ** 3
    soft[..., 3] = 0
    values = np.array([0, 2, 5, 9])
    ids = np.asarray(labels.decode(soft, values, (17, 26)))
    resizes = [labels.resize_matrix(*sides, 'bilinear') for sides in ((5, 17), (6, 26))]
    scores = instance_scores(soft, values, ids, *resizes)
    upsampled = np.asarray(labels.resize(soft, (17, 26), 'bilinear'))
    share = upsampled / upsampled.sum(-1, keepdims=True)
    expected = {
        int(value): share[ids == value, index].mean() for index, value in enumerate(values[:3])
    }
    assert scores == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int)), 'by nearest'),
        (lambda: confusion_matrix(np.array([20]), np.array([0])), 'from 20 to 20'),
        (lambda: summarize_parts({}), 'results is empty'),
        (lambda: summarize_instances([]), 'results is empty'),
        (
            lambda: match_instances(rectangles((0, 9, 0, 9)), {1: 3}, {}, rectangles(), {}),
            r'instances \[1\] have no score',
        ),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
