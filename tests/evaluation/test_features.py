"""Features of the networks that configs name."""

import dataclasses
import threading
import types

import absl.flags
import cv2
import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxprop import color, config_files
from jaxprop.checkpoints.native import save_pretrained
from jaxprop.data.inputs import InputConfig
from jaxprop.data.sequences import DataError
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.function_features import FunctionFeatures
from jaxprop.methods import from_settings
from jaxprop.models import VGG16, ResNet


def test_threads_read_frames_ahead_of_their_use():
    together = threading.Barrier(3)

    def read_frame(index):
        together.wait(timeout=60)  # Goes on when three threads are here.
        if index == 8:
            raise DataError('8: damaged')
        return np.full((2, 2, 3), index)

    video = types.SimpleNamespace(num_frames=9, read_frame=read_frame)
    frames = sources.frames_of(video, num_threads=3)
    assert [int(next(frames).mean()) for _ in range(8)] == [*range(8)]
    with pytest.raises(DataError, match='8: damaged'):
        next(frames)


def test_an_untrained_vgg16_takes_its_statistics_from_the_video():
    network = networks.load_network('untrained', architecture='vgg16', output='conv3', seed=3)
    assert network.model == VGG16(output='conv3') and not network.trained
    source = sources.NetworkFeatures(network, InputConfig(resize='square', size=16))
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    video = types.SimpleNamespace(num_frames=len(frames), read_frame=lambda t: frames[t])
    variables = source.variables(video)
    images = color.network_input(frames, 'rgb')
    # With them the features of these frames are those of a step of training on them.
    expected, _ = network.model.apply(
        network.variables, images, train=True, mutable=['batch_stats']
    )
    features = network.model.apply(variables, images)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3)
    untrained = network.model.apply(network.variables, images)
    assert np.abs(untrained - expected).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, variables['params'], network.variables['params'])


def test_a_saved_vgg16_is_known_from_its_file(tmp_path):
    saved = networks.load_network('untrained', architecture='vgg16', output='conv2')
    save_pretrained(tmp_path / 'net', saved.model, saved.variables)
    for architecture in ({}, {'architecture': 'vgg16'}):
        network = networks.load_network(
            str(tmp_path / 'net'), output='conv1', sobel=True, pool4=False, seed=0, **architecture
        )
        assert network.model == VGG16(output='conv1') and network.trained
        assert set(network.variables['params']) == {'conv1', 'norm1'}


def test_refuses_an_unknown_architecture(tmp_path):
    with pytest.raises(ValueError, match="no network 'vgg19'; the nearest name is 'VGG16'"):
        networks.load_network('untrained', architecture='vgg19')
    with pytest.raises(ValueError, match=r"VGG16 has no \['depth'\]"):
        networks.load_network('untrained', architecture='vgg16', depth=18)
    saved = networks.load_network('untrained', architecture='vgg16', output='conv1')
    save_pretrained(tmp_path / 'net', saved.model, saved.variables)
    with pytest.raises(ValueError, match="architecture is 'resnet', the card of .* says 'VGG16'"):
        networks.load_network(str(tmp_path / 'net'), architecture='resnet')


@pytest.fixture
def parsed():
    """A function that loads a config of configs/eval with the changes of a command line."""
    return parse


def parse(name, *flags):
    values = absl.flags.FlagValues()
    values(config_files.define_flags(['program', *flags], name, ('eval',), values))
    return values.config


def test_a_card_says_what_a_config_leaves_open(tmp_path, parsed):
    model = ResNet(output='res2', strides=(1, 1, 1, 1), padding='reflect')
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    save_pretrained(tmp_path / 'net', model, variables)
    named = f'--config.network.name={tmp_path}/net'

    network = networks.load_network(**parsed('davis_crw', named).network)
    assert network.model == model and network.warnings == []
    assert 'card' not in network.description

    config = parsed(
        'davis_crw',
        named,
        '--config.network.padding=zero',
        '--config.network.strides=(1,1,1,1)',
        '--config.network.output=res1',
        '--config.network.architecture=resnet',
    )
    network = networks.load_network(**config.network)
    assert network.model == model.clone(padding='zero', output='res1')
    assert network.description['card'] == {'output': 'res2', 'padding': 'reflect'}
    assert network.warnings == [
        f"network.output is 'res1', the card of {tmp_path}/net says 'res2'.",
        f"network.padding is 'zero', the card of {tmp_path}/net says 'reflect'.",
    ]


@pytest.mark.parametrize(
    ('name', 'attributes'),
    [
        ('davis_crw', {'padding': 'reflect'}),
        ('davis_vfs', {}),
        ('davis_uvc', {'output': 'res4'}),
        ('davis_timecycle', {'depth': 50, 'projection': 512, 'projection_relu': True}),
        ('davis_rotation', {}),
    ],
)
def test_untrained_networks_of_configs(name, attributes, parsed, monkeypatch):
    monkeypatch.setattr(ResNet, 'init', lambda *_: {})
    network = networks.load_network(**parsed(name, '--config.network.name=untrained').network)
    assert network.model == ResNet(
        **{
            'depth': 18,
            'output': 'res3',
            'strides': (1, 2, 1, 1),
            'max_pool': True,
            'padding': 'zero',
            **attributes,
        }
    )


def test_variables_without_batch_statistics_are_taken_as_they_are():
    """An untrained network without batch statistics has its variables, and no frame is read."""

    class Plain(nn.Module):
        stride = 4

        @nn.compact
        def __call__(self, images):
            return nn.Conv(3, (4, 4), (4, 4))(images)

    model = Plain()
    variables = model.init(jax.random.key(0), np.zeros((1, 16, 24, 3), np.float32))
    assert set(variables) == {'params'}
    network = networks.Network(model, variables, False, {'name': 'plain'})
    (sequence,) = synthetic_sequences(num_sequences=1, num_frames=3, size=(64, 80), num_objects=2)
    source = sources.NetworkFeatures(network)
    assert source.variables(sequence) is variables
    assert source.open(sequence, sources.frames_of(sequence)).variables is None
    assert source.sizes(sequence) == ((64, 80), (64, 80), (16, 20), (4, 4))
    labeller = runner.Labeller(source, from_settings(num_context=1, num_neighbors=2, radius=2))
    frames = (sequence.read_frame(t) for t in range(3))
    found = list(runner.label_frames(frames, sequence.read_label(0), labeller))
    assert len(found) == 3 and found[2].shape == (64, 80)


def test_every_user_of_kept_features_is_told_that_reading_fails():
    def frames():
        yield np.zeros((8, 8, 3), np.uint8)
        raise DataError('1.jpg: cut short')

    video = types.SimpleNamespace(name='dog', size=(8, 8), num_frames=3)
    kept = sources.KeptFeatures(FunctionFeatures(lambda frames: frames * 1.0, batch=1))
    for _ in range(2):
        arrays = kept.open(video, frames()).arrays
        assert next(arrays).shape == (8, 8, 3)
        with pytest.raises(DataError, match='cut short'):
            next(arrays)


@pytest.mark.parametrize('seen', ['rgb', 'lightness'])
def test_frames_resized_in_floats(seen):
    """The features are those of frames resized without rounding; the setting is recorded."""
    network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    settings = InputConfig(resize='square', size=24, precision='float32')
    source = sources.NetworkFeatures(dataclasses.replace(network, trained=True), settings, seen)
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
    video = types.SimpleNamespace(size=(32, 48), num_frames=2, read_frame=lambda t: frames[t])
    prepared = list(source.open(video, iter(frames)).arrays)
    found = sources.compute_features(source, prepared, sources.stack([network.variables]))
    resized = []
    for frame in frames:
        if seen == 'lightness':
            frame = np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)[..., :1], 3, axis=-1)
        resized.append(
            cv2.resize(frame / np.float64(256 if seen == 'lightness' else 255), (24, 24))
        )
    inputs = (np.stack(resized) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = network.model.apply(network.variables, inputs.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert source.settings()['input']['precision'] == 'float32'
    # Rounded to 8 bits they are others.
    rounded = dataclasses.replace(source, input=dataclasses.replace(settings, precision='uint8'))
    other = sources.compute_features(
        rounded, list(rounded.open(video, iter(frames)).arrays), sources.stack([network.variables])
    )
    assert np.abs(np.asarray(other) - expected).max() > 3e-3
