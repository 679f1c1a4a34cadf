"""Drawn sequences against plain geometry, and properties that a benchmark must have."""

import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxprop.data import synthetic
from jaxprop.data.scenes import Layer, Scene
from jaxprop.data.sequences import davis_palette
from jaxprop.data.synthetic import synthetic_sequences
from tests.support import shared

WHITE = np.full((64, 64, 3), 255, np.uint8)
GREY = np.full((64, 64, 3), 90, np.uint8)
BACKGROUND = Layer(0, None, GREY, np.array([[0.5, 0.5, 0.25, 0.0]]))


def disc(u, v):
    return np.hypot(u, v) - 1


def bean(u, v):
    return np.hypot(u, 1.7 * v + 0.4 * u**2) - 1


def test_palette_is_that_of_pascal_voc():
    palette = davis_palette()
    assert palette.dtype == np.uint8 and palette.shape == (256, 3)
    published = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        7: (128, 128, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        16: (0, 64, 0),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    for index, colour in published.items():
        assert tuple(palette[index]) == colour
    assert len(np.unique(palette, axis=0)) == 256


def test_palette_is_that_of_the_masks_of_davis():
    path = shared('data', 'DAVIS-multi', 'Annotations', '480p', 'schoolgirls', '00000.png')
    with Image.open(path) as image:
        stored = np.array(image.getpalette('RGB')).reshape(-1, 3)
    np.testing.assert_array_equal(davis_palette()[:9], stored[:9])


@pytest.fixture(scope='module')
def benchmark():
    """Eight sequences with labels: all scenarios, and the first two once more."""
    sequences = synthetic_sequences(8)
    return [(s, [s.read_label(index) for index in range(s.num_frames)]) for s in sequences]


def test_every_sequence_is_complete(benchmark):
    names = [sequence.name for sequence, _ in benchmark]
    assert len(set(names)) == 8 and names[0] == 'crossing' and names[6] == 'crossing-2'
    for sequence, labels in benchmark:
        frame = sequence.read_frame(11)
        assert frame.dtype == np.uint8 and frame.shape == (240, 320, 3)
        assert sequence.frame_names[0] == '00000' and len(sequence.frame_names) == 24
        first = np.bincount(labels[0].ravel())
        assert 3 <= len(first) <= 5 and first.min() >= 300, (sequence.name, first)
        for label in labels:
            assert label.dtype == np.int32 and label.shape == (240, 320)
            assert label.min() == 0 and label.max() < len(first)


def test_something_vanishes_and_returns_in_every_sequence(benchmark):
    for sequence, labels in benchmark:
        areas = np.array([np.bincount(label.ravel(), minlength=5)[1:] for label in labels])
        returns = [
            bool(area[0])
            and area[low := area.argmin()] < 0.05 * area[0]
            and area[low:].max() > 0.5 * area[0]
            for area in areas.T
        ]
        assert any(returns), (sequence.name, areas.T)


@pytest.mark.parametrize('num_objects', [2, 4])
def test_number_of_objects(num_objects):
    for sequence in synthetic_sequences(6, 5, (64, 96), num_objects):
        assert set(np.unique(sequence.read_label(0))) == set(range(num_objects + 1))


@pytest.mark.parametrize('index', [0, 3, 5])
def test_a_frame_is_the_same_alone_and_in_order(index):
    def sequence(count):
        synthetic._build_scene.cache_clear()
        return synthetic_sequences(count, 6, (64, 96), seed=3)[index]

    one = sequence(index + 1)
    frames = [one.read_frame(t) for t in range(6)]
    labels = [one.read_label(t) for t in range(6)]
    # Drawn anew, in another order, one of more sequences, and after a trip to another process.
    other = pickle.loads(pickle.dumps(sequence(index + 2)))
    for t in (4, 1, 5):
        np.testing.assert_array_equal(other.read_label(t), labels[t])
        np.testing.assert_array_equal(other.read_frame(t), frames[t])
    assert not np.array_equal(frames[0], frames[1])


def test_the_pictures_of_a_seed_stay_what_they_are():
    """Results are comparable only while the benchmark is: these numbers were drawn once."""
    sequence = synthetic_sequences(1)[0]
    areas = np.bincount(sequence.read_label(7).ravel())
    means = sequence.read_frame(7).mean((0, 1))
    np.testing.assert_allclose(areas, [63894, 1292, 8774, 2840], atol=2)
    np.testing.assert_allclose(means, [141.92, 90.58, 76.24], atol=0.1)


def test_seeds_and_turns_differ():
    first, *_, again = synthetic_sequences(7, 2, (64, 96))
    other = synthetic_sequences(1, 2, (64, 96), seed=1)[0]
    pictures = [sequence.read_frame(0).astype(int) for sequence in (first, again, other)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(pictures[a] - pictures[b]).mean() > 10


def test_translation_moves_the_mask_by_exactly_its_offset():
    generator = np.random.default_rng(0)
    texture = generator.integers(0, 256, (64, 64, 3), np.uint8)
    # 3 pixels to the right and 2 down a frame, from a centre that is not on the grid.
    path = np.array([[30.25 / 96, 20.5 / 64, 0.25, 0.1], [42.25 / 96, 28.5 / 64, 0.25, 0.1]])
    layer = Layer(4, bean, texture, path, wobble=(0.05, 0.1, 2.0, 0.0, 0.3))
    scene = Scene((BACKGROUND, layer), 5, (64, 96))
    label, frame = scene.label(0), scene.frame(0)
    assert set(np.unique(label)) == {0, 4} and 300 < (label == 4).sum() < 600
    for t in range(1, 5):
        shift = (2 * t, 3 * t)
        np.testing.assert_array_equal(scene.label(t), np.roll(label, shift, (0, 1)))
        # The texture is sampled at positions that are rounded to a 32nd of its pixels.
        difference = scene.frame(t).astype(int) - np.roll(frame, shift, (0, 1))
        assert np.abs(difference).mean() < 0.1 and np.abs(difference).max() <= 16


def test_a_growing_disc_is_where_plain_geometry_says():
    path = np.array([[0.2, 0.3, 0.1, 0.0], [0.7, 0.6, 0.5, 0.7]])
    scene = Scene((BACKGROUND, Layer(1, disc, WHITE, path)), 4, (50, 80))
    for t in range(4):
        x, y, radius = ((a + (b - a) * t / 3) for a, b in ((16, 56), (15, 30), (5, 25)))
        expected = [
            [(column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 < radius**2 for column in range(80)]
            for row in range(50)
        ]
        np.testing.assert_array_equal(scene.label(t), np.array(expected, int))


def test_rotation_is_clockwise_in_turns():
    path = np.array([[0.5, 0.5, 0.3, 0.03], [0.5, 0.5, 0.3, 0.28]])
    scene = Scene((BACKGROUND, Layer(1, bean, WHITE, path)), 2, (64, 64))
    assert not np.array_equal(scene.label(1), scene.label(0))
    np.testing.assert_array_equal(scene.label(1), np.rot90(scene.label(0), -1))


@pytest.mark.parametrize('index', [3, 5, 7])
def test_labels_are_the_topmost_outlines(index):
    """Labels equal those put together from outlines in whole frames, with posts and lily pads."""
    size = (72, 96)
    scene = synthetic._build_scene(index, 7, size, None, 1)
    for t in range(7):
        expected = np.zeros(size, int)
        for layer in scene.layers[1:]:
            where = layer.coordinates(t / 6, size, np.arange(size[0]), np.arange(size[1]))
            expected[layer.outline(*where) < 0] = layer.label
        if scene.flips[0]:
            expected = np.flipud(expected)
        if scene.flips[1]:
            expected = np.fliplr(expected)
        np.testing.assert_array_equal(scene.label(t), expected)


def test_pictures_agree_with_labels():
    """White objects are drawn on black: only pixels on the outline are in between."""
    black = dataclasses.replace(BACKGROUND, texture=np.zeros_like(GREY))
    path = np.array([[0.42, 0.53, 0.3, 0.1]])
    scene = Scene((black, Layer(1, bean, WHITE, path)), 1, (64, 96))
    brightness, label = scene.frame(0)[..., 0], scene.label(0)
    around = np.pad(label, 1)
    around = sum(around[row : row + 64, column : column + 96] for row, column in np.ndindex(3, 3))
    assert (brightness[around == 0] == 0).all()
    assert (brightness[around == 9] > 140).all()
    outline = brightness[(around > 0) & (around < 9)]
    assert ((outline > 0) & (outline < 100)).sum() > 10


def test_noise_and_light_touch_frames_alone():
    layers = (BACKGROUND, Layer(1, disc, WHITE, np.array([[0.5, 0.5, 0.3, 0.0]])))
    plain, noisy = Scene(layers, 3, (64, 64)), Scene(layers, 3, (64, 64), noise=3.0)
    lit = Scene(layers, 3, (64, 64), light=0.1)
    away = plain.frame(0)[:8, :8].astype(int)
    assert (away == 90).all()
    spread = (noisy.frame(1).astype(float) - plain.frame(1))[:16]
    assert 2.7 < spread.std() < 3.3 and not np.array_equal(noisy.frame(1), noisy.frame(2))
    # The lamp is left of the frame's middle at first and right of it at last.
    assert (lit.frame(0)[0, :28] > 90).all() and (lit.frame(0)[0, 36:] < 90).all()
    assert (lit.frame(2)[0, :28] < 90).all() and (lit.frame(2)[0, 36:] > 90).all()
    np.testing.assert_array_equal(lit.label(2), plain.label(2))


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'num_sequences': 0}, 'num_sequences is 0'),
        ({'num_frames': 0}, 'num_frames 0'),
        ({'size': (240, 63)}, '63'),
        ({'num_objects': 1}, 'num_objects is 1'),
        ({'num_objects': 5}, 'num_objects is 5'),
        ({'seed': -1}, 'seed is -1'),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        synthetic_sequences(**settings)


@pytest.mark.parametrize('index', [-1, 3])
def test_no_such_frame(index):
    sequence = synthetic_sequences(1, 3, (64, 64))[0]
    for read in (sequence.read_frame, sequence.read_label):
        with pytest.raises(IndexError, match='sequence of 3'):
            read(index)


def test_one_frame_is_a_sequence():
    sequence = synthetic_sequences(1, 1, (64, 64))[0]
    assert sequence.read_frame(0).shape == (64, 64, 3) and sequence.read_label(0).any()
