"""Reads weights that PyTorch saved, without PyTorch and without running anything the file says.

A file of `torch.save` is a pickle, a small program that may call any function, with the numbers of
its tensors beside it. Here the program is interpreted by a table of the few instructions that
dicts, lists, numbers, strings and tensors need: nothing is imported or called on its behalf.
"""

import errno
import io
import os
import re
import struct
import warnings
import zipfile
from typing import Any, BinaryIO

import numpy as np

from jaxprop.checkpoints.torch_pickle import Storages, check_types, require, run

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# A tensor takes about 30 instructions and 130 bytes, its optimiser's states as many again.
_MAX_PICKLE_BYTES = 2**21
_MAX_MESSAGE = 1000


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
            require(size <= max_bytes, '{} bytes; max_bytes is {}', size, max_bytes)
            read = _read_zip if file.read(4) == b'PK\x03\x04' else _read_old
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # Python's, on strange escapes in texts.
                value = read(file, size, max_bytes)
            check_types(value)
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


def _read_zip(file: BinaryIO, size: int, max_bytes: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # torch.save does not compress; and entries may not share bytes of the file.
        stored = all(
            member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
            for member in members
        )
        require(stored, 'the archive is compressed')
        total = sum(member.file_size for member in members)
        require(total <= size, 'the entries of the archive are larger than the file')
        by_name = {member.filename: member for member in members}
        require(len(by_name) == len(members), 'two entries of the archive have the same name')
        pickles = [name for name in by_name if re.fullmatch(r'[^/]+/data\.pkl', name)]
        require(len(pickles) == 1, "the archive holds no single 'NAME/data.pkl'")
        folder = pickles[0].removesuffix('data.pkl')
        if f'{folder}byteorder' in by_name:
            order = archive.read(by_name[f'{folder}byteorder'])
            require(order == b'little', 'the byte order is {}', order[:20])
        require(by_name[pickles[0]].file_size <= _MAX_PICKLE_BYTES, 'the pickle is too large')

        storages = Storages(size, max_bytes)
        value = run(io.BytesIO(archive.read(by_name[pickles[0]])), storages)
        for key, array in storages.arrays.items():
            member = by_name[f'{folder}data/{key}']
            require(
                member.file_size == array.nbytes,
                'storage {!r} has {} bytes, not {}',
                key,
                member.file_size,
                array.nbytes,
            )
            array[:] = np.frombuffer(archive.read(member), array.dtype.newbyteorder('<'))
        return value


def _read_old(file: BinaryIO, size: int, max_bytes: int) -> Any:
    storages = Storages(size, max_bytes)
    # From memory, where a string that claims to be huge only gets what there is.
    head = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    magic = run(head, storages)
    require(type(magic) is int and magic == _MAGIC, 'the first bytes are of neither format')
    protocol = run(head, storages)
    is_known = type(protocol) is int and protocol == _PROTOCOL
    require(is_known, 'the protocol is not {}', _PROTOCOL)
    machine: Any = run(head, storages)
    require(machine['little_endian'] is True, 'the numbers are not little-endian')
    value = run(head, storages)
    keys: Any = run(head, storages)
    require(
        type(keys) is list
        and all(type(key) is str for key in keys)
        and sorted(keys) == sorted(storages.arrays),
        'the storages are not those of the tensors',
    )
    file.seek(head.tell())
    for key in keys:
        array = storages.arrays[str(key)]
        (count,) = struct.unpack('<q', file.read(8))
        require(count == array.size, 'storage {!r} has {} elements, not {}', key, count, array.size)
        data = file.read(array.nbytes)
        require(len(data) == array.nbytes, 'the file ends too early')
        array[:] = np.frombuffer(data, array.dtype.newbyteorder('<'))
    return value
