"""Windowed propagation gives the labels of the dense one, cell by cell."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import Attention, Execution, Memory, TopK
from jaxprop.rules import windowed
from tests.flat import flat, propagate_video


def _video(grid, num_frames=4, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num_frames, *grid, 4)).astype(np.float32)
    return features, rng.random((*grid, 3)).astype(np.float32)


def _config(**settings):
    return flat(
        **{
            'num_context': 2,
            'num_neighbors': 5,
            'temperature': 0.1,
            'radius': 2.5,
            'implementation': 'windowed',
            **settings,
        }
    )


def _assert_equals_dense(features, label, config, propagate=propagate_video):
    dense = config.replace(implementation='dense')
    found = propagate(features, label, config=config)
    np.testing.assert_allclose(found, propagate(features, label, config=dense), rtol=0, atol=1e-5)
    return found


# Sides below, at, just above and well above the tile's, with windows inside and across the edge.
@pytest.mark.parametrize(
    'grid, restriction, radius, settings',
    [
        ((3, 20), 'radius', 2.5, {}),
        ((3, 20), 'square', 4, {'padding': 'mask', 'softmax': 'region'}),
        ((20, 3), 'square', 2.5, {'aggregation': 'per_frame', 'padding': 'first_once'}),
        ((20, 3), 'radius', 4, {'restrict_first': True}),
        ((8, 16), 'radius', 4, {'keep_first': False, 'softmax': 'region'}),
        ((9, 17), 'radius', 2.5, {'aggregation': 'per_frame', 'softmax': 'region'}),
        ((9, 17), 'square', 2.5, {'padding': 'first_once', 'keep_first': False}),
        ((9, 17), 'radius', 40, {}),
        ((9, 17), 'square', 40, {'restrict_first': True, 'padding': 'mask'}),
        ((24, 31), 'radius', 4, {}),
        (
            (24, 31),
            'square',
            3,
            {'normalize_features': False, 'aggregation': 'per_frame', 'padding': 'mask'},
        ),
        ((24, 31), 'radius', 1, {'padding': 'mask'}),
        ((10, 21), 'radius', 3, {'padding': 'mask', 'num_neighbors': 2, 'softmax': 'region'}),
        ((1, 1), 'radius', 3, {'num_neighbors': 1}),
        # Every allowed cell counts.
        ((9, 17), 'square', 2.5, {'num_neighbors': None, 'softmax': 'region', 'keep_first': False}),
        ((24, 31), 'radius', 4, {'num_neighbors': None}),
        (
            (3, 20),
            'radius',
            4,
            {'num_neighbors': None, 'aggregation': 'per_frame', 'padding': 'mask'},
        ),
    ],
)
def test_equals_dense(grid, restriction, radius, settings):
    config = _config(restriction=restriction, radius=radius, **settings)
    labels = _assert_equals_dense(*_video(grid), config)
    # Not an agreement of zeros: every frame is labelled.
    assert np.all(np.max(labels, axis=(1, 2)) > 0.1)


@pytest.mark.parametrize(
    'grid, radius, settings',
    [
        # A cell in the middle has 21 candidates a frame, one in the corner 8.
        ((9, 17), 2.5, {'num_neighbors': 21, 'aggregation': 'per_frame', 'restrict_first': True}),
        ((9, 17), 2.5, {'num_neighbors': 62, 'restrict_first': True}),
        # More neighbours than cells in a window: 3 x 8, where frame 0 has 60 candidates.
        ((3, 20), 1, {'num_neighbors': 30}),
        ((3, 20), 1, {'num_neighbors': 62, 'softmax': 'region'}),
    ],
)
def test_equals_dense_where_few_candidates_are_left_over(grid, radius, settings):
    _assert_equals_dense(*_video(grid), _config(radius=radius, **settings))


def test_equals_dense_where_all_affinities_are_tied():
    features, label = _video((24, 31))
    _assert_equals_dense(np.ones_like(features), label, _config(radius=4))


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'padding': 'mask', 'aggregation': 'per_frame'},
        {'padding': 'first_once'},
        {'softmax': 'region', 'keep_first': False},
    ],
)
def test_groups_of_copies_of_the_first_frame_are_searched_once(settings, tied):
    # Three groups of four frames; while two or more hold frame 0 alone, the later ones repeat.
    config = _config(num_context=12, **settings)
    assert windowed.group_size(12) == 4
    features, label = _video((9, 17), num_frames=14)
    found = _assert_equals_dense(np.ones_like(features) if tied else features, label, config)
    assert np.all(np.isfinite(found))


def test_radius_one_stays_in_place():
    features, label = _video((9, 17))
    config = _config(radius=1, num_neighbors=1, restrict_first=True)
    labels = propagate_video(features, label, config=config)
    np.testing.assert_allclose(labels, np.broadcast_to(label, labels.shape), atol=1e-6)


def test_nothing_comes_from_outside_the_window():
    features, label = _video((20, 12), num_frames=2)
    marked = np.zeros_like(label)
    marked[10, 5] = 1
    config = _config(
        radius=3, num_neighbors=25, aggregation='per_frame', restrict_first=True, temperature=1.0
    )
    label = propagate_video(features, marked, config=config)[1]
    rows, columns = np.indices((20, 12))
    reached = (rows - 10) ** 2 + (columns - 5) ** 2 < 9
    assert np.count_nonzero(reached) == 25
    np.testing.assert_array_equal(np.all(label > 0, axis=-1), reached)


def test_under_vmap_and_jit():
    videos = [_video((9, 17), seed=seed) for seed in (0, 1)]
    features, labels = (np.stack(arrays) for arrays in zip(*videos))
    config = _config()

    def propagate(features, label, *, config):
        function = functools.partial(propagate_video, config=config)
        return jax.jit(jax.vmap(function))(features, label)

    found = _assert_equals_dense(features, labels, config, propagate)
    for one, video in zip(found, videos):
        np.testing.assert_allclose(one, propagate_video(*video, config=config), atol=1e-5)


def _is_used(grid, config):
    rule = config.method.rule
    return windowed.is_used(grid, rule.region, rule.softmax, config.execution)


def test_auto_uses_windows_where_they_are_less_work():
    auto = flat(num_context=2, radius=2.5)
    assert _is_used((60, 107), auto)
    assert _is_used((60, 107), flat())
    # One tile's window is the whole grid.
    assert not _is_used((9, 9), auto)
    assert _is_used((60, 107), auto.replace(num_neighbors=None))
    for excluded in ({'restriction': 'none'}, {'softmax': 'frame'}):
        assert not _is_used((60, 107), auto.replace(**excluded))
    asked = auto.replace(implementation='windowed')
    assert _is_used((9, 9), asked)
    dense = auto.replace(implementation='dense')
    assert not _is_used((60, 107), dense)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'restriction': 'none'}, r'windowed.*Everywhere\(\)'),
        ({'softmax': 'frame'}, "windowed.*'frame'"),
        ({'softmax': 'frame', 'num_neighbors': None}, "windowed.*'frame'"),
    ],
)
def test_rejects_what_needs_whole_frames(settings, message):
    config = _config(**settings)
    with pytest.raises(ValueError, match=message):
        propagate_video(*_video((9, 17)), config=config)
    with pytest.raises(ValueError, match=message):
        config.method.rule.check_grid((9, 17), config.method.memory, config.execution)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Cells at most `height` rows away, whatever the reach says."""

    height: float
    reach: Any
    bind_first: bool = False

    def allows(self, offsets):
        return jnp.abs(offsets[..., 0]) <= self.height


@pytest.mark.parametrize('rule', [TopK, Attention])
@pytest.mark.parametrize(
    'reach, message',
    [
        ((2.5, 20), r'reach of _Rows.* is \(2.5, 20\); it must be None or two whole numbers'),
        (3, 'is 3; it must be None or two whole numbers'),
        ((1, 20), r'allows the offset \(-2, -16\), which is beyond its reach \(1, 20\)'),
    ],
)
def test_rejects_a_wrong_reach(rule, reach, message):
    with pytest.raises(ValueError, match=message):
        rule(region=_Rows(2.5, reach)).check_grid((9, 17), Memory(), Execution())
    rule(region=_Rows(2.5, (2, 16))).check_grid((9, 17), Memory(), Execution())
