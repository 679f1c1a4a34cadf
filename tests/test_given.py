"""Frames whose label is given beside that of frame 0, against loops in NumPy and lists."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprop
from jaxprop import memory, methods

METHODS = {
    'crw': methods.crw(k=3, num_frames=2, radius=2.0),
    'uvc_tracked': methods.uvc_tracked(k=3, num_frames=2),
    'mast': methods.mast(radius=2.0),
}


def video(num_frames=4, grid=(6, 7)):
    features = np.random.default_rng(0).standard_normal((num_frames, *grid, 8)).astype(np.float32)
    labels = jax.nn.softmax(3 * features[..., :3])
    return jnp.array(features), labels


def with_given(method, num_given):
    settings = dataclasses.replace(method.memory, num_given=num_given)
    return dataclasses.replace(method, memory=settings)


@pytest.mark.parametrize('name', METHODS)
def test_empty_slots_change_nothing(name):
    features, labels = video(3)
    found = jaxprop.propagate_video(features, labels[0], with_given(METHODS[name], 2))
    expected = jaxprop.propagate_video(features, labels[0], METHODS[name])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ('implementation', 'bind_first'),
    [
        ('dense', False),
        ('windowed', False),
        ('screened', False),
        ('dense', True),
        ('screened', True),
    ],
)
def test_neighbours_are_those_of_loops(implementation, bind_first):
    """Frame 0 and the given frames are free of the region, unless it binds frame 0."""
    (height, width), radius, k, temperature = (6, 7), 2.0, 4, 0.1
    features, labels = video()
    region = jaxprop.Disk(radius, bind_first=bind_first)
    method = jaxprop.Propagation(
        memory=jaxprop.Memory(num_frames=1, num_given=2, padding='mask'),
        rule=jaxprop.TopK(k=k, temperature=temperature, region=region),
    )
    execution = jaxprop.Execution(implementation=implementation)

    @jax.jit
    def label_frame_2(features, labels):
        context = jaxprop.init_context(features[0], labels[0], method)
        context = jaxprop.give(context, features[3], labels[3], method, slot=1, number=3)
        context = jaxprop.remember(context, features[1], labels[1], method)
        return jaxprop.propagate_step(context, features[2], method, execution=execution)[1]

    found, labels = label_frame_2(features, labels), np.asarray(labels)
    unit = np.asarray(features) / np.linalg.norm(features, axis=-1, keepdims=True)
    cells = [(row, column) for row in range(height) for column in range(width)]
    for q in cells:
        candidates = []
        for frame in (0, 3, 1):
            for p in cells:
                is_near = (q[0] - p[0]) ** 2 + (q[1] - p[1]) ** 2 < radius**2
                if is_near or (frame != 1 and not bind_first):
                    logit = unit[2][q] @ unit[frame][p] / temperature
                    candidates.append((logit, labels[frame][p]))
        best = sorted(candidates, key=lambda pair: -pair[0])[:k]
        weights = np.exp([logit - best[0][0] for logit, _ in best])
        expected = sum(w * label for w, (_, label) in zip(weights, best)) / weights.sum()
        np.testing.assert_allclose(found[q], expected, atol=1e-4)


@pytest.mark.parametrize('name', METHODS)
def test_every_rule_takes_given_frames(name):
    """Also under jit, with slots and numbers that are known only then."""
    features, labels = video()
    method = with_given(METHODS[name], 1)
    context = jaxprop.init_context(features[0], labels[0], method)
    give = jax.jit(jaxprop.give, static_argnames='method')
    changed = {}
    step = jax.jit(jaxprop.propagate_step, static_argnames='method')
    for number in (-2, 3):
        given = give(context, features[3], labels[3], method, 0, number)
        _, changed[number] = step(given, features[1], method)
        assert np.isfinite(changed[number]).all()
    _, without = step(context, features[1], method)
    assert np.abs(changed[3] - without).max() > 1e-3


@pytest.mark.parametrize('keep_first', [True, False])
@pytest.mark.parametrize('kept_frames', [(), (2,)])
def test_which_frames_are_read(keep_first, kept_frames):
    """The given frames, each once, also after they have passed through the queue."""
    settings = memory.Memory(
        num_frames=2, keep_first=keep_first, kept_frames=kept_frames, num_given=2, padding='mask'
    )

    def frame(number):
        return jnp.full((1, 1, 1), number, jnp.float32)

    context = memory.init(settings, frame(0), frame(0))
    context = memory.give(settings, context, 0, 4, frame(4), frame(4))
    context = memory.give(settings, context, 1, -3, frame(-3), frame(-3))
    for time in range(1, 8):
        frames = memory.read(settings, context)
        held = np.asarray(frames.labels).ravel()[frames.valid].astype(int).tolist()
        assert np.asarray(frames.numbers)[frames.valid].tolist() == held
        latest = set(range(max(time - 2, int(keep_first)), time))
        kept = {number for number in kept_frames if number < time}
        first = {0} if keep_first else set()
        assert sorted(held) == sorted({4, -3} | latest | kept | first)
        context = memory.push(settings, context, frame(time), frame(time))


def test_wrong_slots_are_refused():
    features, labels = video()
    context = jaxprop.init_context(features[0], labels[0], METHODS['crw'])
    with pytest.raises(ValueError, match='slot is 0; the memory has num_given=0'):
        jaxprop.give(context, features[1], labels[1], METHODS['crw'], 0, 1)
    with pytest.raises(ValueError, match='num_given is -1'):
        jaxprop.Memory(num_given=-1)
