import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop.geometry import affine_places, sample
from jaxprop.models.heads import TransformHead
from jaxprop.objectives import timecycle
from tests.objectives.support import (
    RNG,
    TinyBackbone,
    assert_trees_close,
    clips,
    compiled,
    descend,
    make_step,
    on_devices,
    released,
)

OFFSET = 227 / 210
SCALE = 1 / 3
T = 512**-0.5


class Backbone(TinyBackbone):
    stride = 2


SMALL = {
    'frame_size': 18, 'patch_size': 6, 'hidden': (4, 4), 'head_kernel': 2, 'num_windows': 4,
    'num_salient': 3,
}  # fmt: skip
EXAMPLES = clips(2, num_frames=4)


@pytest.fixture(scope='module')
def arrays():
    return {key: jnp.asarray(value) for key, value in released('pretexts_video.npz', 'tc_').items()}


@pytest.fixture(scope='module')
def tiny():
    objective = timecycle.objective(Backbone(), **SMALL, detach_steps=1)
    variables = compiled(objective.init)(jax.random.key(0), EXAMPLES)
    return make_step(objective), variables['params'], variables['state']


def released_head(arrays):
    return {
        'conv1': {'kernel': arrays['head_conv1']},
        'conv2': {'kernel': arrays['head_conv2']},
        'dense': {'kernel': arrays['head_dense'].T, 'bias': arrays['head_bias']},
    }


def predict(head, affinities):
    outputs = TransformHead((8, 4), 4).apply({'params': head}, affinities)
    return timecycle.theta_of(outputs, SCALE)


def test_losses_and_gradients_are_the_released_codes(arrays):
    def loss(head, clip, patch, target, crop_offset):
        terms = timecycle.cycle_terms(
            lambda affinities: predict(head, affinities),
            clip,
            patch,
            target,
            arrays['theta'],
            temperature=T,
            crop_offset=crop_offset,
            inlier_offset=OFFSET,
        )
        cycles = [terms[f'cycle_{i}'] for i in (1, 2, 3, 4)]
        return terms['inlier'] + 0.1 * terms['skip'] + 0.02 * sum(cycles) / 4, (terms, cycles)

    step = compiled(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))
    inputs = released_head(arrays), arrays['clip'], arrays['patch'], arrays['target']
    # The release under Python 2 and 3.
    for tag, crop_offset in (('py2', 1.0), ('py3', OFFSET)):
        (value, (terms, cycles)), (of_head, of_clip, of_patch, of_target) = step(
            *inputs, crop_offset
        )
        np.testing.assert_allclose(value, arrays[f'{tag}_loss'], rtol=2e-5)
        np.testing.assert_allclose(cycles, arrays[f'{tag}_loss_cycles'], rtol=2e-5)
        np.testing.assert_allclose(terms['skip'], arrays[f'{tag}_loss_skip'], rtol=2e-5)
        np.testing.assert_allclose(terms['inlier'], arrays[f'{tag}_loss_inlier'], rtol=2e-5)
        for name, gradient in (
            ('patch', of_patch),
            ('target', of_target),
            ('bias', of_head['dense']['bias']),
            ('clip_norm', jnp.linalg.norm(of_clip)),
            ('conv1_norm', jnp.linalg.norm(of_head['conv1']['kernel'])),
        ):
            expected = arrays[f'{tag}_gradient_{name}']
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                gradient, expected, rtol=2e-4, atol=2e-4 * scale, err_msg=name
            )


def test_each_track_is_the_released_codes(arrays):
    @compiled
    def tracks(crop_offset):
        found = []

        def record(affinities):
            found.append(predict(released_head(arrays), affinities))
            return found[-1]

        timecycle.cycle_terms(
            record,
            *(arrays[name] for name in ('clip', 'patch', 'target', 'theta')),
            temperature=T,
            crop_offset=crop_offset,
        )
        return [thetas.reshape(2, -1, 2, 3) for thetas in found]

    # The release under Python 2 and 3.
    for tag, crop_offset in (('py2', 1.0), ('py3', OFFSET)):
        direct, skip, *steps, last = tracks(crop_offset)
        # Three steps back, after the direct one to the last frame, and three forward. The cycle of
        # length c turns at frame 4 - c.
        back, forward = [direct[:, 3:], *steps[:3]], steps[3:]
        lengths = range(1, 5)
        of_cycles = {
            'direct': direct,
            'skip': skip,
            'back': jnp.concatenate([step for c in lengths for step in back[:c]], axis=1),
            'forward': jnp.stack(
                [step[:, 4 - c] for c in lengths for step in (*forward[: c - 1], last)], axis=1
            ),
        }
        for name, thetas in of_cycles.items():
            expected = arrays[f'{tag}_{name}_thetas']
            np.testing.assert_allclose(thetas, expected, rtol=2e-5, atol=2e-6, err_msg=name)


def test_crops_are_the_released_codes(arrays):
    crop = compiled(lambda features, theta: sample(features, affine_places(theta, 10, 30)))
    for features, theta, expected in (
        (arrays['target'], arrays['theta'], arrays['target_crop']),
        (arrays['clip'][:, 0], arrays['py2_direct_thetas'][:, 0], arrays['crop_frame0']),
    ):
        crops = crop(features, theta)
        np.testing.assert_allclose(crops, expected, atol=1e-5)


@pytest.mark.parametrize('number', range(4))
def test_scores_are_the_released_codes(number, arrays):
    query, frame = arrays['patch'], arrays['clip'][:, number]
    query, frame = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, frame))
    logits = np.einsum('bijc,byxc->bijyx', query, frame) / T
    affinities = jax.nn.softmax(logits, axis=(3, 4))
    if number == 0:
        np.testing.assert_allclose(
            affinities[:, 3, 7].mT.reshape(2, -1), arrays['affinity_frame0_cell'], rtol=1e-5
        )
    score = compiled(timecycle.inlier_score)
    for offset, name in ((OFFSET, 'released'), (1.0, 'one')):
        scores = score(affinities, arrays['py2_direct_thetas'][:, number], offset)
        np.testing.assert_allclose(scores, arrays[f'inlier_score_{name}'][:, number], rtol=1e-5)


def test_scores_by_hand():
    uniform = jnp.full((1, 10, 10, 30, 30), 1 / 900)
    centre = timecycle.theta_of(jnp.zeros((1, 3)), SCALE)
    score = compiled(jax.value_and_grad(lambda x: timecycle.inlier_score(uniform, x)[0]))
    np.testing.assert_allclose(score(centre)[0], 0.00110120, rtol=1e-5)
    value, gradient = score(centre.at[0, 0, 2].set(3))
    assert value == 0 and np.isfinite(gradient).all()


def test_distance_is_that_of_a_grid_of_points():
    turned = timecycle.theta_of(jnp.array([[0, 0.25, np.pi / 2], [0.3, -0.2, 0.4]]), SCALE)
    other = timecycle.theta_of(jnp.array([[0.5, 0, 0], [0.1, 0.5, -0.7]]), SCALE)
    distances = timecycle.point_distance(turned, other)
    np.testing.assert_allclose(distances[0], 0.4762427, rtol=1e-5)
    x, y = np.meshgrid(*[np.linspace(-1, 1, 20)] * 2)
    points = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    squares = np.square(np.asarray(turned) @ points - np.asarray(other) @ points).sum(axis=1)
    np.testing.assert_allclose(distances, squares.mean(axis=1), rtol=1e-5)


def test_the_heads_channels_are_column_by_column():
    affinities = np.zeros((1, 7, 7, 30, 30), np.float32)
    affinities[0, 3, 3, 2, 5] = 1
    head = TransformHead((2, 1), 4)
    params = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32), jax.eval_shape(head.init, RNG, affinities)
    )['params']
    params['conv1']['kernel'][:, :, 152, 0] = 1
    params['conv2']['kernel'][0, 0, 0, 0] = 1
    params['dense']['kernel'][:] = 1
    assert head.apply({'params': params}, affinities).tolist() == [[1, 1, 1]]


def test_patches_are_cut_where_something_moves():
    frames = np.zeros((64, 36, 36, 3), np.float32)
    following = frames.copy()
    following[:, 20:24, 8:12] = 1
    thetas = compiled(timecycle.salient_thetas, static_argnames=('scale', 'num_salient'))(
        jax.random.split(RNG, 64), frames, following, scale=SCALE, num_salient=1
    )
    # Windows of 12 pixels, 4 apart: the first that holds the moving box is in row 3, column 0.
    x, y = 1.5 * thetas[:, 0, 2], 1.5 * thetas[:, 1, 2]
    assert -1 <= x.min() and x.max() < -1 + 1 / 6
    assert -1 / 6 <= y.min() < -0.1 and 0.1 < y.max() < 1 / 6
    angles = np.rad2deg(np.arctan2(thetas[:, 1, 0], thetas[:, 0, 0]))
    assert -45 <= angles.min() < -30 and 30 < angles.max() < 45
    np.testing.assert_allclose(np.linalg.det(thetas[:, :, :2]), SCALE**2, rtol=1e-5)


def test_terms_add_up_and_it_learns(tiny):
    step, params, state = tiny
    (loss, (after, metrics)), gradient = step(params, state, EXAMPLES, RNG)
    assert set(metrics) == {'inlier', 'skip', 'cycle', 'loss', 'cycle_1', 'cycle_2'}
    assert loss == metrics['loss'] and after['step'] == 1
    total = metrics['inlier'] + metrics['skip'] + metrics['cycle']
    np.testing.assert_allclose(loss, total, rtol=1e-6)
    cycles = (metrics['cycle_1'] + metrics['cycle_2']) / 2
    np.testing.assert_allclose(metrics['cycle'], 0.02 * cycles, rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    losses = descend(step, params, state, EXAMPLES, num=30, rate=1.0)
    assert losses[-1] < losses[0] - 0.01


def test_devices_change_nothing(tiny):
    _, params, state = tiny
    examples = {'frames': EXAMPLES['frames'][:, 1:]}
    alone = compiled(timecycle.objective(Backbone(), **SMALL).loss)(params, state, examples, RNG)
    objective = timecycle.objective(Backbone(norm_axis_name='device'), **SMALL, axis_name='device')
    spread = on_devices(objective, 2, gradient=False)(params, state, examples, RNG)
    assert_trees_close(spread, alone, rtol=1e-3, atol=1e-5)


def test_at_first_the_backbone_can_be_detached(tiny):
    step, params, state = tiny
    (first, of_head), (second, other) = (
        (result[0][0], result[1])
        for number in (0, 1)
        for result in [step(params, {**state, 'step': jnp.int32(number)}, EXAMPLES, RNG)]
    )
    assert first == second
    assert_trees_close(of_head['head'], other['head'], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('number, flows', [(0, (False, False, True)), (1, (True, True, True))])
def test_then_only_the_patchs_own_frame_has_a_gradient(number, flows, tiny, monkeypatch):
    def terms(predict, clip, patch, target, *arguments, **settings):
        return {
            name: jnp.sum(features**3)
            for name, features in (('inlier', clip), ('skip', patch), ('cycle_1', target))
        }

    monkeypatch.setattr(timecycle, 'cycle_terms', terms)
    objective = timecycle.objective(Backbone(), **SMALL, detach_steps=1)
    _, params, state = tiny
    state = {**state, 'step': jnp.int32(number)}
    gradients = compiled(
        jax.jacrev(lambda params: objective.loss(params, state, EXAMPLES, RNG)[1][1])
    )(params)
    found = [
        bool(np.any(gradients[name]['backbone']['conv']['kernel']))
        for name in ('inlier', 'skip', 'cycle')
    ]
    assert tuple(found) == flows


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'frame_size': 19}, 'frame_size and patch_size are 19 and 6'),
        ({'head_kernel': 3}, 'needed: at least 5 cells'),
        ({'num_salient': 17}, 'from 1 to'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        timecycle.objective(Backbone(), **(SMALL | settings))


def test_other_clips_are_refused():
    objective = timecycle.objective(Backbone(), **SMALL)
    for shape, message in (
        ((1, 2, 20, 20, 3), 'T at least 3: the frames'),
        ((1, 3, 8, 20, 3), '8 x 20'),
    ):
        with pytest.raises(ValueError, match=message):
            objective.loss({}, {}, {'frames': np.zeros(shape, np.uint8)}, RNG)
