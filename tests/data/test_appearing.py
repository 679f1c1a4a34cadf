"""Videos whose objects appear later: layouts, meta.json, and what is wrong with files."""

import json

import numpy as np
import pytest

from jaxprop.data.appearing import open_video, video_names
from jaxprop.data.image_files import read_mask, write_mask
from jaxprop.data.sequences import DataError, NoListError
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.data.youtube_vos import SEEN, youtube_vos_names, youtube_vos_sequence
from tests.layouts import write_youtube_vos

STARTS = {2: 3, 3: 1}


@pytest.fixture(scope='module')
def sequence():
    (made,) = synthetic_sequences(num_sequences=1, num_frames=6, size=(64, 80), num_objects=3)
    return made


@pytest.fixture
def root(sequence, tmp_path):
    write_youtube_vos(tmp_path, [sequence], STARTS, {2: 'zebra', 3: 'ant'})
    return tmp_path


def edit(root, change):
    meta = json.loads((root / 'meta.json').read_text())
    change(meta)
    (root / 'meta.json').write_text(json.dumps(meta))


@pytest.mark.parametrize('with_truth', [True, False])
def test_objects_are_given_where_they_appear(sequence, with_truth, tmp_path):
    write_youtube_vos(tmp_path, [sequence], STARTS, {2: 'zebra', 3: 'ant'}, with_truth)
    (name,) = youtube_vos_names(tmp_path)
    video = youtube_vos_sequence(tmp_path, name)
    assert (video.num_frames, video.size, video.frame_names[3]) == (6, (64, 80), '00015')
    assert video.starts == {1: 0, 2: 3, 3: 1} and video.asked == tuple(range(6))
    assert video.categories == {1: 'person', 2: 'zebra', 3: 'ant'}
    given = video.appearing()
    assert list(given) == [0, 1, 3]
    for frame, value in ((0, 1), (1, 3), (3, 2)):
        truth = sequence.read_label(frame)
        np.testing.assert_array_equal(given[frame], np.where(truth == value, value, 0))
    # Masks of the frames in which objects appear are no truth: they may lack the other objects.
    assert video.annotated == (tuple(range(6)) if with_truth else ())
    truth = video.read_label(4)
    if with_truth:
        np.testing.assert_array_equal(truth, sequence.read_label(4))
    else:
        assert truth is None and video.read_label(3) is None


def test_all_frames_and_those_that_are_asked_for(sequence, root, tmp_path):
    whole = tmp_path / 'all'
    write_youtube_vos(whole, [sequence], {}, {})
    folder = root / 'JPEGImages' / sequence.name
    for stem in ('00005', '00020'):
        (folder / f'{stem}.jpg').unlink()
        (root / 'Annotations' / sequence.name / f'{stem}.png').unlink()

    def change(meta):
        for about in meta['videos'][sequence.name]['objects'].values():
            about['frames'] = [f for f in about['frames'] if f not in ('00005', '00020')]

    edit(root, change)
    sparse = youtube_vos_sequence(root, sequence.name)
    assert sparse.frame_names == ('00000', '00010', '00015', '00025')
    assert sparse.asked == (0, 1, 2, 3) and sparse.starts == {1: 0, 2: 2, 3: 1}
    dense = youtube_vos_sequence(root, sequence.name, all_frames=whole)
    assert dense.num_frames == 6 and dense.asked == dense.annotated == (0, 2, 3, 5)
    assert dense.starts == {1: 0, 2: 3, 3: 2} and dense.identity() != sparse.identity()


def test_without_meta_all_frames_from_the_first_object_on_are_asked_for(sequence, root):
    folders = [root / kind / sequence.name for kind in ('JPEGImages', 'Annotations')]
    (folders[1] / '00000.png').unlink()
    assert video_names(root) == (sequence.name,)
    video = open_video(sequence.name, *folders)
    assert video.num_frames == 5 and video.frame_names[0] == '00005'
    assert video.starts == {1: 0, 2: 2, 3: 0} and video.asked == (0, 1, 2, 3, 4)


def test_the_list_of_seen_categories():
    assert len(SEEN) == 65 and {'person', 'earless_seal', 'zebra'} <= SEEN
    assert not {'ant', 'kangaroo', 'butterfly'} & SEEN


def _no_category(meta):
    next(iter(meta['videos'].values()))['objects']['2'].pop('category')


def _lost_object(meta):
    next(iter(meta['videos'].values()))['objects'].pop('2')


def _unknown_frame(meta):
    next(iter(meta['videos'].values()))['objects']['1']['frames'].append('00099')


def _nothing_asked(meta):
    for about in next(iter(meta['videos'].values()))['objects'].values():
        about['frames'] = []


def _large_id(meta):
    objects = next(iter(meta['videos'].values()))['objects']
    objects['300'] = objects['1']


@pytest.mark.parametrize(
    'change, message',
    [
        (_no_category, "'category'"),
        (_lost_object, 'has the object 2'),
        (_unknown_frame, '00099.jpg: missing'),
        (_nothing_asked, 'asks for no frame'),
        (_large_id, 'the object 300'),
        (lambda meta: meta.pop('videos'), 'does not list videos'),
        (lambda meta: meta['videos'].clear(), 'names no video'),
    ],
)
def test_wrong_meta(change, message, sequence, root):
    edit(root, change)
    with pytest.raises(DataError, match=message) as caught:
        youtube_vos_sequence(root, sequence.name)
    assert str(root) in str(caught.value)


def test_wrong_files(sequence, root):
    masks = root / 'Annotations' / sequence.name
    write_mask(masks / '00001.png', np.zeros((64, 80), int))
    with pytest.raises(DataError, match='00001.png: a mask without its frame'):
        youtube_vos_sequence(root, sequence.name)
    (masks / '00001.png').unlink()
    with pytest.raises(DataError, match="has no video 'other'"):
        youtube_vos_sequence(root, 'other')
    with pytest.raises(NoListError, match='there is no such list'):
        video_names(root, root / 'val.txt')
    for path in masks.iterdir():
        write_mask(path, 0 * read_mask(path))
    with pytest.raises(DataError, match='no mask has an object'):
        youtube_vos_sequence(root, sequence.name)


def test_an_object_of_meta_without_a_pixel_is_left_out_and_told(sequence, root):
    for path in (root / 'Annotations' / sequence.name).iterdir():
        ids = read_mask(path)
        write_mask(path, np.where(ids == 2, 0, ids))
    video = youtube_vos_sequence(root, sequence.name)
    assert video.starts == {1: 0, 3: 1}
    assert len(video.notes) == 1 and 'the object 2 of' in video.notes[0]
