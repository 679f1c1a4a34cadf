"""First masks, treated as in TimeCycle and CRW, against Pillow, OpenCV and loops."""

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxprop.evaluation.targets import MaskTarget, Sizes

SIZES = Sizes((48, 85), (32, 32), (4, 4), (12.0, 21.25))


def _ids():
    ids = np.zeros(SIZES.frame, np.int32)
    ids[4:30, 10:50] = 3
    ids[30:44, 40:80] = 1
    return ids


def test_ids_are_resized_as_pillow_does():
    ids = np.random.default_rng(0).integers(0, 9, SIZES.frame, np.uint8)
    nearest = Image.Resampling.NEAREST
    expected = np.array(Image.fromarray(ids).resize(SIZES.seen[::-1], nearest))
    found = MaskTarget(resize_first='pillow_nearest').ids(ids, SIZES.seen)
    np.testing.assert_array_equal(found, expected)
    assert np.any(found != MaskTarget(resize_first='nearest').ids(ids, SIZES.seen))


def test_small_objects_are_background():
    """TimeCycle counts pixels at the network's size, and keeps objects of more than 11."""
    ids = _ids()
    ids[0:8, 0:9] = 2  # 5 x 4 of 32 x 32 pixels,
    ids[0:6, 60:68] = 4  # 4 x 3,
    ids[40:46, 2:8] = 5  # and 4 x 2.
    target = MaskTarget(resize_first='pillow_nearest', smallest=12)
    resized = target.ids(ids, SIZES.seen)
    counts = {value: int(np.sum(resized == value)) for value in range(1, 6)}
    assert counts[2] >= 12 and counts[4] == 12 and counts[5] == 8
    values = target.values(ids, SIZES.seen)
    assert values.tolist() == [0, 1, 2, 3, 4]
    soft = np.asarray(target.encode(ids, values, SIZES))
    np.testing.assert_allclose(soft.sum(axis=-1), 1, atol=1e-6)
    # One-hot at the network's size, and brought to the grid by OpenCV, as released.
    for label, value in enumerate(values[1:], 1):
        one_hot = (resized == value).astype(np.float64)
        expected = cv2.resize(one_hot, SIZES.grid[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(soft[..., label], expected, atol=1e-6)
    assert target.settings()['labels']['smallest'] == 12


@pytest.mark.parametrize('keep_soft', [False, True])
def test_a_first_frame_decoded_from_its_labels(keep_soft):
    """As in CRW: one-hot, resized to the grid, then to the input, argmax, then to the frame."""
    ids = _ids()
    target = MaskTarget(decode_at='input', first_frame='decoded', keep_soft=keep_soft)
    values = target.values(ids, SIZES.seen)
    label = target.encode(ids, values, SIZES)
    # Padding labels, as videos of one number of labels have them.
    label, padded = np.pad(label, [(0, 0), (0, 0), (0, 1)]), np.pad(values, (0, 1))
    small = cv2.resize((ids[..., None] == [0, 1, 3]).astype(np.float64), SIZES.grid[::-1])
    winner = cv2.resize(small, SIZES.seen[::-1]).argmax(axis=-1)
    expected = np.array(
        Image.fromarray(values[winner].astype(np.uint8)).resize(
            SIZES.frame[::-1], Image.Resampling.NEAREST
        )
    )
    found = target.given(ids, label, padded, SIZES)
    if keep_soft:
        found, soft, stands_for = found
        np.testing.assert_array_equal(soft, label)
        np.testing.assert_array_equal(stands_for, padded)
    np.testing.assert_array_equal(found, expected)
    assert 0.5 < np.mean(found == ids) < 1
    assert target.settings()['labels']['first_frame'] == 'decoded'


def test_a_first_frame_as_given():
    ids = _ids()
    found = MaskTarget().given(ids, np.zeros((4, 4, 2)), np.arange(2), SIZES)
    np.testing.assert_array_equal(found, ids)
    assert MaskTarget().settings()['labels']['first_frame'] == 'given'


@pytest.mark.parametrize(
    'settings', [{'resize_first': 'pillow'}, {'smallest': -1}, {'first_frame': 'truth'}], ids=str
)
def test_rejects(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f'{name} is {value!r}'):
        MaskTarget(**settings)
