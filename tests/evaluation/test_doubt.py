"""The sums of confidence: what is lost, and which mask would help, where the answer is known."""

import numpy as np
import pytest

from jaxprop.evaluation import doubt


def test_the_longest_doubt_is_found():
    values = np.full(20, 0.9)
    values[3:5], values[8:13], values[15:18] = 0.1, 0.39, 0.2
    assert doubt.lost_stretch(values) == (8, 13)
    values[8:13] = np.nan  # The video does not have the object there.
    assert doubt.lost_stretch(values) == (15, 18)
    assert doubt.lost_stretch(np.full(20, 0.9)) is None
    assert doubt.lost_stretch(values[:8]) is None  # Two frames are too few.
    assert doubt.lost_stretch(np.array([0.1])) == (0, 1)


def test_the_most_helpful_frame_is_that_of_loops():
    rng = np.random.default_rng(0)
    confidence, given = rng.uniform(size=(2, 12)), [2, 9]
    confidence[:, given] = 1
    gains = np.zeros(12)
    distance = [min(abs(u - n) for n in given) for u in range(12)]
    for values in confidence:
        reached = []
        for d in range(12):
            seen = [values[u] for u in range(12) if distance[u] == d]
            reached.append(min(reached + ([np.mean(seen)] if seen else [])))
        for t in set(range(12)) - set(given):
            gains[t] += sum(max(0, reached[abs(u - t)] - values[u]) for u in range(12))
    assert doubt.most_helpful(confidence, given) == np.argmax(gains)


@pytest.mark.parametrize(
    ('given', 'expected'), [([0], range(58, 76)), ([100], range(25, 43)), ([0, 100], range(48, 53))]
)
def test_a_steady_fall_asks_for_a_frame_that_helps_both_sides(given, expected):
    distance = np.min(np.abs(np.arange(101)[:, None] - given), axis=1)
    assert doubt.most_helpful(1 - 0.008 * distance[None], given) in expected


def test_no_doubt_asks_for_nothing():
    assert doubt.most_helpful(np.ones((2, 5)), [0]) is None
    assert doubt.most_helpful(np.full((1, 1), 1.0), [0]) is None


def test_sentences():
    names = [f'{number:05d}' for number in range(10, 50)]
    confidence = np.linspace([1, 1], [0.1, 0.8], 40).T
    found = doubt.sentences(confidence, [1, 4], [0], names)
    assert len(found) == 2
    assert found[0].startswith('object 1 is probably lost from frame 00036 on; a mask there would ')
    assert 36 <= int(found[0].split()[-1]) < 50
    assert found[1].startswith('one further mask of all objects would help most at frame 000')
    [alone] = doubt.sentences(confidence[1:], [4], [0], names)
    assert alone.startswith('one further mask would help most at frame 000')
    assert doubt.sentences(np.ones((1, 3)), [1], [0], names[:3]) == []


def test_frames_without_an_object():
    assert doubt.sentences(np.array([]), [], [-3], ['00003', '00004']) == [
        'the video has no object in these frames, and their masks are empty'
    ]
