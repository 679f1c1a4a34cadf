"""Evaluations while training: their steps and networks, and that the run does not change."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.eval import davis_crw
from configs.train import small_mast, small_rotation
from jaxprop import cli, config_files, files, methods, tasks
from jaxprop.evaluation import run as evaluation
from jaxprop.evaluation.labeller import Labeller
from jaxprop.evaluation.while_training import make_evaluate
from jaxprop.objectives.objective import Objective, apply_networks, init_networks
from jaxprop.training import checkpoint, loop, setup
from jaxprop.training.log import Log
from tests.objectives.support import TinyBackbone

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMINGS = ('examples_per_second', 'wait_share')
AFFINITY = {'temperature': 2.0, 'normalize_features': False}
# The scores of the steps 5, 10, ...: the best one is the second.
SCORES = {5: 0.25, 10: 0.75, 15: 0.5, 18: 0.25}


class Killed(BaseException):
    pass


def objective(config, backbone, steps_per_epoch):
    """An objective that teaches a network the brightness of images."""
    networks = {'backbone': backbone}

    def init(rng, batch):
        # Without random numbers, whose program takes seconds to compile.
        shapes = jax.eval_shape(lambda: init_networks(networks, rng, jnp.zeros((1, 8, 8, 3))))
        return jax.tree.map(lambda x: jnp.linspace(-1, 1, x.size).reshape(x.shape), shapes)

    def loss(params, state, batch, rng):
        images = batch['image'] / jnp.float32(255)
        features, state = apply_networks(networks, params, state, images)
        error = jnp.mean(features, (1, 2, 3)) - jnp.mean(images, (1, 2, 3))
        return jnp.mean(error**2), (state, {})

    return Objective(init, loss, color='lab', affinity=AFFINITY)


def write_card(path, backbone, variables, description):
    files.write_json(path.with_suffix('.json'), description)


def train(*arguments):
    """Calls `loop.train` with a network that compiles at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, 'make_objective', objective)
        patch.setattr(setup, 'make_backbone', lambda _: TinyBackbone(norm_axis_name='device'))
        patch.setattr(loop, 'export_backbone', write_card)
        return loop.train(*arguments)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp('runs'), np.random.default_rng(0)
    for video in range(2):
        (root / f'data/{video}').mkdir(parents=True)
        for frame in range(3):
            path = root / f'data/{video}/{frame}.png'
            cv2.imwrite(str(path), rng.integers(0, 256, (8, 8, 3), np.uint8))
    return root


def settings(root):
    """Makes the settings of a run of 18 steps that takes a second."""
    config = small_rotation.get_config()
    config.data.update(root=str(root / 'data'), batch_size=4, size=(8, 8), examples_per_video=8)
    config.data.num_threads = 0
    config.update(steps=18, checkpoint_every=100, log_every=1, keep=2)
    config.evaluation.every = 5
    return config


@pytest.fixture
def config(root):
    return settings(root)


@pytest.fixture(scope='module')
def whole(root):
    """A run from its start to its end, with its evaluations."""
    evaluate = Evaluate()
    assert train(settings(root), root / 'whole', evaluate)['finished']
    return root / 'whole', evaluate


class Evaluate:
    """An evaluation function that records its arguments, and is killed at a given step."""

    def __init__(self, killed_at=None):
        self.killed_at, self.steps, self.variables = killed_at, [], {}

    def __call__(self, network, variables, color, step):
        assert isinstance(network, TinyBackbone) and network.norm_axis_name is None
        assert color == 'lab'
        self.steps.append(step)
        if step == self.killed_at:
            raise Killed
        self.variables[step] = variables
        return {'mean': SCORES[step], 'sequences': {'bear': SCORES[step]}}


def metrics(run):
    entries = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in TIMINGS} for entry in entries]


def evaluated(run):
    lines = (run / 'evaluation.jsonl').read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert all(entry.pop('seconds') >= 0 for entry in entries)
    return entries


def assert_same_end(run, other):
    found, wanted = (checkpoint.restore_variables(path / 'checkpoints') for path in (run, other))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert metrics(run) == metrics(other)


def test_every_few_steps_and_at_the_end_nothing_else_changes(tmp_path, config, whole):
    run, evaluate = whole
    assert evaluate.steps == [5, 10, 15, 18]
    assert evaluated(run) == [
        {'step': step, 'mean': score, 'sequences': {'bear': score}}
        for step, score in SCORES.items()
    ]
    # The two latest checkpoints, and of the others the one with the largest score.
    assert {int(path.name) for path in (run / 'checkpoints').iterdir()} == {10, 15, 18}
    events = b''.join(path.read_bytes() for path in run.glob('events.*'))
    assert events.count(b'evaluation/mean') == 4
    last = checkpoint.restore_variables(run / 'checkpoints')
    found = {'params': last['params']['backbone'], **last['state']['backbone']}
    jax.tree.map(np.testing.assert_array_equal, evaluate.variables[18], found)
    card = files.read_json(run / 'backbone.json')
    assert (card['color'], card['affinity']) == ('lab', AFFINITY)

    config.evaluation.every = None
    train(config, tmp_path / 'without')
    assert not (tmp_path / 'without/evaluation.jsonl').exists()
    assert_same_end(tmp_path / 'without', run)


@pytest.mark.parametrize('lost', [False, True])
def test_a_killed_run_repeats_and_loses_none(lost, tmp_path, config, whole):
    run, evaluate = tmp_path / 'run', Evaluate()
    with pytest.raises(Killed):
        train(config, run, Evaluate(killed_at=18 if lost else 10))
    if lost:
        for step in (15, 18):
            shutil.rmtree(run / f'checkpoints/{step}')
    train(config, run, evaluate)
    # From the checkpoint of step 10. What was evaluated of step 15 is of the same network.
    assert evaluate.steps == ([18] if lost else [10, 15, 18])
    assert evaluated(run) == evaluated(whole[0])
    assert_same_end(run, whole[0])


@pytest.mark.parametrize('half', [False, True])
def test_at_its_end_a_run_evaluates_what_is_missing(half, tmp_path, config, whole):
    run, evaluate = tmp_path / 'run', Evaluate()
    shutil.copytree(whole[0], run)
    if half:
        path = run / 'evaluation.jsonl'
        path.write_text(path.read_text()[:-10])
    train(config, run, evaluate)
    assert evaluate.steps == [18] * half
    assert evaluated(run) == evaluated(whole[0])


def test_a_stopped_run_saves_at_once_and_evaluates_later(tmp_path, config, monkeypatch):
    add = Log.add

    def add_and_stop(self, step, found):
        if step == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        add(self, step, found)

    evaluate = Evaluate()
    with monkeypatch.context() as patch:
        patch.setattr(Log, 'add', add_and_stop)
        assert train(config, tmp_path / 'run', evaluate)['step'] == 10
    assert evaluate.steps == [5] and (tmp_path / 'run/checkpoints/10').is_dir()
    train(config, tmp_path / 'run', evaluate)
    assert evaluate.steps == [5, 10, 15, 18]


def test_the_best_checkpoint_stays_where_a_run_goes_on_without_evaluations(tmp_path, config, whole):
    run = tmp_path / 'run'
    shutil.copytree(whole[0], run)
    config.steps, config.evaluation.every = 24, None
    config.checkpoint_every = 2
    train(config, run)
    assert {int(path.name) for path in (run / 'checkpoints').iterdir()} == {10, 22, 24}
    assert evaluated(run) == evaluated(whole[0])


def test_exported_statistics_stay_as_they_were_evaluated(tmp_path, config, whole):
    run, changed = tmp_path / 'run', {'frames': 3, 'size': (8, 8), 'color': 'rgb'}
    shutil.copytree(whole[0], run)
    config.statistics = changed
    for every, evaluate in ((5, Evaluate()), (None, None)):
        config.evaluation.every = every
        with pytest.raises(ValueError, match='statistics/frames is 3, was None'):
            train(config, run, evaluate)
    (run / 'evaluation.jsonl').unlink()
    assert train(config, run)['finished']


def test_what_does_not_fit_is_refused(tmp_path, config, whole):
    with pytest.raises(ValueError, match='every is 5, but train.. was given no function'):
        train(config, tmp_path / 'run')
    shutil.copytree(whole[0], tmp_path / 'run', dirs_exist_ok=True)
    config.evaluation.measure = 'J-Mean'
    with pytest.raises(ValueError, match='evaluation/measure is J-Mean, was J&F-Mean'):
        train(config, tmp_path / 'run', Evaluate())
    config.evaluation.measure = 'J&F-Mean'
    (tmp_path / 'run/evaluation.jsonl').write_text('{"step": 5}\n[]\n')
    with pytest.raises(ValueError, match=r'evaluation\.jsonl: line 2 is damaged'):
        train(config, tmp_path / 'run', Evaluate())
    for every, message in ((None, 'evaluation.every is None'), (0, 'evaluation.every is 0')):
        config.evaluation.every = every
        with pytest.raises(ValueError, match=message):
            train(config, tmp_path / 'run', Evaluate())
    config.backbone = None
    config.evaluation.every = 5
    with pytest.raises(ValueError, match='no backbone to evaluate'):
        train(config, tmp_path / 'run', Evaluate())


@pytest.fixture(scope='module')
def davis(tmp_path_factory):
    """Writes a moving square in DAVIS's layout: 'a' and 'b' to tune on, 'c' to report on."""
    root = tmp_path_factory.mktemp('davis')
    for name, split in (('a', 'train'), ('b', 'train'), ('c', 'val')):
        for folder in ('JPEGImages', 'Annotations'):
            (root / folder / '480p' / name).mkdir(parents=True)
        (root / 'ImageSets/2017').mkdir(parents=True, exist_ok=True)
        with (root / f'ImageSets/2017/{split}.txt').open('a') as file:
            print(name, file=file)
        background = cv2.resize(
            np.random.default_rng(ord(name)).integers(0, 256, (6, 8, 3), np.uint8), (64, 48)
        )
        for time in range(4):
            mask = np.zeros((48, 64), np.uint8)
            mask[8:28, 6 + 8 * time : 26 + 8 * time] = 255
            frame = np.where(mask[..., None] > 0, np.uint8(255), background)
            cv2.imwrite(str(root / f'JPEGImages/480p/{name}/{time:05d}.jpg'), frame)
            cv2.imwrite(str(root / f'Annotations/480p/{name}/{time:05d}.png'), mask)
    return root


def command(davis, workdir, *arguments):
    return [
        'train',
        '--config=small_rotation',
        f'--config.data.root={davis}/JPEGImages',
        '--config.data.batch_size=4',
        '--config.data.size=(24,24)',
        '--config.objective.size=24',
        '--config.backbone.output=res1',
        '--config.evaluation.every=2',
        f'--config.evaluation.dataset.root={davis}',
        '--config.evaluation.input.size=32',
        f'--workdir={workdir}',
        *arguments,
    ]


@pytest.mark.slow
def test_a_run_on_four_devices_scores_as_evaluate_does(davis, tmp_path):
    flags = '--config.steps=2', '--config.evaluation.propagation.num_neighbors=3'
    process = subprocess.run(
        [sys.executable, '-m', 'jaxprop', *command(davis, tmp_path / 'run', *flags)],
        env={
            **os.environ,
            'JAX_PLATFORMS': 'cpu',
            # Without optimisation programs compile in half the time.
            'XLA_FLAGS': '--xla_force_host_platform_device_count=4 '
            '--xla_backend_optimization_level=0',
            'PYTHONPATH': str(ROOT),
        },
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    (entry,) = evaluated(tmp_path / 'run')
    assert entry['step'] == 2 and set(entry['sequences']) == {'a', 'b'}
    np.testing.assert_allclose(np.mean(list(entry['sequences'].values())), entry['mean'])
    assert (tmp_path / 'run/evaluation/report.html').exists()

    config = davis_crw.get_config()
    config.dataset.update(root=str(davis), split='train')
    config.input.update(resize='short_side', size=32)
    config.network.update(name=str(tmp_path / 'run/backbone'))
    config.propagation.num_neighbors = 3
    found = evaluation.evaluate(
        tasks.open_task(config.dataset),
        Labeller.from_config(config),
        tmp_path / 'evaluation',
        title='',
        dataset=config.dataset.to_dict(),
    )
    # Rounding differs between the programs, and may move a tie of labels.
    assert entry['scores'] == pytest.approx(found['summary'], abs=0.01)
    assert entry['mean'] == entry['scores']['J&F-Mean'] > 0.1


@pytest.mark.parametrize(
    'flag, message',
    [
        ('dataset.split=val', 'results are reported on c, so nothing may be tuned on them'),
        ("dataset.names=('a','c')", 'results are reported on c, .*allow_val'),
        ('dataset.root=', r'dataset\.root is empty'),
        ('dataset.names=("d",)', 'JPEGImages/480p/d'),
        ('config=davis_crv', "no config 'davis_crv'; did you mean 'davis_crw'"),
        ('config=synthetic', r'dataset\.root is .* but the config synthetic has no dataset\.root'),
        ('every=0', r'evaluation\.every is 0'),
        ('measure=IoU', "measure is 'IoU'; it must be one of J-Mean, F-Mean, J&F-Mean"),
        ('network.output=res9', "output is 'res9'; known"),
        ('network.strides=(1,2)', r'strides is \(1, 2\); needed: four integers'),
        ('input.resize=half', "'half'"),
    ],
)
def test_wrong_settings_are_one_line_before_training(
    flag, message, davis, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(loop, 'train', lambda *_: pytest.fail('training begins'))
    arguments = command(davis, tmp_path / 'run', f'--config.evaluation.{flag}')
    assert cli.main(arguments) != 0
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count('\n') == 1, said


def test_factors_are_those_of_the_settings(davis, tmp_path, monkeypatch):
    config, found = small_mast.get_config(), []
    config.evaluation.dataset.root = str(davis)
    config.evaluation.propagation.update(temperature=2.0, normalize_features=True)

    def label(task, labeller, *_, **__):
        found.append(labeller.propagation)
        return {'summary': {'J&F-Mean': 0.5}, 'per_sequence': []}

    monkeypatch.setattr(evaluation, 'evaluate', label)
    network = setup.without_training(setup.make_backbone(config))
    base = config_files.load_config(config.evaluation.config, ('eval',))
    evaluate = make_evaluate(base, config.evaluation, tmp_path, name='run', network=network)
    assert evaluate(network, {}, 'lab', 5)['mean'] == 0.5
    (method,) = found
    rule = dataclasses.replace(methods.mast().rule, temperature=2.0)
    assert method == dataclasses.replace(methods.mast(), rule=rule, normalize_features=True)


@pytest.mark.parametrize(
    ('flag', 'said'), [('', None), ('names=("a",)', None), ('names=("a","c")', 'reported on c,')]
)
def test_a_folder_of_the_training_split_alone_does(
    flag, said, davis, tmp_path, monkeypatch, capsys
):
    begins = []
    monkeypatch.setattr(loop, 'train', lambda *arguments: begins.append(arguments) or exit(0))
    shutil.copytree(davis, tmp_path / 'DAVIS')
    (tmp_path / 'DAVIS/ImageSets/2017/val.txt').unlink()
    arguments = command(tmp_path / 'DAVIS', tmp_path / 'run')
    arguments += [f'--config.evaluation.dataset.{flag}'] * bool(flag)
    if said:
        assert cli.main(arguments) != 0
        assert said in capsys.readouterr().err and not begins
    else:
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert begins


def test_reported_sequences_are_used_where_that_is_wanted(davis, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(loop, 'train', lambda *arguments: given.append(arguments[2]) or exit(0))
    flags = '--config.evaluation.dataset.split=val', '--config.evaluation.allow_val=true'
    with pytest.raises(SystemExit):
        cli.main(command(davis, tmp_path / 'run', *flags))
    assert callable(given[0])
