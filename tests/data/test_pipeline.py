"""Batches: their content, and that it is the same after a stop and in several processes."""

import importlib
import json
import shutil

import cv2
import numpy as np
import pytest

from jaxprop.data.clips import list_videos, read_frames
from jaxprop.data.image_files import list_image_classes, resize_to_cover
from jaxprop.data.pipeline import (
    BatchIterator,
    CombinedIterator,
    DatasetConfig,
    make_iterator,
)
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_video, write_video

NUM_VIDEOS, NUM_FRAMES = 4, 7


def frame(video, time):
    """Makes a plain frame whose values say which one it is."""
    return np.broadcast_to(np.array([video, time, 0], np.uint8) * 20, (12, 16, 3)).copy()


@pytest.fixture
def root(tmp_path):
    for video in range(NUM_VIDEOS):
        folder = tmp_path / f'root/{video}'
        folder.mkdir(parents=True)
        for time in range(NUM_FRAMES):
            cv2.imwrite(str(folder / f'{time:05d}.png'), frame(video, time)[..., ::-1])
    return tmp_path / 'root'


def dataset(root, kind='videos', **settings):
    defaults = dict(batch_size=8, size=(8, 8), examples_per_video=6, num_threads=2)
    return DatasetConfig(kind, str(root), **{**defaults, **settings})


def take(iterator, number):
    return [next(iterator) for _ in range(number)]


def assert_same_batches(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def test_pairs_are_of_one_video_and_near_each_other(root):
    iterator = make_iterator(dataset(root, max_gap=3), seed=0)
    assert iterator.examples_per_epoch == 24
    frames = np.concatenate([batch['frames'] for batch in take(iterator, 30)])
    assert frames.dtype == np.uint8 and frames.shape == (240, 2, 8, 8, 3)
    assert (frames == frames[:, :, :1, :1]).all()
    video, time = frames[:, :, 0, 0, 0] // 20, frames[:, :, 0, 0, 1].astype(int) // 20
    np.testing.assert_array_equal(video[:, 0], video[:, 1])
    # An epoch takes every video equally often.
    np.testing.assert_array_equal(np.bincount(video[:24, 0]), [6] * NUM_VIDEOS)
    assert set(time[:, 1] - time[:, 0]) == {-3, -2, -1, 1, 2, 3}
    assert set(time.ravel()) == set(range(NUM_FRAMES))


def test_epochs_and_seeds_differ(root):
    first = take(make_iterator(dataset(root), seed=0), 6)
    assert any((a['frames'] != b['frames']).any() for a, b in zip(first[:3], first[3:]))
    other = take(make_iterator(dataset(root), seed=1), 1)
    assert (first[0]['frames'] != other[0]['frames']).any()


def test_a_state_leads_back_to_the_same_batches(root):
    iterator = make_iterator(dataset(root), seed=0)
    take(iterator, 5)  # Into the second epoch.
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 4)
    fresh = make_iterator(dataset(root), seed=0)
    take(fresh, 1)
    fresh.set_state(state)
    assert_same_batches(take(fresh, 4), expected)


def test_a_batch_may_be_one_example(root):
    pairs = take(make_iterator(dataset(root, batch_size=2), seed=0), 20)
    ones = take(make_iterator(dataset(root, batch_size=1), seed=0), 40)
    halves = [pair['frames'][i : i + 1] for pair in pairs for i in range(2)]
    assert_same_batches(ones, [{'frames': half} for half in halves])


def test_processes_share_the_batches_of_one(root):
    whole = take(make_iterator(dataset(root), seed=0), 5)
    parts = [take(make_iterator(dataset(root), 0, index, 2), 5) for index in range(2)]
    joined = [{'frames': np.concatenate([a['frames'], b['frames']])} for a, b in zip(*parts)]
    assert_same_batches(joined, whole)
    with pytest.raises(ValueError, match='multiple of the 3 processes'):
        make_iterator(dataset(root), 0, 0, 3)


def test_unreadable_videos_are_replaced_counted_and_listed(root):
    for path in (root / '2').iterdir():
        path.write_bytes(b'junk')
    iterator = make_iterator(dataset(root, max_unreadable=0.3), seed=0)
    frames = np.concatenate([batch['frames'] for batch in take(iterator, 6)])
    assert set(frames[:, 0, 0, 0, 0] // 20) == {0, 1, 3} and len(frames) == 48
    assert list(iterator.unreadable) == [str(root / '2')]
    assert 'junk' not in str(iterator.unreadable) and '.png' in str(iterator.unreadable)
    state = iterator.get_state()
    fresh = make_iterator(dataset(root, max_unreadable=0.3), seed=0)
    fresh.set_state(state)
    assert fresh.unreadable == iterator.unreadable
    with pytest.raises(
        DataError, match=r'1 of 4 files .*share of 0\.0 .*\.max_unreadable.*\n.*png'
    ):
        take(make_iterator(dataset(root, max_unreadable=0.0), seed=0), 6)


def test_few_unreadable_files_do_not_stop_a_small_folder(root):
    for copy in range(4, 10):
        shutil.copytree(root / '0', root / str(copy))
    for broken in (2, 5):
        for path in (root / str(broken)).iterdir():
            path.write_bytes(b'junk')
    iterator = make_iterator(dataset(root, max_unreadable=0.05), seed=0)
    take(iterator, 12)
    assert len(iterator.unreadable) == 2
    for path in (root / '7').iterdir():
        path.write_bytes(b'junk')
    with pytest.raises(DataError, match=r'^3 of 10 files .*--config\.data\.max_unreadable'):
        take(make_iterator(dataset(root, max_unreadable=0.05), seed=0), 12)


def test_a_folder_of_junk_ends_at_once(root):
    for path in root.rglob('*.png'):
        path.write_bytes(b'junk')
    with pytest.raises(DataError, match='in a row are unreadable'):
        next(make_iterator(dataset(root, max_unreadable=1.0), seed=0))


def test_single_frames_and_images_with_labels(root):
    batch = next(make_iterator(dataset(root, num_frames=1), seed=0))
    assert batch.keys() == {'image'} and batch['image'].shape == (8, 8, 8, 3)
    iterator = make_iterator(dataset(root, kind='images', batch_size=28), seed=0)
    assert iterator.examples_per_epoch == 28
    batch = next(iterator)
    np.testing.assert_array_equal(batch['label'], batch['image'][:, 0, 0, 0] // 20)
    assert batch['label'].dtype == np.int32
    assert len(np.unique(batch['image'][:, 0, 0], axis=0)) == 28


def test_combined_batches(root):
    iterator = CombinedIterator(
        {
            'video': make_iterator(dataset(root), 0),
            'image': make_iterator(dataset(root, num_frames=1, batch_size=4), 1),
        }
    )
    take(iterator, 2)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = next(iterator)
    iterator.set_state(state)
    again = next(iterator)
    for name in ('video', 'image'):
        assert_same_batches([again[name]], [expected[name]])
    assert again['image']['image'].shape == (4, 8, 8, 3)


def test_frames_of_a_file_are_those_of_decoding_it_from_the_start(tmp_path):
    rng = np.random.default_rng(0)
    start = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
    write_video(tmp_path / 'clip.mp4', (np.roll(start, 3 * time, 1) for time in range(40)), 25)
    expected = list(open_video(tmp_path / 'clip.mp4').iterate())
    for chosen in ([0], [39, 2], [17, 30]):
        seen = []
        frames = read_frames(tmp_path / 'clip.mp4', lambda n, _: seen.append(n) or chosen)
        assert seen == [40]
        np.testing.assert_array_equal(frames, [expected[index] for index in chosen])


def test_a_file_cut_short_is_a_data_error(tmp_path):
    write_video(tmp_path / 'clip.avi', (frame(0, time) for time in range(12)), 25)
    data = (tmp_path / 'clip.avi').read_bytes()
    (tmp_path / 'clip.avi').write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match='clip.avi'):
        read_frames(tmp_path / 'clip.avi', lambda count, _: [count - 1, 0])
    (tmp_path / 'clip.mp4').write_bytes(b'junk')
    with pytest.raises(DataError, match='clip.mp4'):
        read_frames(tmp_path / 'clip.mp4', lambda count, _: [0])


def test_listing(tmp_path, root):
    write_video(root / 'class/clip.mp4', [frame(0, 0)] * 2)
    assert [path.name for path in list_videos(root)] == ['0', '1', '2', '3', 'clip.mp4']
    paths, labels, classes = list_image_classes(root)
    assert classes == ('0', '1', '2', '3') and len(paths) == len(labels) == 28
    assert [path.parent.name for path in paths] == [classes[label] for label in labels]
    for function in (list_videos, list_image_classes):
        with pytest.raises(DataError, match='no such folder'):
            function(tmp_path / 'none')
        (tmp_path / 'empty').mkdir(exist_ok=True)
        with pytest.raises(DataError, match='empty'):
            function(tmp_path / 'empty')


def test_links_are_followed_but_not_back_above_themselves(tmp_path, root):
    (tmp_path / 'linked').mkdir()
    (tmp_path / 'linked/videos').symlink_to(root)
    (tmp_path / 'linked/again').symlink_to(tmp_path / 'linked')
    (root / '0/up').symlink_to('..')
    videos = [path.relative_to(tmp_path) for path in list_videos(tmp_path / 'linked')]
    assert [str(path) for path in videos] == [f'linked/videos/{n}' for n in range(4)]
    assert len(list_image_classes(root)[0]) == 28


def test_resize_to_cover_keeps_the_ratio_and_cuts_the_rest():
    rows, columns = np.mgrid[:60, :120].astype(np.uint8)
    image = np.stack([rows, columns, rows], -1)
    left, right = (resize_to_cover(image, (30, 30), (0, side)) for side in (0, 1))
    # Shrunk by 2, each value is a mean over two: 2 i + 0.5.
    expected = 2 * np.arange(30) + 0.5
    assert abs(left[0, :, 1] - expected).max() <= 0.5 and abs(left[:, 0, 0] - expected).max() <= 0.5
    assert abs(right[0, :, 1] - expected - 60).max() <= 0.5
    assert resize_to_cover(image, (7, 200)).shape == (7, 200, 3)
    np.testing.assert_array_equal(resize_to_cover(image, (60, 120)), image)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'kind': 'movies'}, "kind is 'movies'"),
        ({'num_frames': 3}, 'num_frames is 3'),
        ({'max_gap': 0}, 'max_gap is 0'),
        ({'size': (8, 8, 8)}, 'size is'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        dataset('root', **settings)


@pytest.mark.parametrize('name', ['videos', 'images'])
def test_built_datasets_read_without_tensorflow(name, root, tmp_path):
    module = importlib.import_module(f'jaxprop.data.builders.{name}.{name}_dataset_builder')
    broken = root / '3/00006.png'
    broken.write_bytes(b'junk')
    builder = module.Builder(root, data_dir=tmp_path / 'built')
    builder.download_and_prepare()
    assert list(builder.unreadable) == ['3' if name == 'videos' else '3/00006.png']
    config = dataset(builder.data_path, kind='tfds', max_gap=2, batch_size=8)
    iterator = make_iterator(config, seed=0)
    assert iterator.examples_per_epoch == {'videos': 18, 'images': 27}[name]
    batch = next(iterator)
    if name == 'images':
        np.testing.assert_allclose(batch['label'], batch['image'][:, 0, 0, 0] / 20, atol=0.2)
        return
    video, time = (np.round(batch['frames'][:, :, 4, 4, i] / 20) for i in (0, 1))
    np.testing.assert_array_equal(video[:, 0], video[:, 1])
    assert (abs(time[:, 1] - time[:, 0]) <= 2).all() and (time[:, 1] != time[:, 0]).all()


def test_a_folder_without_a_built_dataset_and_an_unknown_split_are_named(root, tmp_path):
    with pytest.raises(DataError, match='nowhere: is no data set that jaxprop.data.builders wrote'):
        make_iterator(dataset(tmp_path / 'nowhere', kind='tfds'), seed=0)
    module = importlib.import_module('jaxprop.data.builders.videos.videos_dataset_builder')
    builder = module.Builder(root, data_dir=tmp_path / 'built')
    builder.download_and_prepare()
    with pytest.raises(DataError, match="has no split 'test'; it has train"):
        make_iterator(dataset(builder.data_path, kind='tfds', split='test'), seed=0)


def test_a_dead_reading_process_is_an_error_of_the_data():
    def batches():
        yield {'image': 0}, {}
        raise RuntimeError('Worker process was terminated unexpectedly with exit code -9.')

    iterator = BatchIterator(batches(), 8, 2, 0.05)
    next(iterator)
    with pytest.raises(DataError, match=r'num_workers\) has died.*exit code -9'):
        next(iterator)
