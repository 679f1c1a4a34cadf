"""Reads weights that PyTorch saved, without PyTorch and without running anything the file says.

A file of `torch.save` is a pickle, a small program that may call any function, with the numbers of
its tensors beside it. Here the program is interpreted by a table of the few instructions that
dicts, lists, numbers, strings and tensors need: nothing is imported or called on its behalf.
"""

import errno
import io
import math
import os
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# A tensor takes about 30 instructions and 130 bytes, its optimiser's states as many again.
_MAX_PICKLE_BYTES = 2**21
_MAX_INSTRUCTIONS = 500_000
_MAX_TENSORS = 10_000
_MAX_AXES = 32
_MAX_NAME = 500  # Characters.
_MAX_ARGUMENTS = 16
_MAX_MESSAGE = 1000
# Optimisers number their states; before PyTorch 1.6 by addresses, which have 47 bits. Larger
# numbers could all be of one hash, and each search for one of them as long as the dict.
_MAX_KEY = 2**48

_DTYPES = {
    'DoubleStorage': np.float64,
    'FloatStorage': np.float32,
    'HalfStorage': np.float16,
    'BFloat16Storage': jnp.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
}
_FUNCTIONS = (
    'collections OrderedDict',
    'torch._utils _rebuild_tensor',
    'torch._utils _rebuild_tensor_v2',
    'torch._utils _rebuild_parameter',
)


def load_torch_weights(path: str | os.PathLike, *, max_bytes: int = 2**30) -> Any:
    """What `torch.save` wrote, with every tensor as a NumPy array.

    Both formats are read: the zip archive (PyTorch 1.6 and later) and the older one. The file may
    hold tensors and parameters of floating point (64, 32, 16 bits, bfloat16) and integers, in
    dicts, lists and tuples with numbers, strings, booleans and None, and nothing else: least of
    all a function to call. The numbers are little-endian, wherever the tensors lived.

    Args:
      path: the file, such as one ending in '.pth' or '.pth.tar'.
      max_bytes: of the file, and of all tensors together.

    Returns:
      The saved structure, mostly a dict of name to array, or one that has such a dict under
      'state_dict'; an OrderedDict becomes a dict. Arrays can't be written to, and share memory
      where the tensors did.

    Raises:
      ValueError: the file is of neither format, is damaged, is larger than `max_bytes`, or holds
        anything else than the above.
      OSError: the file cannot be read.
    """
    with open(path, 'rb') as file:
        try:
            size = os.fstat(file.fileno()).st_size
            _require(size <= max_bytes, '{} bytes; max_bytes is {}', size, max_bytes)
            read = _read_zip if file.read(4) == b'PK\x03\x04' else _read_old
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # Python's, on strange escapes in texts.
                value = read(file, size, max_bytes)
            _check_types(value)
            return value
        # What reading damaged data runs into: lacking stack entries, arguments of other types.
        except (
            ValueError,
            TypeError,
            IndexError,
            KeyError,
            EOFError,
            OverflowError,
            AttributeError,
            NotImplementedError,
            RuntimeError,
            OSError,
            struct.error,
            zipfile.BadZipFile,
        ) as error:
            # A damaged archive names places before the file's beginning.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise ValueError(
                f'{os.fspath(path)!r} is not a file of PyTorch weights that can be read: '
                f'{str(error)[:_MAX_MESSAGE]}'
            ) from error


class _Storage:
    """A flat array that tensors are views of. A class of its own, as a tensor is no storage."""

    def __init__(self, array: np.ndarray):
        self.array = array


class _Storages:
    """The storages of a file, by key; their numbers are filled in after the pickle is read.

    They are as large together as the file at most, as it holds all of them.
    """

    def __init__(self, file_bytes: int, max_bytes: int):
        self.arrays: dict[str, np.ndarray] = {}
        self._storage_bytes_left = file_bytes
        self._tensor_bytes_left = max_bytes
        self._num_tensors = 0
        self._num_instructions = 0

    def count_instruction(self) -> None:
        """Raises ValueError where the file's pickles together are too long a program."""
        self._num_instructions += 1
        _require(
            self._num_instructions <= _MAX_INSTRUCTIONS,
            'more than {} instructions',
            _MAX_INSTRUCTIONS,
        )

    def get(self, identity: tuple[Any, ...]) -> _Storage:
        """The storage of a persistent id: ('storage', type, key, device, number of elements)."""
        _require(type(identity) is tuple and 5 <= len(identity) <= 6, 'unknown storage')
        kind, dtype, key, _, size, *view = identity
        is_storage = type(kind) is str and kind == 'storage' and all(part is None for part in view)
        _require(
            is_storage and isinstance(dtype, np.dtype) and type(key) is str,
            'unknown storage of {} under a {}',
            dtype if isinstance(dtype, np.dtype) else f'a {type(dtype).__name__}',
            type(key).__name__,
        )
        _check_counts((size,))
        if key not in self.arrays:
            self._storage_bytes_left -= size * dtype.itemsize
            _require(self._storage_bytes_left >= 0, 'storages are larger than the file')
            self.arrays[key] = np.zeros(size, dtype)
        array = self.arrays[key]
        same = array.dtype == dtype and array.size == size
        _require(same, 'storage {!r} has several types or sizes', key)
        return _Storage(array)

    def view(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> np.ndarray:
        """A tensor; offset and strides are in elements."""
        _require(isinstance(storage, _Storage), 'a tensor without a storage')
        array = storage.array
        _require(type(shape) is type(strides) is tuple, 'a tensor without shape or strides')
        _require(
            len(shape) == len(strides) <= _MAX_AXES,
            'a tensor of {} axes has {} strides',
            len(shape),
            len(strides),
        )
        _check_counts((offset, *shape, *strides))
        # Larger than its storage it would overlap itself: a few bytes could pose as gigabytes.
        count = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        _require(
            count == 0 or (count <= array.size and last < array.size),
            'a tensor of shape {}, strides {} and offset {} does not fit into its storage of {} '
            'elements',
            shape,
            strides,
            offset,
            array.size,
        )
        self._num_tensors += 1
        _require(self._num_tensors <= _MAX_TENSORS, 'more than {} tensors', _MAX_TENSORS)
        self._tensor_bytes_left -= count * array.itemsize
        _require(self._tensor_bytes_left >= 0, 'tensors are larger than max_bytes together')
        if count == 0:
            return np.zeros(shape, array.dtype)
        return np.lib.stride_tricks.as_strided(
            array[offset:],
            shape,
            [stride * array.itemsize for stride in strides],
            writeable=False,
        )


def _read_zip(file: BinaryIO, size: int, max_bytes: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # torch.save does not compress; and entries may not share bytes of the file.
        stored = all(
            member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
            for member in members
        )
        _require(stored, 'the archive is compressed')
        total = sum(member.file_size for member in members)
        _require(total <= size, 'the entries of the archive are larger than the file')
        by_name = {member.filename: member for member in members}
        _require(len(by_name) == len(members), 'two entries of the archive have the same name')
        pickles = [name for name in by_name if re.fullmatch(r'[^/]+/data\.pkl', name)]
        _require(len(pickles) == 1, "the archive holds no single 'NAME/data.pkl'")
        folder = pickles[0].removesuffix('data.pkl')
        if f'{folder}byteorder' in by_name:
            order = archive.read(by_name[f'{folder}byteorder'])
            _require(order == b'little', 'the byte order is {}', order[:20])
        _require(by_name[pickles[0]].file_size <= _MAX_PICKLE_BYTES, 'the pickle is too large')

        storages = _Storages(size, max_bytes)
        value = _run(io.BytesIO(archive.read(by_name[pickles[0]])), storages)
        for key, array in storages.arrays.items():
            member = by_name[f'{folder}data/{key}']
            _require(
                member.file_size == array.nbytes,
                'storage {!r} has {} bytes, not {}',
                key,
                member.file_size,
                array.nbytes,
            )
            array[:] = np.frombuffer(archive.read(member), array.dtype.newbyteorder('<'))
        return value


def _read_old(file: BinaryIO, size: int, max_bytes: int) -> Any:
    storages = _Storages(size, max_bytes)
    # From memory, where a string that claims to be huge only gets what there is.
    head = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    magic = _run(head, storages)
    _require(type(magic) is int and magic == _MAGIC, 'the first bytes are of neither format')
    protocol = _run(head, storages)
    is_known = type(protocol) is int and protocol == _PROTOCOL
    _require(is_known, 'the protocol is not {}', _PROTOCOL)
    machine: Any = _run(head, storages)
    _require(machine['little_endian'] is True, 'the numbers are not little-endian')
    value = _run(head, storages)
    keys: Any = _run(head, storages)
    _require(
        type(keys) is list
        and all(type(key) is str for key in keys)
        and sorted(keys) == sorted(storages.arrays),
        'the storages are not those of the tensors',
    )
    file.seek(head.tell())
    for key in keys:
        array = storages.arrays[str(key)]
        (count,) = struct.unpack('<q', file.read(8))
        _require(
            count == array.size, 'storage {!r} has {} elements, not {}', key, count, array.size
        )
        data = file.read(array.nbytes)
        _require(len(data) == array.nbytes, 'the file ends too early')
        array[:] = np.frombuffer(data, array.dtype.newbyteorder('<'))
    return value


class _Function:
    """One of `_FUNCTIONS`, which the pickle may name."""

    def __init__(self, name: str):
        self.name = name


def _run(file: BinaryIO, storages: _Storages) -> Any:
    """Interprets one pickle, from the file's position to its end."""
    stack: list[Any] = []
    marked: list[list[Any]] = []  # The stacks below each mark.
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        storages.count_instruction()
        name = opcode.name
        if name == 'STOP':
            (value,) = stack
            return value
        elif name in ('PROTO', 'FRAME'):
            pass
        elif name == 'MARK':
            marked.append(stack)
            stack = []
        elif name in (
            'BININT',
            'BININT1',
            'BININT2',
            'LONG1',
            'BINFLOAT',
            'BINUNICODE',
            'SHORT_BINUNICODE',
            'BINSTRING',
            'SHORT_BINSTRING',
        ):
            stack.append(argument)
        elif name in ('NONE', 'NEWTRUE', 'NEWFALSE'):
            stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}[name])
        elif name in ('EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE'):
            stack.append({'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}[name]())
        elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            count = int(name[-1])
            _require(len(stack) >= count, 'the stack is empty')
            stack[-count:] = [tuple(stack[-count:])]
        elif name == 'TUPLE':
            items, stack = stack, marked.pop()
            stack.append(tuple(items))
        elif name in ('APPEND', 'APPENDS'):
            if name == 'APPEND':
                items = [stack.pop()]
            else:
                items, stack = stack, marked.pop()
            _require(type(stack[-1]) is list, '{} to a {}', name, type(stack[-1]).__name__)
            stack[-1].extend(items)
        elif name in ('SETITEM', 'SETITEMS'):
            if name == 'SETITEM':
                items = stack[-2:]
                del stack[-2:]
            else:
                items, stack = stack, marked.pop()
            _require(type(stack[-1]) is dict, '{} in a {}', name, type(stack[-1]).__name__)
            _set_items(stack[-1], zip(items[::2], items[1::2], strict=True))
        elif name in ('BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name in ('GLOBAL', 'STACK_GLOBAL'):
            if name == 'STACK_GLOBAL':
                parts = stack[-2:]
                del stack[-2:]
                _require(
                    len(parts) == 2
                    and all(type(part) is str and len(part) <= _MAX_NAME for part in parts),
                    'a name that is no short text',
                )
                argument = ' '.join(parts)
            stack.append(_named(argument))
        elif name == 'BINPERSID':
            stack.append(storages.get(stack.pop()))
        elif name == 'REDUCE':
            arguments = stack.pop()
            stack.append(_reduce(stack.pop(), arguments, storages))
        elif name == 'BUILD':
            # Attributes of a dict, such as the versions of modules in '_metadata': left out.
            stack.pop()
            _require(type(stack[-1]) is dict, 'attributes of a {}', type(stack[-1]).__name__)
        else:
            raise ValueError(f'the pickle instruction {name} is not for tensors in dicts')
    raise ValueError('the pickle has no end')


def _named(name: str) -> np.dtype | _Function:
    """What a name in the pickle stands for: 'module name'."""
    module, _, attribute = name.partition(' ')
    if module == 'torch' and attribute in _DTYPES:
        return np.dtype(_DTYPES[attribute])
    shown = name[:_MAX_NAME].replace(' ', '.')
    _require(name in _FUNCTIONS, 'it names {!r}, which is not for tensors', shown)
    return _Function(name)


def _reduce(function: Any, arguments: Any, storages: _Storages) -> Any:
    """What a call in the pickle stands for."""
    allowed = isinstance(function, _Function) and type(arguments) is tuple
    _require(allowed, 'it calls a {}', type(function).__name__)
    _require(len(arguments) <= _MAX_ARGUMENTS, 'a call with {} arguments', len(arguments))
    if function.name == 'collections OrderedDict':
        result = {}
        for pairs in arguments:
            _require(type(pairs) in (list, tuple), 'an OrderedDict of a {}', type(pairs).__name__)
            for pair in pairs:
                storages.count_instruction()  # Many calls may share one long list.
                _set_items(result, [pair])
        return result
    if function.name == 'torch._utils _rebuild_parameter':
        _require(isinstance(arguments[0], np.ndarray), 'a parameter without a tensor')
        return arguments[0]
    storage, offset, shape, strides, *_ = arguments
    return storages.view(storage, offset, shape, strides)


def _set_items(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    for key, value in pairs:
        # The hash of deeply nested tuples overflows the stack.
        _require(type(key) in (str, int), 'a {} is the key of a dict', type(key).__name__)
        _require(type(key) is str or abs(key) < _MAX_KEY, 'a huge number is the key of a dict')
        target[key] = value


def _check_types(value: Any) -> None:
    """ValueError unless the value is what `load_torch_weights` says it is, containers included."""
    pending, count = [value], 0
    while pending:
        value = pending.pop()
        count += 1
        if type(value) in (list, tuple):
            pending.extend(value)
        elif type(value) is dict:
            pending.extend(value.keys())
            pending.extend(value.values())
        else:
            known = value is None or isinstance(value, (bool, int, float, str, np.ndarray))
            _require(known, 'it holds a {} outside a tensor', type(value).__name__)
        # What many containers share counts in each of them: a few could pose as billions of values,
        # and one that holds itself as a value without end.
        total = count + len(pending)
        _require(total <= _MAX_INSTRUCTIONS, 'more than {} values', _MAX_INSTRUCTIONS)


def _check_counts(values: tuple[Any, ...]) -> None:
    valid = all(type(value) is int and 0 <= value < 2**62 for value in values)
    _require(valid, 'sizes, offsets and strides must be whole numbers, not negative or huge')


def _require(condition: bool, message: str, *values: Any) -> None:
    """Raises ValueError with a message that is made of the values only then.

    The values are numbers, short texts and tuples of numbers, never what the pickle has nested: a
    few hundred of its bytes can stand for a value whose text is longer than any memory.
    """
    if not condition:
        raise ValueError(message.format(*values))
