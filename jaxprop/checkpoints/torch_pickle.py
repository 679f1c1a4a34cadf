"""The tensors in PyTorch's pickles, for the interpreter `jaxprop.pickles`.

Names in a pickle are compared with the few that tensors need. Any other name becomes an `Opaque`,
and so does everything that the pickle makes of it.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxprop import pickles
from jaxprop.pickles import MAX_NAME, Opaque, Vocabulary, require, set_items

_MAX_TENSORS = 10_000
_MAX_AXES = 32
_MAX_ARGUMENTS = 16

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
    'BoolStorage': np.bool_,
}
_DICTS = ('collections OrderedDict', 'collections Counter', 'collections defaultdict')
_PARAMETERS = ('torch._utils _rebuild_parameter', 'torch.nn.parameter Parameter')
_FUNCTIONS = (
    *_DICTS,
    *_PARAMETERS,
    'torch Size',
    'torch._utils _rebuild_tensor',
    'torch._utils _rebuild_tensor_v2',
)
# At most so many things that were left out are listed, each by so many of its last keys.
_MAX_LEFT_OUT = 1000
_MAX_KEYS = 8


class _Storage:
    """A flat array of which tensors are views. It has a class, since a tensor is no storage."""

    def __init__(self, array: np.ndarray):
        self.array = array


class Storages(Vocabulary):
    """The storages of a file, by key; their numbers are filled in after the pickle is read.

    Together they can't be larger than the file, which holds all of them.

    Args:
      file_bytes: the size of the file.
      max_bytes: the largest size of all tensors together.
    """

    def __init__(self, file_bytes: int, max_bytes: int):
        super().__init__()
        self.arrays: dict[str, np.ndarray] = {}
        self._storage_bytes_left = file_bytes
        self._tensor_bytes_left = max_bytes
        self._num_tensors = 0

    def named(self, name: str) -> Any:
        module, _, attribute = name.partition(' ')
        if module in ('torch', 'torch.cuda') and attribute in _DTYPES:
            return np.dtype(_DTYPES[attribute])
        if name in _FUNCTIONS:
            return _Function(name)
        return Opaque(name[:MAX_NAME].replace(' ', '.'))

    def call(self, function: Any, arguments: Any) -> Any:
        return _reduce(function, arguments, self)

    def new(self, made: Any, arguments: Any, named: Any) -> Any:
        is_parameter = isinstance(made, _Function) and made.name in _PARAMETERS and not named
        require(isinstance(made, Opaque) or is_parameter, 'NEWOBJ of a known name')
        return _reduce(made, arguments, self)

    def build(self, target: Any, state: Any) -> None:
        # Leave out attributes of a dict, such as the versions of modules in '_metadata', and of a
        # parameter.
        require(
            isinstance(target, (dict, np.ndarray, Opaque)),
            'attributes of a {}',
            type(target).__name__,
        )

    def data(self, value: bytes, place: int) -> Any:
        return Opaque('builtins.bytes')

    def find(self, identity: Any) -> Any:
        return self.get(identity)

    def get(self, identity: tuple[Any, ...]) -> _Storage:
        """Gets the storage of a persistent id: ('storage', type, key, device, num_elements)."""
        require(type(identity) is tuple and 5 <= len(identity) <= 6, 'unknown storage')
        kind, dtype, key, _, size, *view = identity
        if isinstance(dtype, Opaque):
            raise dtype.error()
        is_storage = type(kind) is str and kind == 'storage' and all(part is None for part in view)
        require(
            is_storage and isinstance(dtype, np.dtype) and type(key) is str,
            'unknown storage of {} under a {}',
            dtype if isinstance(dtype, np.dtype) else f'a {type(dtype).__name__}',
            type(key).__name__,
        )
        if key not in self.arrays:
            self.add(key, dtype, size)
        array = self.arrays[key]
        same = array.dtype == dtype and array.size == size
        require(same, 'storage {!r} has several types or sizes', key)
        return _Storage(array)

    def add(self, key: str, dtype: np.dtype, size: int) -> np.ndarray:
        """Makes a storage of zeros; ValueError if all together are larger than the file."""
        check_counts((size,))
        self._storage_bytes_left -= size * dtype.itemsize
        require(self._storage_bytes_left >= 0, 'storages are larger than the file')
        self.arrays[key] = np.zeros(size, dtype)
        return self.arrays[key]

    def stored(self, key: str) -> _Storage:
        """Gets a storage that was added."""
        return _Storage(self.arrays[key])

    def view(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> np.ndarray:
        """Makes a tensor; offset and strides are in elements."""
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
        # A tensor that is larger than its storage would overlap itself: a few bytes could pose as
        # gigabytes.
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
    """Stands for one of `_FUNCTIONS`, which the pickle may name."""

    def __init__(self, name: str):
        self.name = name


def _reduce(function: Any, arguments: Any, storages: Storages) -> Any:
    """Makes the object that a call in the pickle stands for."""
    if isinstance(function, Opaque):
        return function
    allowed = isinstance(function, _Function) and type(arguments) is tuple
    require(allowed, 'it calls a {}', type(function).__name__)
    require(len(arguments) <= _MAX_ARGUMENTS, 'a call with {} arguments', len(arguments))
    if function.name in _DICTS:
        result = {}
        if function.name == 'collections defaultdict':
            arguments = arguments[1:]  # The first argument makes the values of missing keys.
        for pairs in arguments:
            if type(pairs) is dict:
                pairs = list(pairs.items())
            require(type(pairs) in (list, tuple), 'a dict of a {}', type(pairs).__name__)
            for pair in pairs:
                storages.count_instruction()  # Many calls may share one long list.
                set_items(result, [pair])
        return result
    if function.name in _PARAMETERS:
        if isinstance(arguments[0], Opaque):
            raise arguments[0].error()
        require(isinstance(arguments[0], np.ndarray), 'a parameter without a tensor')
        return arguments[0]
    if function.name == 'torch Size':
        is_short = type(arguments[0]) in (list, tuple) and len(arguments[0]) <= _MAX_AXES
        require(is_short, 'a size that is no short list of numbers')
        check_counts(tuple(arguments[0]))
        return tuple(arguments[0])
    if isinstance(arguments[0], Opaque):
        raise arguments[0].error()
    storage, offset, shape, strides, *_ = arguments
    return storages.view(storage, offset, shape, strides)


def keep_known(value: Any, left_out: list[str]) -> None:
    """Removes from dicts, in place, the entries with things of which only the name is known.

    Args:
      value: the result of the pickles.
      left_out: a list. A text is appended for each entry that is removed: its keys, joined by dots,
        and the name.

    Raises:
      ValueError: something that is no number, text or tensor is in no dict, or there are too many
        values.
    """
    # Each value with the dict entry it is in, and the keys that lead there as linked pairs.
    pending: list[tuple[Any, tuple[dict[Any, Any], Any] | None, Any]] = [(value, None, None)]
    removed: dict[tuple[int, Any], tuple[dict[Any, Any], Any]] = {}
    count = 0
    while pending:
        value, entry, path = pending.pop()
        count += 1
        if type(value) in (list, tuple):
            pending.extend((part, entry, path) for part in value)
        elif type(value) is dict:
            pending.extend((part, (value, key), (path, key)) for key, part in value.items())
        elif isinstance(value, (Opaque, _Function, np.dtype)):
            if entry is None and isinstance(value, Opaque):
                raise value.error()
            require(entry is not None, 'it holds a {} outside a tensor', type(value).__name__)
            assert entry is not None
            known = (id(entry[0]), entry[1])
            if known not in removed and len(removed) < _MAX_LEFT_OUT:
                name = value.name if isinstance(value, Opaque) else type(value).__name__
                left_out.append(f'{_joined(path)} ({name})')
            removed[known] = entry
        else:
            known = value is None or isinstance(value, (bool, int, float, str, np.ndarray))
            require(known, 'it holds a {} outside a tensor', type(value).__name__)
        # A value that many containers share counts in each of them. Else a few values could pose as
        # billions, and a container that holds itself would have no end.
        total = count + len(pending)
        most = pickles.MAX_INSTRUCTIONS
        require(total <= most, 'more than {} values', most)
    for holder, key in removed.values():
        del holder[key]
    if len(removed) > _MAX_LEFT_OUT:
        left_out.append(f'and {len(removed) - _MAX_LEFT_OUT} more')


def _joined(path: Any) -> str:
    """Joins the last keys of a linked path by dots."""
    keys = []
    while path is not None and len(keys) < _MAX_KEYS:
        path, key = path
        keys.append(str(key)[:MAX_NAME])
    return '.'.join(reversed(keys))


def check_counts(values: tuple[Any, ...]) -> None:
    """Raises ValueError for values that are no sizes, offsets or strides."""
    valid = all(type(value) is int and 0 <= value < 2**62 for value in values)
    require(valid, 'sizes, offsets and strides must be whole numbers, not negative or huge')
