"""The files that people copy run, and the example's masks are those of the command."""

import ast
import json
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

from jaxprop.config_files import load_config
from jaxprop.data.image_files import read_ids, write_mask
from jaxprop.data.sequences import davis_palette
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.data.video_files import open_video, write_video
from jaxprop.evaluation.run import Labeller, evaluate_config, label_frames
from jaxprop.report.pictures import overlay
from tests.layouts import DAVIS_KINDS, write_davis_sequences
from tests.support import shared

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / 'examples'


def label_by_example(root, output, *arguments):
    """Runs examples/davis.py as a user does."""
    command = [sys.executable, EXAMPLES / 'davis.py', root, output, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(output.glob('*/*.png'))


@pytest.mark.slow
def test_davis_writes_the_masks_of_evaluate(tmp_path):
    sequences = synthetic_sequences(num_sequences=2, num_frames=4, size=(96, 128))
    names = [sequence.name for sequence in sequences]
    write_davis_sequences(tmp_path / 'data', sequences, {'val': names})
    written = label_by_example(tmp_path / 'data', tmp_path / 'example')
    assert len(written) == 8

    # The default network and CRW's factors, as in the example.
    config = load_config('davis_crw')
    config.dataset.root = str(tmp_path / 'data')
    evaluate_config(config, tmp_path / 'evaluate')
    for path in written:
        other = tmp_path / 'evaluate/masks' / path.relative_to(tmp_path / 'example')
        np.testing.assert_array_equal(read_ids(path), read_ids(other))


@pytest.mark.slow
def test_davis_labels_real_frames(tmp_path):
    # Two frames of a real sequence, linked into a folder of their own: a whole one takes minutes.
    real, root = shared('data', 'DAVIS-multi'), tmp_path / 'data'
    for kind, suffix in zip(DAVIS_KINDS, ('jpg', 'png')):
        folder = root / kind / '480p/schoolgirls'
        folder.mkdir(parents=True)
        for name in ('00000', '00001'):
            (folder / f'{name}.{suffix}').symlink_to(
                real / kind / '480p/schoolgirls' / f'{name}.{suffix}'
            )
    first, second = label_by_example(root, tmp_path / 'example', '--names', 'schoolgirls')
    truth = real / 'Annotations/480p/schoolgirls/00001.png'
    np.testing.assert_array_equal(read_ids(first), read_ids(truth.with_name('00000.png')))
    assert np.mean(read_ids(second) == read_ids(truth)) > 0.95


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / 'quickstart.ipynb').read_text())['cells']
    names, shown = {}, []
    for cell in cells:
        if cell['cell_type'] == 'code':
            shown.append(run_cell(''.join(cell['source']), names))
            assert not cell['outputs'], 'the notebook is kept without outputs'
    assert names['truth'].shape == names['found'].shape
    assert 0.3 < names['score'](names['found']) < names['score'](names['truth']) == 1
    assert sum(hasattr(value, '_repr_png_') for value in shown) == 2  # Its pictures.


def run_cell(source, names):
    """Runs a cell as Jupyter does, and returns the value of its last expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), 'a cell', 'exec'), names)
    return eval(compile(ast.Expression(last.value), 'a cell', 'eval'), names) if last else None


@pytest.mark.slow
def test_camera_follows_objects_through_a_file(tmp_path, monkeypatch):
    [video] = synthetic_sequences(num_sequences=1, num_frames=6, size=(96, 128))
    write_video(tmp_path / 'clip.mp4', map(video.read_frame, range(6)))
    write_mask(tmp_path / 'mask.png', video.read_label(0))
    camera = runpy.run_path(str(EXAMPLES / 'camera.py'))
    given = {'source': 'clip.mp4', 'mask': 'mask.png', 'output': 'overlay.mp4'}
    flags = [f'--{name}={tmp_path / value}' for name, value in given.items()]
    monkeypatch.setattr(sys, 'argv', ['camera.py', *flags, '--size=96'])
    camera['main']()
    shown = list(open_video(tmp_path / 'overlay.mp4').iterate())
    assert len(shown) == 6

    # The masks over the frames are those of the command with these settings.
    config = load_config('own_video')
    config.input.update(resize='short_side', size=96)
    config.propagation.update(num_context=7, radius=12 * 96 / 480)
    frames = list(camera['read_frames'](str(tmp_path / 'clip.mp4')))
    found = label_frames(frames, video.read_label(0), Labeller.from_config(config))
    for frame, ids, picture in zip(frames, found, shown, strict=True):
        expected = overlay(frame, ids, davis_palette())
        assert np.mean(np.abs(picture - expected.astype(float)) > 40) < 0.002

    monkeypatch.setattr(sys, 'argv', ['camera.py', f'--source={tmp_path / "none.mp4"}'])
    with pytest.raises(SystemExit):
        camera['main']()
