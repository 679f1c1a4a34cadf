"""A wrong setting of training gives one line that says what is wrong, or the run begins."""

import types

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxprop import cli, config_files
from jaxprop.training import loop

WRONG = {
    bool: ('maybe', '3'),
    int: ('0', '-1', '7', '1.5', 'nan', 'many', '', '99999999999999999999'),
    float: ('0', '-1', 'nan', 'inf', '1e400', 'much', ''),
    str: ('', 'no-such', '\x00', '../..', '7'),
    tuple: ('()', '(0,0)', '(-1,2)', "('a','b')", '(1,2,3)', '7', '(', 'None'),
    type(None): ('', 'no-such', '7', 'None'),
}


class RunBegins(Exception):
    pass


@pytest.fixture
def root(tmp_path, monkeypatch):
    for video in range(2):
        (tmp_path / f'data/{video}').mkdir(parents=True)
        for frame in range(3):
            path = tmp_path / f'data/{video}/{frame}.png'
            cv2.imwrite(str(path), np.full((8, 8, 3), 40 * (video + frame), np.uint8))
    for name, split in (('bear', 'train'), ('dog', 'val')):
        path = tmp_path / f'davis/ImageSets/2017/{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{name}\n')
        for kind in ('JPEGImages', 'Annotations'):
            path = tmp_path / f'davis/{kind}/480p/{name}/00000.png'
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), np.full((8, 8), 255, np.uint8))
    # The value '../..' of a folder means one that holds no more than this.
    inner = tmp_path / 'a/b/c'
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return tmp_path / 'data'


def leaves(config, prefix=''):
    """Lists the fields of a config, with the type of each."""
    for name in config:
        if isinstance(config[name], ConfigDict):
            yield from leaves(config[name], f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', config.get_type(name)


def changes(name):
    """Lists every wrong value of every field of a config."""
    config = config_files.load_config(name, ('train',))
    for field, kind in leaves(config):
        # Processes that read are slow to start.
        yield from ((field, value) for value in WRONG[kind] if field != 'data.num_workers')


def begin(arguments, monkeypatch, capsys):
    """Starts a run; returns its exit code and output, or (None, '') if it reaches a step."""

    def stop(*_, **__):
        raise RunBegins

    create = loop.create_state
    monkeypatch.setattr(loop, 'create_state', lambda *parts: jax.eval_shape(lambda: create(*parts)))
    # Tracing the step takes most of a second.
    monkeypatch.setattr(loop.parallel, 'replicate', lambda state: state)
    step = types.SimpleNamespace(lower=lambda *_: None)
    monkeypatch.setattr(loop, 'make_train_step', lambda *_: step)
    monkeypatch.setattr(loop.checkpoint, 'open_manager', stop)
    try:
        code = cli.main(['train', *arguments])
    except RunBegins:
        code = None
    return code, capsys.readouterr().err


def test_wrong_settings(root, tmp_path, monkeypatch, capsys):
    everything = list(changes('small_rotation'))
    chosen = np.random.default_rng(0).permutation(len(everything))[:80]
    bad, refused = [], 0
    for index in chosen:
        field, value = everything[index]
        arguments = (
            '--config=small_rotation',
            f'--config.data.root={root}',
            '--config.data.batch_size=4',
            '--config.backbone.output=res1',
            '--config.evaluation.every=5',
            f'--config.evaluation.dataset.root={root.parent}/davis',
            f'--workdir={tmp_path / str(index)}',
            f'--config.{field}={value}',
        )
        try:
            code, said = begin(arguments, monkeypatch, capsys)
        except Exception as error:
            bad.append(f'{field}={value}: {error!r}'[:300])
            continue
        refused += code is not None
        if code not in (None, 1, 2) or code and said.count('\n') != 1:
            bad.append(f'{field}={value}: {code}: {said}'[:300])
    assert not bad, '\n'.join(bad)
    assert refused > 40
