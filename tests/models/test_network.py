"""A backbone in one new file is found, evaluated, trained, exported and evaluated again."""

import sys

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.train import small_rotation
from jaxprop import models
from jaxprop.checkpoints.native import save_pretrained
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.methods import from_settings
from jaxprop.models import estimate_batch_statistics, find_network
from jaxprop.models.heads import make_head
from jaxprop.models.network import replace_attributes
from jaxprop.training import loop, setup
from jaxprop.training.state import create_state

PATCHNET = '''
import flax.linen as nn
import jax.numpy as jnp


class PatchNet(nn.Module):
    """Patches, embedded one by one."""

    patch: int = 8
    channels: int = 6

    @property
    def stride(self):
        return self.patch

    @nn.compact
    def __call__(self, images, train=False):
        size = (self.patch, self.patch)
        x = nn.Conv(self.channels, size, strides=size, padding='VALID', name='embed')(images)
        x = nn.Dense(self.channels, name='dense')(nn.gelu(x))
        # What is neither a parameter nor a batch statistic: how often it was trained, and a mean.
        steps = self.variable('counters', 'steps', lambda: jnp.zeros((), jnp.int32))
        mean = self.variable('running', 'mean', lambda: x.mean((0, 1, 2)) * 0)
        if train and not self.is_initializing():
            steps.value += 1
            mean.value = 0.9 * mean.value + 0.1 * x.mean((0, 1, 2))
        return x - mean.value
'''


@pytest.fixture
def patchnet(tmp_path, monkeypatch):
    """Puts a file into a folder in which Python looks for the package's modules, too."""
    folder = tmp_path / 'models'
    folder.mkdir()
    (folder / 'patchnet.py').write_text(PATCHNET)
    monkeypatch.setattr(models, '__path__', [*models.__path__, str(folder)])
    yield find_network('patchnet')
    sys.modules.pop('jaxprop.models.patchnet')


def test_names():
    assert find_network('resnet') is find_network('ResNet') is models.ResNet
    assert find_network('vgg16') is models.VGG16
    with pytest.raises(ValueError, match="^there is no network 'resnt'; the nearest name is 'Res"):
        find_network('resnt')
    # A block of a network is none.
    with pytest.raises(ValueError, match='no network'):
        find_network('BasicBlock')
    with pytest.raises(ValueError, match='known: .*ResNet'):
        find_network('xyz')


def test_an_untrained_network_of_a_new_file(patchnet):
    network = networks.load_network('untrained', architecture='patchnet', patch=4)
    assert type(network.model) is patchnet and network.description['patch'] == 4
    [sequence] = synthetic_sequences(num_sequences=1, num_frames=3, size=(64, 80))
    method = from_settings(num_context=2, num_neighbors=3, restriction='none')
    labeller = runner.Labeller(sources.NetworkFeatures(network), method)
    variables = labeller.source.variables(sequence)
    assert variables is network.variables
    frames = np.stack([sequence.read_frame(t) for t in range(3)])
    features = sources.extract_features(network.model, variables, frames, color_space='rgb')
    assert features.shape == (3, 16, 20, 6)
    masks = list(runner.label_frames(frames, sequence.read_label(0), labeller))
    assert [mask.shape for mask in masks] == [(64, 80)] * 3


def test_training_a_network_of_a_new_file(patchnet, tmp_path):
    [sequence] = synthetic_sequences(num_sequences=1, num_frames=8, size=(64, 80))
    (tmp_path / 'data/video').mkdir(parents=True)
    for t in range(8):
        cv2.imwrite(str(tmp_path / f'data/video/{t:05d}.jpg'), sequence.read_frame(t)[..., ::-1])
    config = small_rotation.get_config()
    config.backbone = {'architecture': 'patchnet', 'channels': 4}
    config.steps = 2
    config.statistics = {'frames': 4, 'size': (64, 80), 'color': 'rgb'}  # It has none to estimate.
    config.objective.update(size=32)
    config.data.update(root=str(tmp_path / 'data'), size=(40, 40), batch_size=4)
    assert loop.train(config, tmp_path / 'run')['finished']

    network = networks.load_network(str(tmp_path / 'run/backbone'))
    assert network.model == patchnet(channels=4) and network.trained and network.color == 'rgb'
    assert network.variables['counters']['steps'] == 2
    assert network.variables['counters']['steps'].dtype == jnp.int32
    assert np.abs(network.variables['running']['mean']).max() > 0
    features = network.model.apply(network.variables, jnp.zeros((1, 64, 80, 3)))
    assert features.shape == (1, 8, 10, 4) and np.isfinite(features).all()

    # Another run starts from it.
    objective = setup.make_objective(config, backbone := setup.make_backbone(config), 1.0)
    fresh = create_state(objective, optax.identity(), {}, seed=1)
    state = setup.start_from(fresh, tmp_path / 'run/backbone', backbone)
    started = {'params': state.params['backbone'], **state.state['backbone']}
    # Counters start again.
    wanted = {**network.variables, 'counters': {'steps': jnp.int32(0)}}
    jax.tree.map(np.testing.assert_array_equal, started, wanted)


class FixedMomentum(nn.Module):
    """A network with norms whose momentum is no attribute of the network."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(5, (3, 3), strides=2)(images)
        x = nn.BatchNorm(not train, momentum=0.6, axis_name='device')(x)
        return nn.BatchNorm(not train)(nn.relu(x))


def test_batch_statistics_of_any_network():
    model = FixedMomentum()
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    estimated = jax.jit(estimate_batch_statistics, static_argnums=0)(model, variables, images)
    expected, _ = jax.vmap(
        lambda part: model.apply(variables, part, train=True, mutable=['batch_stats']),
        axis_name='device',
    )(images[None])
    np.testing.assert_allclose(model.apply(estimated, images), expected[0], atol=1e-4)
    without = {'params': variables['params']}
    assert estimate_batch_statistics(model, without, images) == without


def test_heads_take_what_a_backbone_has():
    head = make_head('residual', 3, FixedMomentum(), 'device')
    assert head.norm_axis_name == 'device' and head.padding == 'zero'
    head = make_head('residual', 3, models.ResNet(padding='reflect'), 'device')
    assert head.norm_axis_name is None and head.padding == 'reflect'
    assert replace_attributes(FixedMomentum(), padding='zero') == FixedMomentum()


def test_a_class_of_the_same_name_elsewhere_is_not_saved(tmp_path):
    class ResNet(nn.Module):
        @nn.compact
        def __call__(self, images):
            return images

    with pytest.raises(ValueError, match='is not the ResNet of jaxprop.models'):
        save_pretrained(tmp_path / 'net', ResNet(), {})
