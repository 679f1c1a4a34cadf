"""TAP-Vid's measures of tracked points: how near they are, and whether they are seen.

Source: Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022.
"""

import numpy as np

QUERY_MODES = ('first', 'strided')
THRESHOLDS = (1, 2, 4, 8, 16)  # Pixels of frames that are 256 pixels wide and high.


def tapvid(
    query_points: np.ndarray,
    gt_occluded: np.ndarray,
    gt_tracks: np.ndarray,
    pred_occluded: np.ndarray,
    pred_tracks: np.ndarray,
    *,
    query_mode: str,
) -> dict[str, np.ndarray]:
    """Scores tracked points as TAP-Vid's official function does.

    A point is near where its distance from the truth is below a threshold d. Over all scored places
    of a video, with seen meaning not occluded:

        occlusion_accuracy = share of places where truth and prediction agree on occlusion
        pts_within_d       = share of the truth's seen places where the prediction is near
        jaccard_d          = hits / (truth's seen places + false alarms)

    where a hit is seen in both and near, and a false alarm is seen in the prediction, but occluded
    in the truth or not near. `average_pts_within_thresh` and `average_jaccard` are the means over
    d = 1, 2, 4, 8 and 16 pixels.

    Example:

        scores = tapvid(queries, gt_occluded, gt_tracks, occluded, tracks, query_mode='first')
        print(scores['average_jaccard'].mean())

    Args:
      query_points: `[B, N, 3]`, where each point is given: (t, y, x), t in frames.
      gt_occluded: bool `[B, N, T]`, the truth.
      gt_tracks: `[B, N, T, 2]`, the truth: (x, y) in pixels of frames of 256 x 256.
      pred_occluded: bool `[B, N, T]`, predicted.
      pred_tracks: `[B, N, T, 2]`, predicted, as `gt_tracks`.
      query_mode: 'first' scores the frames after that of a query, 'strided' all but that one.

    Returns:
      By name float64 `[B]`, a value from 0 to 1 for each video; NaN where nothing is scored.

    Raises:
      ValueError: there is no such mode, or shapes do not fit.
    """
    if query_mode not in QUERY_MODES:
        raise ValueError(f'query_mode is {query_mode!r}; it must be one of {QUERY_MODES}')
    gt_occluded, pred_occluded = np.asarray(gt_occluded, bool), np.asarray(pred_occluded, bool)
    shape = gt_occluded.shape
    wanted = {
        'query_points': (query_points, (*shape[:2], 3)),
        'gt_tracks': (gt_tracks, (*shape, 2)),
        'pred_occluded': (pred_occluded, shape),
        'pred_tracks': (pred_tracks, (*shape, 2)),
    }
    for name, (array, expected) in wanted.items():
        if len(shape) != 3 or np.shape(array) != expected:
            raise ValueError(
                f'{name} is {list(np.shape(array))} and gt_occluded {list(shape)}; needed: '
                '[B, N, T] of occluded, with [B, N, T, 2] of tracks and [B, N, 3] of queries'
            )

    # Which frames are scored.
    query_frames = np.round(np.asarray(query_points, np.float64)[..., :1])
    frames = np.arange(shape[2])
    scored = frames > query_frames if query_mode == 'first' else frames != query_frames

    def total(places):
        return np.sum(places & scored, axis=(1, 2))

    # What the two say of each place.
    gt_seen, pred_seen = ~gt_occluded, ~pred_occluded
    distances = np.linalg.norm(np.asarray(pred_tracks) - np.asarray(gt_tracks), axis=-1)
    scores = {}
    with np.errstate(invalid='ignore'):
        scores['occlusion_accuracy'] = total(gt_seen == pred_seen) / total(scored)
        for threshold in THRESHOLDS:
            near = gt_seen & (distances < threshold)
            # A place that is seen in both but not near counts twice: as seen and as false alarm.
            alarms = total(~near & pred_seen)
            scores[f'pts_within_{threshold}'] = total(near) / total(gt_seen)
            scores[f'jaccard_{threshold}'] = total(near & pred_seen) / (total(gt_seen) + alarms)
    averages = {'average_jaccard': 'jaccard', 'average_pts_within_thresh': 'pts_within'}
    for average, name in averages.items():
        scores[average] = np.mean([scores[f'{name}_{one}'] for one in THRESHOLDS], axis=0)
    return scores
