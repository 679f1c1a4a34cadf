"""Data that an objective cannot be trained on: one line says why, or they are left out and listed.

With the sampling of each small config. `tests/fuzz` has hostile files.
"""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import cli, config_files
from jaxprop.data.pipeline import unreadable_files
from jaxprop.data.sequences import DataError
from jaxprop.objectives import uvc
from jaxprop.objectives.objective import Objective, unit_images
from jaxprop.training import loop, setup

# Fewer frames than these are too few for the objective.
LEAST = {
    'small_corrflow': 3,
    'small_crw': 3,
    'small_crw_plus': 3,
    'small_mast': 2,
    'small_timecycle': 3,
    'small_uvc': 2,
    'small_uvc:joint': 2,
    'small_uvc_plus': 2,
    'small_vfs': 2,
}
IMAGES = ('small_moco', 'small_rotation')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three whole videos, and three that have too few frames, a single one, and a broken one."""
    root, rng = tmp_path_factory.mktemp('videos'), np.random.default_rng(0)
    lengths = {'0': 20, '1': 20, '2': 20, 'broken': 8, 'short': 3, 'single': 1}
    for name, length in lengths.items():
        (root / name).mkdir()
        for t in range(length):
            frame = rng.integers(0, 256, (16, 20, 3), np.uint8)
            cv2.imwrite(str(root / f'{name}/{t:05d}.jpg'), frame)
    for path in (root / 'broken').iterdir():
        path.write_bytes(path.read_bytes()[:200])
    return root


def small(name, root):
    config = config_files.load_config(name, ('train',))
    for part in ('data', 'image_data'):
        if config[part] is not None:
            config[part].update(root=str(root), size=(16, 16), batch_size=6, num_threads=0)
            config[part].max_unreadable = 0.5
    return config


def test_every_small_config_is_here():
    names = {name.partition(':')[0] for name in (*LEAST, *IMAGES)}
    assert names == {name for name in config_files.config_names(('train',)) if 'small_' in name}


@pytest.mark.parametrize('name', [*LEAST, *IMAGES])
def test_bad_videos_are_left_out_and_listed(name, root):
    config = small(name, root)
    iterator = setup.open_data(config)
    for _ in range(12):
        next(iterator)
    unreadable = unreadable_files(iterator.get_state())
    left_out = {'broken': 'broken/0'}
    if config.data.num_frames > 1:
        left_out['single'] = 'single: has '  # 'one frame only', or how many it should have.
    if config.data.num_frames > 3:
        left_out['short'] = 'short: has 3 frames; needed are at least'
    assert set(unreadable) == {str(root / name) for name in left_out}
    for video, reason in left_out.items():
        assert f'{root}/{reason}' in unreadable[str(root / video)]


@pytest.mark.parametrize('name', [*LEAST, *IMAGES])
def test_nothing_but_bad_videos_is_refused(name, root, tmp_path):
    (tmp_path / 'empty/folder').mkdir(parents=True)
    with pytest.raises(DataError, match='empty: holds neither a folder of JPEG or PNG frames nor'):
        setup.open_data(small(name, tmp_path / 'empty'))
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad/broken').symlink_to(root / 'broken')
    if name in LEAST:
        (tmp_path / 'bad/single').symlink_to(root / 'single')
    with pytest.raises(DataError, match='files in a row are unreadable'):
        next(setup.open_data(small(name, tmp_path / 'bad')))


@pytest.mark.parametrize(
    'name, num_frames',
    [
        *((name, number) for name, least in LEAST.items() for number in range(1, least)),
        *((name, 2) for name in IMAGES),
        ('small_uvc', 3),
        ('small_vfs', 3),
    ],
)
def test_too_few_frames_for_the_objective_name_the_setting(name, num_frames, root, monkeypatch):
    monkeypatch.setattr(uvc, 'load_color_autoencoder', lambda *_: {})
    _, objective, *_ = setup.make_training(small(name, root), steps_per_epoch=10)
    frames = np.zeros((2, num_frames, 16, 16, 3), np.uint8)
    batch = {'frames': frames} if num_frames > 1 else {'image': frames[:, 0]}
    if 'plus' in name:
        batch = {'video': batch, 'image': {'image': frames[:, 0]}}
    backbone = {'backbone': {}}
    with pytest.raises(ValueError, match='num_frames of the data') as error:
        objective.loss(backbone, backbone, batch, jax.random.key(0))
    assert '\n' not in str(error.value)


def test_data_without_classes_are_refused():
    config = config_files.load_config('classification', ('train',))
    _, objective, *_ = setup.make_training(config, steps_per_epoch=10)
    batch = {'image': np.zeros((2, 16, 16, 3), np.uint8)}
    with pytest.raises(ValueError, match="needed: label, classes, of data of kind 'images'"):
        objective.loss({}, {}, batch, jax.random.key(0))


def test_a_refused_batch_claims_no_folder_and_a_bad_video_is_noted(
    root, tmp_path, monkeypatch, capsys
):
    """The objective is of one number, the command and the data are a user's."""

    def loss(params, state, batch, rng):
        del rng
        return jnp.mean(params['backbone']['w'] * unit_images(batch)), (state, {})

    objective = Objective(
        lambda *_: {'params': {'backbone': {'w': np.float32(1)}}, 'state': {}}, loss
    )
    monkeypatch.setattr(setup, 'make_objective', lambda *_: objective)
    monkeypatch.setattr(loop, 'export_backbone', lambda *_: None)
    arguments = [
        *('train', '--config=small_rotation', f'--config.data.root={root}', '--config.steps=9'),
        '--config.log_every=1',
        *('--config.data.size=(8,8)', '--config.data.batch_size=1', f'--workdir={tmp_path}'),
    ]
    assert cli.main([*arguments, '--config.data.num_frames=2']) == 1
    said = capsys.readouterr().err
    assert said.startswith('jaxprop train: the data give frames; needed: image, single images')
    assert said.count('\n') == 1 and not list(tmp_path.glob('[!.]*'))
    # The same folder, with the setting mended.
    assert cli.main(arguments) == 0
    listed = tmp_path / 'unreadable.0.json'
    assert list(json.loads(listed.read_text())) == [str(root / 'broken')]
    assert f'note: 1 unreadable file was left out; {listed} says why' in capsys.readouterr().err
    # Batches are read ahead of the steps; a step counts what was met up to its own.
    config = small('small_rotation', root)
    config.data.update(size=(8, 8), batch_size=1)
    iterator, counts = setup.open_data(config), []
    for _ in range(9):
        next(iterator)
        counts.append(len(unreadable_files(iterator.get_state())))
    entries = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
    assert [entry['unreadable'] for entry in entries] == counts and set(counts) == {0, 1}
