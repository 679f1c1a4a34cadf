"""Samplings: cases made by hand, and frames read by training against all frames of a video."""

import importlib
import json

import cv2
import numpy as np
import pytest

from jaxprop.data.clips import read_frames
from jaxprop.data.pipeline import DatasetConfig, make_iterator
from jaxprop.data.sampling import make_sampling
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_video, write_video

SETTINGS = dict(
    max_gap=3, frame_gap=3, frame_rate=None, gaps=(2, 5), gap_odds=(3.0, 1.0), offsets=(0, 2, 9)
)


def draws(name, num_frames, count, rate=None, number=2000, **settings):
    """Draws indices `[number, T]` by a sampling for a video of `count` frames."""
    sample = make_sampling(name, num_frames, **{**SETTINGS, **settings})
    rng = np.random.default_rng(0)
    chosen = np.array([sample(count, rate, rng) for _ in range(number)])
    assert chosen.shape == (number, num_frames) and 0 <= chosen.min() and chosen.max() < count
    return chosen


def only(values):
    (value,) = set(map(tuple, values))
    return value


@pytest.mark.parametrize(
    'count, gap', [(4, 1), (7, 1), (8, 2), (11, 2), (12, 3), (100, 3)], ids=lambda n: str(n)
)
def test_a_clip_has_the_largest_gap_of_which_all_fit(count, gap):
    chosen = draws('clip', 4, count)
    assert only(np.diff(chosen)) == (gap,) * 3
    assert set(chosen[:, 0]) == set(range(count - 3 * gap))


@pytest.mark.parametrize('rate', [8.0, 15.0, 24.0, 25.0, 29.97, 6.0])
def test_a_rate_is_that_of_resampling_the_file(rate):
    chosen = draws('clip', 5, 80, rate, frame_rate=8.0)
    # The frame shown at each of the times 0, 1/8, 2/8, ... of a clip.
    shown = [max(t for t in range(80) if t / rate <= i / 8 + 1e-9) for i in range(5)]
    assert only(chosen - chosen[:, :1]) == tuple(shown)
    assert set(chosen[:, 0]) == set(range(80 - shown[-1]))


def test_a_rate_is_lowered_in_a_short_file_and_unknown_for_a_folder():
    chosen = draws('clip', 4, 7, 30.0, frame_rate=3.0)
    assert only(chosen - chosen[:, :1]) == (0, 1, 3, 5)  # 7 / 4 frames apart.
    assert only(np.diff(draws('clip', 4, 40, None, frame_rate=8.0))) == (3, 3, 3)


@pytest.mark.parametrize('count', [5, 8, 23])
def test_segments_are_one_frame_of_each_part(count):
    chosen, length = draws('segments', 5, count), count // 5
    for part in range(5):
        found, times = np.unique(chosen[:, part], return_counts=True)
        np.testing.assert_array_equal(found, part * length + np.arange(length))
        assert times.min() > 0.7 * 2000 / length
    if length > 1:  # The parts' frames do not follow each other.
        assert abs(np.corrcoef(chosen[:, 0], chosen[:, 1])[0, 1]) < 0.1


def test_gaps_are_drawn_with_their_odds():
    chosen = draws('drawn_gap', 3, 40)
    gaps = np.diff(chosen)
    np.testing.assert_array_equal(gaps[:, 0], gaps[:, 1])
    found, times = np.unique(gaps[:, 0], return_counts=True)
    assert found.tolist() == [2, 5] and abs(times[0] / 2000 - 0.75) < 0.04
    assert set(np.diff(draws('drawn_gap', 3, 7)).ravel()) == {2}  # 5 is too long.


def test_offsets_follow_the_start_and_shrink_in_short_videos():
    chosen = draws('offsets', 3, 30)
    assert only(chosen - chosen[:, :1]) == (0, 2, 9)
    assert set(chosen[:, 0]) == set(range(30 - 9))
    assert only(draws('offsets', 3, 10)) == (0, 2, 9)
    assert only(draws('offsets', 3, 6)) == (0, 1, 5)  # 2 * 5 / 9, truncated.


@pytest.mark.parametrize('name', ['pair', 'clip', 'segments', 'drawn_gap', 'offsets'])
def test_one_frame_is_any_and_a_short_video_says_what_is_needed(name):
    assert set(draws(name, 1, 5).ravel()) == set(range(5))
    num_frames = 2 if name == 'pair' else 3
    sample = make_sampling(name, num_frames, **SETTINGS)
    with pytest.raises(DataError) as error:
        sample(num_frames - 1, None, np.random.default_rng(0))
    assert '\n' not in str(error.value)
    assert str(error.value).startswith('has one frame' if name == 'pair' else 'has 2 frames; need')


@pytest.mark.parametrize(
    'name, settings, message',
    [
        ('random', {}, "sampling is 'random'; it must be one of"),
        ('clip', {'num_frames': 0}, 'num_frames is 0; it must be at least 1'),
        ('pair', {}, "num_frames is 3; sampling 'pair' takes 1 or 2"),
        ('clip', {'frame_gap': 0}, 'frame_gap is 0'),
        ('clip', {'frame_rate': 0.0}, 'frame_rate is 0.0'),
        ('clip', {'frame_rate': float('nan')}, 'frame_rate is nan'),
        ('drawn_gap', {'gaps': ()}, 'gaps is empty'),
        ('drawn_gap', {'gaps': (0, 1)}, 'a number of gaps is 0'),
        ('drawn_gap', {'gap_odds': (1.0,)}, 'gap_odds is .* a weight for each'),
        ('drawn_gap', {'gap_odds': (0.0, 0.0)}, 'gap_odds is'),
        ('offsets', {'num_frames': 4}, 'num_frames is 4; it must be 3'),
        ('offsets', {'offsets': (0, 3, 3)}, 'offsets is .* rising'),
        ('offsets', {'offsets': (1, 2, 3)}, 'offsets is'),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        DatasetConfig(
            'videos', 'root', 4, **{**SETTINGS, 'num_frames': 3, 'sampling': name, **settings}
        )


def test_a_wrong_fit_is_refused():
    with pytest.raises(ValueError, match="fit is 'crop'; it must be one of"):
        DatasetConfig('videos', 'root', 4, fit='crop')


@pytest.fixture
def root(tmp_path):
    """Folders of 12 frames whose pixels say the folder, the frame and the column; one has 2."""
    for video in range(4):
        folder = tmp_path / f'root/{video}'
        folder.mkdir(parents=True)
        for time in range(2 if video == 3 else 12):
            frame = np.zeros((20, 40, 3), np.uint8)
            frame[..., 0], frame[..., 1] = 20 * video, 20 * time
            frame[..., 2] = 6 * np.arange(40)
            cv2.imwrite(str(folder / f'{time:05d}.png'), frame[..., ::-1])
    return tmp_path / 'root'


def dataset(root, **settings):
    defaults = dict(
        batch_size=6, size=(20, 20), examples_per_video=5, num_threads=2, num_frames=4,
        sampling='clip', frame_gap=3, max_unreadable=0.3,
    )  # fmt: skip
    return DatasetConfig('videos', str(root), **{**defaults, **settings})


def batches(config, number=5, **place):
    iterator = make_iterator(config, 0, **place)
    return [next(iterator)['frames'] for _ in range(number)], iterator


def test_a_batch_of_clips_has_one_crop_an_example_and_lists_short_videos(root):
    found, iterator = batches(dataset(root))
    frames = np.concatenate(found).astype(int)
    assert frames.shape == (30, 4, 20, 20, 3)
    assert (np.ptp(frames[..., 0], axis=(1, 2, 3)) == 0).all()
    np.testing.assert_array_equal(np.diff(frames[:, :, 0, 0, 1], axis=1), np.full((30, 3), 60))
    np.testing.assert_array_equal(frames[..., 2], np.repeat(frames[:, :1, :, :, 2], 4, axis=1))
    assert len(np.unique(frames[:, 0, 0, 0, 2])) > 3  # Crops of different examples.
    short = str(root / '3')
    assert iterator.unreadable == {
        short: f'{short}: has 2 frames; needed are at least 4, the num_frames of an example'
    }


@pytest.mark.parametrize('sampling', ['clip', 'segments'])
def test_clips_follow_from_the_seed_and_the_place(sampling, root):
    config = dataset(root, sampling=sampling)
    whole, iterator = batches(config)
    for batch, other in zip(whole, batches(config)[0]):
        np.testing.assert_array_equal(batch, other)
    parts = [batches(config, process_index=index, process_count=2)[0] for index in range(2)]
    for batch, *halves in zip(whole, *parts):
        np.testing.assert_array_equal(batch, np.concatenate(halves))
    state = json.loads(json.dumps(iterator.get_state()))
    expected = next(iterator)['frames']
    fresh = make_iterator(config, 0)
    fresh.set_state(state)
    np.testing.assert_array_equal(next(fresh)['frames'], expected)


def test_stretch_shows_all_of_a_frame(root):
    frames = batches(dataset(root, fit='stretch', size=(20, 20)), 1)[0][0]
    # Each pixel is the mean of two columns, 6 apart.
    np.testing.assert_array_equal(frames[0, 0, 0, :, 2], 12 * np.arange(20) + 3)


def test_far_frames_of_a_file_are_those_of_decoding_it_from_the_start(tmp_path):
    rng = np.random.default_rng(0)
    start = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (32, 32))
    for name in ('clip.mp4', 'clip.mkv'):
        write_video(tmp_path / name, (np.roll(start, time, 1) for time in range(700)), 30)
        expected = list(open_video(tmp_path / name).iterate())
        seen = []
        chosen = [650, 3, 320, 3, 330, 690]
        frames = read_frames(tmp_path / name, lambda *video: seen.append(video) or chosen)
        ((count, rate),) = seen
        assert count in (699, 700) and rate == 30  # From a duration in milliseconds.
        np.testing.assert_array_equal(frames, [expected[index] for index in chosen])


def test_clips_of_built_data_sets(root, tmp_path):
    module = importlib.import_module('jaxprop.data.builders.videos.videos_dataset_builder')
    builder = module.Builder(root, data_dir=tmp_path / 'built')
    builder.download_and_prepare()
    config = DatasetConfig(
        'tfds', str(builder.data_path), 6, size=(20, 20), num_frames=4, sampling='clip',
        frame_gap=2, frame_rate=8.0, examples_per_video=5, max_unreadable=0.3,
    )  # fmt: skip
    (frames,), iterator = batches(config, 1)
    times = np.round(frames[:, :, 10, 10, 1] / 20).astype(int)
    np.testing.assert_array_equal(np.diff(times, axis=1), np.full((6, 3), 2))
    list(batches(config))
    assert all('record' in reason for reason in iterator.unreadable.values())
