"""Labellers warn if a network is evaluated with another temperature than in its training."""

import types

import jax
import numpy as np
import pytest

from jaxprop import cli, config_files
from jaxprop.checkpoints.native import save_pretrained
from jaxprop.evaluation.features import KeptFeatures
from jaxprop.evaluation.labeller import Labeller
from jaxprop.evaluation.sources import open_source
from jaxprop.models import ResNet
from jaxprop.objectives import uvc
from jaxprop.training import setup


@pytest.fixture(scope='module')
def backbone():
    model = ResNet(output='res1', strides=(1, 1, 1, 1))
    return model, jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))


def save(path, backbone, trained_by, **changes):
    """Saves a network with a card that says how an objective compared its features."""
    config = config_files.load_config(trained_by, ('train',))
    config.objective.update(changes)
    objective = setup.make_objective(config, setup.make_backbone(config), steps_per_epoch=10)
    description = {'color': objective.color, 'affinity': objective.affinity}
    save_pretrained(path, *backbone, description)


def settings(config, path, temperature):
    found = config_files.load_config(config, ('eval',))
    found.network = {'name': str(path)}
    found.input.color = None
    if temperature is not None:
        found.propagation.temperature = temperature
    return found


@pytest.mark.parametrize(
    ('trained_by', 'config', 'temperature', 'said'),
    [
        ('mast', 'davis_mast', None, (8.0, 1.0)),
        ('mast', 'davis_mast', 8.0, None),
        ('small_mast', 'davis_mast', 5.657, None),
        ('small_mast', 'davis_mast', 5.6, (5.657, 5.6)),
        ('corrflow', 'davis_corrflow', None, None),
        ('small_corrflow', 'davis_corrflow', None, (5.657, 1.0)),
        ('timecycle', 'davis_timecycle', None, None),
        ('small_timecycle', 'davis_timecycle', None, (0.08839, 0.04419)),
        ('uvc', 'davis_uvc', None, None),
        ('uvc_plus_rotation', 'davis_uvc', 0.5, (1.0, 0.5)),
        # Features of length 1 have other affinities than these were trained with,
        ('mast', 'davis_crw', None, None),
        # and vectors of a head other ones than the backbone's features.
        ('crw', 'davis_crw', 0.07, None),
        ('moco', 'davis_moco', None, None),
    ],
)
def test_another_temperature_than_in_training_is_noted(
    trained_by, config, temperature, said, backbone, tmp_path, monkeypatch
):
    monkeypatch.setattr(uvc, 'load_color_autoencoder', lambda path, restore: {})
    path = tmp_path / 'net'
    save(path, backbone, trained_by)
    found = settings(config, path, temperature)
    network = open_source(found)
    # As `FolderFeatures` describes arrays of this network that `jaxprop export-features` wrote.
    described = {'name': path, 'exported_from': network.description}
    folder = types.SimpleNamespace(description=described, warnings=())
    for source in (network, KeptFeatures(network), folder):
        warnings = Labeller.from_config(found, source).warnings
        assert warnings == (said is not None) * [
            f'{path} was trained with temperature {said and said[0]}, it is evaluated with '
            f'{said and said[1]}: --config.propagation.temperature={said and said[0]} is that of '
            'its training.'
        ]


def test_it_is_printed_and_in_the_results(backbone, tmp_path, capsys):
    save(tmp_path / 'net', backbone, 'mast', temperature=4.0)
    command = (
        'evaluate --config=synthetic --config.dataset.num_sequences=1 --config.dataset.num_frames=2'
        ' --config.input.resize=short_side --config.input.size=32'
        f' --config.network.name={tmp_path}/net'
        ' --config.propagation.normalize_features=false --config.propagation.temperature=1'
        f' --output={tmp_path}/out'
    )
    assert cli.main(command.split()) == 0
    note = 'net was trained with temperature 4.0, it is evaluated with 1.0'
    assert note in capsys.readouterr().out
    assert note in (tmp_path / 'out/metrics.json').read_text()
