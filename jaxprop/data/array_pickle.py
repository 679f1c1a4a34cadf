"""Reads pickles of NumPy arrays and bytes, without unpickling them: nothing in them is run.

The file is mapped into memory, and arrays and bytes are views of it, so a file of many gigabytes
costs no memory until its arrays are read.
"""

import math
import mmap
import os
import pathlib
import warnings
from typing import Any, BinaryIO, cast

import numpy as np

from jaxprop.data.sequences import DataError
from jaxprop.pickles import DAMAGE, MAX_NAME, Vocabulary, require, run

_DTYPES = ('b1', 'u1', 'u2', 'u4', 'u8', 'i1', 'i2', 'i4', 'i8', 'f2', 'f4', 'f8', 'O8')
_MAX_AXES = 8
# NumPy 2 has these functions in numpy._core.
_MAKERS = {f'numpy.{core}.multiarray _reconstruct' for core in ('core', '_core')}
_BUFFERS = {f'numpy.{core}.numeric _frombuffer' for core in ('core', '_core')}
_NAMES = {'numpy ndarray', 'numpy dtype', *_MAKERS, *_BUFFERS}


class StoredArray:
    """An array in a pickle.

    Attributes:
      value: a view of the file, which can't be written to; a list of the elements, if the array has
        Python objects in one axis.
    """

    value: Any = None


class _Name:
    """Stands for one of `_NAMES`."""

    def __init__(self, name: str):
        self.name = name


class _Dtype:
    order: Any = '<'

    def __init__(self, name: str):
        self.name = name


class _Arrays(Vocabulary):
    """The names and calls by which NumPy's arrays are pickled; others are errors."""

    def __init__(self, data: memoryview):
        super().__init__()
        self._data = data

    def named(self, name: str) -> _Name:
        require(name in _NAMES, 'it names {!r}, which is not for arrays', name[:MAX_NAME])
        return _Name(name)

    def call(self, function: Any, arguments: Any) -> StoredArray | _Dtype:
        require(type(function) is _Name, 'it calls a {}', type(function).__name__)
        require(type(arguments) is tuple, 'a call without arguments')
        if function.name == 'numpy dtype':
            is_known = bool(arguments) and type(arguments[0]) is str and arguments[0] in _DTYPES
            require(is_known, 'an unknown type of numbers')
            return _Dtype(arguments[0])
        array = StoredArray()
        if function.name in _BUFFERS:
            data, dtype, shape, order, *axes = arguments
            array.value = self._array(shape, dtype, order == 'F', data)
            if order == 'K':  # NumPy 2 keeps the order of axes in memory, and says which it is.
                array.value = array.value.transpose(*axes)
        else:
            require(function.name in _MAKERS, 'it calls {}', function.name)
        return array

    def build(self, target: Any, state: Any) -> None:
        require(type(state) is tuple, 'attributes that are no tuple')
        if type(target) is _Dtype:
            is_known = len(state) > 1 and type(state[1]) is str and state[1] in ('<', '>', '|', '=')
            require(is_known, 'an unknown byte order')
            target.order = state[1]
            return
        require(type(target) is StoredArray, 'attributes of a {}', type(target).__name__)
        _, shape, dtype, is_fortran, data = state
        target.value = self._array(shape, dtype, is_fortran is True, data)

    def data(self, value: bytes, place: int) -> memoryview:
        return self._data[place : place + len(value)]

    def _array(self, shape, dtype, is_fortran, data):
        require(type(dtype) is _Dtype and type(shape) is tuple, 'an array without a type or shape')
        is_shape = len(shape) <= _MAX_AXES and all(type(n) is int and 0 <= n < 2**40 for n in shape)
        require(is_shape, 'an array of an impossible shape')
        if dtype.name == 'O8':
            is_list = type(data) is list and shape == (len(data),)
            require(is_list, 'an array of objects that is no list')
            return data
        kind = np.dtype(dtype.name).newbyteorder(dtype.order)
        count = math.prod(shape)
        fits = type(data) is memoryview and len(data) == count * kind.itemsize
        require(fits, 'an array of shape {} and type {} with other data', shape, dtype.name)
        return np.frombuffer(data, kind, count).reshape(shape, order='F' if is_fortran else 'C')


def read_array_pickle(path: str | os.PathLike) -> Any:
    """Reads a pickle of dicts, lists, tuples, texts, numbers, NumPy arrays and bytes.

    Nothing that the pickle names is imported or called.

    Args:
      path: of the file, of protocol 3 to 5.

    Returns:
      What was pickled, with a `StoredArray` for each array, and a memoryview for bytes.

    Raises:
      DataError: there is no such file, it is damaged, or holds something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f'{path}: there is no such file')
    try:
        with path.open('rb') as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Python's, on strange escapes in texts.
            return run(cast(BinaryIO, mapped), _Arrays(memoryview(mapped)))
    except DAMAGE as error:
        reason = f'{type(error).__name__}: {error}'[:300]
        raise DataError(f'{path}: is no pickle of arrays that can be read: {reason}') from error
