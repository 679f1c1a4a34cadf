"""Published files: networks of released code, read from files as they were released."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import flax
from safetensors.numpy import save_file

from jaxprop.checkpoints import from_torchvision, load_published
from jaxprop.checkpoints.published import read_arrays, recognise
from jaxprop.models import VGG16, ResNet
from tests import rule
from tests.checkpoints.test_torch_file import (
    Call,
    Name,
    Persistent,
    Raw,
    encode,
    storage,
    tensor,
    write_old,
    write_tar,
    write_zip,
)
from tests.support import REFERENCE, shared

NETWORKS = json.loads((REFERENCE / 'convnets.json').read_text())
KINDS = {'float32': 'FloatStorage', 'int64': 'LongStorage', 'float16': 'HalfStorage'}
EMPTY = Call(Name('collections OrderedDict'), ())
NAMESPACE = Raw(encode(Name('argparse Namespace')) + b')\x81' + encode({'lr': 0.1}) + b'b')
PARAMETER = Name('torch._utils _rebuild_parameter')


@functools.cache
def state(name):
    """A network's arrays by their names in its released file, without prefix."""
    entry = NETWORKS[name]
    return rule.weights(entry['shapes'], entry['seed'])


def write(path, container, structure, arrays, parameters=False):
    """Writes a file of PyTorch.

    Args:
      path: of the file.
      container: 'zip', 'old' or 'tar'.
      structure: given dicts of tensors as the pickle has them, the whole value.
      arrays: of the tensors, `{key: {name: array}}`.
      parameters: whether floating point arrays are parameters, no plain tensors.
    """
    stored, values = {}, {}
    for key, group in arrays.items():
        values[key] = {}
        for name, array in group.items():
            number = len(stored) + 1
            array = np.asarray(array, order='C')
            strides = tuple(stride // array.itemsize for stride in array.strides)
            kind = KINDS[array.dtype.name]
            stored[number] = (kind, array, strides)
            value = tensor(storage(kind, str(number), array.size), 0, array.shape, strides)
            if parameters and kind == 'FloatStorage':
                value = Call(PARAMETER, (value, True, EMPTY))
            values[key][name] = Persistent(str(number)) if container == 'tar' else value
    value = structure(**values)
    if container == 'zip':
        return write_zip(path, value, {str(n): a.tobytes() for n, (_, a, _) in stored.items()})
    if container == 'old':
        records = {str(n): (a.size, a.tobytes()) for n, (_, a, _) in stored.items()}
        return write_old(path, value, records)
    return write_tar(
        path,
        value,
        [(n, n, a.shape, strides, 0) for n, (_, a, strides) in stored.items()],
        [(n, kind, a.size, a.tobytes()) for n, (kind, a, _) in stored.items()],
    )


def prefixed(prefix, arrays, **others):
    return {f'{prefix}{name}': value for name, value in arrays.items()} | others


def zeros(*shape):
    return np.zeros(shape, np.float32)


def small(name, prefix):
    """Makes small arrays under the names of a network, whose arrays have other shapes."""
    return prefixed(prefix, dict.fromkeys(state(name), zeros(2)))


def release(name, path):
    """Writes a file as the one in which a network was released."""
    arrays = state(name)
    if name == 'torchvision_resnet18':
        return write(path, 'zip', lambda net: net, {'net': arrays}, parameters=True)
    if name == 'torchvision_resnet50':
        return write(path, 'tar', lambda net: net, {'net': arrays})
    adam = {'state': {0: {'step': 7}}, 'param_groups': [{'betas': (0.9, 0.999), 'params': [0]}]}
    if name == 'moco_resnet18':
        others = {'module.queue': zeros(128, 16), 'module.queue_ptr': np.zeros(1, np.int64)}
        others |= small(name, 'module.encoder_k.')
        net = {**others, **prefixed('module.encoder_q.', arrays)}
        facts = {'epoch': 200, 'arch': 'resnet18', 'optimizer': adam}
        return write(path, 'old', lambda net: {**facts, 'state_dict': net}, {'net': net})
    if name == 'crw_resnet18':
        head = {'selfsim_fc.0.weight': zeros(128, 512), 'selfsim_fc.0.bias': zeros(128)}
        scheduler = {'milestones': Call(Name('collections Counter'), ({20: 1},))}
        facts = {'args': NAMESPACE, 'lr_scheduler': scheduler, 'optimizer': adam, 'epoch': 9}
        net = {**prefixed('encoder.model.', arrays), **head}
        return write(path, 'zip', lambda net: {'model': net, **facts}, {'net': net})
    if name == 'uvc_resnet18':
        net = {
            **small(name, 'module.rgb_encoder.'),
            **prefixed('module.gray_encoder.', arrays),
            **{'module.decoder.conv1.weight': zeros(4), 'module.normalize.mean': zeros(3)},
        }
        loss = Call(Name('numpy.core.multiarray scalar'), (Name('numpy dtype'), 'abcd'))
        facts = {'epoch': 9, 'best_loss': loss}
        return write(path, 'old', lambda net: {**facts, 'state_dict': net}, {'net': net})
    if name == 'timecycle_resnet50':
        head = {'module.afterconv3_trans.weight': zeros(2), 'module.linear2.bias': zeros(3)}
        net = prefixed('module.', arrays, **head)
        return write(path, 'old', lambda net: {'epoch': 14, 'state_dict': net}, {'net': net})
    if name in ('corrflow_resnet18', 'mast_resnet18'):
        net = prefixed(NETWORKS[name]['prefix'], arrays)
        moments = {0: {'step': 7, 'exp_avg': zeros(5)}}
        return write(
            path,
            'old',
            lambda net, first: {
                'epoch': 3,
                'state_dict': net,
                'optimizer': {**adam, 'state': {0: {'step': 7, **first}}},
            },
            {'net': net, 'first': {'exp_avg': moments[0]['exp_avg']}},
        )
    assert name == 'deepcluster_vgg16'
    others = {'classifier.1.weight': zeros(4, 4), 'top_layer.bias': zeros(4)}
    others |= {'sobel.0.weight': np.full((1, 3, 1, 1), 1 / 3, np.float32)}
    # Python 2 wrote the numbers of the optimiser's states as text.
    momentum = Raw(b'}(I140234567890123\n' + encode({'step': 3}) + b'u')
    facts = {'epoch': 500, 'arch': 'vgg16', 'optimizer': {'state': momentum}}
    return write(
        path, 'tar', lambda net: {**facts, 'state_dict': net}, {'net': {**arrays, **others}}
    )


@pytest.fixture(scope='module')
def features(tmp_path_factory):
    """A function that reads a network's released file, and computes one output for given images."""
    folder = tmp_path_factory.mktemp('released')

    @functools.cache
    def file(name):
        return release(name, folder / f'{name}.pth.tar')

    @functools.cache
    def compute(name, output):
        entry = NETWORKS[name]
        # The projection is no stage: it is what these networks give by themselves.
        output = None if output == 'features' else output
        # Two layouts have the names that these files have.
        layout = name if recognised_by_name(name) else None
        model, variables = load_published(file(name), output, layout)
        images = rule.images(entry['input'], entry['input_seed'])
        return np.asarray(jax.jit(model.apply)(variables, images)).transpose(0, 3, 1, 2)

    return compute


def recognised_by_name(name):
    return name in ('torchvision_resnet18', 'corrflow_resnet18', 'mast_resnet18')


OUTPUTS = sorted(np.load(REFERENCE / 'convnets.npz'))


def assert_reproduces(features, expected):
    assert features.shape == expected.shape
    error = np.abs(features - expected).max() / np.abs(expected).max()
    assert error < 1e-4, error


@pytest.mark.parametrize('key', OUTPUTS)
def test_reproduces_released_networks(key, features):
    """Only every fourth channel is compared: the repository holds these."""
    expected = np.load(REFERENCE / 'convnets.npz')[key]
    assert_reproduces(features(*key.split('/'))[:, ::4], expected)


@pytest.mark.parametrize('key', OUTPUTS)
def test_reproduces_all_channels_of_released_networks(key, features):
    expected = np.load(shared('reference', 'networks.npz'))[key]
    assert_reproduces(features(*key.split('/')), expected)


# What follows is without numbers: names alone decide.


def names_of(name, prefix=''):
    return list(prefixed(prefix, NETWORKS[name]['shapes']))


def renamed(names, *patterns):
    for pattern, replacement in patterns:
        names = [re.sub(pattern, replacement, name) for name in names]
    return list(names)


MMCV = [
    (r'^conv1', 'conv1.conv'), (r'^bn1', 'conv1.bn'), (r'\.conv(\d)', r'.conv\1.conv'),
    (r'\.bn(\d)', r'.conv\1.bn'), (r'downsample\.0', 'downsample.conv'),
    (r'downsample\.1', 'downsample.bn'), ('^conv1.conv.conv', 'conv1.conv'),
    (r'^', 'backbone.'),
]  # fmt: skip


@pytest.mark.parametrize(
    'names, expected',
    [
        (names_of('torchvision_resnet50', 'module.'), 'torchvision_resnet50'),
        (names_of('moco_resnet18', 'module.encoder_q.'), 'moco_resnet18'),
        (names_of('torchvision_resnet50', 'state_dict.module.encoder_q.'), 'moco_resnet50'),
        (names_of('crw_resnet18', 'model.encoder.model.'), 'crw_resnet18'),
        (renamed(names_of('crw_resnet18'), (r'conv(\d)', r'conv\1.1'), ('^', 'encoder.model.')),
         'crw_resnet18'),
        (names_of('uvc_resnet18', 'gray_encoder.'), 'uvc_resnet18'),
        (renamed(names_of('torchvision_resnet18'), *MMCV), 'vfs_resnet18'),
        (renamed(names_of('torchvision_resnet50'), *MMCV), 'vfs_resnet50'),
        (names_of('timecycle_resnet50'), 'timecycle_resnet50'),
        (names_of('deepcluster_vgg16'), 'deepcluster_vgg16'),
        ([name for name in names_of('torchvision_resnet50') if 'layer4' not in name],
         'torchvision_resnet50'),
        # A ResNet34 has the names of a ResNet18, too.
        ([name for name in names_of('torchvision_resnet50')
          if not re.search('conv3|bn3|layer1.0.down', name)], 'torchvision_resnet34'),
    ],
)  # fmt: skip
def test_recognises_by_names_alone(names, expected):
    layout, prefix, others = recognise(names)
    assert (layout.name, others) == (expected, [])
    assert all(prefix + name in names for name in layout.signature)


@pytest.mark.parametrize(
    'names, expected',
    [
        (names_of('torchvision_resnet18'), ['torchvision_resnet18', 'crw_resnet18']),
        (names_of('crw_resnet18', 'model.'), ['torchvision_resnet18', 'crw_resnet18']),
        (names_of('mast_resnet18'), ['corrflow_resnet18', 'mast_resnet18']),
        (names_of('corrflow_resnet18', 'module.'), ['corrflow_resnet18', 'mast_resnet18']),
    ],
)
def test_finds_all_networks_that_have_these_names(names, expected):
    layout, _, others = recognise(names)
    assert [layout.name, *others] == expected
    for name in expected:
        layout, _, others = recognise(names, name)
        assert (layout.name, others) == (name, [])


def test_several_networks_in_a_file():
    both = [*names_of('moco_resnet18', 'online.'), *names_of('moco_resnet18', 'target.')]
    with pytest.raises(ValueError, match="2 networks: prefix='online.', 'target.'"):
        recognise(both, 'torchvision_resnet18')
    assert recognise(both, 'crw_resnet18', 'target.')[1] == 'target.'
    teacher = [name.replace('target', 'teacher.module') for name in both]
    assert recognise(teacher, 'crw_resnet18')[1] == 'teacher.module.'
    dino = [
        *names_of('torchvision_resnet50', 'student.module.backbone.'),
        *names_of('torchvision_resnet50', 'teacher.backbone.'),
    ]
    assert recognise(dino)[1:] == ('teacher.backbone.', [])
    moco = [*names_of('moco_resnet18', 'm.encoder_k.'), *names_of('moco_resnet18', 'm.encoder_q.')]
    assert recognise(moco)[1] == 'm.encoder_q.'
    assert recognise(moco, 'torchvision_resnet18', 'encoder_k.')[1] == 'm.encoder_k.'


def test_unknown_networks():
    names = names_of('torchvision_resnet50', 'module.')
    less = [name for name in names if name != 'module.layer2.1.bn3.running_var']
    nearest = 'nearest: torchvision_resnet50 lacks 1 of 215 names: module.layer2.1.bn3.running_var'
    with pytest.raises(ValueError, match=re.escape(nearest) + '; .*Known: torchvision'):
        recognise(less)
    less = [name for name in names_of('timecycle_resnet50', 'm.') if 'afterconv' not in name]
    nearest = 'nearest: timecycle_resnet50 lacks 1 of 216 names: m.afterconv1.weight; '
    with pytest.raises(ValueError, match=nearest):
        recognise(less)
    with pytest.raises(ValueError, match='none of its 2 arrays is of a known network; known: tor'):
        recognise(['stem.weight', 'trunk.0.bias'])
    with pytest.raises(ValueError, match="no layout 'crw_resnet'; .*'crw_resnet18'"):
        recognise(names, 'crw_resnet')
    # A mixture of deep prefixes and long names takes no time.
    assert recognise(['.'.join('a' * 10**5), *names])[1] == 'module.'


# And what else can be in a file.


@functools.cache
def cut():
    """Makes a ResNet18 up to res3: arrays by torchvision's names, the network, its variables."""
    shapes = NETWORKS['torchvision_resnet18']['shapes']
    arrays = rule.weights({k: shapes[k] for k in shapes if not re.match('layer4|fc', k)}, 1)
    return arrays, ResNet(18), from_torchvision(arrays, ResNet(18))


def assert_loads(path, model, variables, **settings):
    found, loaded = load_published(path, **settings)
    assert found == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


TRANSFORMERS = [
    (r'^conv1', 'embedder.embedder.convolution'), (r'^bn1', 'embedder.embedder.normalization'),
    (r'^layer1', 'encoder.stages.0.layers'), (r'^layer2', 'encoder.stages.1.layers'),
    (r'^layer3', 'encoder.stages.2.layers'), (r'^layer4', 'encoder.stages.3.layers'),
    (r'\.conv1', '.layer.0.convolution'), (r'\.bn1', '.layer.0.normalization'),
    (r'\.conv2', '.layer.1.convolution'), (r'\.bn2', '.layer.1.normalization'),
    (r'downsample\.0', 'shortcut.convolution'), (r'downsample\.1', 'shortcut.normalization'),
    ('^', 'resnet.'),
]  # fmt: skip


@pytest.mark.parametrize('kind', ['old spelling', 'mmcv', 'transformers'])
def test_other_names_are_the_same_network(kind, tmp_path):
    arrays, model, variables = cut()
    path = tmp_path / 'file'
    if kind == 'transformers':
        names = renamed(arrays, *TRANSFORMERS)
        save_file(dict(zip(names, arrays.values(), strict=True)), path)
    elif kind == 'mmcv':
        names = renamed(arrays, *MMCV)
        net = dict(zip(names, arrays.values(), strict=True))
        write(path, 'zip', lambda net: {'meta': {'iter': 1}, 'state_dict': net}, {'net': net})
    else:
        pattern = (r'conv(\d)\.weight', r'conv\1.1.weight')
        names = renamed(arrays, pattern, ('^', 'encoder.model.'))
        net = dict(zip(names, arrays.values(), strict=True))
        write(path, 'old', lambda net: {'model': net, 'args': NAMESPACE}, {'net': net})
        model = model.clone(padding='reflect')
    assert_loads(path, model, variables)


def test_safetensors_of_half_precision(tmp_path):
    arrays, model, _ = cut()
    halves = {name: value.astype('bfloat16') for name, value in arrays.items() if value.ndim}
    flax.save_file(jax.tree.map(jnp.asarray, halves), tmp_path / 'file')
    variables = from_torchvision(halves, model)
    path = tmp_path / 'file'
    with pytest.warns(UserWarning, match=f'{path}.* as torchvision_resnet18; .* crw_resnet18: '):
        assert_loads(path, model, variables)


def test_wrong_files(tmp_path):
    arrays, _, _ = cut()
    path = tmp_path / 'file'

    def error(layout='crw_resnet18', output=None, **changes):
        changed = {**arrays, **changes}
        save_file({key: value for key, value in changed.items() if value is not None}, path)
        with pytest.raises(ValueError) as caught:
            load_published(path, output, layout)
        message = str(caught.value)
        assert str(path) in message and len(message) < 2000
        return message

    nan = np.full_like(arrays['bn1.bias'], np.nan)
    assert 'stem_norm/bias holds values that are infinite or not' in error(**{'bn1.bias': nan})
    assert re.search("the state lacks .*'layer4.1.bn2.bias'", error(output='res4'))
    assert 'lacks 1 of 75 names: bn1.bias' in error(**{'bn1.bias': None})
    assert 'has shape (3,)' in error(**{'bn1.bias': zeros(3)})
    assert "output is 'conv3'; known: ('res1'" in error(output='conv3')
    assert 'there is no layout' in error(layout='crw')
    assert 'not of a ResNet18' in error(**{'layer1.2.conv1.weight': zeros(2)})
    assert 'corrflow_resnet18' in error(layout='corrflow_resnet18')
    for data in (b'', b'other', b'\x01' + bytes(7) + b'{', path.read_bytes()[:-100]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=str(path)):
            load_published(path)
    with pytest.raises(FileNotFoundError):
        load_published(tmp_path / 'none')
    # A call in place of a wanted tensor does not run, and the network lacks it.
    call = Call(Name('os system'), (f'touch {tmp_path}/made',))
    write_old(path, {'conv1.weight': tensor(), 'bn1.weight': call})
    assert read_arrays(path)[1] == ['bn1.weight (os.system)']
    with pytest.raises(ValueError, match='none of its 1 arrays'):
        load_published(path)
    assert not (tmp_path / 'made').exists()


def test_vgg_of_three_colours(tmp_path):
    shapes = NETWORKS['deepcluster_vgg16']['shapes']
    arrays = {
        name.replace('module.', ''): zeros(*((64, 3, 3, 3) if shape == [64, 2, 3, 3] else shape))
        for name, shape in shapes.items()
    }
    save_file(arrays, tmp_path / 'file')
    assert load_published(tmp_path / 'file', 'conv3')[0] == VGG16(sobel=False, output='conv3')
