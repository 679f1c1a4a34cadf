"""Interprets PyTorch's pickles by a table of few instructions: nothing is imported or called."""

import math
import pickletools
from collections.abc import Iterable
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

MAX_INSTRUCTIONS = 500_000
_MAX_TENSORS = 10_000
_MAX_AXES = 32
_MAX_NAME = 500  # Characters.
_MAX_ARGUMENTS = 16
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


class _Storage:
    """A flat array that tensors are views of. A class of its own, as a tensor is no storage."""

    def __init__(self, array: np.ndarray):
        self.array = array


class Storages:
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
        require(
            self._num_instructions <= MAX_INSTRUCTIONS,
            'more than {} instructions',
            MAX_INSTRUCTIONS,
        )

    def get(self, identity: tuple[Any, ...]) -> _Storage:
        """The storage of a persistent id: ('storage', type, key, device, number of elements)."""
        require(type(identity) is tuple and 5 <= len(identity) <= 6, 'unknown storage')
        kind, dtype, key, _, size, *view = identity
        is_storage = type(kind) is str and kind == 'storage' and all(part is None for part in view)
        require(
            is_storage and isinstance(dtype, np.dtype) and type(key) is str,
            'unknown storage of {} under a {}',
            dtype if isinstance(dtype, np.dtype) else f'a {type(dtype).__name__}',
            type(key).__name__,
        )
        check_counts((size,))
        if key not in self.arrays:
            self._storage_bytes_left -= size * dtype.itemsize
            require(self._storage_bytes_left >= 0, 'storages are larger than the file')
            self.arrays[key] = np.zeros(size, dtype)
        array = self.arrays[key]
        same = array.dtype == dtype and array.size == size
        require(same, 'storage {!r} has several types or sizes', key)
        return _Storage(array)

    def view(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> np.ndarray:
        """A tensor; offset and strides are in elements."""
        require(isinstance(storage, _Storage), 'a tensor without a storage')
        array = storage.array
        require(type(shape) is type(strides) is tuple, 'a tensor without shape or strides')
        require(
            len(shape) == len(strides) <= _MAX_AXES,
            'a tensor of {} axes has {} strides',
            len(shape),
            len(strides),
        )
        check_counts((offset, *shape, *strides))
        # Larger than its storage it would overlap itself: a few bytes could pose as gigabytes.
        count = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        require(
            count == 0 or (count <= array.size and last < array.size),
            'a tensor of shape {}, strides {} and offset {} does not fit into its storage of {} '
            'elements',
            shape,
            strides,
            offset,
            array.size,
        )
        self._num_tensors += 1
        require(self._num_tensors <= _MAX_TENSORS, 'more than {} tensors', _MAX_TENSORS)
        self._tensor_bytes_left -= count * array.itemsize
        require(self._tensor_bytes_left >= 0, 'tensors are larger than max_bytes together')
        if count == 0:
            return np.zeros(shape, array.dtype)
        return np.lib.stride_tricks.as_strided(
            array[offset:],
            shape,
            [stride * array.itemsize for stride in strides],
            writeable=False,
        )


class _Function:
    """One of `_FUNCTIONS`, which the pickle may name."""

    def __init__(self, name: str):
        self.name = name


def run(file: BinaryIO, storages: Storages) -> Any:
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
            require(len(stack) >= count, 'the stack is empty')
            stack[-count:] = [tuple(stack[-count:])]
        elif name == 'TUPLE':
            items, stack = stack, marked.pop()
            stack.append(tuple(items))
        elif name in ('APPEND', 'APPENDS'):
            if name == 'APPEND':
                items = [stack.pop()]
            else:
                items, stack = stack, marked.pop()
            require(type(stack[-1]) is list, '{} to a {}', name, type(stack[-1]).__name__)
            stack[-1].extend(items)
        elif name in ('SETITEM', 'SETITEMS'):
            if name == 'SETITEM':
                items = stack[-2:]
                del stack[-2:]
            else:
                items, stack = stack, marked.pop()
            require(type(stack[-1]) is dict, '{} in a {}', name, type(stack[-1]).__name__)
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
                require(
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
            require(type(stack[-1]) is dict, 'attributes of a {}', type(stack[-1]).__name__)
        else:
            raise ValueError(f'the pickle instruction {name} is not for tensors in dicts')
    raise ValueError('the pickle has no end')


def _named(name: str) -> np.dtype | _Function:
    """What a name in the pickle stands for: 'module name'."""
    module, _, attribute = name.partition(' ')
    if module == 'torch' and attribute in _DTYPES:
        return np.dtype(_DTYPES[attribute])
    shown = name[:_MAX_NAME].replace(' ', '.')
    require(name in _FUNCTIONS, 'it names {!r}, which is not for tensors', shown)
    return _Function(name)


def _reduce(function: Any, arguments: Any, storages: Storages) -> Any:
    """What a call in the pickle stands for."""
    allowed = isinstance(function, _Function) and type(arguments) is tuple
    require(allowed, 'it calls a {}', type(function).__name__)
    require(len(arguments) <= _MAX_ARGUMENTS, 'a call with {} arguments', len(arguments))
    if function.name == 'collections OrderedDict':
        result = {}
        for pairs in arguments:
            require(type(pairs) in (list, tuple), 'an OrderedDict of a {}', type(pairs).__name__)
            for pair in pairs:
                storages.count_instruction()  # Many calls may share one long list.
                _set_items(result, [pair])
        return result
    if function.name == 'torch._utils _rebuild_parameter':
        require(isinstance(arguments[0], np.ndarray), 'a parameter without a tensor')
        return arguments[0]
    storage, offset, shape, strides, *_ = arguments
    return storages.view(storage, offset, shape, strides)


def _set_items(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    for key, value in pairs:
        # The hash of deeply nested tuples overflows the stack.
        require(type(key) in (str, int), 'a {} is the key of a dict', type(key).__name__)
        require(type(key) is str or abs(key) < _MAX_KEY, 'a huge number is the key of a dict')
        target[key] = value


def check_types(value: Any) -> None:
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
            require(known, 'it holds a {} outside a tensor', type(value).__name__)
        # What many containers share counts in each of them: a few could pose as billions of values,
        # and one that holds itself as a value without end.
        total = count + len(pending)
        require(total <= MAX_INSTRUCTIONS, 'more than {} values', MAX_INSTRUCTIONS)


def check_counts(values: tuple[Any, ...]) -> None:
    valid = all(type(value) is int and 0 <= value < 2**62 for value in values)
    require(valid, 'sizes, offsets and strides must be whole numbers, not negative or huge')


def require(condition: bool, message: str, *values: Any) -> None:
    """Raises ValueError with a message that is made of the values only then.

    The values are numbers, short texts and tuples of numbers, never what the pickle has nested: a
    few hundred of its bytes can stand for a value whose text is longer than any memory.
    """
    if not condition:
        raise ValueError(message.format(*values))
