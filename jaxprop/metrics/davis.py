"""Region similarity J and boundary accuracy F, the measures of DAVIS, as officially evaluated.

The protocol is the semi-supervised one. The objects are those of the first true mask. The first
frame is given and the last one is left out, so statistics run over frames 1 to T - 2. Pixels that
are void (255) in the truth count as background. Evaluate at native resolution: the tolerance of F
grows with it.

Source: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

_VOID = 255


class Statistics(NamedTuple):
    """The mean, recall and decay of one measure over the frames of one object."""

    mean: float
    recall: float
    decay: float


class SequenceResult(NamedTuple):
    """J and F of each of the O objects in each of the T frames, and their statistics.

    Attributes:
      object_ids: the id of each object.
      region: J, float64 `[O, T]`, of all frames, the first and the last too.
      boundary: F, likewise.
      region_statistics: of J for each object, over frames 1 to T - 2.
      boundary_statistics: of F, likewise.
    """

    object_ids: tuple[int, ...]
    region: np.ndarray
    boundary: np.ndarray
    region_statistics: tuple[Statistics, ...]
    boundary_statistics: tuple[Statistics, ...]


def region_similarity(
    prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None
) -> np.ndarray:
    """Computes J, the intersection over union of masks: |P & G| / |P | G|; 1 where both are empty.

    Args:
      prediction, truth: boolean `[T, H, W]`, or `[H, W]` for one frame.
      void: boolean, likewise: pixels that don't count. None: all count.

    Returns:
      float64 `[T]`, or a scalar for one frame.

    Raises:
      ValueError: an argument is not boolean, or not of the shape of `truth`.

    Source: Perazzi et al., CVPR 2016, section 4.
    """
    return _each_frame(_region_measure, *_valid_masks(prediction, truth, void))


def boundary_accuracy(
    prediction: np.ndarray,
    truth: np.ndarray,
    void: np.ndarray | None = None,
    bound_threshold: float = 0.008,
) -> np.ndarray:
    """Computes F, how well the boundaries of masks agree: F = 2 P R / (P + R).

    Precision P is the share of the prediction's boundary pixels that have a boundary pixel of the
    truth within a distance r. Recall R is the reverse. r = ceil(bound_threshold * image diagonal),
    8 pixels for 480 x 854. F is 1 where neither mask has a boundary, and 0 where only one has. A
    mask's boundary pixels differ from their right, lower or lower right neighbour in the image, so
    the edge of the image itself is no boundary.

    Args:
      prediction, truth: boolean `[T, H, W]`, or `[H, W]` for one frame.
      void: boolean, likewise: pixels that are background in both masks. None: there are none.
      bound_threshold: a fraction of the image diagonal; from 1 on, pixels.

    Returns:
      float64 `[T]`, or a scalar for one frame.

    Raises:
      ValueError: a mask is not boolean, or not of the shape of `truth`; `bound_threshold` is
        negative or not finite.

    Source: Perazzi et al., CVPR 2016, section 4; the official evaluation matches by dilation, not
    one to one as the paper says.
    """
    prediction, truth = _valid_masks(prediction, truth, void)
    if not 0 <= bound_threshold < math.inf:
        raise ValueError(f'bound_threshold is {bound_threshold}; it must be 0 or more')
    height, width = truth.shape[-2:]
    diagonal = math.sqrt(height**2 + width**2)
    disk = _disk(math.ceil(bound_threshold * (diagonal if bound_threshold < 1 else 1)))
    return _each_frame(functools.partial(_boundary_measure, disk=disk), prediction, truth)


def frame_scores(
    prediction: np.ndarray, truth: np.ndarray, object_ids: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Computes J and F of each object in one frame.

    Args:
      prediction, truth: ids `[H, W]`.
      object_ids: the O ids to score.

    Returns:
      J of the O objects, and F.
    """
    masks = [(prediction == object_id, truth == object_id) for object_id in object_ids]
    return (
        [float(region_similarity(*pair)) for pair in masks],
        [float(boundary_accuracy(*pair)) for pair in masks],
    )


def sequence_statistics(values: np.ndarray) -> Statistics:
    """Computes mean, recall and decay of a measure over the evaluated frames of one object.

    Recall is the share of values above 0.5. Decay is the mean of the first quarter minus the mean
    of the last. The quarters run from i_0 to i_1 and from i_3 to i_4, ends included, where
    i = round(linspace(1, n, 5)) - 1, halves upwards. The official evaluation keeps i in 8 bits, so
    from n = 257 on it wraps around: such a decay means little, and is NaN where a quarter is empty.
    This function does the same, so that its numbers agree. No sequence of DAVIS is that long.

    Args:
      values: `[n]`, one a frame.

    Raises:
      ValueError: `values` is empty or not one-dimensional.

    Source: Perazzi et al., CVPR 2016, section 4.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f'values has the shape {list(values.shape)}; it must be [n], n > 0')
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    ends %= 256
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    decay = first.mean() - last.mean() if first.size and last.size else np.nan
    return Statistics(float(values.mean()), float((values > 0.5).mean()), float(decay))


def evaluate_sequence(
    prediction: np.ndarray,
    truth: np.ndarray,
    object_ids: Sequence[int] | None = None,
    bound_threshold: float = 0.008,
) -> SequenceResult:
    """Computes J and F of every object in every frame of a sequence, and their statistics.

    In the truth 255 is void and counts as background. So do ids that are not among the objects,
    such as those of objects that appear later. The exception is a truth that holds only 0 and 255:
    `binary_to_ids` then converts it and the prediction. Statistics leave out the first and the last
    frame.

    Args:
      prediction, truth: integer ids `[T, H, W]`, 0 is background.
      object_ids: of the objects. None: the ids in the first true frame. The official evaluation
        takes 1 to the largest of these. Where an id in between is missing, as none is in DAVIS,
        give `range(1, largest + 1)` to count it too, as an object without a pixel.
      bound_threshold: see `boundary_accuracy`.

    Raises:
      ValueError: an array does not hold integers `[T, H, W]`, or the two differ in shape; there are
        fewer than 3 frames, or no objects; the prediction holds an id that is no object; an object
        id is 0 or less, 255, or there twice.

    Source: Pont-Tuset et al., arXiv 1704.00675, section 4; Perazzi et al., CVPR 2016.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    for name, ids in (('prediction', prediction), ('truth', truth)):
        if ids.ndim != 3 or ids.dtype.kind not in 'iu':
            raise ValueError(f'{name} is {ids.dtype} {list(ids.shape)}; it must be ids [T, H, W]')
    if prediction.shape != truth.shape:
        raise ValueError(
            f'prediction has the shape {list(prediction.shape)}, truth {list(truth.shape)}; they '
            'must be equal'
        )
    if len(truth) < 3:
        raise ValueError(
            f'there are {len(truth)} frames; with the first and the last left out, 3 are the least'
        )
    # Choose the objects.
    if _is_binary(truth):
        prediction, truth = binary_to_ids(prediction), binary_to_ids(truth)
    given = np.setdiff1d(truth[0], (0, _VOID)) if object_ids is None else object_ids
    object_ids = tuple(int(object_id) for object_id in given)
    if not object_ids:
        raise ValueError("there are no objects: the truth's first frame has no id but 0 and 255")
    if len(set(object_ids)) < len(object_ids) or min(object_ids) <= 0 or _VOID in object_ids:
        raise ValueError(f'object_ids is {object_ids}; they must be distinct, above 0 and not 255')

    # Score one object after the other, and count the pixels that belong to any of them.
    region, boundary = [], []
    num_known = np.count_nonzero(prediction == 0)
    for object_id in object_ids:
        predicted_mask, true_mask = prediction == object_id, truth == object_id
        num_known += np.count_nonzero(predicted_mask)
        region.append(region_similarity(predicted_mask, true_mask))
        boundary.append(
            boundary_accuracy(predicted_mask, true_mask, bound_threshold=bound_threshold)
        )
    if num_known < prediction.size:
        unknown = np.setdiff1d(prediction, (0, *object_ids)).tolist()
        raise ValueError(
            f'prediction holds the ids {unknown}, but the objects are {object_ids}; make the '
            'others 0; masks of 0 and 255 first need binary_to_ids'
        )
    return sequence_result(object_ids, np.stack(region), np.stack(boundary))


def sequence_result(
    object_ids: Sequence[int], region: np.ndarray, boundary: np.ndarray
) -> SequenceResult:
    """J and F with their statistics over all frames but the first and the last.

    Args:
      object_ids: the O ids.
      region: J, `[O, T]`, T at least 3.
      boundary: F, likewise.
    """
    statistics = (
        tuple(sequence_statistics(values[1:-1]) for values in measure)
        for measure in (region, boundary)
    )
    return SequenceResult(tuple(object_ids), region, boundary, *statistics)


def binary_to_ids(masks: np.ndarray) -> np.ndarray:
    """Turns masks of 0 and 255, as DAVIS-2016 has them, into ids 0 and 1. Others stay as they are.

    Args:
      masks: integers of any shape. Give all frames of a sequence together: a single frame of ids
        may hold only 0 and void.
    """
    masks = np.asarray(masks)
    return (masks == _VOID).astype(masks.dtype) if _is_binary(masks) else masks


def summarize(results: Mapping[str, SequenceResult]) -> dict[str, float]:
    """Averages each statistic over all objects of all sequences: the global result of DAVIS.

    Args:
      results: of each sequence, by its name.

    Returns:
      'J&F-Mean', the mean of 'J-Mean' and 'F-Mean'; 'J-Mean', 'J-Recall', 'J-Decay'; 'F-Mean',
      'F-Recall', 'F-Decay'. All are fractions, not percent.

    Raises:
      ValueError: there are no results.

    Source: Pont-Tuset et al., arXiv 1704.00675, section 4.
    """
    if not results:
        raise ValueError('results is empty; it must have at least one sequence')
    rows = sequence_table(results)
    names = [name for name in rows[0] if name not in ('sequence', 'object')]
    means = {name: float(np.mean([float(row[name]) for row in rows])) for name in names}
    return {'J&F-Mean': (means['J-Mean'] + means['F-Mean']) / 2, **means}


def sequence_table(results: Mapping[str, SequenceResult]) -> list[dict[str, str | int | float]]:
    """Makes a row for each object of each sequence, for a table or a CSV file.

    Args:
      results: of each sequence, by its name.

    Returns:
      Rows with 'sequence', 'object' (its id), 'J-Mean', 'J-Recall', 'J-Decay', 'F-Mean',
      'F-Recall' and 'F-Decay'.
    """
    rows = []
    for sequence, result in results.items():
        for object_id, region, boundary in zip(
            result.object_ids, result.region_statistics, result.boundary_statistics
        ):
            row = {'sequence': sequence, 'object': object_id}
            for measure, statistics in (('J', region), ('F', boundary)):
                row[f'{measure}-Mean'] = statistics.mean
                row[f'{measure}-Recall'] = statistics.recall
                row[f'{measure}-Decay'] = statistics.decay
            rows.append(row)
    return rows


def _valid_masks(
    prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Checks both masks, and sets void pixels to background."""
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    masks = {'truth': truth, 'prediction': prediction}
    if void is not None:
        masks['void'] = void = np.asarray(void)
    for name, mask in masks.items():
        if mask.dtype != bool or mask.ndim not in (2, 3) or mask.shape != truth.shape:
            raise ValueError(
                f'{name} is {mask.dtype} {list(mask.shape)}; it must be boolean, [T, H, W] or '
                f'[H, W], and of the shape of truth, {list(truth.shape)}'
            )
    if void is None:
        return prediction, truth
    return prediction & ~void, truth & ~void


def _each_frame(
    measure: Callable[[np.ndarray, np.ndarray], float], prediction: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    if truth.ndim == 2:
        return np.asarray(measure(prediction, truth), np.float64)[()]
    return np.array([measure(*masks) for masks in zip(prediction, truth)], np.float64)


def _region_measure(prediction: np.ndarray, truth: np.ndarray) -> float:
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def _disk(radius: int) -> np.ndarray:
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (rows**2 + columns**2 <= radius**2).astype(np.uint8)


def _boundary_measure(prediction: np.ndarray, truth: np.ndarray, disk: np.ndarray) -> float:
    """F of one frame: boolean `[H, W]` masks."""
    # Work in the smallest box with all pixels of both masks, and one pixel around. It holds every
    # boundary pixel of both, and dilated boundaries are read at boundary pixels alone.
    left, top, width, height = cv2.boundingRect((prediction | truth).view(np.uint8))
    box = np.s_[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1]
    predicted, true = _boundary(prediction[box]), _boundary(truth[box])
    num_predicted, num_true = np.count_nonzero(predicted), np.count_nonzero(true)
    if num_predicted == 0 or num_true == 0:
        return float(num_predicted == num_true)
    precision = np.count_nonzero(predicted & _dilate(true, disk)) / num_predicted
    recall = np.count_nonzero(true & _dilate(predicted, disk)) / num_true
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Marks where a mask differs from its right, lower or lower right neighbour in the image."""
    boundary = np.zeros_like(mask)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def _dilate(mask: np.ndarray, disk: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.view(np.uint8), disk).view(bool)


def _is_binary(masks: np.ndarray) -> bool:
    return bool(((masks == 0) | (masks == _VOID)).all())
