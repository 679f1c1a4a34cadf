"""Damaged networks on disk: damage to the file of weights, and to the card."""

import itertools
import json
import struct

import jax
import numpy as np
import pytest
from flax import traverse_util

from jaxprop.checkpoints.native import describe_pretrained, load_pretrained, save_pretrained
from jaxprop.models import ResNet
from tests.fuzz.mutations import classify, count, mutate


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp('saved') / 'net'
    model = ResNet(output='res1')
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    save_pretrained(path, model, variables)
    return path, model, variables


def load(tmp_path, data, card):
    path = tmp_path / 'damaged'
    (tmp_path / 'damaged.safetensors').write_bytes(data)
    (tmp_path / 'damaged.json').write_bytes(card)
    return classify(lambda: load_pretrained(path), path, ValueError)


def assert_is(loaded, network):
    _, model, variables = network
    assert loaded[0] == model
    jax.tree.map(np.testing.assert_array_equal, loaded[1], variables)


def files(network):
    return [network[0].with_suffix(suffix).read_bytes() for suffix in ('.safetensors', '.json')]


def test_damaged_weights(network, tmp_path):
    data, card = files(network)
    outcomes = ((label, load(tmp_path, bad, card)) for label, bad in mutate(data, 100))
    assert count(outcomes) == {'clear': 100}


def test_damaged_weights_without_a_digest(network, tmp_path):
    """Earlier versions saved no digest: values may differ, but nothing else happens."""
    data, card = files(network)
    card = json.loads(card)
    del card['sha256'], card['network_sha256']
    card = json.dumps(card).encode()
    assert_is(load(tmp_path, data, card)[1], network)
    (size,) = struct.unpack('<Q', data[:8])
    header, numbers = data[: 8 + size], data[8 + size :]
    outcomes = ((label, load(tmp_path, bad + numbers, card)) for label, bad in mutate(header, 70))
    assert count(outcomes)['clear'] > 50


def test_damaged_cards(network, tmp_path):
    data, card = files(network)

    def outcomes():
        for label, bad in mutate(card, 200):
            outcome = load(tmp_path, data, bad)
            if outcome[0] == 'ok':
                assert_is(outcome[1], network)
            yield label, outcome

    assert count(outcomes())['clear'] > 100


NUMBER = '1' + '0' * 400
VALUES = (
    *(
        'null',
        'true',
        '-1',
        '0',
        '7',
        '1.5',
        'NaN',
        NUMBER,
        f'-{NUMBER}',
        '"text"',
        '""',
        '"\\u0000"',
    ),
    *(
        '[]',
        '{}',
        '[[[]]]',
        '[1, 2]',
        '{"a": 1}',
        '[' * 100_000,
        f'[{NUMBER}, 1, 1, 1]',
        '[1, 1, 1]',
    ),
)


@pytest.mark.parametrize('with_digests', [True, False])
def test_cards_of_other_values(with_digests, network, tmp_path):
    data, card = files(network)
    card = json.loads(card)
    if not with_digests:
        del card['sha256'], card['network_sha256']
    flat = traverse_util.flatten_dict(card, keep_empty_nodes=True)

    def outcomes():
        for name, value in list(itertools.product(flat, VALUES))[::3]:
            changed = traverse_util.unflatten_dict({**flat, name: 'PLACE'})
            text = json.dumps(changed).replace('"PLACE"', value)
            outcome = load(tmp_path, data, text.encode())
            if outcome[0] == 'ok':
                jax.tree.map(np.testing.assert_array_equal, outcome[1][1], network[2])
                assert not with_digests or outcome[1][0] == network[1]
            yield f'{name} = {value[:20]}', outcome

    assert count(outcomes())['clear'] > 40


def test_cards_without_an_entry_or_of_another_kind(network, tmp_path):
    data, card = files(network)
    card = json.loads(card)
    for name in ('network', 'attributes'):
        less = {key: value for key, value in card.items() if key != name}
        outcome, message = load(tmp_path, data, json.dumps(less).encode())
        assert outcome == 'clear' and f"'{name}'" in message
    for text in ('[]', '3', '"card"', 'null', '', '{', '\x00' * 50):
        assert load(tmp_path, data, text.encode())[0] == 'clear'
    (tmp_path / 'damaged.json').unlink()
    with pytest.raises(ValueError, match=r'damaged\.json'):
        describe_pretrained(tmp_path / 'damaged')
