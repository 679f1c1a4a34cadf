"""The memory: which frames it keeps, given labels, frame 0 predicted first, half precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprop
from jaxprop import memory, methods

GRID = (8, 9)


def _video(num_frames=6, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num_frames, *GRID, 6)).astype(np.float32)
    return features, rng.random((*GRID, 3)).astype(np.float32)


def _with(method, **memory):
    return dataclasses.replace(method, memory=dataclasses.replace(method.memory, **memory))


# More neighbours than copies: with fewer frame 0 would be predicted as it was given.
WINDOWED = methods.crw(k=8, num_frames=3, radius=2.5)
METHODS = {
    'timecycle': methods.timecycle(),
    'windowed': _with(WINDOWED, predict_first=True),
    'frame 0 not kept': _with(WINDOWED, predict_first=True, keep_first=False),
    'every second frame': _with(methods.timecycle(), num_frames=2, step=2),
    'attention': jaxprop.Propagation(
        memory=jaxprop.Memory(num_frames=2, predict_first=True),
        rule=jaxprop.Attention(region=jaxprop.Square(3)),
        feedback='hard',
    ),
    'boxes': _with(methods.uvc_tracked(num_frames=3), padding='repeat_first', predict_first=True),
}


@pytest.mark.parametrize('name', METHODS)
def test_predicted_first_is_frame_0_twice(name):
    """Labels are those of a video that begins with frame 0 twice, without the second one's."""
    method = METHODS[name]
    features, label = _video()
    twice = np.concatenate([features[:1], features])
    plain = _with(method, predict_first=False)
    expected = jaxprop.propagate_video(twice, label, plain)[1:]
    found = jaxprop.propagate_video(features, label, method)
    np.testing.assert_array_equal(found[0], label)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=0, atol=1e-5)
    usual = jaxprop.propagate_video(features, label, plain)
    assert np.abs(np.asarray(found[1:] - usual[1:])).max() > 1e-3


def test_predicted_first_is_forgotten():
    """The predicted label of frame 0 is context only for the first n frames after it."""
    method = METHODS['windowed']
    features, label = _video()
    context = jaxprop.init_context(features[0], label, method)
    step = jax.jit(jaxprop.propagate_step, static_argnames='method')
    of_frame_0 = []
    for frame in features[1:]:
        frames = jaxprop.memory.read(method.memory, context)
        given = np.all(np.isclose(frames.labels, label), axis=(1, 2, 3))
        of_frame_0.append((int(given.sum()), int(np.sum(~given & (frames.numbers == 0)))))
        context, _ = step(context, frame, method)
    assert of_frame_0 == [(3, 1), (2, 1), (1, 1), (1, 0), (1, 0)]


@pytest.mark.parametrize('memory', [{'padding': 'mask'}, {'num_frames': 0}], ids=str)
def test_predicted_first_needs_copies_of_frame_0(memory):
    with pytest.raises(ValueError, match="predict_first .*padding='repeat_first'"):
        jaxprop.Memory(predict_first=True, **memory)


@pytest.mark.parametrize(
    'name, dtype',
    [('crw', jnp.float16), ('crw', jnp.bfloat16), ('uvc', jnp.float16), ('mast', jnp.float16)],
)
def test_features_of_half_precision(name, dtype):
    """Labels are those of the same numbers in float32; float16 cannot hold squares of norms."""
    method = getattr(methods, name)()
    features, label = _video(3)
    features = jnp.asarray(150 * features, dtype)
    assert np.linalg.norm(features.astype(jnp.float32), axis=-1).mean() > 256
    found = jaxprop.propagate_video(features, label, method)
    expected = jaxprop.propagate_video(features.astype(jnp.float32), label, method)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_first_labels_of_half_precision():
    features, label = _video(3)
    label = label.astype(np.float16)
    found = jaxprop.propagate_video(features, label, WINDOWED)
    expected = jaxprop.propagate_video(features, label.astype(np.float32), WINDOWED)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('method', [methods.crw(k=3, num_frames=2), methods.uvc_tracked(k=3)])
def test_a_given_label_joins_the_context_as_a_predicted_one(method):
    features, label = _video()
    context = jaxprop.init_context(features[0], label, method)
    after, predicted = jaxprop.propagate_step(context, features[1], method)
    given = jaxprop.remember(context, features[1], predicted, method)
    jax.tree.map(np.testing.assert_array_equal, given, after)
    other = jaxprop.remember(context, features[1], label, method)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(after)))
    with pytest.raises(ValueError, match='on a grid of'):
        jaxprop.remember(context, features[1], label[1:], method)


@pytest.mark.parametrize('step', [1, 2, 3])
@pytest.mark.parametrize('keep_first', [True, False])
@pytest.mark.parametrize('kept_frames', [(), (2, 4)])
def test_which_frames_are_remembered(step, keep_first, kept_frames):
    """Against lists: the kept frames, then the latest frames at a step, each frame once."""
    settings = jaxprop.Memory(
        num_frames=2, step=step, keep_first=keep_first, kept_frames=kept_frames, padding='mask'
    )

    def frame(number):
        return jnp.full((1, 1, 1), number, jnp.float32)

    context = memory.init(settings, frame(0), frame(0))
    for time in range(1, 9):
        frames = memory.read(settings, context)
        is_valid = np.asarray(frames.valid)
        # Labels show which frame a slot holds.
        held = np.asarray(frames.labels).ravel()[is_valid].astype(int).tolist()
        assert np.asarray(frames.numbers)[is_valid].tolist() == held
        kept = ([0] if keep_first else []) + [t for t in kept_frames if t < time]
        queue = [time - 1 - age for age in range(0, 2 * step, step)]
        first = 1 if keep_first else 0
        expected = kept + [t for t in queue if t >= first and t not in kept]
        assert sorted(held) == sorted(expected)
        context = memory.push(settings, context, frame(time), frame(time))
