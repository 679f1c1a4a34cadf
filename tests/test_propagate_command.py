"""`jaxprop propagate` on rendered frames: the files that it writes, and wrong input."""

import pathlib

import pytest

from jaxprop import cli
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
    return sorted(path for path in root.iterdir() if path.is_dir())


def propagate(clip, output, *flags):
    mask = clip.with_name(f'{clip.name}.png')
    flags = f'--output={output}', '--config.network.name=untrained', *SMALL, *flags
    return cli.main(['propagate', *map(str, (clip, mask, *flags))])


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
