"""The console command: its help, its errors for wrong input, and where it finds configs."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from jaxprop import cli, config_files

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = {name: command for name, command in cli.COMMANDS.items() if command.config}


def run(*arguments, cwd, code=None, **environment):
    """Runs `jaxprop`, or Python code, in its own process, from a folder outside the checkout."""
    start = ['-c', code] if code else ['-m', 'jaxprop']
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
    )


def fails(capsys, code, *arguments):
    """Runs a command that fails, and returns its last line."""
    assert cli.main(list(map(str, arguments))) == code
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1
    return printed.err


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ('evalute', "'evaluate'"),
        ('evaluate --outptu=x', "'--output'"),
        ('evaluate --config=davis_crv', "'davis_crw'"),
        ('evaluate --config=eval/davis_crv', "'eval/davis_crw'"),
        ('evaluate --config=small_rotation', 'in train/'),
        ('evaluate --config=configs/train/small_rotation.py', 'another command'),
        ('evaluate --config=mine.py', "no file 'mine.py'"),
        ('evaluate --config=davis_crw:joint', 'takes no argument'),
        ('evaluate --config', '--config needs a value'),
        ('evaluate --config.propagation.radios=3', "'propagation.radius'"),
        ('evaluate --config.radius=3', "'propagation.radius'"),
        ('evaluate --config.propagation.radius.x=3', 'radius is 12.0'),
        ('evaluate --config.propagation.radius=wide', "'wide'"),
        ('evaluate --config.network.strides=(1,', '(1,'),
        ('evaluate --process_id=first', "'first'"),
        ('evaluate more', "'more'"),
        ('evaluate --config=davis_crw', '--config.dataset.root=FOLDER'),
        ('evaluate --config=davis_crw --config.dataset.kind=jhmdb', 'take the config of that'),
        ('evaluate --config.dataset.kind=davis.x', "'davis'"),
        ('train', '--config.data.root=FOLDER'),
        ('train --config=uvc:jiont', "'joint'"),
        ('train --config=small_uvc_plus:jiont', 'stages: warm_up, joint'),
        ('train --config=uvc_plus_moco_imagenet --config.data.root=x', 'image_data.root=FOLDER'),
        ('train --config.data.roott=x', "'data.root'"),
        ('train --config.schedule.learning_rate=fast', "'fast'"),
        ('train --config.image_data=3', 'cannot be changed'),
        ('compare RUN', 'two finished runs'),
        ('propagate clip.mp4 --output=DIR', 'VIDEO_OR_FOLDER MASK'),
        ('propagate clip.mp4 mask.png', '--output=DIR'),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, expected, capsys):
    line = fails(capsys, 2, *arguments.split())
    assert expected in line and line.startswith('jaxprop')


def test_wrong_input_is_one_line(capsys, tmp_path):
    assert 'no.mp4' in fails(capsys, 1, 'propagate', tmp_path / 'no.mp4', 'x', '--output=x')
    line = fails(capsys, 1, 'evaluate', '--config.propagation.aggregation=overal')
    assert line.startswith('jaxprop evaluate: ') and "'overal'" in line and 'per_frame' in line
    root = f'--config.dataset.root={tmp_path}'
    assert 'val.txt' in fails(capsys, 1, 'evaluate', '--config=davis_crw', root)
    assert 'metrics.json' in fails(capsys, 1, 'compare', tmp_path / 'a', tmp_path / 'b')
    assert 'no-such' in fails(capsys, 1, 'train', f'--config.data.root={tmp_path}/no-such')


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('def get_config(:', 'mine.py, line 1: SyntaxError'),
        ('import nothing_like_it', 'mine.py, line 1: ModuleNotFoundError'),
        ('from . import sibling', 'are imported by `from . import NAME`'),
        ('def get_config():\n    return 1 / 0', 'mine.py, line 2: ZeroDivisionError'),
        ('def get_config():\n    return {}', 'returns no ConfigDict'),
        ('x = 1', 'no function get_config'),
    ],
)
def test_what_is_wrong_with_an_own_config_is_one_line(text, expected, capsys, tmp_path):
    (tmp_path / 'mine.py').write_text(text)
    assert expected in fails(capsys, 2, 'evaluate', f'--config={tmp_path}/mine.py')


def test_help_can_be_cut_short(tmp_path):
    code = """import subprocess, sys
help = subprocess.Popen([sys.executable, '-m', 'jaxprop', 'evaluate', '--help'],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
help.stdout.close()
assert not help.stderr.read()"""
    assert run(cwd=tmp_path, code=code).returncode == 0


@pytest.fixture
def frames(tmp_path):
    for video in range(2):
        (tmp_path / f'data/{video}').mkdir(parents=True)
        for frame in range(3):
            cv2.imwrite(f'{tmp_path}/data/{video}/{frame}.png', np.zeros((8, 8, 3), np.uint8))
    return tmp_path / 'data'


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ('--config.data.root={root}/empty', 'empty: holds neither'),
        ('--config.data.batch_size=5000', 'less than a batch of 5000'),
        ('--config.data.size=(0,0)', 'data.size is (0, 0)'),
        ('--config.data.num_threads=-1', 'num_threads'),
        ('--config.backbone.dtype=float33', "'float33'"),
        ('--config.backbone.output=res5', "'res5'"),
        ('--config.objective.size=-1', 'objective.size'),
        ('--config.objective.name=rotatoin', "'rotation'"),
        ('--config.optimizer.name=adm', "'adm'"),
        ('--config.schedule.name=linear', "'linear'"),
        ('--config.schedule.warmup=inf', 'schedule.warmup'),
        ('--config.seed=-1', 'seed'),
        ('--config.keep=0', 'keep'),
        ('--config.steps=0', 'steps'),
        ('--workdir={root}/file', 'file is a file'),
        ('--workdir={root}/file/run', 'file'),
        ('--workdir={root}/cut', 'config.json: is damaged'),
        ('--workdir={root}/other', 'holds results of other settings'),
        ('--config=small_uvc', 'color_autoencoder is empty'),
        ('--config=small_uvc --config.objective.color_autoencoder=/no', 'encoder and decoder'),
        ('--config=small_uvc --config.objective.color_autoencoder={root}', '0 *encoder*.pth'),
        ('--config=small_uvc --config.objective.color_autoencoder={root}/bad', 'an_encoder.pth'),
        ('--coordinator=here', 'HOST:PORT'),
        ('--coordinator=localhost:1 --num_processes=2 --process_id=2', 'process_id is 2'),
    ],
)
def test_a_wrong_start_of_training_is_one_line(arguments, expected, frames, tmp_path, capsys):
    for folder in ('empty', 'cut', 'other', 'bad'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'file').write_text('')
    for folder in ('cut', 'other'):
        (tmp_path / folder / 'metrics.jsonl').write_text('{}')
    (tmp_path / 'cut/config.json').write_text('{"name": "sma')
    (tmp_path / 'other/config.json').write_text('{"name": "moco"}')
    for part in ('encoder', 'decoder'):
        (tmp_path / f'bad/an_{part}.pth').write_bytes(b'weights')
    given = [f'--config.data.root={frames}', f'--workdir={tmp_path}/run', '--config.log_every=1']
    given += arguments.format(root=tmp_path).split()
    assert expected in fails(capsys, 1, 'train', *given)


def test_errors_of_a_disk_are_one_line(capsys, monkeypatch):
    for error in (
        OSError(errno.ENOSPC, 'No space left on device'),
        OSError(errno.EIO, 'Input/output error', 'metrics.jsonl'),
        NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'run/config.json'),
    ):
        command = cli.COMMANDS['compare']._replace(run=raising(error))
        monkeypatch.setitem(cli.COMMANDS, 'compare', command)
        line = fails(capsys, 1, 'compare')
        assert error.strerror in line and (error.filename or '') in line


def raising(error):
    def fail(options, arguments, root):
        raise error

    return fail


def test_interrupted_is_one_line_and_a_bug_keeps_its_traceback(capsys, monkeypatch):
    for error in (KeyboardInterrupt(), KeyError('bug'), ValueError('raised outside jaxprop')):
        command = cli.COMMANDS['compare']._replace(run=raising(error))
        monkeypatch.setitem(cli.COMMANDS, 'compare', command)
        if isinstance(error, KeyboardInterrupt):
            assert 'interrupted' in fails(capsys, 130, 'compare')
        else:
            with pytest.raises(type(error)):
                cli.main(['compare'])


@pytest.mark.parametrize(
    ('module', 'arguments'), [('cv2', ['evaluate']), ('grain', ['train', '--config.data.root=x'])]
)
def test_a_missing_extra_is_named(module, arguments, tmp_path):
    code = f"""import sys
sys.modules[{module!r}] = None
from jaxprop import cli
sys.exit(cli.main({arguments}))"""
    done = run(cwd=tmp_path, code=code)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert module in done.stderr and f"pip install 'jaxprop[{arguments[0]}]'" in done.stderr


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_help_is_short(name, capsys):
    assert cli.main([name, '--help']) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f'usage: jaxprop {name} ') and len(printed.splitlines()) <= 45
    assert max(map(len, printed.splitlines())) <= 105
    for option in cli.COMMANDS[name].options:
        assert f'--{option.name}={option.example}' in printed


@pytest.mark.parametrize('name', CONFIGS)
def test_help_names_fields_that_configs_have(name, capsys):
    names = config_files.config_names(CONFIGS[name].folders)
    configs = [config_files.load_config(config, CONFIGS[name].folders) for config in names]
    known = {field for config in configs for field in config_files.describe(config)}
    fields = {field.name for field in CONFIGS[name].fields}
    assert fields - known <= {'propagation.implementation'}
    cli.main([name, '--help'])
    printed = capsys.readouterr().out
    assert all(f'--config.{field}=' in printed for field in fields & known)
    assert all(config in printed.replace(',', ' ').split() for config in names)


def test_help_of_a_config_lists_its_fields(capsys):
    assert cli.main(['evaluate', '--config=davis_crw', '--help']) == 0
    printed = capsys.readouterr().out
    assert '  dataset.year = ' in printed and '  propagation.radius = 12.0\n' in printed


def test_help_loads_nothing_heavy(tmp_path):
    code = """import sys
from jaxprop import cli
cli.main(['evaluate', '--help'])
print([name for name in ('cv2', 'matplotlib', 'grain', 'tensorboardX', 'jaxprop.evaluation',
                         'jaxprop.training') if name in sys.modules])"""
    assert run(cwd=tmp_path, code=code).stdout.splitlines()[-1] == '[]'


def test_version_and_overview(capsys):
    assert cli.main(['--version']) == 0 and capsys.readouterr().out.startswith('jaxprop 0.')
    assert cli.main([]) == 2 and cli.main(['--help']) == 0
    assert all(capsys.readouterr().out.count(f'  {name} ') == 2 for name in [*cli.COMMANDS][:1])


def test_evaluates_in_any_folder(tmp_path):
    done = run(
        'evaluate',
        '--config.dataset.num_sequences=1',
        '--config.dataset.num_frames=3',
        '--config.network.output=res1',
        '--config.input.resize=short_side',
        '--config.input.size=64',
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / 'output/synthetic/metrics.json').read_text())
    assert metrics['settings']['dataset']['num_frames'] == 3
    # Beside its progress, nothing: JAX's search for other devices is no concern of the user.
    assert 'backend' not in done.stderr and 'Error' not in done.stderr


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('davis_crw', 'davis_crw'),
        ('eval/davis_crw', 'davis_crw'),
        ('configs/eval/davis_crw.py', 'davis_crw'),  # From any folder.
        (ROOT / 'configs/eval/davis_crw.py', 'davis_crw'),
        ('table4', 'table4'),
        ('uvc', 'uvc'),
        ('uvc:joint', 'uvc_joint'),
        (f'{ROOT}/configs/train/uvc.py:joint', 'uvc_joint'),
    ],
)
def test_a_config_by_name_and_by_path(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.load_config(str(name)).name == expected


OWN = {
    'own/alone.py': """from ml_collections import ConfigDict
def get_config():
    return ConfigDict({'name': 'alone'})
""",
    'own/of_ours.py': """from jaxprop.configs.eval import davis_crw
def get_config():
    config = davis_crw.get_config()
    config.name = 'of_ours'
    return config
""",
    'own/of_siblings.v2.py': """from . import alone
from ..other import beside
def get_config(name='of_siblings'):
    config = alone.get_config()
    config.name = name + beside.END
    return config
""",
    'other/beside.py': "END = '.'\n",
}


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('alone.py', 'alone'),
        ('of_ours.py', 'of_ours'),
        ('of_siblings.v2.py', 'of_siblings.'),
        ('of_siblings.v2.py:mine', 'mine.'),
    ],
)
def test_a_users_own_config(name, expected, tmp_path, monkeypatch):
    for path, text in OWN.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert config_files.load_config(f'{tmp_path}/own/{name}').name == expected
    monkeypatch.chdir(tmp_path / 'own')
    assert config_files.load_config(name).name == expected


def test_every_config_of_ours_is_found():
    for folder in config_files.FOLDERS:
        for name in config_files.config_names((folder,)):
            assert config_files.load_config(f'{folder}/{name}').name in (name, name + '_warm_up')
