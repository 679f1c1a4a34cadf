"""VIP's layout, written from a rendered scene, whole and with one fault each."""

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxprop.data.sequences import DataError
from jaxprop.data.vip import (
    CLASS_NAMES,
    resize_ids,
    vip_instance_classes,
    vip_names,
    vip_sequence,
)
from tests.layouts import write_vip


def annotation(root, kind, name):
    return root / 'Annotations' / kind / 'videos7' / name


def test_video(tmp_path):
    classes, instances = write_vip(tmp_path)
    assert vip_names(tmp_path) == ('videos7',)
    for kind, truth in (('category', classes), ('instance', instances)):
        sequence = vip_sequence(tmp_path, 'videos7', kind)
        assert (sequence.name, sequence.num_frames, sequence.size) == ('videos7', 3, (96, 128))
        assert sequence.frame_names == ('000000000001', '000000000026', '000000000051')
        for index in range(3):
            label = sequence.read_label(index)
            assert label.dtype == np.int32
            np.testing.assert_array_equal(label, truth[index])
    frame = cv2.imread(str(tmp_path / 'Images' / 'videos7' / '000000000026.jpg'))[..., ::-1]
    np.testing.assert_array_equal(sequence.read_frame(1), frame)
    assert vip_instance_classes(tmp_path, 'videos7') == ({1: 13, 2: 4, 3: 4},) * 3
    assert len(CLASS_NAMES) == 20


def test_void_stays_void(tmp_path):
    write_vip(tmp_path)
    ids = np.zeros((96, 128), np.uint8)
    ids[:9] = 255
    Image.fromarray(ids).save(annotation(tmp_path, 'Category_ids', '000000000026.png'))
    np.testing.assert_array_equal(vip_sequence(tmp_path, 'videos7').read_label(1), ids)


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda root: (root / 'Images').rename(root / 'moved'), 'no such folder'),
        (
            lambda root: annotation(root, 'Instance_ids', '000000000026.png').unlink(),
            'Instance_ids/videos7/000000000026.png: there is no such file',
        ),
        (
            lambda root: annotation(root, 'Instance_ids', '000000000051.png').write_text('x'),
            '000000000051.png: cannot be read',
        ),
        (
            lambda root: Image.new('L', (100, 96)).save(
                annotation(root, 'Instance_ids', '000000000051.png')
            ),
            '000000000051.png: is 96 x 100',
        ),
        (
            lambda root: annotation(root, 'Instance_ids', '000000000051.txt').unlink(),
            '000000000051.txt: there is no such file',
        ),
        (
            lambda root: annotation(root, 'Instance_ids', '000000000051.txt').write_text('1 20\n'),
            "000000000051.txt: the line '1 20'",
        ),
        (
            lambda root: Image.new('RGB', (128, 96)).save(
                annotation(root, 'Instance_ids', '000000000001.png')
            ),
            '000000000001.png: is of mode RGB',
        ),
        (lambda root: (root / 'lists' / 'val_videos.txt').unlink(), 'val_videos.txt'),
        (lambda root: (root / 'lists' / 'val_videos.txt').write_text('\n'), 'names no video'),
    ],
)
def test_refuses_what_is_not_vip(tmp_path, spoil, message):
    write_vip(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        vip_names(tmp_path)
        vip_sequence(tmp_path, 'videos7', 'instance').read_label(0)
        vip_instance_classes(tmp_path, 'videos7')


def test_refuses_another_annotation(tmp_path):
    with pytest.raises(ValueError, match="annotation is 'human'"):
        vip_sequence(tmp_path, 'videos7', 'human')


def test_resized_ids():
    ids = np.zeros((4, 6), np.int32)
    ids[:, 3:] = 8
    nearest = resize_ids(ids, (8, 9), 'nearest')
    rows, columns = np.arange(8) * 4 // 8, np.arange(9) * 6 // 9
    np.testing.assert_array_equal(nearest, ids[rows][:, columns])
    # Between 0 and 8 lie ids that nobody annotated.
    assert set(np.unique(resize_ids(ids, (8, 9), 'bilinear'))) - {0, 8}
    with pytest.raises(ValueError, match="method is 'area'"):
        resize_ids(ids, (8, 9), 'area')
    with pytest.raises(ValueError, match='to 256'):
        resize_ids(ids * 32, (8, 9))
