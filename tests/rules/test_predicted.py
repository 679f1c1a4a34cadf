"""Predicted windows against a slow NumPy version of MAST's procedure."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.rules import predicted
from tests.flat import flat, init_context, propagate_video


def _predicted_config(**settings):
    return flat(
        **{
            'aggregation': 'overall',
            'temperature': 1.0,
            'num_neighbors': None,
            'num_context': 3,
            'context_step': 2,
            'kept_frames': (5,),
            'padding': 'mask',
            'restriction': 'predicted',
            'radius': 3,
            'restrict_first': True,
            'softmax': 'region',
            'normalize_features': False,
            'query_chunk': 16,
            **settings,
        }
    )


def _sample(image, row, column, zero_outside):
    """Samples bilinearly, with zeros outside, or with repeated edges."""
    value = 0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            weight = (1 - abs(row - i)) * (1 - abs(column - j))
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                value = value + weight * image[i, j]
            elif not zero_outside:
                i_in, j_in = (min(max(a, 0), n - 1) for a, n in zip((i, j), image.shape))
                value = value + weight * image[i_in, j_in]
    return value


def _oracle_offset(feature, frame, cell, dilation, reach, zero_outside, temperature):
    logits, offsets = [], []
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            i, j = cell[0] + dilation * row, cell[1] + dilation * column
            if 0 <= i < frame.shape[0] and 0 <= j < frame.shape[1]:
                logits.append(frame[i, j] @ feature / temperature)
            elif zero_outside:
                logits.append(0)
            else:
                continue
            offsets.append([row, column])
    weights = np.exp(np.array(logits) - max(logits))
    return dilation * (weights / weights.sum()) @ np.array(offsets)


def _oracle_predicted(features, first_label, config):
    features = features.astype(np.float64)
    zero_outside = 'zero_outside' in config.as_released
    reach = math.ceil(config.radius) - 1
    height, width = features.shape[1:3]
    known = [first_label.astype(np.float64)]
    for time in range(1, len(features)):
        latest = [t for t in (time - 1, time - 3, time - 5) if t > 0]
        references = sorted({t for t in (0, 5) if t < time} | set(latest))
        label = np.zeros(first_label.shape)
        for cell in np.ndindex(height, width):
            feature, offsets = features[time][cell], {}
            for t in references:
                gap = time - t
                if gap > 15:
                    offsets[t] = _oracle_offset(
                        feature,
                        features[t],
                        cell,
                        min(4, gap // 15 + 1),
                        reach,
                        zero_outside,
                        config.temperature,
                    )
            logits, copied = [], []
            for t in references:
                offset = label_offset = offsets.get(t, np.zeros(2))
                if 'shared_offset' in config.as_released and t in offsets:
                    label_offset = offsets[max(offsets)]
                for row in range(-reach, reach + 1):
                    for column in range(-reach, reach + 1):
                        place = np.array(cell) + offset + [row, column]
                        nearest = np.round(place)
                        if not zero_outside and (
                            np.any(nearest < 0) or np.any(nearest >= [height, width])
                        ):
                            continue
                        # Interpolated affinities are those of interpolated features.
                        affinities = features[t] @ feature / config.temperature
                        logits.append(_sample(affinities, *place, zero_outside))
                        place = np.array(cell) + label_offset + [row, column]
                        copied.append(
                            _sample(known[t], *place, zero_outside) + np.zeros(label.shape[-1])
                        )
            weights = np.exp(np.array(logits) - max(logits))
            label[cell] = weights / weights.sum() @ np.array(copied)
        known.append(label)
    return np.stack(known)


@pytest.mark.parametrize('as_released', [(), ('zero_outside',), ('zero_outside', 'shared_offset')])
def test_predicted_equals_numpy(as_released):
    # Frame 0 is searched from frame 16 on, frame 5 from frame 21 on, by larger steps from 30 on.
    rng = np.random.default_rng(0)
    features = rng.standard_normal((32, 4, 5, 4)).astype(np.float32)
    label = rng.random((4, 5, 2)).astype(np.float32)
    config = _predicted_config(as_released=as_released)
    found = propagate_video(features, label, config=config)
    np.testing.assert_allclose(found, _oracle_predicted(features, label, config), rtol=0, atol=1e-5)
    mass = np.sum(propagate_video(features, np.ones_like(label), config=config), axis=-1)
    if as_released:
        assert np.all(mass[1:, 0] < 2)
    else:
        np.testing.assert_allclose(mass, 2, rtol=1e-5)


def test_predicted_is_square_nearby():
    rng = np.random.default_rng(2)
    features = rng.standard_normal((8, 5, 6, 4)).astype(np.float32)
    label = rng.random((5, 6, 2)).astype(np.float32)
    square, around_predictions = (
        propagate_video(features, label, config=_predicted_config(restriction=restriction))
        for restriction in ('square', 'predicted')
    )
    np.testing.assert_allclose(around_predictions, square, rtol=0, atol=1e-5)


def test_predicted_window_finds_what_has_moved_further_than_the_square():
    """A patch moves 6 cells in 20 frames, and windows reach 2 cells to each side."""
    rng = np.random.default_rng(3)
    scene = 3 * rng.standard_normal((4, 14, 16)).astype(np.float32)
    patch = 3 * rng.standard_normal((2, 2, 16)).astype(np.float32)
    first, last = scene.copy(), scene.copy()
    first[1:3, 2:4], last[1:3, 6:8] = patch, patch
    query = np.reshape(last[1:3, 6:8], (4, -1))
    cells = np.array([[1, 6], [1, 7], [2, 6], [2, 7]])
    config = _predicted_config(temperature=5.0)
    offsets = predicted.predict_offsets(query, cells, first, jnp.asarray(2), config.method.rule)
    np.testing.assert_allclose(offsets, np.broadcast_to([0, -4], (4, 2)), atol=0.1)


@pytest.mark.parametrize(
    'settings',
    [
        {'num_neighbors': 3},
        {'softmax': 'frame'},
        {'restrict_first': False},
    ],
)
def test_rejects_settings_of_predicted(settings):
    with pytest.raises(ValueError, match='predicted'):
        _predicted_config(**settings)


def test_rejects_windowed():
    features, label = np.ones((2, 4, 5, 2), np.float32), np.ones((4, 5, 3), np.float32)
    config = _predicted_config(implementation='windowed')
    with pytest.raises(ValueError, match='windowed.*PredictedWindow'):
        propagate_video(features, label, config=config)


def test_rejects_entry():
    features, label = np.ones((4, 5, 2), np.float32), np.ones((4, 5, 3), np.float32)
    with pytest.raises(ValueError, match=r'entry .*; PredictedWindow keeps \[\]'):
        init_context(features, label, config=_predicted_config(), entry=np.zeros((3, 4), int))
