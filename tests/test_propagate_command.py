"""`jaxprop propagate` on rendered frames: the files that it writes, and wrong input."""

import csv
import pathlib
import shutil

import numpy as np
import pytest

from jaxprop import cli, files
from jaxprop.commands import propagate as propagate_command
from jaxprop.data import image_files
from jaxprop.data.synthetic import synthetic_sequences
from tests.test_scripts import SMALL

NUM_FRAMES = 5


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Writes two folders of frames with a mask each."""
    root = tmp_path_factory.mktemp('clips')
    for video in synthetic_sequences(num_sequences=2, num_frames=NUM_FRAMES, size=(64, 80)):
        for t in range(NUM_FRAMES):
            path = root / video.name / f'{t:05d}.jpg'
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(image_files.encode_jpeg(video.read_frame(t)))
        image_files.write_mask(root / f'{video.name}.png', video.read_label(0))
        for t in (1, 3):
            path = root / 'masks' / video.name / f'{t}.png'
            image_files.write_mask(path, video.read_label(t))
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name != 'masks')


def propagate(clip, output, *flags, masks=()):
    masks = masks or [clip.with_name(f'{clip.name}.png')]
    flags = f'--output={output}', '--config.network.name=untrained', *SMALL, *flags
    return cli.main(['propagate', *map(str, (clip, *masks, *flags))])


def names(folder: pathlib.Path):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


WHOLE = sorted(
    ['settings.json', 'finished.json', 'overlay.mp4', 'confidence.csv']
    + [f'masks/{t:05d}.png' for t in range(NUM_FRAMES)]
)


def test_a_folder_is_one_video_s_and_whole(clips, tmp_path, capsys, monkeypatch):
    # Ctrl-C in the middle.
    write = image_files.write_mask

    def stops(path, *rest):
        if path.name == '00003.png':
            raise KeyboardInterrupt
        write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(image_files, 'write_mask', stops)
        assert propagate(clips[0], tmp_path) == 130
    assert 'interrupted; no mask is kept' in capsys.readouterr().err
    assert names(tmp_path) == ['settings.json']

    # The same command again, and once more.
    assert propagate(clips[0], tmp_path) == 0
    assert names(tmp_path) == WHOLE
    masks = [(tmp_path / name).read_bytes() for name in WHOLE]
    capsys.readouterr()
    assert propagate(clips[0], tmp_path) == 0
    assert 'there already' in capsys.readouterr().out
    assert [(tmp_path / name).read_bytes() for name in WHOLE[:-1]] == masks[:-1]

    # Another video.
    assert propagate(clips[1], tmp_path) == 1
    assert 'video/masks/00000 is ' in capsys.readouterr().err
    assert [(tmp_path / name).read_bytes() for name in WHOLE[:-1]] == masks[:-1]

    # Masks that were corrected by hand stay, and so does what else is there.
    corrected = tmp_path / 'masks' / '00002.png'
    corrected.write_bytes(b'by hand')
    (tmp_path / 'masks' / 'notes.txt').touch()
    assert propagate(clips[0], tmp_path) == 1
    assert 'not as they were written' in capsys.readouterr().err
    assert corrected.read_bytes() == b'by hand' and (tmp_path / 'masks' / 'notes.txt').exists()


def test_a_stopped_command_goes_on(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(propagate_command, '_SECONDS_BETWEEN_PLACES', 0.0)
    arguments = {'masks': [clips[0].parent / 'masks' / clips[0].name]}
    flags = '--config.feature_batch=1', '--confidence_maps', '--from=1'
    assert propagate(clips[0], tmp_path / 'whole', *flags, **arguments) == 0
    # Stop it while the last mask is written, and once more while results get their names.
    write, move, stopped_at = image_files.write_mask, files.move, []

    def stops(path, *rest):
        if path.match('masks/00004.png') and not stopped_at:
            stopped_at.append(path.name)
            raise KeyboardInterrupt
        write(path, *rest)

    def stops_moving(partial, path):
        if path.name == 'masks' and 'moving' not in stopped_at:
            stopped_at.append('moving')
            raise KeyboardInterrupt
        move(partial, path)

    monkeypatch.setattr(image_files, 'write_mask', stops)
    monkeypatch.setattr(files, 'move', stops_moving)
    stopped = tmp_path / 'stopped'
    assert propagate(clips[0], stopped, *flags, **arguments) == 130
    assert 'the masks up to frame 00002 are kept' in capsys.readouterr().err
    shutil.copytree(stopped, tmp_path / 'other')
    assert propagate(clips[0], stopped, *flags, **arguments) == 130
    said = capsys.readouterr()
    assert 'going on after frame 00002' in said.out and 'no mask is kept' in said.err
    assert propagate(clips[0], stopped, *flags, **arguments) == 0
    assert stopped_at == ['00004.png', 'moving']
    assert names(stopped) == names(tmp_path / 'whole')
    for name in names(stopped):
        if name not in ('finished.json', 'settings.json'):
            assert (stopped / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes(), name

    # A place of other settings does not count.
    capsys.readouterr()
    other = '--config.propagation.temperature=0.2'
    assert propagate(clips[0], tmp_path / 'other', *flags, other, **arguments) == 0
    assert 'going on' not in capsys.readouterr().out


def test_settings_that_label_nothing_claim_no_folder(clips, tmp_path, capsys):
    wrong = '--config.propagation.num_neighbors=1000000'
    assert propagate(clips[0], tmp_path, wrong) == 1
    assert 'num_neighbors' in capsys.readouterr().err
    assert propagate(clips[1], tmp_path) == 0
    assert names(tmp_path) == WHOLE


def test_a_folder_of_somebody_else_is_left_alone(clips, tmp_path, capsys):
    (tmp_path / 'masks').mkdir()
    (tmp_path / 'masks' / 'mine.png').touch()
    assert propagate(clips[0], tmp_path) == 1
    assert 'holds masks, but no settings.json' in capsys.readouterr().err
    assert names(tmp_path) == ['masks/mine.png']


def test_masks_of_several_frames(clips, tmp_path, capsys):
    """They are found in a folder; frames before the first one are labelled too."""
    clip = clips[0]
    folder = clip.parent / 'masks' / clip.name
    flags = '--from=0', '--to=3', '--confidence_maps'
    assert propagate(clip, tmp_path, *flags, masks=[folder]) == 0
    assert 'one further mask of all objects would help most at frame' in capsys.readouterr().out
    frames = [f'{t:05d}' for t in range(4)]
    results = [f'{part}/{name}.png' for part in ('masks', 'confidence') for name in frames]
    assert set(results) == {name for name in names(tmp_path) if '/' in name}
    for t in (1, 3):
        given = image_files.read_mask(folder / f'{t}.png')
        written = image_files.read_mask(tmp_path / 'masks' / f'{t:05d}.png')
        np.testing.assert_array_equal(written, given)
        assert (image_files.read_ids(tmp_path / 'confidence' / f'{t:05d}.png') == 255).all()
    with open(tmp_path / 'confidence.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    objects = np.unique(image_files.read_mask(folder / '1.png'))[1:]
    expected = [(name, str(value)) for name in frames[:3] for value in objects]
    assert [(row['frame'], row['object']) for row in rows if row['frame'] != '00003'] == expected
    assert all(float(row['confidence']) == 1 for row in rows if row['mask_given'] == '1')
    assert {row['frame'] for row in rows if row['mask_given'] == '1'} == {'00001', '00003'}


def test_a_range_without_any_object(clips, tmp_path):
    masks = [clips[0].parent / 'masks' / clips[0].name / '1.png', tmp_path / '3.png']
    image_files.write_mask(masks[1], np.zeros((64, 80), np.uint8))
    assert propagate(clips[0], tmp_path / 'out', '--from=3', masks=masks) == 0
    assert not image_files.read_mask(tmp_path / 'out' / 'masks' / '00004.png').any()
    assert (tmp_path / 'out' / 'confidence.csv').read_text().splitlines()[1:] == []


def test_frames_and_masks_that_are_none(clips, tmp_path, capsys):
    assert propagate(clips[0], tmp_path, '--to=7') == 1
    assert (
        "--to is '7', which is no frame; the frames are 00000 to 00004" in capsys.readouterr().err
    )
    assert propagate(clips[0], tmp_path, '--from=3', '--to=2') == 1
    assert '--from is 3, after --to, 2' in capsys.readouterr().err
    masks = [clips[0].parent / 'masks' / clips[0].name / '1.png', clips[0].with_suffix('.png')]
    assert propagate(clips[0], tmp_path, masks=masks) == 1
    assert 'its name is that of no frame' in capsys.readouterr().err
    assert names(tmp_path) == []
