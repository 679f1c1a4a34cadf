"""TAP-Vid's measures against the values of its official function, and by hand."""

import numpy as np
import pytest

from jaxprop.metrics.points import QUERY_MODES, tapvid
from tests.support import shared

INPUTS = ('query_points', 'gt_occluded', 'gt_tracks', 'pred_occluded', 'pred_tracks')


@pytest.mark.parametrize('mode', QUERY_MODES)
def test_official_values(mode):
    with np.load(shared('reference', 'tapvid_metrics.npz')) as stored:
        inputs = [stored[f'{mode}/{name}'] for name in INPUTS]
        prefix = f'{mode}/metric/'
        expected = {
            name.removeprefix(prefix): stored[name] for name in stored if name.startswith(prefix)
        }
    found = tapvid(*inputs, query_mode=mode)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12, err_msg=name)


def one_point(pred_x, pred_occluded, gt_occluded=(False,) * 4, query_frame=0, mode='first'):
    """A point that rests at (10, 20) for four frames."""
    truth = np.tile([10.0, 20.0], (1, 1, 4, 1))
    tracks = truth.copy()
    tracks[..., 0] = pred_x
    scores = tapvid(
        np.array([[[query_frame, 20.0, 10.0]]]),
        np.array([[gt_occluded]]),
        truth,
        np.array([[pred_occluded]]),
        tracks,
        query_mode=mode,
    )
    return {name: values.item() for name, values in scores.items()}


def test_by_hand():
    # Frame 1 is 3 pixels off, frame 2 is right but called occluded, frame 3 is right.
    scores = one_point([10, 13, 10, 10], [False, False, True, False])
    assert scores['occlusion_accuracy'] == 2 / 3
    assert scores['pts_within_2'] == 2 / 3
    assert scores['pts_within_4'] == 1
    assert scores['jaccard_2'] == 1 / 4  # One hit; three seen, one false alarm.
    assert scores['jaccard_4'] == 2 / 3


def test_a_distance_of_the_threshold_is_not_near():
    assert one_point([10, 12, 12, 12], [False] * 4)['pts_within_2'] == 0


def test_frames_before_a_query_count_in_strided_mode_alone():
    wrong_before = [50, 50, 10, 10], [False] * 4
    assert one_point(*wrong_before, query_frame=2)['average_jaccard'] == 1
    strided = one_point(*wrong_before, query_frame=2, mode='strided')
    assert strided['jaccard_16'] == 1 / 5


def test_nothing_to_score_is_nan():
    scores = one_point([10] * 4, [True] * 4, gt_occluded=(True,) * 4)
    assert scores['occlusion_accuracy'] == 1
    assert np.isnan(scores['pts_within_1']) and np.isnan(scores['jaccard_1'])


def test_refuses():
    with pytest.raises(ValueError, match="query_mode is 'last'"):
        one_point([10] * 4, [False] * 4, mode='last')
    with pytest.raises(ValueError, match=r'pred_occluded is \[1, 1, 3\]'):
        one_point([10] * 4, [False] * 3)
