"""Propagation against loops in NumPy and the official numbers, and its properties."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import Everywhere
from jaxprop.labels import harden, min_max_normalize
from tests.flat import flat, init_context, propagate_step, propagate_video
from tests.support import REFERENCE

GRID = (5, 7)

step = jax.jit(propagate_step, static_argnames='config')


def _video(num_frames=6, grid=GRID, seed=0):
    """Makes features, and soft labels that don't sum to one over the classes."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num_frames, *grid, 4)).astype(np.float32)
    return features, rng.random((*grid, 3)).astype(np.float32)


def _config(**settings):
    return flat(
        **{'num_context': 2, 'num_neighbors': 3, 'temperature': 0.1, 'radius': 2.5, **settings}
    )


def _propagate_by_steps(features, first_label, config):
    context = init_context(features[0], first_label, config=config)
    labels = [first_label]
    for frame in features[1:]:
        context, label = step(context, frame, config=config)
        labels.append(label)
    return np.stack(labels)


def _assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


# The oracle: physical lists of context frames, every pair of cells, sums in float64.


def _oracle_frames(time, config):
    """Lists the context of frame `time`: (frame's number, whether the restriction binds it)."""
    queue = [time - 1 - i * config.context_step for i in range(config.num_context)]
    if config.padding == 'repeat_first':
        queue = [max(0, t) for t in queue]
    elif config.padding == 'first_once' or not config.keep_first:
        queue = [t for t in queue if t >= 0]
    else:
        queue = [t for t in queue if t >= 1]
    kept = [(0, config.restrict_first)] if config.keep_first else []
    kept += [(frame, True) for frame in config.kept_frames if frame < time]
    return kept + [(frame, True) for frame in queue if frame not in config.kept_frames]


def _oracle_inside(one, other, config):
    rows, columns = abs(one[0] - other[0]), abs(one[1] - other[1])
    if config.restriction == 'radius':
        return (rows * rows + columns * columns) ** 0.5 < config.radius
    return config.restriction == 'none' or max(rows, columns) < config.radius


def _oracle_label(features, known, time, target, config):
    frames = _oracle_frames(time, config)
    groups = [frames] if config.aggregation == 'overall' else [[frame] for frame in frames]
    cells = list(np.ndindex(*features.shape[1:3]))
    label = 0
    for group in groups:
        every, allowed = [], []
        for frame, bound in group:
            for cell in cells:
                logit = np.dot(features[frame][cell], features[time][target]) / config.temperature
                entry = logit, known[frame][cell]
                every.append(entry)
                if not bound or _oracle_inside(cell, target, config):
                    allowed.append(entry)
        selected = sorted(allowed, key=lambda entry: -entry[0])[: config.num_neighbors]
        domain = {'neighbors': selected, 'region': allowed, 'frame': every}[config.softmax]
        highest = max(logit for logit, _ in domain)
        denominator = sum(np.exp(logit - highest) for logit, _ in domain)
        for logit, copied in selected:
            label = label + np.exp(logit - highest) / denominator * copied / len(groups)
    return label


def _oracle(features, first_label, config):
    features = features.astype(np.float64)
    if config.normalize_features:
        features = features / np.linalg.norm(features, axis=-1, keepdims=True)
    labels, known = [first_label.astype(np.float64)], [first_label.astype(np.float64)]
    for time in range(1, len(features)):
        label = np.zeros(first_label.shape)
        for target in np.ndindex(*features.shape[1:3]):
            label[target] = _oracle_label(features, known, time, target, config)
        if config.feedback == 'min_max':
            low, high = label.min(axis=(0, 1)), label.max(axis=(0, 1))
            label = (label - low) / (high - low)
        labels.append(label)
        if config.feedback == 'hard':
            label = np.eye(label.shape[-1])[np.argmax(label, axis=-1)]
        known.append(label)
    return np.stack(labels)


def _covering_settings():
    """Makes 27 settings in which any two values of any two factors meet (orthogonal array)."""
    factors = {
        'aggregation': ('overall', 'per_frame', 'overall'),
        'softmax': ('neighbors', 'frame', 'region'),
        'restriction': ('radius', 'square', 'none'),
        'padding': ('repeat_first', 'first_once', 'mask'),
        'keep_first': (True, False, True),
        'restrict_first': (False, True, True),
        # A corner has 4 candidates at radius 1.5: fewer than 5.
        'num_neighbors': (1, 5, None),
        'normalize_features': (True, False, True),
        'feedback': ('soft', 'min_max', 'hard'),
        'temperature': (0.1, 0.4, 1.0),
        'radius': (1.5, 2, 3.7),
        'num_context': (1, 2, 3),
        'query_chunk': (4, 35, 128),
    }
    # One direction for each line through the origin of the 3-d space over the numbers modulo 3.
    directions = [
        d for d in itertools.product(range(3), repeat=3) if next(filter(None, d), None) == 1
    ]
    assert len(directions) == len(factors)
    settings = []
    for point in itertools.product(range(3), repeat=3):
        levels = np.dot(directions, point) % 3
        settings.append(
            {name: values[level] for (name, values), level in zip(factors.items(), levels)}
        )
    return settings


@pytest.mark.parametrize(
    'settings',
    _covering_settings(),
    ids=lambda s: '-'.join(
        str(value) for name, value in s.items() if name in ('aggregation', 'softmax', 'restriction')
    ),
)
def test_equals_oracle(settings):
    features, label = _video()
    config = flat(**settings)
    _assert_close(_propagate_by_steps(features, label, config), _oracle(features, label, config))


@pytest.mark.parametrize(
    'settings',
    [
        # As CRW, VFS, UVC, TimeCycle and CorrFlow propagate.
        {'temperature': 0.05},
        {'padding': 'first_once', 'restrict_first': True},
        {
            'padding': 'mask',
            'aggregation': 'per_frame',
            'softmax': 'frame',
            'restriction': 'none',
            'normalize_features': False,
            'temperature': 1.0,
        },
        {
            'aggregation': 'per_frame',
            'softmax': 'frame',
            'restriction': 'none',
            'feedback': 'min_max',
        },
        {
            'num_context': 1,
            'keep_first': False,
            'num_neighbors': None,
            'restriction': 'square',
            'softmax': 'region',
            'feedback': 'hard',
            'normalize_features': False,
            'temperature': 1.0,
        },
        # Frame 0 alone.
        {'num_context': 0, 'padding': 'mask', 'aggregation': 'per_frame'},
        # Context frames as MAST chooses them, and others that are further apart.
        {
            'num_context': 3,
            'context_step': 2,
            'kept_frames': (3,),
            'padding': 'mask',
            'num_neighbors': None,
            'restriction': 'square',
            'softmax': 'region',
        },
        {'context_step': 3, 'kept_frames': [2, 4], 'aggregation': 'per_frame', 'keep_first': False},
        {'context_step': 2, 'padding': 'first_once', 'implementation': 'windowed'},
    ],
    ids=['crw', 'vfs', 'uvc', 'timecycle', 'corrflow', 'frame_0', 'mast', 'far', 'farther'],
)
def test_published_systems_equal_oracle(settings):
    features, label = _video(num_frames=9, seed=1)
    config = _config(**settings)
    _assert_close(propagate_video(features, label, config=config), _oracle(features, label, config))


# Official numbers.

_PER_FRAME = {
    'aggregation': 'per_frame',
    'softmax': 'frame',
    'padding': 'mask',
    'restriction': 'none',
    'temperature': 1.0,
}
_OFFICIAL = {
    'overall_radius4_n3_k5_T005': {'radius': 4, 'temperature': 0.05},
    'overall_global_n3_k5_T005': {'restriction': 'none', 'temperature': 0.05},
    'per_frame_global_n3_k5_inverse_T1': {**_PER_FRAME, 'normalize_features': False},
    'per_frame_l2_global_n3_k5_inverse_T40': {**_PER_FRAME, 'temperature': 1 / 40},
}


def _official(name, **settings):
    reference = np.load(REFERENCE / 'propagation.npz')
    config = _config(num_context=3, num_neighbors=5, **_OFFICIAL[name], **settings)
    return reference['features'], reference['first_label'], reference[name], config


@pytest.mark.usefixtures('all_optimizations')
@pytest.mark.parametrize('implementation', ['dense', 'windowed'])
@pytest.mark.parametrize('name', _OFFICIAL)
def test_official_video(name, implementation):
    features, label, expected, config = _official(name, implementation=implementation)
    if implementation == 'windowed' and _OFFICIAL[name].get('restriction') == 'none':
        with pytest.raises(ValueError, match='windowed'):
            propagate_video(features, label, config=config)
        return
    _assert_close(propagate_video(features, label, config=config), expected)


@pytest.mark.parametrize('name', _OFFICIAL)
def test_official_steps(name):
    features, label, expected, config = _official(name)
    _assert_close(_propagate_by_steps(features, label, config), expected)


@pytest.mark.parametrize('name', _OFFICIAL)
def test_official_padded_batch(name):
    features, label, expected, config = _official(name)
    # Beside the official video a shorter one, backwards; both padded, with what must not matter.
    length, other_length = len(features), 6
    batch = (
        np.random.default_rng(0)
        .standard_normal((2, length + 2, *features.shape[1:]))
        .astype(np.float32)
    )
    batch[0, :length] = features
    batch[1, :other_length] = features[::-1][:other_length]
    found = jax.vmap(functools.partial(propagate_video, config=config))(
        batch, np.stack([label, label]), np.array([length, other_length])
    )
    _assert_close(found[0, :length], expected)
    np.testing.assert_array_equal(found[0, length:], 0)
    other = _propagate_by_steps(batch[1, :other_length], label, config)
    _assert_close(found[1, :other_length], other)
    np.testing.assert_array_equal(found[1, other_length:], 0)


# Properties.


@pytest.mark.parametrize('aggregation, most', [('overall', 105), ('per_frame', 35)])
def test_all_neighbors_are_attention(aggregation, most):
    features, label = _video()
    config = _config(aggregation=aggregation, restriction='none', num_neighbors=most)
    attention = config.replace(num_neighbors=None)
    _assert_close(
        propagate_video(features, label, config=config),
        propagate_video(features, label, config=attention),
    )


@pytest.mark.parametrize('aggregation', ['overall', 'per_frame'])
def test_still_video_keeps_its_label(aggregation):
    features, label = _video()
    still = np.broadcast_to(features[0], features.shape)
    config = _config(aggregation=aggregation, num_neighbors=1, restriction='none')
    labels = propagate_video(still, label, config=config)
    np.testing.assert_allclose(labels, np.broadcast_to(label, labels.shape), rtol=1e-6)


@pytest.mark.parametrize('aggregation', ['overall', 'per_frame'])
@pytest.mark.parametrize('softmax', ['neighbors', 'frame'])
def test_mass(aggregation, softmax):
    features, label = _video()
    label = label / label.sum(axis=-1, keepdims=True)
    config = _config(aggregation=aggregation, softmax=softmax, padding='mask')
    mass = np.sum(propagate_video(features, label, config=config)[1:], axis=-1)
    if softmax == 'neighbors':
        _assert_close(mass, 1)
    else:
        # Unselected cells' weights are lost, again at every step.
        assert np.all(mass > 0) and np.all(mass < 1)
        assert mass[-1].mean() < mass[0].mean()


def test_classes_do_not_interact():
    features, label = _video()
    order = [2, 0, 1]
    config = _config(feedback='min_max')
    _assert_close(
        propagate_video(features, label[..., order], config=config),
        propagate_video(features, label, config=config)[..., order],
    )


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'aggregation': 'per_frame', 'softmax': 'frame'},
        {'num_neighbors': None},
    ],
)
def test_query_chunk_changes_nothing(settings):
    features, label = _video()
    whole, ones, eights = (
        propagate_video(features, label, config=_config(query_chunk=chunk, **settings))
        for chunk in (1000, 1, 8)
    )
    np.testing.assert_allclose(ones, whole, atol=1e-6)
    np.testing.assert_allclose(eights, whole, atol=1e-6)


def test_one_program_and_constant_memory():
    features, label = _video(num_frames=12)
    config = _config(padding='mask')
    # A function of its own: jax.jit of the same function would share its programs.
    compiled = jax.jit(functools.partial(propagate_step, config=config))
    context = init_context(features[0], label, config=config)
    signature = jax.tree.map(lambda x: (x.shape, x.dtype), context)
    valid = [int(context.valid.sum())]
    for frame in features[1:]:
        context, _ = compiled(context, frame)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), context) == signature
        valid.append(int(context.valid.sum()))
    assert compiled._cache_size() == 1
    assert context.time == 12
    assert valid == [1, 2] + 10 * [3]
    # The queue holds the two latest frames, slot 0 the first one.
    held = [features[i] / np.linalg.norm(features[i], axis=-1, keepdims=True) for i in (0, 10, 11)]
    _assert_close(context.features[0], held[0])
    found = sorted(context.features[1:], key=lambda frame: float(jnp.sum((frame - held[1]) ** 2)))
    _assert_close(np.stack(found), np.stack(held[1:]))


@pytest.mark.usefixtures('all_optimizations')
@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'aggregation': 'per_frame', 'softmax': 'frame'},
        {'num_neighbors': None},
    ],
)
def test_affinities_of_one_frame_at_a_time(settings):
    features, label = _video(num_frames=2, grid=(20, 20))

    def working_memory(num_context):
        config = _config(
            num_context=num_context, restriction='none', implementation='dense', **settings
        )
        context = init_context(features[0], label, config=config)
        compiled = step.lower(context, features[1], config=config).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # 40 frames more, and less than the affinities of one chunk of queries with 10 of them.
    affinities = 128 * features[0, ..., 0].size * 4
    assert working_memory(42) - working_memory(2) < 10 * affinities


@pytest.mark.usefixtures('all_optimizations')
@pytest.mark.parametrize(
    'settings',
    [
        {'implementation': 'windowed'},
        {'implementation': 'screened'},
        {'num_neighbors': None, 'kept_frames': (5,)},
        {'restriction': 'track', 'aggregation': 'per_frame', 'restrict_first': True},
    ],
)
def test_a_frame_is_stored_without_a_copy_of_the_context(settings):
    config = _config(num_context=9, **settings)
    features = jnp.zeros((12, 14, 32))
    context = init_context(features, jnp.zeros((12, 14, 3)), config=config)
    stepping = jax.jit(functools.partial(propagate_step, config=config), donate_argnums=0)
    program = stepping.lower(context, features).compile().as_text()
    for stored in context.features, context.labels:
        shape = ','.join(map(str, stored.shape))
        assert re.search(rf'f32\[{shape}\]\S* (fusion|dynamic-update-slice)\(', program)
        assert not re.search(rf'f32\[{shape}\]\S* copy\(', program)


def test_one_program_for_every_length():
    features, label = _video()
    propagate = jax.jit(functools.partial(propagate_video, config=_config()))
    for length in (2, 3, 6):
        labels = propagate(features, label, length)
        real = np.any(labels != 0, axis=(1, 2, 3))
        np.testing.assert_array_equal(real, np.arange(6) < length)
    assert propagate._cache_size() == 1


def test_arrays_of_numpy_and_jax_give_the_same():
    features, label = _video(num_frames=2)
    config = _config(normalize_features=False)
    _, of_numpy = propagate_step(
        init_context(features[0], label, config=config), features[1], config=config
    )
    first, second = jnp.asarray(features)
    _, of_jax = propagate_step(
        init_context(first, jnp.asarray(label), config=config), second, config=config
    )
    _assert_close(of_numpy, of_jax)


def test_video_of_one_frame():
    features, label = _video(num_frames=1)
    np.testing.assert_array_equal(propagate_video(features, label, config=_config()), label[None])


@pytest.mark.parametrize(
    'settings',
    [
        {'restriction': 'none'},
        {'padding': 'mask', 'implementation': 'windowed'},
        {'padding': 'mask', 'aggregation': 'per_frame', 'softmax': 'region', 'num_neighbors': 12},
        {'padding': 'mask', 'softmax': 'frame', 'num_neighbors': None},
    ],
)
def test_gradients(settings):
    features, label = _video(num_frames=3)
    config = _config(temperature=1.0, **settings)

    def total(features):
        return jnp.sum(propagate_video(features, label, config=config))

    gradient_of_total = jax.jit(jax.grad(total))
    gradient = gradient_of_total(features)
    # Finite differences of the oracle: in float64 the step is too small to change a selection.
    direction = np.random.default_rng(1).standard_normal(features.shape)
    high, low = (
        np.sum(_oracle(features + sign * 1e-6 * direction, label, config)) for sign in (1, -1)
    )
    slope = (high - low) / 2e-6
    assert abs(slope) > 0.1
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-3)
    features[1, 2, 3] = 0
    gradient = gradient_of_total(features)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[1, 2, 3], 0)
    assert np.all(np.any(gradient != 0, axis=(1, 2, 3)))


def test_min_max_normalize():
    label = np.stack([[[2, 4], [3, 6]], [[5, 5], [5, 5]], [[0, 0], [0, 0]]], axis=-1)
    expected = np.stack([[[0, 0.5], [0.25, 1]], np.zeros((2, 2)), np.zeros((2, 2))], axis=-1)
    np.testing.assert_array_equal(min_max_normalize(label.astype(np.float32)), expected)


def test_harden_takes_the_first_of_ties():
    label = np.array([[0.2, 0.7, 0.1], [0.4, 0.4, 0.2], [0, 0, 0]], np.float32)
    np.testing.assert_array_equal(harden(label), [[0, 1, 0], [1, 0, 0], [1, 0, 0]])


# Errors.


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'aggregation': 'mean'}, "aggregation is 'mean'"),
        ({'padding': 'zeros'}, "padding is 'zeros'"),
        ({'restriction': 'circle'}, "restriction is 'circle'"),
        ({'softmax': 'topk'}, "softmax is 'topk'"),
        ({'feedback': 'sharp'}, "feedback is 'sharp'"),
        ({'implementation': 'fast'}, "implementation is 'fast'"),
        ({'temperature': 0.0}, 'temperature is 0.0'),
        ({'temperature': -0.5}, 'temperature is -0.5'),
        ({'temperature': float('nan')}, 'temperature is nan'),
        ({'temperature': float('inf')}, 'temperature is inf'),
        ({'num_neighbors': 0}, r'k \(num_neighbors\) is 0'),
        ({'num_context': -1}, 'num_frames is -1'),
        ({'num_context': 0, 'keep_first': False}, 'num_frames is 0 with keep_first=False'),
        ({'radius': 0.5}, 'radius is 0.5'),
        ({'radius': float('nan'), 'restriction': 'square'}, 'radius is nan'),
        ({'radius': float('inf')}, 'radius is inf'),
        ({'query_chunk': 0}, 'query_chunk is 0'),
        ({'context_step': 0}, '^step is 0'),
        ({'kept_frames': (5, 5)}, r'kept_frames is \(5, 5\)'),
        ({'kept_frames': (0,)}, r'kept_frames is \(0,\)'),
        ({'as_released': ('typo',)}, "as_released holds 'typo'; known: corner_cells"),
    ],
)
def test_rejects_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        flat(**settings)


def test_radius_is_free_without_restriction():
    assert flat(restriction='none', radius=0).method.rule.region == Everywhere()


# On a grid of 5 x 7 with radius 2.5 a cell in the middle has 21 candidates a frame.
@pytest.mark.parametrize(
    'settings, most',
    [
        ({'aggregation': 'per_frame'}, 21),
        ({'aggregation': 'per_frame', 'restriction': 'square'}, 25),
        ({'aggregation': 'per_frame', 'restriction': 'square', 'radius': 3.5}, 35),
        ({'aggregation': 'per_frame', 'restriction': 'none'}, 35),
        ({'aggregation': 'per_frame', 'num_context': 0}, 35),
        ({'aggregation': 'per_frame', 'num_context': 0, 'restrict_first': True}, 21),
        ({}, 77),
        ({'restrict_first': True}, 63),
        ({'keep_first': False}, 42),
        ({'restriction': 'none'}, 105),
    ],
)
def test_rejects_more_neighbors_than_candidates(settings, most):
    features, label = _video()
    init_context(features[0], label, config=_config(num_neighbors=most, **settings))
    excessive = _config(num_neighbors=most + 1, **settings)
    message = rf'k \(num_neighbors\) is {most + 1}, but a cell has at most {most} .* grid of 5x7'
    with pytest.raises(ValueError, match=message):
        init_context(features[0], label, config=excessive)
    with pytest.raises(ValueError, match=message):
        propagate_video(features, label, config=excessive)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_rejects_values_that_are_not_finite(value):
    features, label = _video()
    broken_features, broken_label = features.copy(), label.copy()
    broken_features[0, 1, 2, 3] = broken_label[4, 0, 1] = value
    with pytest.raises(ValueError, match='features hold values that are not finite'):
        propagate_video(broken_features, label, config=_config())
    with pytest.raises(ValueError, match='features hold values that are not finite'):
        init_context(broken_features[0], label, config=_config())
    with pytest.raises(ValueError, match='first label hold values that are not finite'):
        propagate_video(features, broken_label, config=_config())


def test_rejects_shapes():
    features, label = _video()
    config = _config()
    with pytest.raises(ValueError, match=r'grid of \(4, 7\), the features on \(5, 7\)'):
        propagate_video(features, label[:4], config=config)
    with pytest.raises(ValueError, match=r'grid of \(7, 5\), the features on \(5, 7\)'):
        init_context(features[0], label.swapaxes(0, 1), config=config)
    with pytest.raises(ValueError, match=r'features have shape \(5, 7, 4\)'):
        propagate_video(features[0], label, config=config)
    with pytest.raises(ValueError, match=r'first label \(5, 7\)'):
        init_context(features[0], label[..., 0], config=config)
    with pytest.raises(ValueError, match=r'features \(7, 4\)'):
        init_context(features[0, 0], label, config=config)
    context = init_context(features[0], label, config=config)
    with pytest.raises(ValueError, match=r'features are \(5, 6, 4\); .* \(5, 7, 4\)'):
        propagate_step(context, features[1, :, :6], config=config)


@pytest.mark.parametrize('dtype', ['int32', 'uint8', 'bool'])
def test_rejects_labels_that_are_not_soft(dtype):
    features, label = _video()
    with pytest.raises(ValueError, match=f'first label is {dtype}'):
        propagate_video(features, (label > 0.5).astype(dtype), config=_config())
