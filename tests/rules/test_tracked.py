"""Tracked boxes against a slow NumPy version of UVC's procedure."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import labels, methods
from jaxprop.color import lightness_input
from jaxprop.data.davis import davis_sequence
from jaxprop.data.inputs import resize_frame
from jaxprop.models import ResNet, estimate_batch_statistics
from jaxprop.rules import tracked
from tests.flat import flat, init_context, propagate_step, propagate_video
from tests.support import shared

step = jax.jit(propagate_step, static_argnames='config')


# UVC with its boxes, as its procedure is described: a box is a list of (left, right, top, bottom)
# or None, margins are exact fractions, everything else is in float64.


def _track_config(**settings):
    return flat(
        **{
            'aggregation': 'per_frame',
            'temperature': 1.0,
            'num_neighbors': 5,
            'num_context': 3,
            'padding': 'mask',
            'restriction': 'track',
            'restrict_first': True,
            'softmax': 'frame',
            'normalize_features': False,
            'query_chunk': 50,
            **settings,
        }
    )


def _larger(box, margin, size):
    """Enlarges a box by `margin` of its size, half of it on each side."""
    height, width = size
    left, right, top, bottom = box
    more_x, more_y = margin * (right - left) / 2, margin * (bottom - top) / 2
    return [
        max(int(left - more_x), 0),
        min(int(right + more_x), width),
        max(int(top - more_y), 0),
        min(int(bottom + more_y), height),
    ]


def _oracle_first_box(is_label, margin=Fraction(6, 10)):
    y, x = np.nonzero(is_label)
    if not x.size:
        return None
    box = _larger([int(v) for v in (x.min(), x.max(), y.min(), y.max())], margin, is_label.shape)
    return [side // 8 for side in box]


def _oracle_mean_shift(points, bandwidth, signed_stop):
    mean = points.mean(axis=0)
    distances = np.linalg.norm(points - mean, axis=1)
    # The first one, where several are equally near but for rounding.
    center = points[np.argmax(distances <= distances.min() + 1e-6)]
    while True:
        distances = np.linalg.norm(points - center, axis=1)
        near = distances <= bandwidth
        weights = np.exp(-0.5 * (distances[near] / 4) ** 2)
        moved = (weights[:, None] * points[near]).sum(axis=0) / weights.sum()
        move, center = moved - center, moved
        if (move.sum() if signed_stop else np.abs(move).sum()) < 0.1:
            return center


def _oracle_box(points, size, margin, bandwidth, signed_stop):
    """Computes the box around points (x, y)."""
    height, width = size
    x, y = _oracle_mean_shift(points, bandwidth, signed_stop)
    spread_x, spread_y = np.abs(points - [x, y]).mean(axis=0)
    box = [
        int(max(x - 2 * spread_x, 0)),
        int(min(x + 2 * spread_x, width)),
        int(max(y - 2 * spread_y, 0)),
        int(min(y + 2 * spread_y, height)),
    ]
    return _larger(box, margin, size)


def _oracle_adjusted(box, before, size):
    if box is None or before is None:
        return box
    adjusted = []
    for low, high, low_before, high_before, side in (
        (*box[:2], *before[:2], size[1]),
        (*box[2:], *before[2:], size[0]),
    ):
        middle = Fraction(low + high, 2)
        length = Fraction(1, 10) * (high - low) + Fraction(9, 10) * (high_before - low_before)
        adjusted += [
            max(0, math.floor(middle - length / 2)),
            min(side, math.ceil(middle + length / 2)),
        ]
    return adjusted


def _oracle_soft_to_classes(label):
    """Upsamples each class 8 times, scales it to [0, 1], takes the largest at each pixel."""
    height, width, num_labels = label.shape
    rows, columns = (
        labels.resize_matrix(side, 8 * side, 'bilinear').astype(np.float64)
        for side in (height, width)
    )
    upsampled = np.einsum('yh,xw,hwl->yxl', rows, columns, label)
    for number in range(num_labels):
        if np.ptp(label[..., number]) == 0:
            upsampled[..., number] = 0
        else:
            upsampled[..., number] -= upsampled[..., number].min()
            upsampled[..., number] /= upsampled[..., number].max()
    return np.argmax(upsampled, axis=-1)


def _points(is_label):
    y, x = np.nonzero(is_label)
    return np.stack([x, y], axis=-1).astype(np.float64)


def _oracle_best(weights, label, k):
    """Copies labels `[source, L]` by weights `[source, target]`, the k largest of each column."""
    best = np.argsort(-weights, axis=0, kind='stable')[:k]
    return np.einsum('kt,ktl->tl', np.take_along_axis(weights, best, axis=0), label[best])


def _oracle_tracked(weights, label, sources, target, k):
    result = np.zeros(label.shape)
    cells = np.arange(len(weights)).reshape(label.shape[:2])
    for number, (source, goal) in enumerate(zip(sources, target)):
        if source is None or goal is None:
            continue
        rows, columns = (
            cells[box[2] : box[3], box[0] : box[1]].reshape(-1) for box in (source, goal)
        )
        own = label.reshape(len(weights), -1)[rows, number, None]
        result.reshape(len(weights), -1)[columns, number] = _oracle_best(
            weights[np.ix_(rows, columns)], own, k
        )[:, 0]
    return result


def _oracle_is_lost(label, sources, target, exists):
    for number in np.flatnonzero(exists):
        if label[..., number].sum() < 3:
            return True
        for box in (sources[number], target[number]):
            if box is None or box[1] - box[0] < 3 or box[3] - box[2] < 3:
                return True
    return False


def _oracle_next_boxes(classes, before, errors):
    """Computes a labelled frame's boxes from the class of each pixel and the boxes before."""
    size = tuple(side // 8 for side in classes.shape)
    # The released code cuts them to the number of pixels.
    limit = classes.shape if 'pixel_limit' in errors else size
    boxes = [[0, size[1], 0, size[0]]]
    for number in range(1, len(before)):
        box, points = None, _points(classes == number)
        gone = 'lost_is_gone' in errors and before[number] is None
        if len(points) and not gone:
            box = _oracle_box(points, classes.shape, Fraction(6, 10), 20, 'signed_stop' in errors)
            box = _oracle_adjusted([side // 8 for side in box], before[number], limit)
        boxes.append(box)
    return boxes


def _oracle_track(features, first_label, first_boxes, config):
    """Computes labels, and each frame's boxes and number of context frames without boxes."""
    features = features.astype(np.float64)
    size = height, width = features.shape[1:3]
    flat = features.reshape(len(features), height * width, -1)
    signed_stop = 'signed_stop' in config.as_released
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    if 'corner_cells' in config.as_released:
        grid = np.stack([x * width / (width - 1), y * height / (height - 1)], axis=-1)
    else:
        grid = np.stack([x + 0.5, y + 0.5], axis=-1)
    num_labels = first_label.shape[-1]
    whole = [0, width, 0, height]
    has_cell = first_label.sum(axis=(0, 1)) > 0
    # The released maps have as many classes as the last one that the small map of frame 0 has.
    exists = [
        has_cell[number] or (first_boxes[number] is not None and has_cell[number:].any())
        for number in range(num_labels)
    ]
    known, boxes, fallbacks = [first_label.astype(np.float64)], [first_boxes], [0]
    for time in range(1, len(features)):
        queue = list(range(max(1, time - config.num_context), time))
        # The boxes of this frame, from the frame before.
        hard = np.argmax(known[-1], axis=-1).reshape(-1)
        target = [whole]
        for number in range(1, num_labels):
            own = np.flatnonzero(hard == number)
            if len(own) < 2 or boxes[-1][number] is None:
                target.append(None)
                continue
            logits = flat[time - 1][own] @ flat[time].T / config.temperature
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            places = weights / weights.sum(axis=1, keepdims=True) @ grid
            box = _oracle_box(places, size, 1, 5, signed_stop)
            target.append(_oracle_adjusted(box, boxes[-1][number], size))
        # Its label.
        total, fallen = np.zeros(first_label.shape), 0
        for frame in [0] + queue:
            logits = flat[frame] @ flat[time].T / config.temperature
            weights = np.exp(logits - logits.max(axis=0))
            weights /= weights.sum(axis=0)
            if frame > 0 and _oracle_is_lost(known[frame], boxes[frame], target, exists):
                total += _oracle_best(
                    weights, known[frame].reshape(len(weights), -1), config.num_neighbors
                ).reshape(total.shape)
                fallen += 1
            else:
                total += _oracle_tracked(
                    weights, known[frame], boxes[frame], target, config.num_neighbors
                )
        label = total / (1 + len(queue))
        # Its boxes, for the frames after it.
        classes = _oracle_soft_to_classes(label)
        known.append(label)
        boxes.append(_oracle_next_boxes(classes, boxes[-1], config.as_released))
        fallbacks.append(fallen)
    return np.stack(known), boxes, fallbacks


def _first_boxes(ids, num_labels):
    height, width = (side // 8 for side in ids.shape)
    return [[0, width, 0, height]] + [
        _oracle_first_box(ids == number) for number in range(1, num_labels)
    ]


def _as_array(boxes):
    """Converts boxes to (top, left, bottom, right), with zeros for missing ones."""
    return np.array([[0] * 4 if b is None else [b[2], b[0], b[3], b[1]] for b in boxes])


def _track_by_steps(features, first_label, ids, config):
    boxes = tracked.first_boxes(jnp.asarray(ids), first_label.shape[-1])
    context = init_context(features[0], first_label, config=config, entry=boxes)
    found, all_boxes = [first_label], [boxes]
    for time, frame in enumerate(features[1:], 1):
        context, label = step(context, frame, config=config)
        found.append(label)
        all_boxes.append(context.entries[1 + (time - 1) % config.num_context])
    return np.stack(found), np.stack(all_boxes)


def _assert_tracks(features, first_label, ids, config):
    expected, boxes, fallbacks = _oracle_track(
        features, first_label, _first_boxes(ids, first_label.shape[-1]), config
    )
    found, found_boxes = _track_by_steps(features, first_label, ids, config)
    np.testing.assert_array_equal(found_boxes, np.stack([_as_array(b) for b in boxes]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    return boxes, fallbacks


GRID = (10, 14)
RELEASED = methods.settings(methods.uvc_tracked())['as_released']


def _moving_objects(num_frames, gone=(), sharpness=3.0, seed=0):
    """Makes two moving objects, whose features differ; the second is not in the frames `gone`."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((num_frames, *GRID), int)
    for time in range(num_frames):
        ids[time, 2 + time % 3 : 6 + time % 3, 1 + time : 5 + time] = 1
        if time not in gone:
            ids[time, 5:9, 9 - time // 2 : 13 - time // 2] = 2
    features = sharpness * np.eye(8)[ids] + rng.standard_normal((num_frames, *GRID, 8))
    return features.astype(np.float32), ids


def _first(ids):
    label = np.eye(3, dtype=np.float32)[ids[0]]
    return label, np.kron(ids[0], np.ones((8, 8), int))


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'as_released': RELEASED},
        {'num_context': 1, 'num_neighbors': 3, 'temperature': 2.0},
    ],
    ids=str,
)
def test_track_equals_numpy(settings):
    features, ids = _moving_objects(7)
    boxes, fallbacks = _assert_tracks(features, *_first(ids), _track_config(**settings))
    assert not any(fallbacks) and all(box is not None for frame in boxes for box in frame)


def test_track_of_random_features_equals_numpy():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((6, *GRID, 8)).astype(np.float32)
    _, ids = _moving_objects(1)
    _assert_tracks(features, *_first(ids), _track_config())


def test_track_of_a_class_that_disappears():
    """Once a class has lost all cells, all context frames but the first are used without boxes."""
    features, ids = _moving_objects(8, gone=(3, 4, 5), sharpness=6.0)
    label, pixels = _first(ids)
    config = _track_config()
    _, fallbacks = _assert_tracks(features, label, pixels, config)
    assert fallbacks == [0, 0, 0, 0, 3, 3, 3, 3]
    mass = np.sum(propagate_video(features, label, config=config)[..., 2], axis=(1, 2))
    assert np.all(mass[:3] > 10) and np.all(mass[3:] < 3)


@pytest.mark.parametrize('errors', [(), ('pixel_limit',), ('lost_is_gone',), RELEASED], ids=str)
def test_next_boxes_equal_numpy(errors):
    """Blobs lie anywhere, also at the edges, where boxes overhang; some are lost or return."""
    rng, rule = np.random.default_rng(3), _track_config(as_released=errors).method.rule
    boxes = functools.partial(tracked.next_boxes, stop=rule.stop, limit=rule.limit, lost=rule.lost)
    boxes, ends = jax.jit(boxes), []
    for _ in range(12):
        classes = np.zeros([8 * side for side in GRID], int)
        for number in (1, 2):
            row, column = (rng.integers(8, 8 * side) for side in GRID)
            classes[row - 8 : row + 24, column - 8 : column + 24] = number
        corner, size = rng.integers(0, 8, 2), rng.integers(3, 9, 2)
        last = np.minimum(corner + size, GRID)
        before = [[0, GRID[1], 0, GRID[0]], [corner[1], last[1], corner[0], last[0]], None]
        before[1] = [int(side) for side in before[1]]
        expected = _as_array(_oracle_next_boxes(classes, before, errors))
        np.testing.assert_array_equal(boxes(classes, _as_array(before)), expected)
        ends.append(expected[:, 2:])
    assert np.any(np.array(ends) > GRID) == ('pixel_limit' in errors)
    assert np.any(np.array(ends)[:, 2]) != ('lost_is_gone' in errors)


def test_boxes_overhang_in_a_video():
    """An object leaves at the lower right corner; its remembered box reaches beyond the frame."""
    rng = np.random.default_rng(2)
    ids = np.zeros((6, *GRID), int)
    for time in range(6):
        ids[time, 3 + time : 8 + time, 7 + time : 12 + time] = 1
    features = (3 * np.eye(8)[ids] + rng.standard_normal((6, *GRID, 8))).astype(np.float32)
    label, pixels = _first(ids)
    boxes, _ = _assert_tracks(features, label, pixels, _track_config(as_released=RELEASED))
    rights, bottoms = zip(*((frame[1][1], frame[1][3]) for frame in boxes))
    assert max(rights) > GRID[1] and max(bottoms) > GRID[0]


@pytest.mark.parametrize('number, fallbacks', [(1, [0, 0, 1, 2]), (2, [0, 0, 0, 0])])
def test_track_of_a_class_without_a_cell(number, fallbacks):
    """A class falls between the cells of frame 0; it is only missed if it is not the last class."""
    features, ids = _moving_objects(4)
    other = 3 - number
    label = np.where(ids[0] == other, other, 0)
    pixels = np.kron(label, np.ones((8, 8), int))
    pixels[41:44, 50:54] = number
    label = np.eye(3, dtype=np.float32)[label]
    boxes, found = _assert_tracks(features, label, pixels, _track_config())
    assert boxes[0][number] is not None and found == fallbacks


def test_track_of_a_class_too_small_to_follow():
    features, ids = _moving_objects(4)
    ids[0][ids[0] == 2] = 0
    ids[0][7, 9] = 2
    boxes, fallbacks = _assert_tracks(features, *_first(ids), _track_config())
    assert boxes[0][2] is not None and [frame[2] for frame in boxes[1:]] == [None] * 3
    assert fallbacks == [0, 0, 1, 2]


def test_track_of_a_batch_with_unused_classes():
    """Classes without an object change nothing, also beside another video of the batch."""
    features, ids = _moving_objects(4)
    label, _ = _first(ids)
    other, _ = _moving_objects(4, gone=(2,), seed=1)
    config = _track_config()
    found = jax.vmap(functools.partial(propagate_video, config=config))(
        np.stack([features, other]), np.pad(np.stack([label] * 2), [(0, 0)] * 3 + [(0, 2)])
    )
    np.testing.assert_array_equal(found[..., 3:], 0)
    for video, batched in zip((features, other), found):
        alone = propagate_video(video, label, config=config)
        np.testing.assert_allclose(batched[..., :3], alone, rtol=0, atol=1e-5)


def test_first_boxes_of_a_label_are_those_of_its_pixels():
    _, ids = _moving_objects(1)
    label, pixels = _first(ids)
    features = np.ones((*GRID, 2), np.float32)
    context = init_context(features, label, config=_track_config())
    np.testing.assert_array_equal(context.entries[0], _as_array(_first_boxes(pixels, 3)))


@pytest.mark.parametrize('softmax', ['neighbors', 'region'])
def test_track_mass(softmax):
    """Each class has a softmax over its own box, so labels are at most 1, also with all cells."""
    features, ids = _moving_objects(4)
    label, _ = _first(ids)
    found = propagate_video(
        features, label, config=_track_config(softmax=softmax, num_neighbors=140)
    )
    assert np.all(np.isfinite(found)) and np.max(found) <= 1 + 1e-5
    np.testing.assert_allclose(
        propagate_video(
            features, label, config=_track_config(softmax='neighbors', num_neighbors=140)
        ),
        found,
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    'values, settings',
    [
        # Of all seven objects small ones get lost at once, of the three largest one in the end.
        (range(8), {}),
        ((0, 1, 3, 5), {'as_released': RELEASED}),
    ],
    ids=['seven', 'three'],
)
def test_track_on_a_video_equals_numpy(values, settings):
    sequence = davis_sequence(shared('data', 'DAVIS-multi'), 'schoolgirls', '2017', '480p')
    size = 192, 336
    frames = np.stack([resize_frame(sequence.read_frame(t), size) for t in range(8)])
    first = sequence.read_label(0)
    assert list(labels.label_values(first)) == list(range(8))
    first = np.select([first == value for value in values], range(len(values)))
    pixels = np.asarray(labels.resize(first[..., None], size, 'nearest'))[..., 0]
    inputs = lightness_input(frames)
    model = ResNet()
    variables = model.init(jax.random.key(0), inputs[:1])
    variables = estimate_batch_statistics(model, variables, inputs)
    features = np.asarray(model.apply(variables, inputs))
    label = labels.encode(first, np.arange(len(values)), features.shape[1:3], 'nearest')
    # An untrained network's affinities are so different that at 1 labels would vanish in float32.
    config = _track_config(temperature=10.0, num_context=7, query_chunk=128, **settings)
    boxes, fallbacks = _assert_tracks(features, np.asarray(label), pixels, config)
    assert all(box is not None for frame in boxes for box in frame)
    assert fallbacks == ([0, 0, 1, 2, 3, 4, 5, 6] if len(values) == 8 else [0] * 7 + [6])


@pytest.mark.parametrize(
    'settings',
    [
        {'num_neighbors': None},
        {'aggregation': 'overall'},
        {'restrict_first': False},
        {'keep_first': False},
        {'num_context': 0},
    ],
)
def test_rejects_settings_of_track(settings):
    with pytest.raises(ValueError, match="'track'|TrackedBoxes"):
        _track_config(**settings)


def test_rejects_windowed():
    features, ids = _moving_objects(2)
    config = _track_config(implementation='windowed')
    with pytest.raises(ValueError, match='windowed.*TrackedBoxes'):
        propagate_video(features, _first(ids)[0], config=config)


def test_rejects_boxes():
    features, label = np.ones((*GRID, 2), np.float32), np.ones((*GRID, 3), np.float32)
    with pytest.raises(ValueError, match=r'entry .*\(2, 4\).*TrackedBoxes keeps .*\(3, 4\)'):
        init_context(features, label, config=_track_config(), entry=np.zeros((2, 4), int))
    with pytest.raises(ValueError, match=r'classes are \[80, 113\]'):
        tracked.first_boxes(jnp.zeros((80, 113), int), 3)
