import collections
import io
import os
import pickle
import re
import struct
import tarfile
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import pickles
from jaxprop.checkpoints.convnets import from_torchvision
from jaxprop.checkpoints.torch_file import load_torch_weights
from jaxprop.models import ResNet
from tests.fuzz.mutations import classify
from tests.models.test_resnet import torchvision_state
from tests.support import shared

Name = collections.namedtuple('Name', 'name')
Call = collections.namedtuple('Call', 'function arguments')
Persistent = collections.namedtuple('Persistent', 'identity')
Raw = collections.namedtuple('Raw', 'code')


def encode(value):
    """Makes PyTorch's pickle instructions for a value; its parts may be of the classes above."""
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, Name):
        return b'c' + value.name.replace(' ', '\n').encode() + b'\n'
    if isinstance(value, Call):
        return encode(value.function) + encode(value.arguments) + b'R'
    if isinstance(value, Persistent):
        return encode(value.identity) + b'Q'
    if isinstance(value, tuple):
        return b'(' + b''.join(map(encode, value)) + b't'
    if isinstance(value, list):
        return b'](' + b''.join(map(encode, value)) + b'e'
    if isinstance(value, dict):
        return b'}(' + b''.join(encode(part) for item in value.items() for part in item) + b'u'
    return pickle.dumps(value, protocol=2)[2:-1]


def program(value):
    return b'\x80\x02' + encode(value) + b'.'


def storage(kind='FloatStorage', key='0', size=4, *more, module='torch'):
    return Persistent(('storage', Name(f'{module} {kind}'), key, 'cpu', size, *more))


def tensor(stored=None, offset=0, shape=(2, 2), strides=(2, 1)):
    return Call(
        Name('torch._utils _rebuild_tensor_v2'),
        (
            stored or storage(),
            offset,
            shape,
            strides,
            False,
            Call(Name('collections OrderedDict'), ()),
        ),
    )


FOUR = np.array([1, 2, 3, 4], '<f4').tobytes()


def write_zip(path, value, records=None, compression=zipfile.ZIP_STORED, byteorder=b'little'):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', program(value))
        archive.writestr('archive/byteorder', byteorder)
        for key, data in (records or {'0': FOUR}).items():
            archive.writestr(f'archive/data/{key}', data)
    return path


def old_bytes(value, records=None, little_endian=True):
    """Makes a file of the old format. `records` has (number of elements, bytes) by key."""
    records = records or {'0': (4, FOUR)}
    return b''.join(
        [
            program(0x1950A86A20F9469CFC6C),
            program(1001),
            program({'protocol_version': 1001, 'little_endian': little_endian, 'type_sizes': {}}),
            program(value),
            program(list(records)),
            *(struct.pack('<q', count) + data for count, data in records.values()),
        ]
    )


def write_old(path, *arguments, **settings):
    path.write_bytes(old_bytes(*arguments, **settings))
    return path


@pytest.fixture(params=[write_zip, write_old])
def write(request, tmp_path):
    """Writes a file of either format; its only storage holds 1, 2, 3, 4."""
    return lambda value: request.param(tmp_path / 'weights.pth', value)


def test_views_and_structure(write):
    parameter = Call(
        Name('torch._utils _rebuild_parameter'),
        (tensor(), True, Call(Name('collections OrderedDict'), ())),
    )
    state = {
        'plain': tensor(),
        'transposed': tensor(strides=(1, 2)),
        'offset': tensor(offset=1, shape=(3,), strides=(1,)),
        'stepped': tensor(shape=(2,), strides=(2,)),
        'scalar': tensor(offset=2, shape=(), strides=()),
        'empty': tensor(shape=(0, 3), strides=(3, 1)),
        'parameter': parameter,
        'rest': [1, -2.5, 'text', None, True, (3, 2**40)],
        5: Call(Name('collections OrderedDict'), ([('a', 1), ('b', 2)],)),
    }
    loaded = load_torch_weights(write(state))
    assert list(loaded) == list(state)
    four = np.array([[1, 2], [3, 4]], np.float32)
    for name, expected in {
        'plain': four,
        'transposed': four.T,
        'offset': [2, 3, 4],
        'stepped': [1, 3],
        'scalar': 3,
        'empty': np.zeros((0, 3)),
        'parameter': four,
    }.items():
        np.testing.assert_array_equal(loaded[name], expected)
        assert loaded[name].dtype == np.float32
    assert loaded['rest'] == state['rest']
    assert loaded[5] == {'a': 1, 'b': 2}
    assert not loaded['plain'].flags.writeable


def test_attributes_of_dicts_are_left_out(write):
    state = Raw(
        encode(Call(Name('collections OrderedDict'), ()))
        + encode('weight')
        + encode(tensor())
        + b's'
        + encode({'_metadata': {'': {'version': 1}}})
        + b'b'
    )
    assert list(load_torch_weights(write(state))) == ['weight']


@pytest.mark.parametrize(
    'kind, dtype',
    [
        ('DoubleStorage', np.float64),
        ('HalfStorage', np.float16),
        ('BFloat16Storage', jnp.bfloat16),
        ('LongStorage', np.int64),
        ('IntStorage', np.int32),
        ('ShortStorage', np.int16),
        ('CharStorage', np.int8),
        ('ByteStorage', np.uint8),
    ],
)
def test_dtypes(tmp_path, kind, dtype):
    values = np.array([[1, 5], [127, 64]]).astype(dtype)
    state = {'weight': tensor(storage(kind, 'key'), strides=(1, 2))}
    data = values.T.tobytes()
    for path in (
        write_zip(tmp_path / 'new', state, {'key': data}),
        write_old(tmp_path / 'old', state, {'key': (4, data)}),
    ):
        loaded = load_torch_weights(path)['weight']
        assert loaded.dtype == dtype
        np.testing.assert_array_equal(loaded, values)


def test_feeds_from_torchvision(tmp_path):
    state = torchvision_state(18)
    values, records = {}, {}
    for name, array in state.items():
        array = np.ascontiguousarray(array, np.float32)
        strides = tuple(stride // 4 for stride in array.strides)
        stored = storage('FloatStorage', name, array.size)
        values[f'module.encoder_q.{name}'] = tensor(stored, 0, array.shape, strides)
        records[name] = array.tobytes()
    path = write_zip(tmp_path / 'moco.pth.tar', {'epoch': 200, 'state_dict': values}, records)
    loaded = load_torch_weights(path)
    model = ResNet(output='res2')
    variables = from_torchvision(loaded['state_dict'], model)
    expected = from_torchvision(state, model)
    np.testing.assert_array_equal(
        variables['params']['res2_1']['conv2']['kernel'],
        expected['params']['res2_1']['conv2']['kernel'],
    )


HOSTILE = {
    # In a dict such things are left out, elsewhere they are errors.
    'call': ([tensor(), Call(Name('os system'), ('exit 1',))], 'os.system'),
    'call of a builtin': ([tensor(), Call(Name('builtins eval'), ('1',))], 'builtins.eval'),
    'call in place of a storage': ({'a': tensor(Call(Name('os system'), ('',)))}, 'os.system'),
    'call in place of a parameter': (
        Call(Name('torch._utils _rebuild_parameter'), (Name('os system'), True)),
        'os.system',
    ),
    'call in place of a shape': ({'a': tensor(shape=Name('os system'))}, 'shape'),
    'other function of torch': (
        [tensor(), Call(Name('torch._utils _rebuild_device_tensor_from_numpy'), ())],
        'not for tensors',
    ),
    'attribute of an allowed name': (
        [tensor(), Name('collections OrderedDict.__class__')],
        'not for tensors',
    ),
    'attribute of an allowed module': ([tensor(), Name('torch load')], 'torch.load'),
    'name of protocol 4': ([tensor(), Raw(b'\x8c\x02os\x8c\x06system\x93')], 'os.system'),
    'instance': (Raw(b'(' + b'ios\nsystem\n'), 'instruction INST'),
    'object': (Raw(encode(Name('collections OrderedDict')) + b')\x81'), 'NEWOBJ'),
    'registered name': (Raw(b'\x82\x01'), 'EXT1'),
    'call of a string': (Call('os.system', ('',)), 'calls a str'),
    'call of a tensor': (Call(tensor(), ()), 'calls a ndarray'),
    'name alone': ([tensor(), Name('torch._utils _rebuild_tensor_v2')], 'holds a _Function'),
    'storage alone': ({'weight': storage()}, 'holds a _Storage'),
    'state of a number': (Raw(b'K\x01}b'), 'attributes of a int'),
    'set': ([tensor(), Raw(b'\x8f')], 'builtins.set'),
    'items of a list': (Raw(b'](K\x01\x90'), 'ADDITEMS'),
    'bytes': ([tensor(), Raw(b'C\x01a')], 'builtins.bytes'),
    'bytes longer than the file': (Raw(b'B\xff\xff\xff\x7f' + b'abc'), ''),
    'deep storage': (Persistent(Raw(b')' + b'\x85' * 10**5)), ''),
    'deep name': (Raw(b')' + b'\x85' * 10**5 + b')\x93'), ''),
    'stack that is too small': (Raw(b'\x87'), 'stack'),
    'mark that is missing': (Raw(b't'), ''),
    'memory that is empty': (Raw(b'h\x07'), ''),
    'string longer than the file': (Raw(b'X\xff\xff\xff\x7f' + b'abc'), ''),
    'very long string': (Raw(b'\x8d' + b'\xff' * 7 + b'\x7f'), ''),
    'number longer than the file': (Raw(b'\x8b\xff\xff\xff\x7f' + b'abc'), ''),
    'odd number of dict parts': (Raw(b'}(K\x01u'), ''),
    'huge storage': ({'weight': tensor(storage(size=2**60))}, 'larger than the file'),
    'overflowing storage': ({'weight': tensor(storage(size=2**63))}, 'huge'),
    'negative storage': ({'weight': tensor(storage(size=-4))}, 'negative'),
    'storage of another size': (
        {'a': tensor(), 'b': tensor(storage(size=3), shape=(1,), strides=(1,))},
        'several',
    ),
    'storage of another type': ({'a': tensor(), 'b': tensor(storage('IntStorage'))}, 'several'),
    'unknown storage': ({'weight': tensor(storage('ComplexFloatStorage'))}, 'ComplexFloat'),
    'storage elsewhere': ({'weight': tensor(storage(module='os'))}, 'os.FloatStorage'),
    'view of a storage': ({'weight': tensor(storage('FloatStorage', '0', 4, ('1', 0, 2)))}, 'unk'),
    'storage without a type': (Persistent(('storage', 'os', '0', 'cpu', 4)), 'unknown storage'),
    'file in place of a storage': (Persistent(('module', 'a', 'b', 'c', 4)), 'unknown storage'),
    'offset outside': ({'weight': tensor(offset=1)}, 'does not fit'),
    'negative offset': ({'weight': tensor(offset=-1)}, 'negative'),
    'huge offset': ({'weight': tensor(offset=2**61)}, 'does not fit'),
    'stride outside': ({'weight': tensor(strides=(3, 1))}, 'does not fit'),
    'negative stride': ({'weight': tensor(offset=3, strides=(-2, -1))}, 'negative'),
    'shape outside': ({'weight': tensor(shape=(3, 2))}, 'does not fit'),
    'overflowing shape': ({'weight': tensor(shape=(2**32, 2**32), strides=(0, 0))}, 'not fit'),
    'few bytes as gigabytes': ({'weight': tensor(shape=(2**30,), strides=(0,))}, 'does not fit'),
    'fraction as size': ({'weight': tensor(shape=(2.0, 2))}, 'sizes'),
    'shape without strides': ({'weight': tensor(strides=(1,))}, 'strides'),
    'too many axes': ({'weight': tensor(shape=(1,) * 70, strides=(1,) * 70)}, 'strides'),
    # A view of the last element alone would be read as four elements.
    'tensor as storage': (
        {'weight': tensor(tensor(offset=3, shape=(4,), strides=(0,)))},
        'without a storage',
    ),
    'nothing as storage': ({'weight': tensor(Raw(b'N'))}, 'without a storage'),
    'too many tensors': (
        Raw(
            b']('
            + encode(tensor())
            + b'q\x01'
            + b''.join([encode(tensor(shape=(1,), strides=(1,)))] * 10_001)
            + b'e'
        ),
        'more than 10000',
    ),
}


# 200 bytes for a tuple of 2^60 leaves, which no message may hold.
BOMB = Raw(b')' + b'q\x01h\x01\x86' * 60)
SAME_HASH = 2**61 - 1
HOSTILE |= {
    'bomb': ([tensor(), BOMB], 'values'),
    'bomb as storage': (Persistent(BOMB), 'unknown storage'),
    'bomb as part of a storage': (Persistent(('storage', BOMB, BOMB, 'cpu', BOMB)), 'unknown'),
    'bomb as type of a storage': (Persistent(('storage', BOMB, '0', 'cpu', 4)), 'unknown'),
    'bomb as size of a storage': (storage(size=BOMB), 'huge'),
    'bomb as module': (Raw(encode(BOMB) + encode('a') + b'\x93'), 'no short text'),
    'bomb as name': (Raw(encode('a') + encode(BOMB) + b'\x93'), 'no short text'),
    'bomb as offset': (tensor(offset=BOMB), 'huge'),
    'bomb as shape': (tensor(shape=BOMB), 'huge'),
    'bomb in a shape': (tensor(shape=(BOMB, 2)), 'huge'),
    'bomb in strides': (tensor(strides=(BOMB, 2)), 'huge'),
    'bomb as size': (Call(Name('torch Size'), (BOMB,)), 'huge'),
    'long size': (Call(Name('torch Size'), ([1] * 33,)), 'no short list'),
    'bomb as items': ([tensor(), Call(Name('collections Counter'), ({'a': BOMB},))], 'values'),
    'call of a bomb': (Call(BOMB, ()), 'calls a tuple'),
    'long name': (Raw(encode('a' * 10**6) + encode('b') + b'\x93'), 'no short text'),
    # Five thousand dicts of one list of five thousand pairs.
    'calls that share a list': (
        Raw(
            b'('
            + encode(('a', 1))
            + b'q\x01]('
            + b'h\x01' * 5000
            + b'eq\x02'
            + encode(Name('collections OrderedDict'))
            + b'q\x03h\x02\x85R'
            + b'h\x03h\x02\x85R' * 5000
            + b't'
        ),
        '500000 instructions',
    ),
    'a list that holds itself': ([tensor(), Raw(b']q\x01h\x01a')], '500000 values'),
    'lists that share a list': (
        [tensor(), Raw(b'](' + b'N' * 5000 + b'eq\x01](' + b'h\x01' * 5000 + b'e')],
        '500000 values',
    ),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pickles(write, name):
    value, message = HOSTILE[name]
    path = write(value)
    kind, found = classify(lambda: load_torch_weights(path), path, ValueError)
    assert kind == 'clear' and re.search(f'not a file of PyTorch weights.*{message}', found), found


def test_odd_keys_and_bytes_are_left_out(write):
    deep = Raw(b'}' + b')' + b'\x85' * 10**5 + b'K\x01s')
    call = Raw(b'}' + encode(Call(Name('os system'), ())) + b'K\x01s')
    value = {
        'huge': {k * SAME_HASH: None for k in range(1, 5000)},
        'weight': tensor(),
        'odd': {(1, 2): 3, 2.5: tensor(), None: 4, 'kept': 5, True: 6},
        'deep': deep,
        'bomb': Raw(b'}' + encode(BOMB) + b'K\x01s'),
        'pairs': Call(Name('collections OrderedDict'), (BOMB,)),
        'again': Call(Name('collections Counter'), ({(): 1},)),
        'call': call,
        'bytes': [Raw(b'C\x01a'), Raw(b'B\x01\0\0\0a'), Raw(b'\x8e\x01' + bytes(7) + b'a')],
        'more': Raw(b'\x96\x01' + bytes(7) + b'a'),
    }  # fmt: skip
    left_out = []
    loaded = load_torch_weights(write(value), left_out=left_out)
    np.testing.assert_array_equal(loaded.pop('weight'), [[1, 2], [3, 4]])
    empty = dict.fromkeys(('deep', 'bomb', 'pairs', 'again', 'call', 'huge'), {})
    assert loaded == {'odd': {'kept': 5}, **empty}
    kinds = {text.split('.')[1].split('>')[0] for text in left_out if text.startswith('odd.')}
    assert kinds == {'<tuple', '<float', '<NoneType', '<bool'}
    said = {
        'again.<tuple> (a key that is no text)',
        'bytes (builtins.bytes)',
        'more (builtins.bytes)',
    }
    assert said <= set(left_out) and re.fullmatch(r'and \d+ more', left_out[-1])


def test_a_long_program(write, monkeypatch):
    path = write([tensor(), Raw(b')' + b'\x85' * 2000)])
    assert len(load_torch_weights(path)) == 2
    monkeypatch.setattr(pickles, 'MAX_INSTRUCTIONS', 1000)
    with pytest.raises(ValueError, match='more than 1000 instructions'):
        load_torch_weights(path)


def test_states_of_optimisers_have_numbers_as_keys(write):
    state = {0: {'step': 3}, 1: tensor(), 140_234_567_890_123: {'step': 5}, -1: None}
    loaded = load_torch_weights(write({'state': state, 'param_groups': [{'params': [0, 1]}]}))
    assert list(loaded['state']) == list(state)
    assert loaded['state'][140_234_567_890_123] == {'step': 5}


@pytest.mark.parametrize('kind', ['zip', 'old', 'tar'])
def test_nothing_runs(kind, tmp_path):
    """An ordinary unpickler runs the call in the file; this reader leaves it out."""
    made = tmp_path / 'made'
    call = Call(Name('os system'), (f'touch {made}',))
    value = {'weight': call, 'more': {'a': [1, (call,)], 'b': 2}, 'list': [{'c': Name('x y')}, 3]}
    if kind == 'tar':
        path = write_tar(tmp_path / 'weights.pth', value)
    else:
        write = {'zip': write_zip, 'old': write_old}[kind]
        path = write(tmp_path / 'weights.pth', {**value, 'kept': tensor()})
    left_out = []
    loaded = load_torch_weights(path, left_out=left_out)
    loaded.pop('kept', None)
    assert loaded == {'more': {'b': 2}, 'list': [{}, 3]}
    expected = ['weight (os.system)', 'more.a (os.system)', 'list.c (x.y)']
    assert sorted(left_out) == sorted(expected)
    assert not made.exists()
    pickle.loads(program({'weight': call}))
    assert made.exists()


def test_what_training_adds_is_left_out(write):
    """Released files hold other objects beside tensors, pickled by Python 2 and 3."""
    namespace = Raw(encode(Name('argparse Namespace')) + b')\x81' + encode({'lr': 0.1}) + b'b')
    scalar = Call(
        Name('numpy.core.multiarray scalar'),
        (Call(Name('numpy dtype'), ('f8', 0, 1)), Call(Name('_codecs encode'), ('a', 'latin1'))),
    )
    filled = Raw(encode(Name('some Set')) + b')R(K\x01K\x02e' + b'(K\x01K\x02u')
    state = {
        'args': namespace,
        'best_loss': scalar,
        'milestones': Call(Name('collections Counter'), ({30: 1, 60: 2},)),
        'state': Raw(
            encode(Name('collections defaultdict'))
            + encode((Name('__builtin__ dict'),))
            + b'R(I140234567890123\nI01\nL5L\n\x8b\x02\0\0\0\0\x01u'
        ),
        'size': Call(Name('torch Size'), ([2, 3],)),
        'sets': [filled, Raw(b'\x8f(K\x01\x90'), Raw(b'(K\x01\x91')],
        'keywords': Raw(encode(Name('some Thing')) + b')}\x92'),
        'dropped': Raw(b'K\x01K\x020'),
        'parameter': Raw(encode(Name('torch.nn.parameter Parameter')) + encode((tensor(),)) + b'R'),
        'made': Raw(
            encode(Name('torch.nn.parameter Parameter')) + encode((tensor(),)) + b'\x81'
            # Its attributes.
            + encode((True, False)) + b'b'
        ),
    }  # fmt: skip
    left_out = []
    loaded = load_torch_weights(write(state), left_out=left_out)
    for name in ('parameter', 'made'):
        np.testing.assert_array_equal(loaded.pop(name), [[1, 2], [3, 4]])
    assert loaded == {
        'milestones': {30: 1, 60: 2},
        'state': {140_234_567_890_123: True, 5: 256},
        'size': (2, 3),
        'dropped': 1,
    }
    assert sorted(left_out) == [
        'args (argparse.Namespace)',
        'best_loss (numpy.core.multiarray.scalar)',
        'keywords (some.Thing)',
        'sets (builtins.frozenset)',
    ]


def write_tar(path, value, tensors=(), storages=(), views=()):
    """A file of PyTorch before 0.2.

    Args:
      path: of the file.
      value: the structure; `Persistent('NUMBER')` stands for a tensor.
      tensors: number, number of the storage, shape, strides, offset.
      storages: number, type, number of elements, bytes.
      views: number, number of the storage, offset, number of elements.
    """
    members = {
        'sys_info': program({'protocol_version': 1000, 'little_endian': True}),
        'storages': program(len(storages))
        + b''.join(
            program((key, 'cpu', Name(f'torch {kind}'))) + struct.pack('<q', count) + data
            for key, kind, count, data in storages
        )
        + program(list(views)),
        'tensors': program(len(tensors))
        + b''.join(
            program((key, storage, Name('torch FloatTensor')))
            + struct.pack(f'<ii{2 * len(shape) + 1}q', len(shape), 0, *shape, *strides, offset)
            for key, storage, shape, strides, offset in tensors
        ),
        'pickle': program(value),
    }
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


TAR = {
    'value': {'state_dict': {'a': Persistent('7'), 'b': Persistent('8'), 'c': Persistent('9')}},
    'tensors': [
        (7, 1, (2, 2), (1, 2), 0),
        (8, 2, (), (), 1),
        (9, 140_234_567_890_123, (3,), (1,), 0),
    ],
    'storages': [
        (1, 'FloatStorage', 4, FOUR),
        (140_234_567_890_123, 'LongStorage', 3, np.arange(3, dtype='<i8').tobytes()),
    ],
    'views': [(2, 1, 1, 2)],
}


def test_tar_of_pytorch_before_0_2(tmp_path):
    state = load_torch_weights(write_tar(tmp_path / 'weights.pth', **TAR))['state_dict']
    np.testing.assert_array_equal(state['a'], [[1, 3], [2, 4]])
    assert state['b'] == 3 and state['b'].shape == ()
    np.testing.assert_array_equal(state['c'], [0, 1, 2])
    assert state['c'].dtype == np.int64 and not state['a'].flags.writeable


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'tensors': [(7, 3, (2, 2), (1, 2), 0)]}, "'3'"),
        ({'tensors': [(7, 1, (2, 2), (2, 2), 0)]}, 'does not fit'),
        ({'tensors': [(7, 1, (2, 2), (1, 2), -1)]}, 'negative'),
        ({'value': {'a': Persistent('10')}}, "'10'"),
        ({'value': {'a': Persistent(7)}}, 'unknown tensor'),
        ({'views': [(2, 1, 1, 4)]}, 'does not fit'),
        ({'views': [(2, 1, -1, 2)]}, 'negative'),
        ({'storages': [(1, 'FloatStorage', 500, FOUR)]}, 'too early'),
        ({'storages': [(1, 'FloatStorage', 2**60, FOUR)]}, 'larger than the file'),
        ({'storages': [(1, 'FloatStorage', -4, FOUR)]}, 'negative'),
        ({'storages': [(1, 'Other', 4, FOUR)]}, 'torch.Other'),
    ],
)
def test_damaged_tar(tmp_path, changes, message):
    path = write_tar(tmp_path / 'weights.pth', **{**TAR, **changes})
    with pytest.raises(ValueError, match=f'not a file of PyTorch weights.*{message}'):
        load_torch_weights(path)


def test_damaged_old_file(tmp_path):
    path = tmp_path / 'weights.pth'
    whole = old_bytes({'weight': tensor()})
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match='not a file of PyTorch weights'):
            load_torch_weights(path)
    state = {'weight': tensor()}
    for records, message in (
        ({'0': (2**62, FOUR)}, 'elements'),
        ({'0': (-4, FOUR)}, 'elements'),
        ({'1': (4, FOUR)}, 'storages'),
        ({'0': (4, FOUR), '1': (4, FOUR)}, 'storages'),
        ({'0': (4, FOUR[:-1])}, 'too early'),
    ):
        with pytest.raises(ValueError, match=message):
            load_torch_weights(write_old(path, state, records))
    with pytest.raises(ValueError, match='little-endian'):
        load_torch_weights(write_old(path, state, little_endian=False))


def test_damaged_zip(tmp_path):
    path = write_zip(tmp_path / 'weights.pth', {'weight': tensor()})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match='not a file of PyTorch weights'):
            load_torch_weights(path)
    # Bytes of the tensor that its checksum does not belong to.
    path.write_bytes(whole.replace(FOUR, FOUR[::-1]))
    with pytest.raises(ValueError, match='CRC'):
        load_torch_weights(path)


def test_hostile_zip(tmp_path):
    path = tmp_path / 'weights.pth'
    state = {'weight': tensor()}
    zeros = bytes(2**20)
    for records, message in (
        ({'1': FOUR}, 'no item|data/0'),
        ({'0': FOUR[:8]}, '8 bytes'),
        ({'0': FOUR * 2}, '32 bytes'),
    ):
        with pytest.raises(ValueError, match=message):
            load_torch_weights(write_zip(path, state, records))
    # A bomb: a storage that is much smaller in the file.
    bomb = {'weight': tensor(storage(size=2**18), shape=(2**18,), strides=(1,))}
    write_zip(path, bomb, {'0': zeros}, compression=zipfile.ZIP_DEFLATED)
    assert os.path.getsize(path) < 5000
    with pytest.raises(ValueError, match='compressed'):
        load_torch_weights(path)
    with pytest.raises(ValueError, match='byte order'):
        load_torch_weights(write_zip(path, state, byteorder=b'big'))
    # Another kind of bomb: many entries of the directory that are the same bytes.
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        archive.writestr('archive/data.pkl', program(state))
        archive.writestr('archive/data/0', zeros)
        entry = archive.getinfo('archive/data/0')
        for key in range(1, 50):
            copy = zipfile.ZipInfo(f'archive/data/{key}')
            for attribute in ('header_offset', 'CRC', 'compress_size', 'file_size'):
                setattr(copy, attribute, getattr(entry, attribute))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
    path.write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match='larger than the file'):
        load_torch_weights(path)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', program(state))
        archive.writestr('b/data.pkl', program(state))
    with pytest.raises(ValueError, match='no single'):
        load_torch_weights(path)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', bytes(2**23 + 1))
    with pytest.raises(ValueError, match='pickle is too large'):
        load_torch_weights(path)


def test_limits(write, tmp_path):
    path = write({'a': tensor(), 'b': tensor()})
    size = os.path.getsize(path)
    assert set(load_torch_weights(path, max_bytes=size)) == {'a', 'b'}
    with pytest.raises(ValueError, match=f'max_bytes is {size - 1}'):
        load_torch_weights(path, max_bytes=size - 1)
    # Each fits into its storage; together they don't fit into memory.
    wide = tensor(storage(size=4000), shape=(4000,), strides=(1,))
    path = write_zip(tmp_path / 'many', [wide] * 100, {'0': bytes(16000)})
    assert os.path.getsize(path) < 40_000
    assert len(load_torch_weights(path, max_bytes=1_600_000)) == 100
    with pytest.raises(ValueError, match='larger than max_bytes together'):
        load_torch_weights(path, max_bytes=1_599_999)
    for other in (b'', b'PK', b'safetensors', b'PK\x03\x04' + bytes(100)):
        (tmp_path / 'other').write_bytes(other)
        with pytest.raises(ValueError, match='not a file of PyTorch weights'):
            load_torch_weights(tmp_path / 'other')
    with pytest.raises(FileNotFoundError):
        load_torch_weights(tmp_path / 'none')


def test_released_file():
    state = load_torch_weights(shared('weights', 'uvc_colour_encoder.pth'))
    assert state['conv6.weight'].shape == (256, 128, 3, 3)
    # The first numbers of the file's first tensor.
    np.testing.assert_allclose(
        state['conv1.weight'][0, :, 0, 0], [0.0400, -0.1791, 0.5162], atol=5e-5
    )


def test_agrees_with_torch(tmp_path):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    base = torch.arange(24.0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = {
        'state_dict': module.state_dict(),
        'view': base.reshape(2, 3, 4).permute(2, 0, 1)[1:],
        'shared': base[5:],
        'parameter': torch.nn.Parameter(base * 2),
        'scalar': torch.tensor(3.5),
        'empty': torch.zeros(0, 2),
        'dtypes': [
            torch.tensor([1, 2, 100]).to(dtype)
            for dtype in (
                torch.float64,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.int32,
                torch.int16,
                torch.int8,
                torch.uint8,
            )
        ],
        'optimizer': torch.optim.Adam(module.parameters()).state_dict(),
        'epoch': 3,
    }

    def compare(loaded, expected):
        if isinstance(expected, dict):
            assert list(loaded) == list(expected)
            for key in expected:
                compare(loaded[key], expected[key])
        elif isinstance(expected, (list, tuple)):
            assert len(loaded) == len(expected)
            for pair in zip(loaded, expected):
                compare(*pair)
        elif isinstance(expected, torch.Tensor):
            assert str(loaded.dtype) == str(expected.dtype).removeprefix('torch.')
            # NumPy has no bfloat16 of its own.
            np.testing.assert_array_equal(
                loaded.astype(np.float64), expected.detach().double().numpy()
            )
        else:
            assert loaded == expected

    for zipped in (True, False):
        path = tmp_path / 'state.pth'
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        compare(load_torch_weights(path), state)
    for name in ('encoder', 'decoder'):
        path = shared('weights', f'uvc_colour_{name}.pth')
        compare(load_torch_weights(path), torch.load(path, weights_only=True))
