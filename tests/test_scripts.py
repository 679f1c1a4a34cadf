"""The scripts and the configs, as a user starts them."""

import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxprop.data.image_files import read_mask
from jaxprop.data.video_files import open_video
from jaxprop.evaluation import labeller, networks, sources
from jaxprop.models import find_network
from tests.support import shared

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = [
    '--config.network.output=res1',
    '--config.network.strides=(1,2,1,1)',
    '--config.propagation.num_context=2',
    '--config.propagation.num_neighbors=3',
    '--config.propagation.radius=3.0',
    '--config.input.resize=short_side',
    '--config.input.size=64',
]


def start(script, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
    )


@pytest.mark.parametrize('path', sorted((ROOT / 'configs/eval').glob('*.py')), ids=lambda p: p.stem)
def test_every_evaluation_config_builds(path, monkeypatch):
    def without_weights(name, architecture, seed, untrained, **attributes):
        attributes = {key: value for key, value in attributes.items() if value is not None}
        attributes = {**untrained, **attributes}
        model = find_network(attributes.pop('architecture', 'resnet'))(**attributes)
        return networks.Network(model, {}, False, {'name': name})

    monkeypatch.setattr(sources, 'load_network', without_weights)  # Initialising takes seconds.
    config = importlib.import_module(f'configs.eval.{path.stem}').get_config()
    assert config.name == path.stem
    settings = labeller.Labeller.from_config(config).settings()
    assert settings['propagation']['temperature'] == config.propagation.temperature


def test_evaluate_on_davis_multi(tmp_path):
    root = shared('data', 'DAVIS-multi')
    # Seven objects at a small size; the official evaluation's file layout.
    done = start(
        'evaluate.py',
        f'--config={ROOT}/configs/eval/davis_crw.py',
        f'--config.dataset.root={root}',
        f'--output={tmp_path}',
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert len(metrics['per_sequence']) == 7
    mask = read_mask(tmp_path / 'masks/schoolgirls/00079.png')
    truth = read_mask(root / 'Annotations/480p/schoolgirls/00000.png')
    assert mask.shape == truth.shape and set(np.unique(mask)) <= set(np.unique(truth))


def test_evaluate_names_a_missing_dataset():
    done = start('evaluate.py', f'--config={ROOT}/configs/eval/davis_crw.py')
    assert done.returncode != 0 and 'dataset.root' in done.stderr


def test_propagate_a_video_file(tmp_path):
    clip = shared('data', 'clips', 'schoolgirls.mp4')
    mask = shared('data', 'DAVIS-multi', 'Annotations', '480p', 'schoolgirls', '00000.png')
    done = start(
        'propagate.py',
        clip,
        mask,
        f'--output={tmp_path}',
        '--config.network.name=untrained',
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'masks').glob('*.png'))) == 80
    assert open_video(tmp_path / 'overlay.mp4').num_frames == 80
    assert 'untrained' in done.stdout


def test_propagate_names_the_bad_file(tmp_path):
    done = start('propagate.py', tmp_path / 'no.mp4', tmp_path / 'no.png', f'--output={tmp_path}')
    assert done.returncode != 0 and 'no.mp4' in done.stderr
