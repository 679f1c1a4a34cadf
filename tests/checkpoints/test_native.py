import hashlib
import json
import os
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxprop.checkpoints import native
from jaxprop.checkpoints.convnets import from_torchvision
from jaxprop.checkpoints.native import (
    describe_pretrained,
    list_pretrained,
    load_pretrained,
    save_pretrained,
    weights_digest,
)
from jaxprop.models import ResNet
from tests.models.test_resnet import torchvision_state


@pytest.fixture(scope='module')
def network():
    model = ResNet(output='res2', padding='reflect', dtype='bfloat16')
    return model, from_torchvision(torchvision_state(18), model)


def without_digests(path):
    """Makes a card as earlier versions wrote it."""
    card = json.loads(path.read_text())
    del card['sha256'], card['network_sha256']
    path.write_text(json.dumps(card))


def assert_trees_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_round_trip(network, tmp_path):
    model, variables = network
    card = {'data': 'DAVIS', 'epochs': 3}
    # The order in memory must not matter.
    fortran = jax.tree.map(np.asfortranarray, variables)
    save_pretrained(tmp_path / 'new' / 'v1.0', model, fortran, description=card)
    # Two files under their own names, and nothing temporary.
    assert sorted(os.listdir(tmp_path / 'new')) == ['v1.0.json', 'v1.0.safetensors']
    for path in (tmp_path / 'new' / 'v1.0', f'{tmp_path}/new/v1.0.safetensors'):
        loaded_model, loaded = load_pretrained(path)
        assert loaded_model == model
        assert_trees_equal(loaded, variables)
    text = json.loads((tmp_path / 'new' / 'v1.0.json').read_text())
    assert text['network'] == 'ResNet'
    assert text['attributes']['strides'] == [1, 2, 1, 1]
    assert text['dtype'] == 'float32'
    assert text['description'] == card


def test_half_precision_file(network, tmp_path):
    model, variables = network
    save_pretrained(tmp_path / 'full', model, variables)
    save_pretrained(tmp_path / 'half', model, variables, dtype='float16')
    sizes = [os.path.getsize(tmp_path / f'{name}.safetensors') for name in ('full', 'half')]
    assert sizes[1] < 0.52 * sizes[0]
    _, loaded = load_pretrained(tmp_path / 'half')
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype('float32')}
    rounded = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(np.float16).astype(np.float32), variables['params']
    )
    assert_trees_equal(loaded['params'], rounded)
    assert_trees_equal(loaded['batch_stats'], variables['batch_stats'])


def test_failed_save_leaves_the_old_network(network, tmp_path, monkeypatch):
    model, variables = network
    save_pretrained(tmp_path / 'net', model, variables)

    def fail(path, data):
        with open(path, 'wb') as file:
            file.write(data[: len(data) // 2])
        raise OSError('disk full')

    monkeypatch.setattr(pathlib.Path, 'write_bytes', fail)
    with pytest.raises(OSError, match='disk full'):
        save_pretrained(tmp_path / 'net', model.clone(padding='zero'), variables)
    monkeypatch.undo()
    loaded_model, loaded = load_pretrained(tmp_path / 'net')
    assert loaded_model == model
    assert_trees_equal(loaded, variables)
    assert sorted(os.listdir(tmp_path)) == ['net.json', 'net.safetensors']


def test_attributes_replaced_on_load(network, tmp_path):
    model, variables = network
    save_pretrained(tmp_path / 'net', model, variables)
    loaded_model, loaded = load_pretrained(tmp_path / 'net', output='res1', strides=(1, 1, 1, 1))
    assert loaded_model == model.clone(output='res1', strides=(1, 1, 1, 1))
    assert set(loaded['params']) == {'stem_conv', 'stem_norm', 'res1_0', 'res1_1'}
    assert_trees_equal(loaded['params']['res1_1'], variables['params']['res1_1'])

    with pytest.raises(ValueError, match='lacks .*params/res3_0/conv1/kernel'):
        load_pretrained(tmp_path / 'net', output='res3')
    # A strided first block has a shortcut convolution.
    with pytest.raises(ValueError, match='lacks .*params/res1_0/shortcut_conv/kernel'):
        load_pretrained(tmp_path / 'net', strides=(2, 2, 1, 1))
    with pytest.raises(ValueError, match='lacks .*params/res1_0/conv3/kernel'):
        load_pretrained(tmp_path / 'net', depth=50)
    with pytest.raises(ValueError, match='layers'):
        load_pretrained(tmp_path / 'net', layers=3)


def test_refuses_a_file_of_other_shapes(network, tmp_path):
    save_pretrained(tmp_path / 'net', *network)
    arrays = load_file(tmp_path / 'net.safetensors')
    arrays['params/res2_0/conv1/kernel'] = np.zeros((3, 3, 64, 64), np.float32)
    save_file(arrays, tmp_path / 'net.safetensors')
    with pytest.raises(ValueError, match=r'net\.safetensors: is damaged, or not the file that net'):
        load_pretrained(tmp_path / 'net')
    without_digests(tmp_path / 'net.json')
    with pytest.raises(ValueError, match='params/res2_0/conv1/kernel has shape .*64, 128'):
        load_pretrained(tmp_path / 'net')


def test_the_digest_is_that_of_the_file(network, tmp_path):
    save_pretrained(tmp_path / 'net', *network)
    found = hashlib.sha256((tmp_path / 'net.safetensors').read_bytes()).hexdigest()
    for path in (tmp_path / 'net', tmp_path / 'net.safetensors'):
        assert weights_digest(path) == describe_pretrained(path)['sha256'] == found
    without_digests(tmp_path / 'net.json')  # As saved by earlier versions: it is computed.
    assert weights_digest(tmp_path / 'net') == found
    assert_trees_equal(load_pretrained(tmp_path / 'net')[1], network[1])


def test_shipped_networks_have_digests():
    for name in list_pretrained():
        card = json.loads((native.FOLDER / f'{name}.json').read_text())
        assert card['sha256'] == weights_digest(name) and card['network_sha256']


def test_a_flipped_bit_is_found(network, tmp_path):
    save_pretrained(tmp_path / 'net', *network)
    path = tmp_path / 'net.safetensors'
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:])
    for read in (load_pretrained, describe_pretrained, weights_digest):
        with pytest.raises(ValueError, match=r'net\.safetensors: is damaged'):
            read(tmp_path / 'net')
    path.write_bytes(whole)
    card = (tmp_path / 'net.json').read_text()
    (tmp_path / 'net.json').write_text(card.replace('"padding": "reflect"', '"padding": "zero"'))
    with pytest.raises(ValueError, match=r'net\.json: is damaged or was edited'):
        load_pretrained(tmp_path / 'net')


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_weights_that_are_not_finite(bad, network, tmp_path):
    save_pretrained(tmp_path / 'net', *network)
    arrays = load_file(tmp_path / 'net.safetensors')
    arrays['params/res1_0/conv1/kernel'][0, 0, 0, 0] = bad
    save_file(arrays, tmp_path / 'net.safetensors')
    without_digests(tmp_path / 'net.json')
    with pytest.raises(ValueError, match=r'net\.safetensors: params/res1_0/conv1/kernel holds'):
        load_pretrained(tmp_path / 'net')
    model, variables = network
    kernel = {'kernel': np.full((7, 7, 3, 64), bad if bad != bad else 1e5, np.float32)}
    variables = {**variables, 'params': {**variables['params'], 'stem_conv': kernel}}
    with pytest.raises(ValueError, match='the variables.*: params/stem_conv/kernel holds'):
        save_pretrained(tmp_path / 'half', model, variables, dtype='float16')
    assert not (tmp_path / 'half.json').exists()


def test_torchvision_states_that_are_no_arrays(network):
    state = torchvision_state(18)
    bomb = ()
    for _ in range(60):
        bomb = (bomb, bomb)
    with pytest.raises(ValueError, match='bn1.weight.* is a tuple'):
        from_torchvision({**state, 'bn1.weight': bomb}, network[0])
    infinite = {**state, 'bn1.weight': np.full(64, np.inf)}
    with pytest.raises(ValueError, match='stem_norm/scale holds'):
        from_torchvision(infinite, network[0])


def test_shipped_networks_go_by_name(network, tmp_path, monkeypatch):
    monkeypatch.setattr(native, 'FOLDER', tmp_path)
    model, variables = network
    save_pretrained(tmp_path / 'rotation', model, variables)
    save_pretrained(tmp_path / 'moco', model, variables)
    assert list_pretrained() == ['moco', 'rotation']
    assert load_pretrained('moco')[0] == model
    with pytest.raises(ValueError, match=r"'colour'.*\['moco', 'rotation'\]"):
        load_pretrained('colour')


def test_refuses_what_it_could_not_load(network, tmp_path):
    model, variables = network
    with pytest.raises(ValueError, match='float64'):
        save_pretrained(tmp_path / 'net', model, variables, dtype='float64')
    with pytest.raises(ValueError, match='lacks .*batch_stats'):
        save_pretrained(tmp_path / 'net', model, {'params': variables['params']})
    with pytest.raises(ValueError, match='params/stem_conv/kernel has shape'):
        kernel = {'kernel': np.zeros((3, 3, 3, 64))}
        params = {**variables['params'], 'stem_conv': kernel}
        save_pretrained(tmp_path / 'net', model, {**variables, 'params': params})
    with pytest.raises(ValueError, match='Dense'):
        save_pretrained(tmp_path / 'net', nn.Dense(3), variables)
    assert not os.listdir(tmp_path)


def test_widths_and_projection_are_kept(tmp_path):
    widths = {'widths': (4, 8, 8, 8), 'projection': 5, 'projection_kernel': 3}
    model = ResNet(output='res1', **widths, projection_bias=True)
    variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), jnp.zeros((1, 32, 32, 3)))
    save_pretrained(tmp_path / 'net', model, variables)
    loaded_model, loaded = load_pretrained(tmp_path / 'net')
    assert loaded_model == model
    assert_trees_equal(loaded, variables)


def test_torchvision_names_with_prefixes(network):
    model, variables = network
    state = torchvision_state(18)
    query = {f'module.encoder_q.{name}': value for name, value in state.items()}
    other = {f'module.encoder_k.{name}': 2 * value for name, value in state.items()}
    assert_trees_equal(from_torchvision({**query, 'module.queue': np.zeros(3)}, model), variables)
    with pytest.raises(ValueError, match='module.encoder_q.*module.encoder_k'):
        from_torchvision({**query, **other}, model)
    chosen = from_torchvision({**query, **other}, model, prefix='module.encoder_q.')
    assert_trees_equal(chosen, variables)


def test_torchvision_states_of_other_networks(network):
    model, _ = network
    state = torchvision_state(18)
    for name in ('conv1.weight', 'layer2.0.downsample.1.running_var'):
        less = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=re.escape(name)):
            from_torchvision(less, model)
    with pytest.raises(ValueError, match=r'res2_0/.* has shape \(512,\) in the state'):
        from_torchvision(torchvision_state(50), model)
    deeper = {**state, 'layer1.2.conv1.weight': state['layer1.1.conv1.weight']}
    with pytest.raises(ValueError, match='ResNet18.*layer1.2.conv1.weight'):
        from_torchvision(deeper, model)


@pytest.mark.parametrize('name', list_pretrained())
def test_shipped_networks_are_small_and_say_where_they_come_from(name):
    assert (native.FOLDER / f'{name}.safetensors').stat().st_size < 8e6
    description = describe_pretrained(name)['description']
    assert {'data', 'terms', 'color', 'steps'} <= set(description)
    assert (native.FOLDER / description['card']).is_file()
    model, variables = load_pretrained(name)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))
    assert model.stride == 8


def test_the_default_network_is_a_shipped_one():
    assert native.DEFAULT_NETWORK in list_pretrained()


def test_files_have_the_rights_of_others_in_the_folder(tmp_path):
    model = ResNet(output='res1')
    variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    save_pretrained(tmp_path / 'net', model, variables)
    (tmp_path / 'usual').touch()
    usual = (tmp_path / 'usual').stat().st_mode
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {usual}
