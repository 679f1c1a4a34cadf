"""Reads one array of numbers from a MATLAB file, and checks every length that the file states.

A file of level 5 (MATLAB 5 to 7.2, `save -v6` and `-v7`) is a header of 128 bytes and a row of
elements. An element is a type, a number of bytes, and the bytes. An array is an element that holds
elements: flags, dimensions, name, values. It may be compressed.

Source: MathWorks, "MAT-File Format", version 7.
"""

import math
import os
import pathlib
import zlib

import numpy as np

from jaxprop.data.sequences import DataError

_MAX_BYTES = 1 << 24  # Of the file, and of an array after decompression.
_MAX_ELEMENTS = 100
_MATRIX, _COMPRESSED = 14, 15
# The types of elements that hold numbers, by NumPy's names.
_NUMBERS = {
    1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8',
}  # fmt: skip
_CLASSES = range(6, 16)  # double, single, and integers of 8 to 64 bits
_COMPLEX = 0x800  # A flag.


def read_array(path: str | os.PathLike, name: str) -> np.ndarray:
    """Reads the array of real numbers of this name, as float64 of its shape in MATLAB.

    Raises:
      DataError: the file is missing, of another format, damaged, or has no such array; the message
        names it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f'{path}: there is no such file')
    with path.open('rb') as file:
        data = file.read(_MAX_BYTES + 1)
    try:
        found = _find(data, name)
    except (ValueError, zlib.error) as error:
        raise DataError(f'{path}: cannot be read as a .mat file of level 5: {error}') from error
    if found is None:
        raise DataError(f'{path}: holds no {name}')
    return found


def _find(data, name):
    if len(data) > _MAX_BYTES:
        raise ValueError(f'it is larger than {_MAX_BYTES >> 20} MB')
    order = {b'\x00\x01IM': '<', b'\x01\x00MI': '>'}.get(data[124:128])
    if order is None:
        raise ValueError('its header is of another kind')
    place = 128
    for _ in range(_MAX_ELEMENTS):
        if place >= len(data):
            return None
        kind, content, place = _element(data, place, order)
        if kind == _COMPRESSED:
            decoder = zlib.decompressobj()
            content = decoder.decompress(content, _MAX_BYTES)
            if not decoder.eof:  # The decoder compares the checksum at the end of the data.
                raise ValueError('an array is cut short, or too large')
            kind, content, _ = _element(content, 0, order)
        if kind == _MATRIX:
            flags, shape, found, values = _array(content, order)
            if found == name.encode():
                return _numbers(flags, shape, values, order)
    raise ValueError(f'it holds more than {_MAX_ELEMENTS} arrays')


def _element(data, place, order):
    """Reads the element at a place: its type, its bytes, and the place after it."""
    kind, size = _integers(data[place : place + 8], 'u4', order, 2)
    start = place + 8
    if kind >> 16:  # The element is short: up to four bytes lie within the tag itself.
        kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if size > 4:
            raise ValueError('an element has a wrong length')
        after = place + 8
    else:
        after = start + size + (0 if kind == _COMPRESSED else -size % 8)
    if start + size > len(data):
        raise ValueError('an element is longer than the data')
    return kind, data[start : start + size], after


def _array(data, order):
    """Reads an array: flags, shape, name and the first element of values, (type, bytes)."""
    _, flags, place = _element(data, 0, order)
    _, shape, place = _element(data, place, order)
    _, name, place = _element(data, place, order)
    flags = _integers(flags, 'u4', order, 2)[0]
    shape = _integers(shape, 'i4', order, len(shape) // 4)
    values = _element(data, place, order)[:2] if flags & 0xFF in _CLASSES else (0, b'')
    return flags, shape, name, values


def _numbers(flags, shape, values, order):
    kind, content = values
    if flags & 0xFF not in _CLASSES or flags & _COMPLEX or kind not in _NUMBERS:
        raise ValueError('the array does not hold real numbers')
    dtype = np.dtype(_NUMBERS[kind]).newbyteorder(order)
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f'the array has {len(content)} bytes of values, not as its shape says')
    return np.frombuffer(content, dtype).astype(np.float64).reshape(shape, order='F')


def _integers(data, kind, order, count):
    """Reads `count` integers as Python's."""
    if len(data) != count * int(kind[1]):
        raise ValueError('it is cut short')
    return np.frombuffer(data, order + kind).tolist()
