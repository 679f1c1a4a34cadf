"""Every training config fits the code that it configures."""

import importlib
import inspect
import pathlib

import numpy as np
import pytest
from absl import flags
from PIL import Image

from jaxprop import config_files
from jaxprop.data.pipeline import DatasetConfig
from jaxprop.evaluation.while_training import make_evaluate
from jaxprop.models.network import replace_attributes
from jaxprop.objectives import find_objective, uvc
from jaxprop.training import setup
from jaxprop.training.schedules import make_optimizer, make_schedule

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = [
    importlib.import_module(f'configs.train.{path.stem}')
    for path in sorted((ROOT / 'configs/train').glob('*.py'))
]


def _has_stages(module):
    return bool(inspect.signature(module.get_config).parameters)


CONFIGS = [module.get_config() for module in MODULES] + [
    module.get_config('joint') for module in MODULES if _has_stages(module)
]


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: config.name)
def test_a_config_builds_all_it_names(config, monkeypatch):
    monkeypatch.setattr(uvc, 'load_color_autoencoder', lambda path, restore: {})
    config.data.root = 'videos'
    if config.image_data is not None:
        # Frames of the videos follow the videos; other images have a place of their own.
        assert config.image_data.root == (
            '' if 'imagenet' in config.name or 'classification' in config.name else 'videos'
        )
        config.image_data.root = config.image_data.root or 'images'
        DatasetConfig(**config.image_data)
    DatasetConfig(**config.data)
    objective = setup.make_objective(config, setup.make_backbone(config), steps_per_epoch=100)
    assert callable(objective.init) and callable(objective.loss)
    schedule = make_schedule(
        **config.schedule, steps_per_epoch=100, batch_size=config.data.batch_size
    )
    last = float(schedule(round(config.epochs * 100) - 1))
    assert 0 < last <= config.schedule.learning_rate * 1.001
    make_optimizer(schedule, **config.optimizer)


def test_every_argument_of_an_objective_is_a_setting():
    """The command line can only set arguments that are keys of the config."""
    given = {'backbone', 'color_variables', 'axis_name', 'restore'}  # These are no settings.
    for config in CONFIGS:
        for settings in filter(None, (config.objective, config.image_objective)):
            module = find_objective(settings.name)
            functions = [module.objective, *filter(None, [getattr(module, 'from_config', None)])]
            arguments = {
                name
                for function in functions
                for name, parameter in inspect.signature(function).parameters.items()
                if parameter.kind is not inspect.Parameter.VAR_KEYWORD
            } - given
            keys = {name.removesuffix('_epoch') for name in settings} - {'name'}
            assert keys == arguments, f'{config.name}, {settings.name}'


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: config.name)
def test_a_network_that_is_trained_can_be_evaluated_meanwhile(config, tmp_path):
    if config.backbone is None:
        return
    settings, root = config.evaluation.copy_and_resolve_references(), tmp_path / 'DAVIS'
    for split, name in (('train', 'bear'), ('val', 'dog')):
        path = root / f'ImageSets/2017/{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{name}\n')
        for folder in ('JPEGImages', 'Annotations'):
            (root / folder / '480p' / name).mkdir(parents=True)
            path = root / folder / '480p' / name / '00000.png'
            Image.fromarray(np.full((4, 6), 255, np.uint8)).save(path)
    settings.dataset.root = str(root)
    base = config_files.load_config(settings.config, ('eval',))
    network = setup.without_training(setup.make_backbone(config))
    make_evaluate(base, settings, tmp_path, name=config.name, network=network)
    changes = {k: v for k, v in settings.network.items() if v is not None}
    strides = {'crw': 8, 'vfs': 8, 'timecycle': 8, 'corrflow': 4, 'mast': 4}
    evaluated = replace_attributes(network, **changes)
    assert evaluated.stride == strides.get(config.objective.name, evaluated.stride)


@pytest.mark.parametrize(
    'config',
    [c for c in CONFIGS if c.objective.name in ('timecycle', 'corrflow', 'mast')],
    ids=lambda config: config.name,
)
def test_affinities_are_scaled_in_evaluation_as_in_training(config):
    settings = config.evaluation.propagation
    base = config_files.load_config(config.evaluation.config, ('eval',))
    found = settings.temperature or base.propagation.temperature
    assert found == config.objective.temperature


def parse(name, *arguments):
    parsed = flags.FlagValues()
    parsed(config_files.define_flags(['train', *arguments], name, ('train',), parsed))
    return parsed['config'].value


# Each stage of UVC falls as in a run of both; the others' schedules are of the whole run.
@pytest.mark.parametrize(
    ('name', 'setting', 'wanted'),
    [
        ('uvc', 'schedule.epochs', 50.0),
        ('uvc_plus_moco:joint', 'schedule.epochs', 50.0),
        ('small_uvc:joint', 'schedule.epochs', 3.0),
        ('small_crw_plus', 'schedule.epochs', 3.0),
        ('small_moco', 'schedule.epochs', 3.0),
        ('small_mast', 'schedule.epochs', 3.0),
        ('small_vfs', 'schedule.epochs', 3.0),
        ('vfs', 'schedule.epochs', 3.0),
        ('corrflow', 'objective.truth_steps_epoch', 3.0),
        ('small_corrflow', 'objective.truth_steps_epoch', 3.0),
    ],
)
def test_what_ends_with_the_run_follows_its_epochs(name, setting, wanted):
    part, key = setting.split('.')
    assert parse(name, '--config.epochs=3').to_dict()[part][key] == wanted
    for flags_given in (['--config.epochs=3', '--config.{}=5'], ['--config.{}=5']):
        config = parse(name, *(flag.format(setting) for flag in flags_given))
        assert config[part][key] == 5.0
        assert config.epochs == (3.0 if len(flags_given) == 2 else parse(name).epochs)


@pytest.mark.parametrize('name', ['mast', 'small_mast', 'small_corrflow', 'small_timecycle'])
def test_evaluation_follows_the_temperature_of_training(name):
    config = parse(name, '--config.objective.temperature=4.0')
    assert config.evaluation.propagation.temperature == 4.0
    config = parse(name, '--config.evaluation.propagation.temperature=3.0')
    assert config.evaluation.propagation.temperature == 3.0
    assert config.objective.temperature == parse(name).objective.temperature


@pytest.mark.parametrize('order', [('data', 'image_data'), ('image_data', 'data')])
@pytest.mark.parametrize(
    'name',
    [
        module.__name__.split('.')[-1] + stage
        for module in MODULES
        if module.get_config().image_data is not None
        for stage in ((':warm_up', ':joint') if _has_stages(module) else ('',))
    ],
)
def test_videos_and_images_may_have_folders_of_their_own(name, order):
    found = parse(name, *(f'--config.{part}.root={part}-folder' for part in order)).to_dict()
    assert [found[part]['root'] for part in order] == [f'{part}-folder' for part in order]


def test_a_wrong_stage_gets_the_nearest_and_all():
    with pytest.raises(config_files.ConfigError, match=r"'joint'\? \(stages: warm_up, joint\)"):
        config_files.load_config('small_uvc_plus:jiont', ('train',))


def test_each_name_is_its_own():
    names = [config.name for config in CONFIGS]
    assert len(set(names)) == len(names)
    assert {module.__name__.split('.')[-1] for module in MODULES} <= set(names)


def test_the_studys_weights_and_batches():
    found = {
        config.image_objective.name: (config.image_weight, config.image_data.batch_size)
        for config in CONFIGS
        if config.image_objective is not None and config.name.startswith('uvc')
    }
    assert found == {'rotation': (0.3, 64), 'moco': (0.1, 32), 'classification': (0.05, 256)}
