"""The user's own function as the source of features, from Python and by its name."""

import dataclasses
import doctest
import functools
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxprop import cli, color, config_files, files, labels
from jaxprop.data.image_files import read_mask
from jaxprop.data.inputs import InputConfig
from jaxprop.data.sequences import DataError
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.features import NetworkFeatures, cells_of
from jaxprop.evaluation.function_features import (
    FunctionFeatures,
    describe_function,
    load_function,
)
from jaxprop.evaluation.sources import open_source, source_digest
from jaxprop.methods import from_settings
from jaxprop.propagation import propagate_video
from jaxprop.study import study
from jaxprop.tasks.objects import Objects
from tests.evaluation.test_stream import masks
from tests.study.test_study import base  # noqa: F401

METHOD = from_settings(num_context=2, num_neighbors=3, radius=4)

MODULE = """
import numpy as np

def colours(frames):
    b, h, w, _ = frames.shape
    return frames.reshape(b, h // 8, 8, w // 8, 8, 3).mean((2, 4)) / 255 - 0.5

def make(scale=1, weights=''):
    return lambda frames: scale * colours(frames)

def fails(frames):
    raise KeyError('lost')

calls = []

def other_count(frames):
    calls.append(None)
    return colours(frames)[:: len(calls)]

no_array = lambda frames: [1.0]
no_axes = lambda frames: colours(frames)[0]
too_many = lambda frames: np.repeat(colours(frames), 2, axis=0)
uneven = lambda frames: colours(frames)[:3]
whole_numbers = lambda frames: colours(frames).astype(int)
transposed = lambda frames: colours(frames).transpose(0, 3, 1, 2)
def leaves(frames):
    raise SystemExit(0)

not_finite = lambda frames: np.where(frames.any(), np.nan, colours(frames))
other_grid = lambda frames: colours(frames)[:, : 2 + 28 * (not frames.any())]
needs_more = lambda frames, more: frames
NUMBER = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a module of functions that is not imported yet."""
    (tmp_path / 'own_functions.py').write_text(MODULE)
    (tmp_path / 'broken.py').write_text('x = 1\nimport nothing_like_it\n')
    (tmp_path / 'x.pth').write_bytes(b'weights')
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ('own_functions', 'broken'):
        sys.modules.pop(name, None)


@pytest.fixture(scope='module')
def sequences():
    return synthetic_sequences(num_sequences=2, num_frames=7, size=(64, 80), num_objects=2)


def colours(frames):
    b, h, w, _ = frames.shape
    return frames.reshape(b, h // 4, 4, w // 4, 4, 3).mean((2, 4)) / 255 - 0.5


def pairs(frames):
    return (colours(frames[::2]) + colours(frames[1::2])) / 2


def evaluate(sequences, source, output):
    task = Objects(lambda: [(s.name, lambda s=s: s) for s in sequences])
    labeller = runner.Labeller(source, METHOD)
    return runner.evaluate(task, labeller, output, title='', dataset={})


def test_a_function_of_a_network_gives_its_masks(sequences, tmp_path):
    network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    network = dataclasses.replace(network, trained=True)
    size = InputConfig(size=48, resize='short_side')

    @jax.jit
    def function(frames):
        return network.model.apply(network.variables, color.network_input(frames, 'rgb'))

    evaluate(sequences, NetworkFeatures(network, size), tmp_path / 'network')
    found = evaluate(sequences, FunctionFeatures(function, input=size), tmp_path / 'function')
    assert masks(tmp_path / 'function') == masks(tmp_path / 'network')
    assert found['network']['name'].endswith('.function') and found['network']['trained']


@pytest.mark.parametrize('num_frames', [7, 2])
def test_a_clip_encoder_labels_every_frame(num_frames, sequences, tmp_path):
    """A map of two frames stands for both: masks are those of a loop in NumPy."""
    whole = sequences[0]
    sequence = dataclasses.replace(
        whole, num_frames=num_frames, frame_names=whole.frame_names[:num_frames]
    )
    frames = np.stack([sequence.read_frame(t) for t in range(num_frames)])
    maps = []
    for t in range(0, num_frames, 2):
        other = min(t + 1, num_frames - 1)  # The last frame is repeated.
        maps.append((colours(frames[t : t + 1]) + colours(frames[other : other + 1]))[0] / 2)
    first = sequence.read_label(0)
    values = labels.label_values(first)
    soft = propagate_video(
        np.stack(maps).astype(np.float32), labels.encode(first, values, (16, 20)), method=METHOD
    )
    decoded = [first, *(np.asarray(labels.decode(s, values, (64, 80))) for s in soft[1:])]
    expected = np.stack([decoded[t // 2] for t in range(num_frames)])

    source = FunctionFeatures(pairs, batch=4)
    labeller = runner.Labeller(source, METHOD)
    found = list(runner.label_frames(iter(frames), first, labeller))
    np.testing.assert_array_equal(found, expected)
    metrics = evaluate([sequence], source, tmp_path)
    assert len(masks(tmp_path)) == num_frames
    assert metrics['timing']['frames labelled'] == num_frames - 1
    scores = json.loads((tmp_path / f'sequences/{sequence.name}.json').read_text())
    assert scores['num_frames'] == num_frames
    for t, name in enumerate(sequence.frame_names):
        path = tmp_path / 'masks' / sequence.name / f'{name}.png'
        np.testing.assert_array_equal(read_mask(path), expected[t])


def test_frames_before_a_bad_one_are_labelled(sequences):
    def frames():
        yield from (sequences[0].read_frame(t) for t in range(5))
        raise DataError('clip.mp4: cut short')

    labeller = runner.Labeller(FunctionFeatures(pairs, batch=2), METHOD)
    found = runner.label_frames(frames(), sequences[0].read_label(0), labeller)
    assert len([next(found) for _ in range(4)]) == 4
    with pytest.raises(DataError, match='cut short'):
        next(found)


def test_every_call_has_as_many_frames(sequences):
    seen = []

    def function(frames):
        seen.append(frames.copy())
        frames[:] = 0
        return colours(seen[-1])

    source = FunctionFeatures(function, batch=3)
    frames = [sequences[0].read_frame(t) for t in range(7)]
    features = list(source.open(sequences[0], iter(frames)).arrays)
    np.testing.assert_array_equal(features, colours(np.stack(frames)).astype(np.float32))
    assert {len(call) for call in seen} == {3}
    np.testing.assert_array_equal(seen[-1], np.stack([frames[6]] * 3))


def test_sizes_of_cells():
    assert cells_of((480, 854), (60, 107)) == (8, 8)
    assert cells_of((480, 854), (34, 61)) == (14, 14)
    assert cells_of((480, 854), (60, 106)) == (8, 8)
    assert cells_of((480, 480), (37, 37)) == (13, 13)
    assert cells_of((481, 100), (45, 60)) == (481 / 45, 100 / 60)
    assert cells_of((4, 4), (8, 8)) == (0.5, 0.5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_features_of_jax(dtype, sequences):
    source = FunctionFeatures(jax.jit(lambda frames: colours(frames).astype(dtype)))
    [first, *_] = source.open(sequences[0], iter([sequences[0].read_frame(0)])).arrays
    assert first.dtype == np.float32
    expected = colours(sequences[0].read_frame(0)[None])[0].astype(jnp.dtype(dtype))
    np.testing.assert_allclose(first, expected.astype(np.float32), atol=1e-2)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_features_of_torch(dtype, sequences):
    torch = pytest.importorskip('torch')

    def function(frames):
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float().requires_grad_()
        means = torch.nn.functional.avg_pool2d(images, 4).permute(0, 2, 3, 1)
        return means.to(getattr(torch, dtype))

    frame = np.full((64, 80, 3), 7, np.uint8)
    found = list(FunctionFeatures(function).open(sequences[0], iter([frame])).arrays)
    np.testing.assert_array_equal(found, np.full((1, 16, 20, 3), 7, np.float32))


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('own_functions:fails', "fails: KeyError: 'lost' ({folder}/own_functions.py, line 12)"),
        ('own_functions:no_array', 'returns no array'),
        ('own_functions:leaves', 'fails: SystemExit: 0'),
        ('own_functions:no_axes', "returns an array [30, 40, 3]"),
        ('own_functions:too_many', 'returns features [8, 30, 40, 3] for frames [4, 240, 320, 3]'),
        ('own_functions:uneven', "B' being 4 or a whole part of it"),
        ('own_functions:whole_numbers', 'returns int64, not floats'),
        ('own_functions:transposed', 'are the axes [B, H, W, C]?'),
        ('own_functions:needs_more', "TypeError: <lambda>() missing 1 required"),
        ('own_functions:colors', "has no 'colors'; did you mean 'colours'?"),
        ('own_functions:NUMBER', 'is a int, which is no function'),
        ('own_functions:make(2)', 'the settings must be written as'),
        ('own_functions:make(scale=x)', 'the settings must be written as'),
        ('own_functions:make(scale={[]: 1})', 'the settings must be written as'),
        ('own_functions:make(scale=1, scale=2)', 'each once'),
        ('own-functions:make', 'a function is named PACKAGE.MODULE:FUNCTION'),
        ('own_functions:colours()', 'and must return the function of frames'),
        ('own_functions:make(scal=2)', "unexpected keyword argument 'scal'"),
        ('own_function:colours', 'there is no module own_function,'),
        ('own_functions.py:colours', 'a module is named without .py'),
        ('broken:colours', "No module named 'nothing_like_it' ({folder}/broken.py, line 2)"),
    ],
)  # fmt: skip
def test_a_wrong_function_is_one_line(name, expected, folder, capsys):
    small = ['--config.dataset.num_sequences=1', '--config.dataset.num_frames=2']
    code = cli.main(['evaluate', f'--config.network.name={name}', *small, '--output=out'])
    printed = capsys.readouterr()
    assert (code, printed.out, printed.err.count('\n')) == (1, '', 1)
    assert name in printed.err and expected.format(folder=folder) in printed.err
    assert not any((folder / 'out').rglob('*.*[!json]'))


def test_settings_that_a_function_does_not_have(capsys):
    named = '--config.network.name=own_functions:colours'
    for flags, expected in (
        (['--config.network.output=res4', '--config.network.seed=1'], 'network.output=res4, net'),
        (['--config.input.color=lightness'], 'given RGB frames: leave out input.color=lightness'),
    ):
        assert cli.main(['evaluate', named, *flags, '--output=out']) == 1
        assert expected in capsys.readouterr().err
    # What a config says of its own network does not matter.
    config = config_files.load_config('davis_spa_then_temp')
    config.network.name = 'own_functions:colours'
    source = open_source(config)
    assert source.warnings == [] and source.settings()['input']['color'] == 'rgb'


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('not_finite', 'not finite'),
        ('other_grid', r'gives features \[4, 2, 40, 3\], but gave \[4, 30, 40, 3\]'),
        ('other_count', r'gives features \[2, 30, 40, 3\], but gave'),
    ],
)
def test_what_a_function_does_later(name, expected):
    source = FunctionFeatures(load_function(f'own_functions:{name}'), name)
    video = types.SimpleNamespace(name='dog', size=(240, 320), num_frames=5)
    frames = np.ones((5, 240, 320, 3), np.uint8)
    source.sizes(video)
    with pytest.raises(ValueError, match=f'the function {name} .*{expected}'):
        list(source.open(video, iter(frames)).arrays)


def test_identity(folder):
    name = 'own_functions:make(scale=2, weights="x.pth")'
    described, digest = describe_function(name), source_digest(name)
    assert set(described) == {'sha256', 'files'} and set(described['files']) == {'weights'}
    np.testing.assert_array_equal(
        load_function(name)(np.full((1, 8, 8, 3), 255)), np.ones((1, 1, 1, 3))
    )
    (folder / 'x.pth').write_bytes(b'others')
    assert source_digest(name) != digest
    assert FunctionFeatures(load_function(name), version='2').description['version'] == '2'
    # Files in lists and dicts count too.
    several = 'own_functions:make(weights=["x.pth", "no.pth"], scale={"a": "x.pth"})'
    digest = source_digest(several)
    assert describe_function(several)['files'] == {
        'weights': [files.sha256('x.pth')], 'scale': [files.sha256('x.pth')],
    }  # fmt: skip
    (folder / 'x.pth').write_bytes(b'the third')
    assert source_digest(several) != digest
    assert describe_function('jaxprop.color:network_input')['version']
    # A function from nowhere is said to be so.
    scope = {'__name__': 'nowhere'}
    exec('def function(frames): return frames', scope)
    source = FunctionFeatures(scope['function'])
    assert (
        source.description == {'name': 'nowhere:function'}
        and 'no source file' in source.warnings[0]
    )


def test_values_that_no_source_tells_are_noted():
    """Two closures, objects or partial functions of one source have the same identity."""
    name = 'own_functions:make(scale=2)'
    made = load_function(name)
    for function in (made, functools.partial(colours), types.SimpleNamespace(f=made).f):
        assert 'not recorded' in ' '.join(FunctionFeatures(function).warnings)
        assert FunctionFeatures(function, version='2').warnings == []
    assert FunctionFeatures(jax.jit(colours)).warnings == []
    config = config_files.load_config('synthetic')
    config.network.name = name
    assert open_source(config).warnings == []


def test_a_study_of_a_function(tmp_path):
    config = base()
    config.networks = ConfigDict({'known': ''})
    config.own, config.own_factors = ('own_functions:make(scale=3)',), 'known'
    cells = [
        {
            'labels': {'T': temperature},
            'changes': {'propagation.temperature': temperature},
            'chosen_on': '',
            'factors': 'known',
        }
        for temperature in (0.05, 0.5)
    ]
    config.study = ConfigDict(
        {
            'kind': 'table',
            'measures': (('J-Mean', 'JM'),),
            'pivot': '',
            'columns': ('method', 'T'),
            'cells': (),
            'own_cells': tuple(cells),
        }
    )
    rows = study.run(config, tmp_path / 'study')
    assert [row['labels']['method'] for row in rows] == ['make', 'make']
    config.network.name = 'own_functions:make(scale=3)'
    for row, temperature in zip(rows, (0.05, 0.5)):
        config.propagation.temperature = temperature
        alone = runner.evaluate_config(config, tmp_path / f'{temperature}')
        assert row['measured'] == alone['summary']
        cell = tmp_path / 'study' / row['report']
        assert masks(cell.parent) == masks(tmp_path / f'{temperature}')


def test_the_example(tmp_path):
    finder, run = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    scope = {**vars(runner), 'folder': tmp_path / 'out'}
    (example,) = finder.find(runner.evaluate_config, globs=scope)
    assert example.examples and run.run(example).failed == 0
    metrics = json.loads((tmp_path / 'out/metrics.json').read_text())
    assert metrics['network']['name'].endswith(':colours')
