"""BADJA: the real annotations with the real frames, and small ones with one fault each."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxprop.data.badja import JOINT_NAMES, NUM_JOINTS, badja_names, badja_sequence
from jaxprop.data.sequences import DataError
from tests.layouts import write_davis
from tests.support import shared


def test_real_annotations():
    folder, davis = shared('data', 'BADJA'), shared('data', 'DAVIS')
    assert badja_names(folder) == ('bear', 'dog', 'dog-agility', 'horsejump-low')
    expected = {  # Frames from the first annotated one to the last, annotated ones, points.
        'bear': (79, 17, '00002'),
        'dog': (53, 12, '00003'),
        'dog-agility': (21, 5, '00000'),
        'horsejump-low': (58, 12, '00000'),
    }
    inside = []
    for name, (num_frames, num_annotated, first) in expected.items():
        sequence = badja_sequence(folder, davis, name)
        assert (sequence.num_frames, sequence.size) == (num_frames, (480, 854))
        assert sequence.frame_names[0] == first and len(sequence.frame_names) == num_frames
        annotated = np.flatnonzero(~np.isnan(sequence.scales))
        assert len(annotated) == num_annotated and {0, num_frames - 1} <= set(annotated)
        entries = json.loads((folder / f'{name}.json').read_text())
        for index, entry in zip(annotated, entries, strict=True):
            frame_name = sequence.frame_names[index]
            assert entry['image_path'].endswith(f'/{frame_name}.jpg')
            mask = np.array(Image.open(davis / 'Annotations/480p' / name / f'{frame_name}.png'))
            mask = (mask if mask.ndim == 2 else mask[..., 0]) > 0
            np.testing.assert_allclose(sequence.scales[index], mask.sum() ** 0.5)
            for joint, (y, x) in enumerate(entry['joints']):
                position = sequence.positions[index, joint]
                if not entry['visibility'][joint]:
                    assert np.isnan(position).all()
                    continue
                np.testing.assert_allclose(position, (x * 854 / 1920, y * 480 / 1080))
                column, row = np.rint(position).astype(int)
                inside.append(mask[max(row - 12, 0) : row + 13, max(column - 12, 0) : column + 13])
        others = np.setdiff1d(np.arange(num_frames), annotated)
        assert np.isnan(sequence.positions[others]).all()
    # An animal's joints lie on the animal: read as [x, y] or unscaled, most would not.
    on_animal = [patch.any() for patch in inside]
    assert len(on_animal) > 600 and np.mean(on_animal) > 0.97
    assert len(JOINT_NAMES) == NUM_JOINTS


@pytest.fixture
def small(tmp_path):
    """DAVIS with 5 frames of 24 x 40, annotated from the second to the fourth."""
    write_davis(tmp_path, 5)
    write_annotations(tmp_path, [annotation(1), annotation(3)])
    return tmp_path


def annotation(frame, **changes):
    visibility = [False] * NUM_JOINTS
    visibility[8] = visibility[33] = True
    joints = [[0, 0] for _ in range(NUM_JOINTS)]
    joints[8], joints[33] = [450, 960], [1080, 0]
    return {
        'segmentation_path': f'DAVIS/Annotations/Full-Resolution/cat/{frame:05d}.png',
        'image_path': f'DAVIS/JPEGImages/Full-Resolution/cat/{frame:05d}.jpg',
        'visibility': visibility,
        'joints': joints,
        **changes,
    }


def write_annotations(root, entries):
    (root / 'cat.json').write_text(json.dumps(entries))


def test_positions_scale_and_frames(small):
    sequence = badja_sequence(small, small, 'cat')
    assert (sequence.num_frames, sequence.frame_names) == (3, ('00001', '00002', '00003'))
    np.testing.assert_allclose(sequence.positions[0, 8], (20, 10))
    np.testing.assert_allclose(sequence.positions[2, 33], (0, 24))
    np.testing.assert_array_equal(np.isnan(sequence.positions[1]), True)
    np.testing.assert_allclose(sequence.scales, (6, np.nan, 6))
    assert sequence.read_frame(0)[0, -1, 0] == 10


@pytest.mark.parametrize(
    'entries, message',
    [
        ([], 'annotates no frame'),
        ([annotation(1), annotation(1)], "'00001' is there twice"),
        ([annotation(7)], "annotates the frame '00007'"),
        ([annotation(1, joints=[[0, 0]] * 20)], 'not 37 pairs'),
        ([annotation(1, joints=[[0, None]] * 37)], 'not a list of annotated frames'),
        ([annotation(1, visibility=[1] * 37)], 'not 37 booleans'),
        ([annotation(1, visibility=[False] * 37)], 'no visible joint'),
        ([{'joints': []}], "not a list of annotated frames: 'image_path'"),
        ({'a': 1}, 'not a list of annotated frames'),
    ],
)
def test_refuses_what_are_not_annotations(small, entries, message):
    write_annotations(small, entries)
    with pytest.raises(DataError, match=f'cat.json: .*{message}'):
        badja_sequence(small, small, 'cat')


def test_refuses_missing_files_and_empty_masks(small):
    with pytest.raises(DataError, match='dog.json: there is no such file'):
        badja_sequence(small, small, 'dog')
    with pytest.raises(DataError, match='no annotations'):
        badja_names(small / 'JPEGImages')
    Image.new('L', (40, 24)).save(small / 'Annotations' / '480p' / 'cat' / '00003.png')
    with pytest.raises(DataError, match="'00003' has no mask, or an empty one"):
        badja_sequence(small, small, 'cat')
