"""PCK, the percentage of correct keypoints: the measure of JHMDB and BADJA.

A joint is correct within alpha where its distance from the truth is at most alpha times a length:
for JHMDB 0.6 times the diagonal of the box around the person's joints in that frame, for BADJA the
square root of the animal's area.

Source: Yang, Ramanan, TPAMI 2013 (PCK); the JHMDB evaluations of UVC and CRW, as released; Biggs et
al., ACCV 2018 (BADJA).
"""

from collections.abc import Mapping, Sequence

import numpy as np

BOX_SHARE = 0.6
LOST = ('skip', 'wrong')
AVERAGES = ('joints', 'sequences')
THRESHOLDS = (0.1, 0.2)


def box_scales(truth: np.ndarray, share: float = BOX_SHARE) -> np.ndarray:
    """Measures a person in each frame: share * the diagonal of the smallest box around the joints.

    Args:
      truth: `[T, J, 2]` positions; a joint that is NaN does not count.
      share: of the diagonal.

    Returns:
      float64 `[T]`, in the positions' unit; NaN where there is no joint.
    """
    there = ~np.isnan(truth)
    sides = np.max(truth, axis=1, initial=-np.inf, where=there) - np.min(
        truth, axis=1, initial=np.inf, where=there
    )
    return share * np.linalg.norm(np.where(np.isfinite(sides), sides, np.nan), axis=-1)


def normalized_distances(
    prediction: np.ndarray,
    truth: np.ndarray,
    scales: np.ndarray | None = None,
    lost: str = 'skip',
    count_first: bool = False,
) -> np.ndarray:
    """Computes |prediction - truth| / scale of every joint that is scored.

    A joint is not scored where it is NaN in the truth of that frame, or of frame 0, from which it
    would be carried.

    Args:
      prediction: `[T, J, 2]` positions, NaN for a joint that was lost.
      truth: `[T, J, 2]` in the same unit; NaN where a joint is hidden or the frame not annotated.
      scales: `[T]` in that unit, above 0 where the frame is annotated. None: `box_scales`.
      lost: 'skip': a joint that the prediction lost is not scored, and the box leaves it out, as in
        the released evaluations of JHMDB, which do not use the true visibility; 'wrong': it is
        infinitely far.
      count_first: score frame 0 too, whose joints were given. VFS does, others do not.

    Returns:
      float64 `[T, J]`: NaN where a joint is not scored, infinite where it is lost. Also infinite
      where the scale is 0: the released evaluation counts such a joint as wrong.

    Raises:
      ValueError: shapes that do not fit, another `lost`, or a scale that is missing or negative.
    """
    prediction, truth = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if truth.ndim != 3 or truth.shape[2] != 2 or prediction.shape != truth.shape:
        raise ValueError(
            f'prediction has the shape {list(prediction.shape)}, truth {list(truth.shape)}; both '
            'must be [T, J, 2]'
        )
    if lost not in LOST:
        raise ValueError(f'lost is {lost!r}; it must be one of {LOST}')
    # Which joints are scored.
    found = ~np.any(np.isnan(prediction), axis=2)
    scored = ~np.any(np.isnan(truth), axis=2)
    scored &= scored[:1]
    if lost == 'skip':
        scored &= found
    # By which length of each frame.
    if scales is None:
        scales = box_scales(np.where(scored[..., None], truth, np.nan))
    scales = np.asarray(scales, np.float64)
    if scales.shape != truth.shape[:1]:
        raise ValueError(f'scales have the shape {list(scales.shape)}; it must be [{len(truth)}]')
    if not count_first:
        scored[:1] = False
    bad = scored.any(axis=1) & ~(scales >= 0)
    if bad.any():
        raise ValueError(
            f'the scale is {scales[bad][0]} in frame {np.flatnonzero(bad)[0]}; it must not be '
            'negative or missing where joints are scored'
        )
    # Measure how far each is from the truth.
    distances = np.linalg.norm(prediction - truth, axis=2)
    distances = np.where(found, distances, np.inf)
    valid = (scales > 0)[:, None]
    distances = np.where(valid, distances / np.where(valid, scales[:, None], 1), np.inf)
    return np.where(scored, distances, np.nan)


def pck(distances: np.ndarray, threshold: float) -> np.ndarray:
    """Computes the share of each joint's scored distances that are at most the threshold.

    Args:
      distances: `[..., J]` from `normalized_distances`, of one sequence or of several.
      threshold: alpha, such as 0.1.

    Returns:
      float64 `[J]`; NaN for a joint that is never scored.
    """
    distances = np.reshape(distances, (-1, np.shape(distances)[-1]))
    count = np.count_nonzero(~np.isnan(distances), axis=0)
    correct = np.count_nonzero(distances <= threshold, axis=0)
    return np.where(count > 0, correct / np.maximum(count, 1), np.nan)


def summarize(
    results: Mapping[str, np.ndarray],
    thresholds: Sequence[float] = THRESHOLDS,
    average: str = 'joints',
) -> dict[str, float]:
    """Computes the PCK of a whole benchmark.

    Args:
      results: of each sequence, by its name: `normalized_distances`, `[T, J]`.
      thresholds: the values of alpha.
      average: 'joints': all sequences pooled for each joint, then the mean over joints (JHMDB);
        'sequences': all joints pooled in each sequence, then the mean over sequences (BADJA).

    Returns:
      'PCK@0.1' and so on: fractions; NaN where nothing is scored.

    Raises:
      ValueError: there are no results, or another `average`.
    """
    if not results:
        raise ValueError('results is empty; it must have at least one sequence')
    if average not in AVERAGES:
        raise ValueError(f'average is {average!r}; it must be one of {AVERAGES}')
    if average == 'joints':
        columns = [np.concatenate(list(results.values()))]
    else:
        columns = [distances.reshape(-1, 1) for distances in results.values()]
    return {
        f'PCK@{threshold:g}': _mean_scored(
            np.concatenate([pck(distances, threshold) for distances in columns])
        )
        for threshold in thresholds
    }


def sequence_table(
    results: Mapping[str, np.ndarray], thresholds: Sequence[float] = THRESHOLDS
) -> list[dict[str, str | int | float]]:
    """Makes a row for each sequence, for a table or a CSV file.

    Args:
      results: as for `summarize`.
      thresholds: likewise.

    Returns:
      Rows with 'sequence', 'points' (the number of joints scored in all frames), and 'PCK@0.1' and
      so on, the shares of these points.
    """
    return [
        {
            'sequence': sequence,
            'points': int(np.count_nonzero(~np.isnan(distances))),
            **{
                f'PCK@{threshold:g}': float(pck(distances.reshape(-1, 1), threshold)[0])
                for threshold in thresholds
            },
        }
        for sequence, distances in results.items()
    ]


def joint_table(
    results: Mapping[str, np.ndarray],
    joint_names: Sequence[str],
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict[str, str | float]]:
    """Makes a row for each joint that is scored anywhere, over all sequences together.

    Args:
      results: as for `summarize`.
      joint_names: of the J joints.
      thresholds: as for `summarize`.

    Returns:
      Rows with 'joint', and 'PCK@0.1' and so on.
    """
    pooled = np.concatenate(list(results.values()))
    shares = [pck(pooled, threshold) for threshold in thresholds]
    return [
        {
            'joint': name,
            **{
                f'PCK@{threshold:g}': float(share[index])
                for threshold, share in zip(thresholds, shares)
            },
        }
        for index, name in enumerate(joint_names)
        if not np.isnan(pooled[:, index]).all()
    ]


def _mean_scored(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN where there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')
