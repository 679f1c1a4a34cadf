"""The images that networks see in video objectives: which changes frames of a clip share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import color
from jaxprop.objectives import corrflow, crw, timecycle, vfs
from tests.objectives.support import RNG, TinyBackbone, batch
from tests.objectives.test_corrflow import Backbone


class Seen(Exception):
    pass


def still(num, num_frames, size):
    """Makes clips in which all frames are one picture."""
    image = batch(1, size)['image'][0]
    return {'frames': np.broadcast_to(image, (num, num_frames, *image.shape)).copy()}


def seen_by(monkeypatch, module, terms, objective, examples):
    """Records the backbone's inputs in three calls of a loss, and the arguments of the terms."""
    given = []

    def record(networks, params, state, images):
        given.append(np.asarray(images))
        return images, state

    def end(*arguments, **settings):
        given.append(arguments)
        raise Seen

    with monkeypatch.context() as patch:
        patch.setattr(module, 'apply_networks', record)
        patch.setattr(module, terms, end)
        with pytest.raises(Seen):
            objective.loss({}, {'step': 0}, examples, RNG)
    return given


def keys_given(monkeypatch, module, objective, examples):
    """Records the keys of each random change of images in a loss, as numbers."""
    given = []

    def change(keys, images, size=None, *ranges):
        given.append(np.asarray(jax.random.key_data(keys)))
        assert len(keys) == len(images)
        return jnp.zeros((len(images), size, size, 3)) if ranges else images

    def end(images):
        raise Seen

    with monkeypatch.context() as patch:
        for name in ('random_resized_crop', 'random_flip', 'random_grayscale'):
            if hasattr(module, name):
                patch.setattr(module, name, change)
        patch.setattr(module, 'network_input', end)
        with pytest.raises(Seen):
            objective.loss({}, {}, examples, RNG)
    return given


def test_crw_crops_each_frame_and_each_window_by_itself(monkeypatch):
    objective = crw.objective(TinyBackbone(), size=16, patch_size=8, patch_stride=4)
    frames, windows = keys_given(monkeypatch, crw, objective, still(2, 3, (20, 24)))
    assert len(frames) == 2 * 3 and len(windows) == 2 * 3 * 9
    assert len(np.unique(np.concatenate([frames, windows]), axis=0)) == 6 + 54


def test_vfs_crops_flips_and_colours_each_frame_by_itself(monkeypatch):
    objective = vfs.objective(TinyBackbone(), size=8, grayscale=0.5)
    given = keys_given(monkeypatch, vfs, objective, still(2, 4, (9, 9)))
    assert [len(keys) for keys in given] == [8, 8, 8]
    assert len(np.unique(np.concatenate(given), axis=0)) == 24


def test_timecycle_crops_and_flips_all_frames_of_a_clip_alike(monkeypatch):
    class Strided(TinyBackbone):
        stride = 2

    objective = timecycle.objective(Strided(), frame_size=18, patch_size=6, head_kernel=2)
    examples = still(8, 5, (20, 24))
    examples['frames'][:, -1] = 0  # It tells where to cut the patch alone.
    monkeypatch.setattr(timecycle, 'salient_thetas', lambda *_, **__: jnp.zeros((8, 2, 3)))
    monkeypatch.setattr(timecycle, 'sample', lambda images, places: images)
    clips, patches, targets, _ = seen_by(monkeypatch, timecycle, 'cycle_terms', objective, examples)
    np.testing.assert_array_equal(patches, targets)
    for frame in range(3):
        np.testing.assert_array_equal(clips.reshape(8, 3, 18, 18, 3)[:, frame], targets)
    picture = np.asarray(color.normalize_rgb(examples['frames'][0, 0]))
    crops = {
        (top, left, step): picture[top : top + 18, left : left + 18][:, ::step]
        for top in range(3)
        for left in range(7)
        for step in (1, -1)
    }
    places = [
        place
        for target in targets
        for place, crop in crops.items()
        if np.allclose(target, crop, atol=1e-4)
    ]
    assert len(places) == 8 and len(set(places)) > 4
    assert {step for *_, step in places} == {1, -1}


def test_corrflow_colours_whole_clips_anew_but_not_their_classes(monkeypatch):
    def darken(keys, images, *strengths):
        assert strengths == (0.1,) * 4
        return images * jax.vmap(jax.random.uniform)(keys)[:, None, None, None] / 2

    monkeypatch.setattr(corrflow, 'color_jitter', darken)
    objective = corrflow.objective(
        Backbone(), size=8, truth_steps=9, keep_all=1.0, jitter_probability=0.5
    )
    examples = still(16, 3, (8, 8))
    *images, (_, classes, _) = seen_by(monkeypatch, corrflow, 'clip_terms', objective, examples)
    images = np.stack(images, axis=1)
    picture = np.asarray(color.network_input(examples['frames'], 'rgb_unit'))
    changed = np.abs(images - picture).max(axis=(2, 3, 4)) > 1e-3
    # All frames of some clips, each in colours of its own.
    np.testing.assert_array_equal(changed.all(axis=1), changed.any(axis=1))
    assert 2 < changed[:, 0].sum() < 14
    for clip in images[changed[:, 0]]:
        assert len(np.unique(clip.reshape(3, -1), axis=0)) == 3
    lab = color.rgb_to_lab(examples['frames'])
    np.testing.assert_array_equal(classes, corrflow.nearest_color(lab[..., 1:]))


def test_corrflow_drops_the_same_channels_of_all_frames_and_clips(monkeypatch):
    objective = corrflow.objective(Backbone(), size=8, truth_steps=9, jitter=0.0, keep_all=0.0)
    *images, _ = seen_by(monkeypatch, corrflow, 'clip_terms', objective, still(4, 3, (8, 8)))
    lit = np.stack(images).any(axis=(2, 3))  # [T, B, 3]
    assert (lit == lit[0, 0]).all() and 1 <= lit[0, 0].sum() <= 2
