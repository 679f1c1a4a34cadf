"""TAP-Vid's pickle files: what is read, and that nothing else in them is."""

import os
import pickle

import numpy as np
import pytest

from jaxprop.data.array_pickle import StoredArray, read_array_pickle
from jaxprop.data.image_files import decode_jpeg, encode_jpeg
from jaxprop.data.sequences import DataError
from jaxprop.data.tapvid import tapvid_videos
from tests.layouts import tapvid_video


def save(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_a_file_of_videos_by_name(protocol, tmp_path):
    content = {'goat': tapvid_video(6), 'libby': tapvid_video(4)}
    path = save(tmp_path / 'tapvid_davis.pkl', content, protocol)
    videos = tapvid_videos(path, size=(128, 128))
    assert list(videos) == ['goat', 'libby']
    video = videos['goat']()
    assert (video.name, video.num_frames, video.size) == ('goat', 6, (128, 128))
    for index in range(6):
        np.testing.assert_array_equal(video.read_frame(index), content['goat']['video'][index])
    np.testing.assert_array_equal(video.occluded, content['goat']['occluded'])
    np.testing.assert_allclose(video.points, content['goat']['points'] * 128.0)
    assert video.identity() != videos['libby']().identity()


@pytest.mark.parametrize('as_array', [False, True])
def test_lists_of_jpeg_files_in_several_shards(as_array, tmp_path):
    content = tapvid_video(3, (96, 160))
    files = [encode_jpeg(frame) for frame in content['video']]
    content['video'] = np.array(files, object) if as_array else files
    for index in range(2):
        save(tmp_path / f'{index:04d}_of_0002.pkl', [content, content])
    videos = tapvid_videos(tmp_path)
    assert list(videos) == [f'{f}_of_0002-{v}' for f in ('0000', '0001') for v in ('0000', '0001')]
    video = videos['0001_of_0002-0001']()
    assert video.num_frames == 3 and video.read_frame(2).shape == (256, 256, 3)
    # Points are scaled to the resized frame, each axis by itself.
    np.testing.assert_allclose(video.points, 256.0 * content['points'])
    whole = tapvid_videos(tmp_path, (96, 160))['0000_of_0002-0000']()
    np.testing.assert_array_equal(whole.read_frame(1), decode_jpeg(files[1]))


def test_queries_as_in_the_paper(tmp_path):
    content = tapvid_video(8)
    content['occluded'][5] = True
    video = tapvid_videos(save(tmp_path / 'x.pkl', [content]))['x-0000']()
    first, strided = [], []
    for number in range(15):
        seen = [t for t in range(8) if not video.occluded[number, t]]
        for t in seen[:1]:
            first.append((number, t, *video.points[number, t, ::-1]))
    for t in (0, 5):
        for number in range(15):
            if not video.occluded[number, t]:
                strided.append((number, t, *video.points[number, t, ::-1]))
    assert len(first) == 14 and len(strided) == 26  # Points 3, 5 and 7 are hidden at times.
    np.testing.assert_array_equal(video.queries('first'), first)
    np.testing.assert_array_equal(video.queries('strided'), strided)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_nothing_in_a_file_is_run(tmp_path):
    touched = tmp_path / 'touched'
    for content in (Evil(touched), {'a': Evil(touched)}, [np.array([Evil(touched)], object)]):
        path = save(tmp_path / 'x.pkl', content)
        with pytest.raises(DataError, match='x.pkl: .*system') as caught:
            tapvid_videos(path)
        assert '\n' not in str(caught.value)
    assert not touched.exists()


@pytest.mark.parametrize('dtype', ['<f4', '>f8', '|b1', '<i2', '|u1'])
def test_arrays_are_those_that_were_pickled(dtype, tmp_path):
    values = np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype)
    content = [values, np.asfortranarray(values), np.array(values[0, 0, 0]), values[:0]]
    content.append(values.transpose(2, 0, 1))
    content.append((values[1], {'inner': values.T}, b'jpeg', 5, None, True))
    for protocol in (3, 4, 5):
        found = read_array_pickle(save(tmp_path / 'x.pkl', content, protocol))
        for stored, array in zip(found[:5], content):
            assert type(stored) is StoredArray and stored.value.dtype == array.dtype
            np.testing.assert_array_equal(stored.value, array)
        inner = found[5]
        np.testing.assert_array_equal(inner[0].value, values[1])
        np.testing.assert_array_equal(inner[1]['inner'].value, values.T)
        assert bytes(inner[2]) == b'jpeg' and inner[3:] == (5, None, True)


def _changed(**changes):
    content = {**tapvid_video(4), **changes}
    return {'goat': {key: value for key, value in content.items() if value is not None}}


@pytest.mark.parametrize(
    'content, message',
    [
        ({}, 'no dict and no list of videos'),
        ('text', 'no dict and no list of videos'),
        ({'../goat': tapvid_video(4)}, "the name '../goat'"),
        ({5: tapvid_video(4)}, "the name '5' is no text"),
        ({'goat': [1]}, "'goat' is no dict"),
        (_changed(occluded=None), "'goat' is no dict"),
        (_changed(video=np.zeros((4, 8, 8), np.uint8)), 'frames that are no uint8'),
        (_changed(video=np.zeros((4, 8, 8, 3))), 'frames that are no uint8'),
        (_changed(video=[]), 'frames that are no uint8'),
        (_changed(video=['a', 'b', 'c', 'd']), 'frames that are no uint8'),
        (_changed(points=np.zeros((15, 5, 2), np.float32)), 'points'),
        (_changed(points=np.full((15, 4, 2), np.nan)), 'not finite'),
        (_changed(points=[1.0]), 'no arrays'),
        (_changed(occluded=np.zeros((15, 4))), 'needed: bool'),
    ],
)
def test_wrong_content_is_named(content, message, tmp_path):
    path = save(tmp_path / 'x.pkl', content)
    with pytest.raises(DataError, match=message) as caught:
        for open_video in tapvid_videos(path).values():
            open_video()
    assert str(path) in str(caught.value)


def test_files_that_are_none(tmp_path):
    for root in (tmp_path, tmp_path / 'missing.pkl'):
        with pytest.raises(DataError, match='holds no file|no such file'):
            tapvid_videos(root)
    (tmp_path / 'empty.pkl').touch()
    with pytest.raises(DataError, match=r'empty.pkl: is no pickle'):
        tapvid_videos(tmp_path)


def test_a_damaged_jpeg_is_named_when_it_is_read(tmp_path):
    content = tapvid_video(2)
    content['video'] = [encode_jpeg(content['video'][0]), b'no image']
    video = tapvid_videos(save(tmp_path / 'x.pkl', {'goat': content}))['goat']()
    video.read_frame(0)
    with pytest.raises(DataError, match="x.pkl: frame 1 of the video 'goat'"):
        video.read_frame(1)
