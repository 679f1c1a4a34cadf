"""`jaxprop export-features`: its files, and that reading them gives the computed features."""

import importlib
import re

import numpy as np
import pytest

from jaxprop import cli, files
from jaxprop.evaluation.folder_features import CARD
from tests.test_propagate_command import clips, names, propagate  # noqa: F401
from tests.test_scripts import SMALL

export = importlib.import_module('jaxprop.evaluation.export')
# Labels that are refined at the frame can't be decoded elsewhere.
AT_INPUT = ['--config.labels.decode_at=input', '--config.labels.refine=none']
SMALLER = ['--config.input.size=48', *AT_INPUT]
UNTRAINED = ['--config.network.name=untrained', *SMALL, *SMALLER]


def export_features(*arguments):
    return cli.main(['export-features', *map(str, arguments)])


def test_masks_of_exported_features(clips, tmp_path, capsys):  # noqa: F811
    """Masks are the same for any size of frames in the network, and any place of decoding."""
    feature = f'--config.network.name=features:{tmp_path}/features'
    assert export_features(*clips, f'--output={tmp_path}/features', *UNTRAINED) == 0
    assert 'its weights are random' in capsys.readouterr().out
    assert names(tmp_path / 'features') == sorted([CARD, *(f'{clip.name}.npy' for clip in clips)])
    assert np.load(tmp_path / f'features/{clips[0].name}.npy').shape[:3] == (5, 12, 15)
    flags = [flag for flag in SMALL if not re.match('--config.(network|input)', flag)]
    flags += AT_INPUT
    assert propagate(clips[0], tmp_path / 'computed', *SMALLER) == 0
    mask = clips[0].with_name(f'{clips[0].name}.png')
    arguments = ['propagate', clips[0], mask, feature, *flags, f'--output={tmp_path}/read']
    assert cli.main(list(map(str, arguments))) == 0
    assert 'its weights are random' in capsys.readouterr().out
    read, computed = (tmp_path / 'read', tmp_path / 'computed')
    assert files.digest([read / 'masks']) == files.digest([computed / 'masks'])
    assert len(names(read / 'masks')) == 5


def test_a_folder_is_gone_on_with_or_refused(clips, tmp_path, capsys, monkeypatch):  # noqa: F811
    # Ctrl-C in the second video.
    write = export.export_video

    def stops(source, video, frames, path, dtype):
        if video.name == clips[1].name:
            next(frames), path.with_name('.x.partial-01234567.npy').touch()
            raise KeyboardInterrupt
        return write(source, video, frames, path, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(export, 'export_video', stops)
        assert export_features(*clips, f'--output={tmp_path}', *UNTRAINED) == 130
    assert 'the features of 1 videos are kept' in capsys.readouterr().err
    first = tmp_path / f'{clips[0].name}.npy'
    written = first.stat().st_mtime_ns

    # The same command again; other settings; another video of the same name; somebody's folder.
    assert export_features(*clips, f'--output={tmp_path}', *UNTRAINED) == 0
    assert f'{clips[0].name}: there already' in capsys.readouterr().out
    assert first.stat().st_mtime_ns == written
    assert names(tmp_path) == sorted([CARD, *(f'{clip.name}.npy' for clip in clips)])
    for flag, expected in (
        ('--config.input.size=40', 'input/size is 40, was 48'),
        ('--format=safetensors', 'format is safetensors, was npy'),
        ('--dtype=float16', 'dtype is float16, was float32'),
    ):
        assert export_features(*clips, f'--output={tmp_path}', *UNTRAINED, flag) == 1
        assert expected in capsys.readouterr().err
    other = tmp_path / 'other' / clips[0].name
    other.mkdir(parents=True)
    (other / '0.jpg').write_bytes(next(clips[0].iterdir()).read_bytes())
    assert export_features(other, f'--output={tmp_path}', *UNTRAINED) == 1
    assert 'holds the features of another video' in capsys.readouterr().err
    assert export_features(clips[0], other, f'--output={tmp_path}/twice', *UNTRAINED) == 1
    assert 'two videos are called' in capsys.readouterr().err
    assert not (tmp_path / 'twice').exists()
    (tmp_path / 'mine').mkdir()
    np.save(tmp_path / 'mine/a.npy', np.zeros(3))
    assert export_features(clips[0], f'--output={tmp_path}/mine', *UNTRAINED) == 1
    assert f'holds a.npy, but no {CARD}' in capsys.readouterr().err
    assert names(tmp_path / 'mine') == ['a.npy']


def test_the_sequences_of_a_benchmark(tmp_path, capsys):
    flags = ['--config.dataset.num_sequences=2', '--config.dataset.num_frames=3', *UNTRAINED]
    flags += [f'--output={tmp_path}', '--format=safetensors', '--dtype=float16']
    assert export_features(*flags) == 0
    found = names(tmp_path)
    assert len(found) == 3 and sum(name.endswith('.safetensors') for name in found) == 2
    card = files.read_json(tmp_path / CARD)
    assert (card['dtype'], card['input']['size']) == ('float16', 48)
    assert card['network']['trained'] is False
    assert {video['num_frames'] for video in card['videos'].values()} == {3}
    assert 'git commit' in card['provenance']


@pytest.mark.parametrize(
    ('arguments', 'code', 'expected'),
    [
        ('clip.mp4', 2, '--output=DIR'),
        ('clip.mp4 --output=out', 1, 'clip.mp4: there is no such'),
        ('--output=out --format=npz', 2, 'npz'),
        ('--output=out --config.network.name=lost', 1, "no network 'lost'"),
        ('--output=out --config=davis_crw', 2, 'dataset.root is empty'),
    ],
)
def test_wrong_input_is_one_line(arguments, code, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export_features(*arguments.split()) == code
    printed = capsys.readouterr().err
    assert expected in printed and printed.count('\n') == 1
    assert not list(tmp_path.iterdir())
