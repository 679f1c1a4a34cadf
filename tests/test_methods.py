"""Methods, and the flat settings that name them; DINO's against its released code."""

import dataclasses
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags as absl_flags

import jaxprop
from jaxprop import Disk, Propagation, Region, Rule, Square, config_files, methods, rules
from tests.support import REFERENCE

PUBLISHED = sorted(
    name
    for name, value in vars(methods).items()
    if inspect.isfunction(value) and value.__annotations__.get('return') is jaxprop.Propagation
    if name != 'from_settings'
)


def test_published_are_found():
    assert {'crw', 'vfs', 'dino', 'uvc', 'uvc_tracked', 'timecycle', 'corrflow', 'mast'} <= set(
        PUBLISHED
    )


@pytest.mark.parametrize('name', PUBLISHED)
def test_settings_and_back(name):
    method = getattr(methods, name)()
    flat = methods.settings(method)
    assert methods.from_settings(**flat) == method
    assert methods.from_settings(method=name) == method
    # The other way round, and with the values of another method underneath.
    assert methods.settings(methods.from_settings(**flat)) == flat
    assert methods.from_settings(method='vfs', **flat) == method


@pytest.mark.parametrize(
    'method',
    [
        jaxprop.Propagation(),
        jaxprop.Propagation(
            memory=jaxprop.Memory(num_frames=3, step=2, keep_first=False, kept_frames=(4, 9)),
            rule=jaxprop.Attention(
                temperature=0.3, region=jaxprop.Everywhere(), aggregation='per_frame'
            ),
            normalize_features=False,
            feedback='min_max',
        ),
        jaxprop.Propagation(rule=jaxprop.Attention(softmax='frame', region=jaxprop.Square(4))),
        jaxprop.Propagation(rule=jaxprop.TrackedBoxes(k=3, softmax='neighbors', cells='corner')),
        jaxprop.Propagation(rule=jaxprop.PredictedWindow(radius=5.0, outside='zero')),
    ],
    ids=lambda method: type(method.rule).__name__,
)
def test_settings_and_back_of_other_methods(method):
    assert methods.from_settings(**methods.settings(method)) == method


def test_nothing_given_is_crw():
    assert methods.from_settings() == methods.crw() == methods.from_settings(method='')


def test_given_values_replace_those_of_the_method():
    method = methods.from_settings(method='crw', num_neighbors=5)
    assert method.rule.k == 5
    assert method == methods.crw(k=5)
    method = methods.from_settings(method='vfs', num_context=3, radius=4, temperature=1.0)
    assert method == methods.vfs(num_frames=3, radius=4, temperature=1.0)
    assert (
        methods.from_settings(method='uvc_tracked', as_released=()).rule == jaxprop.TrackedBoxes()
    )


@pytest.mark.parametrize('none', ['none', 'None', None])
def test_no_number_of_neighbors_is_attention(none):
    method = methods.from_settings(num_neighbors=none, radius=3)
    assert method.rule == jaxprop.Attention(region=jaxprop.Disk(3))


def test_execution():
    flat = {'implementation': 'dense', 'query_chunk': 7}
    execution = methods.execution_from_settings(num_neighbors=3, **flat)
    assert execution == jaxprop.Execution(**flat)
    assert methods.execution_from_settings() == jaxprop.Execution()
    # How it is computed is no part of the method.
    assert methods.from_settings(**flat) == methods.crw()


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'num_neighbours': 5}, "'num_neighbours'; did you mean 'num_neighbors'"),
        ({'padings': 'mask'}, "'padings'; did you mean 'padding'"),
        ({'restriction': 'radios'}, "restriction is 'radios'; did you mean 'radius'"),
        (
            {'restriction': 'windowed'},
            "restriction is 'windowed'; known: none, predicted, radius, square, track$",
        ),
        ({'method': 'corflow'}, "method is 'corflow'; did you mean 'corrflow'"),
        ({'method': 'from_settings'}, "method is 'from_settings'; known: .*mast"),
        ({'as_released': ('signed_stops',)}, "'signed_stops'; did you mean 'signed_stop'"),
        ({'restriction': 'track', 'restrict_first': True}, "aggregation is 'overall'.*'track'"),
    ],
    ids=str,
)
def test_rejects(settings, message):
    with pytest.raises(ValueError, match=message):
        methods.from_settings(**settings)


_BAND = '''
import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class NarrowBand:
    """Cells of nearly the same row.

    Attributes:
      height: how many rows away is too far.
      bind_first: whether frame 0 is restricted too.
    """

    height: int = 2
    bind_first: bool = False
    reach = (100, 100)

    def allows(self, offsets):
        return jnp.abs(offsets[..., 0]) < self.height
'''


@pytest.fixture
def narrow_band(tmp_path, monkeypatch):
    """Puts a file into the folder of rules, as a user does."""
    (tmp_path / 'narrow_band.py').write_text(_BAND)
    monkeypatch.setattr(rules, '__path__', [*rules.__path__, str(tmp_path)])
    yield
    sys.modules.pop('jaxprop.rules.narrow_band', None)
    vars(rules).pop('narrow_band', None)


@pytest.mark.usefixtures('narrow_band')
def test_region_of_ones_own_is_found_by_name():
    flat = {'restriction': 'narrow_band', 'restrict_first': True, 'num_neighbors': 2}
    method = methods.from_settings(height=1, num_context=1, **flat)
    assert dataclasses.asdict(method.rule.region) == {'height': 1, 'bind_first': True}
    assert methods.settings(method)['restriction'] == 'narrow_band'
    assert methods.from_settings(**methods.settings(method)) == method
    assert methods.from_settings(**flat).rule.region.height == 2
    with pytest.raises(ValueError, match="'heigth'; did you mean 'height'"):
        methods.from_settings(heigth=1, **flat)
    with pytest.raises(ValueError, match="did you mean 'narrow_band'"):
        methods.from_settings(restriction='narow_band')
    # Labels stay in their rows.
    features = jax.random.normal(jax.random.key(0), (3, 4, 5, 6))
    label = jnp.zeros((4, 5, 1)).at[2].set(1)
    labels = jaxprop.propagate_video(features, label, method)
    np.testing.assert_allclose(labels, np.broadcast_to(label, labels.shape), atol=1e-6)


def test_parameter_of_another_region_is_unknown():
    with pytest.raises(ValueError, match="no setting 'height'"):
        methods.from_settings(height=1)


@pytest.mark.parametrize('num_frames, reach, k', [(4, 3, 5), (7, 12, 5), (2, 2, 20)])
@pytest.mark.parametrize('implementation', ['dense', 'windowed'])
def test_dino_as_released(num_frames, reach, k, implementation):
    reference = np.load(REFERENCE / 'dino_propagation.npz')
    method = methods.dino(k=k, num_frames=num_frames, reach=reach)
    found = jaxprop.propagate_video(
        reference['features'],
        reference['first_label'],
        method,
        execution=jaxprop.Execution(implementation=implementation),
    )
    expected = reference[f'n{num_frames}_reach{reach}_k{k}']
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def slow_nearest(features, first_label, k, num_frames, temperature, allowed):
    """DINO's and DINOv3's steps, one target cell after the other, in double precision.

    `allowed` says of (rows, columns) between target and context cell whether it may be copied.
    """
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True).astype(np.float64)
    labels, (height, width) = [first_label], features.shape[1:3]
    for t in range(1, len(features)):
        label = np.zeros_like(first_label)
        frames = [0, *range(max(1, t - num_frames), t)]
        for i, j in np.ndindex(height, width):
            near = [
                (unit[s, y, x] @ unit[t, i, j], labels[s][y, x])
                for s in frames
                for y, x in np.ndindex(height, width)
                if allowed(y - i, x - j)
            ]
            best = sorted(near, key=lambda pair: -pair[0])[:k]
            weights = np.exp(np.array([score for score, _ in best]) / temperature)
            label[i, j] = weights @ np.array([y for _, y in best]) / weights.sum()
        labels.append(label)
    return np.stack(labels)


@pytest.mark.parametrize('implementation', ['dense', 'windowed'])
@pytest.mark.parametrize('reach', [3, 5])  # At 5 a distance of 3 and 4 is still allowed.
def test_dinov3_as_released(reach, implementation):
    reference = np.load(REFERENCE / 'dino_propagation.npz')
    features, first_label = reference['features'][:6], reference['first_label']
    method = methods.dinov3(num_frames=3, reach=reach)
    execution = jaxprop.Execution(implementation=implementation)
    found = jaxprop.propagate_video(features, first_label, method, execution=execution)
    expected = slow_nearest(features, first_label, 5, 3, 0.2, lambda y, x: y**2 + x**2 <= reach**2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_circles_of_dinov3_hold_their_edge():
    offsets = np.stack(np.meshgrid(*[np.arange(-70, 71)] * 2, indexing='ij'), axis=-1)
    distances = np.hypot(offsets[..., 0], offsets[..., 1])
    for reach in (1, 2, 5, 12, 30, 65):
        region = methods.dinov3(reach=reach).rule.region
        np.testing.assert_array_equal(region.allows(offsets), distances <= reach)
        assert region.reach[0] >= reach and region.bind_first


def test_factors_of_transformers():
    """Transformers that are evaluated with DINO's, CRW's or VFS's code have its factors."""
    assert methods.rsp() == methods.dino(k=7, num_frames=30, reach=30)
    assert methods.crop_mae() == methods.crw(k=7, radius=20, temperature=0.7)
    spa = methods.spa_then_temp()
    assert spa.memory == methods.vfs().memory
    assert spa.rule == dataclasses.replace(methods.vfs().rule, region=Square(36, bind_first=True))


def test_every_factor_is_set_by_a_flag():
    flags = {
        'aggregation': ('per_frame', 'per_frame'),
        'temperature': ('0.5', 0.5),
        'num_neighbors': ('none', None),
        'num_context': ('4', 4),
        'context_step': ('2', 2),
        'keep_first': ('false', False),
        'kept_frames': ('(5,)', (5,)),
        'padding': ('mask', 'mask'),
        'restriction': ('square', 'square'),
        'radius': ('3.0', 3.0),
        'restrict_first': ('true', True),
        'softmax': ('frame', 'frame'),
        'normalize_features': ('false', False),
        'feedback': ('hard', 'hard'),
        'as_released': ('()', ()),
        'implementation': ('batched', 'batched'),
        'precision': ('float16x3', 'float16x3'),
        'query_chunk': ('32', 32),
    }
    arguments = [f'--config.propagation.{name}={text}' for name, (text, _) in flags.items()]
    values = absl_flags.FlagValues()
    rest = config_files.define_flags(['', *arguments], 'davis_crw', ('eval',), values)
    values(rest)
    section = values['config'].value.propagation.to_dict()
    found = {
        **methods.settings(methods.from_settings(**section)),
        **dataclasses.asdict(methods.execution_from_settings(**section)),
    }
    # Without frame 0 nothing of it is restricted.
    assert found == {name: value for name, (_, value) in flags.items()}


@pytest.mark.usefixtures('narrow_band')
def test_parameters_of_an_own_region_are_set_by_flags():
    arguments = [
        '',
        '--config.propagation.restriction=narrow_band',
        '--config.propagation.height=3',
    ]
    values = absl_flags.FlagValues()
    values(config_files.define_flags(arguments, 'davis_crw', ('eval',), values))
    method = methods.from_settings(**values['config'].value.propagation.to_dict())
    assert method.rule.region.height == 3
    assert methods.settings(method)['restriction'] == 'narrow_band'


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnRule(Rule):
    strength: float = 1.0
    region: Region = Disk(4.0)


def test_a_rule_of_ones_own_is_not_taken_for_another():
    method = Propagation(rule=OwnRule(region=Square(3.0)))
    found = methods.settings(method)
    assert found['restriction'] == 'own_rule' and found['region'] == 'square'
    assert found['radius'] == 3.0 and found['strength'] == 1.0
    assert methods.settings(Propagation(rule=OwnRule())) != methods.settings(methods.crw())


@pytest.mark.parametrize('name', ['stop', 'cells', 'outside', 'label_offset'])
def test_errors_of_releases_are_set_by_as_released_alone(name):
    with pytest.raises(ValueError, match=f"no setting '{name}'"):
        methods.from_settings(method='uvc_tracked', **{name: 'absolute'})


@pytest.mark.parametrize(
    'settings',
    [
        {'num_context': '3'},
        {'context_step': 1.5},
        {'kept_frames': 5},
        {'kept_frames': ('a',)},
        {'radius': 'wide'},
        {'temperature': 'warm'},
        {'num_neighbors': 2.5},
    ],
)
def test_wrong_types_are_value_errors(settings):
    with pytest.raises(ValueError):
        methods.from_settings(**settings)


def test_numbers_of_numpy_are_numbers():
    method = methods.from_settings(num_neighbors=np.int64(5), radius=np.float32(3), num_context=4)
    assert method.rule.k == 5
