"""The measures of VIP: mean intersection over union of parts, and average precision of instances.

Source: Zhou, Liang, Gong, Lin, "Adaptive temporal encoding network for video instance-level human
parsing", ACM Multimedia 2018, as released.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

NUM_CLASSES = 20
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def confusion_matrix(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int = NUM_CLASSES
) -> np.ndarray:
    """Counts how many pixels of each true class are predicted as each class.

    Pixels whose true value is no class, such as 255, do not count.

    Args:
      prediction, truth: integers of one shape, such as `[H, W]` or `[T, H, W]`.
      num_classes: C, the background too.

    Returns:
      int64 `[C, C]`, rows by the true class.

    Raises:
      ValueError: the shapes differ, or the prediction holds a value that is no class.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise ValueError(
            f'prediction has the shape {list(prediction.shape)}, truth {list(truth.shape)}; resize '
            'the prediction to the annotation by nearest neighbour'
        )
    if prediction.size and not 0 <= prediction.min() <= prediction.max() < num_classes:
        raise ValueError(
            f'the prediction runs from {prediction.min()} to {prediction.max()}; classes are 0 to '
            f'{num_classes - 1}'
        )
    counted = (truth >= 0) & (truth < num_classes)
    pairs = num_classes * truth[counted].astype(np.int64) + prediction[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Computes the intersection over union of each class: n_cc / (row_c + column_c - n_cc).

    Args:
      confusion: `[C, C]`, see `confusion_matrix`.

    Returns:
      float64 `[C]`; NaN for a class that is neither in the truth nor predicted; 0 for a class that
      is predicted and not in the truth.
    """
    correct = np.diagonal(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - correct
    return np.where(union > 0, correct / np.maximum(union, 1), np.nan)


def frame_confusions(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Computes the confusion matrix of every frame of a video.

    Args:
      prediction, truth: classes `[T, H, W]`.

    Returns:
      int64 `[T, 20, 20]`, rows by the true class.

    Raises:
      ValueError: as `confusion_matrix`.
    """
    return np.stack([confusion_matrix(*frames) for frames in zip(prediction, truth, strict=True)])


def summarize_parts(
    results: Mapping[str, np.ndarray], count_first: bool = True
) -> dict[str, float | list[float]]:
    """Computes the mean IoU over classes, with the pixels of all videos counted together.

    Classes that are neither in any truth nor predicted are left out of the mean. The background is
    a class.

    Args:
      results: of each video, by its name: `frame_confusions`, `[T, 20, 20]`.
      count_first: count frame 0, whose labels were given, as all released evaluations do.

    Returns:
      'mIoU', a fraction, and 'IoU', one of each class, NaN where it is left out.

    Raises:
      ValueError: there are no results.
    """
    if not results:
        raise ValueError('results is empty; it must have at least one video')
    totals = [_total(confusions, count_first) for confusions in results.values()]
    iou = class_iou(np.sum(totals, axis=0))
    return {'mIoU': _mean_scored(iou), 'IoU': iou.tolist()}


def part_table(
    results: Mapping[str, np.ndarray], count_first: bool = True
) -> list[dict[str, str | float]]:
    """Makes a row for each video, 'video' and the 'mIoU' of its own pixels.

    The mean of these rows is not the benchmark's number, which counts the pixels of all videos
    together. Arguments as in `summarize_parts`.
    """
    return [
        {'video': video, 'mIoU': _mean_scored(class_iou(_total(confusions, count_first)))}
        for video, confusions in results.items()
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """The predicted instances of some frames, and how well each overlaps with a true one.

    Attributes:
      classes: int `[P]`, of each predicted instance.
      scores: float `[P]`, how sure each is.
      overlaps: float `[P]`: the largest IoU with a true instance of the same class in that frame, 0
        where there is none.
      num_true: int `[C]`, the true instances of each class.
    """

    classes: np.ndarray
    scores: np.ndarray
    overlaps: np.ndarray
    num_true: np.ndarray


def match_instances(
    prediction: np.ndarray,
    predicted_classes: Mapping[int, int],
    scores: Mapping[int, float],
    truth: np.ndarray,
    true_classes: Mapping[int, int],
    num_classes: int = NUM_CLASSES,
) -> Matches:
    """Finds how well each predicted instance of a frame overlaps with a true one.

    An instance is an id that has pixels and a class above 0; other ids are background. A true
    instance may be matched by several predictions, as in the released evaluation.

    Args:
      prediction: ids `[H, W]`.
      predicted_classes: id -> class.
      scores: id -> confidence.
      truth: ids `[H, W]`; they need not be those of the prediction.
      true_classes: id -> class.
      num_classes: C, the background too.

    Raises:
      ValueError: the shapes differ, or a predicted instance has no score.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise ValueError(
            f'prediction has the shape {list(prediction.shape)}, truth {list(truth.shape)}'
        )
    predicted = _instances(prediction, predicted_classes)
    true = _instances(truth, true_classes)
    missing = [instance for instance in predicted if instance not in scores]
    if missing:
        raise ValueError(f'the instances {missing} have no score')
    overlaps = []
    for instance, area in predicted.items():
        ids, counts = np.unique(truth[prediction == instance], return_counts=True)
        inside = dict(zip(ids.tolist(), counts.tolist()))
        overlaps.append(
            max(
                (
                    inside.get(other, 0) / (area + other_area - inside.get(other, 0))
                    for other, other_area in true.items()
                    if true_classes[other] == predicted_classes[instance]
                ),
                default=0.0,
            )
        )
    return Matches(
        np.array([predicted_classes[instance] for instance in predicted], np.int64),
        np.array([scores[instance] for instance in predicted], np.float64),
        np.array(overlaps, np.float64),
        np.bincount([true_classes[instance] for instance in true], minlength=num_classes),
    )


def average_precision(
    scores: np.ndarray, overlaps: np.ndarray, num_true: int, threshold: float
) -> float:
    """Computes the average precision: the area under the envelope of precision over recall.

    Predictions are taken in the order of their scores. A prediction is right where its overlap is
    above the threshold. Precision is the share of right ones among those taken so far. Recall is
    the number of right ones over `num_true`; it can exceed 1, since several predictions may match
    one true instance. The envelope is the largest precision at this recall or more. Predictions of
    equal score are taken together, so the order in which they are given does not matter; in the
    released evaluation it does.

    Args:
      scores, overlaps: `[P]`.
      num_true: of true instances.
      threshold: of the overlap.

    Returns:
      The area; NaN where there are no true instances.

    Source: the PASCAL VOC development kit, 2010.
    """
    if num_true == 0:
        return float('nan')
    order = np.argsort(-scores, kind='stable')
    right = np.cumsum(overlaps[order] > threshold)
    last_of_score = np.append(np.diff(scores[order]) != 0, True)[: len(order)]
    right, count = right[last_of_score], np.flatnonzero(last_of_score) + 1
    recall = np.concatenate([[0], right / num_true])
    envelope = np.maximum.accumulate((right / count)[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def summarize_instances(
    results: Sequence[Matches], thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float | list[float]]:
    """Computes AP^r_vol: average precision, averaged over classes and thresholds of the overlap.

    Instances are matched within a frame; the predictions of a class in all frames are then ranked
    together. Classes without any true instance are left out.

    Args:
      results: of every frame of every video.
      thresholds: of the overlap.

    Returns:
      'AP^r_vol', a fraction; 'AP^r', one at each threshold, and 'AP^r_vol by class', one of each
      class from 1 on, NaN where it is left out.

    Raises:
      ValueError: there are no results.
    """
    if not results:
        raise ValueError('results is empty; it must have at least one frame')
    classes, scores, overlaps = (
        np.concatenate([getattr(matches, name) for matches in results])
        for name in ('classes', 'scores', 'overlaps')
    )
    num_true = np.sum([matches.num_true for matches in results], axis=0)
    precisions = np.array(
        [
            [
                average_precision(
                    scores[classes == index], overlaps[classes == index], num_true[index], threshold
                )
                for threshold in thresholds
            ]
            for index in range(1, len(num_true))
        ]
    )
    return {
        'AP^r_vol': _mean_scored(precisions),
        'AP^r': [_mean_scored(column) for column in precisions.T],
        'AP^r_vol by class': precisions.mean(axis=1).tolist(),
    }


def instance_scores(
    labels: np.ndarray,
    values: Sequence[int],
    ids: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
) -> dict[int, float]:
    """Scores how sure propagation is of each instance: the mean share of its label over its pixels.

    The share is the upsampled soft label over the sum of all labels of the pixel. One label is
    upsampled at a time, since there may be a hundred.

    Args:
      labels: soft labels `[H, W, L]`.
      values: `[L]` the id of each label.
      ids: the decoded ids `[H0, W0]`.
      rows, columns: `[H0, H]` and `[W0, W]`, the linear maps that upsample the two axes.

    Returns:
      Score in [0, 1] by id, for those that have pixels; 0 where no label has any weight.
    """
    labels = np.asarray(labels, np.float32)
    total = rows @ labels.sum(axis=2) @ columns.T
    scores = {}
    for value, label in zip(values, np.moveaxis(labels, 2, 0), strict=True):
        mask = ids == value
        if mask.any():
            share = (rows @ label @ columns.T)[mask] / np.maximum(total[mask], 1e-12)
            scores[int(value)] = float(share.mean(dtype=np.float64))
    return scores


def _instances(ids: np.ndarray, classes: Mapping[int, int]) -> dict[int, int]:
    """The number of pixels of each instance, by its id."""
    present, counts = np.unique(ids, return_counts=True)
    return {
        instance: count
        for instance, count in zip(present.tolist(), counts.tolist())
        if instance > 0 and classes.get(instance, 0) > 0
    }


def _mean_scored(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN where there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def _total(confusions: np.ndarray, count_first: bool) -> np.ndarray:
    return np.asarray(confusions)[0 if count_first else 1 :].sum(axis=0)
