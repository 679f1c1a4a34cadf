"""Reads weights that PyTorch saved, without PyTorch and without running code in the file.

A file of `torch.save` is a pickle, a small program that may call any function, with the numbers of
its tensors beside it. Here `torch_pickle` interprets the program by a table of the few instructions
that dicts, lists, numbers, strings and tensors need: nothing is imported or called on its behalf.
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

from jaxprop.checkpoints.torch_pickle import Storages, check_counts, keep_known
from jaxprop.pickles import DAMAGE, Opaque, require, run

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# A tensor takes about 30 instructions and 130 bytes; the optimiser's states of it as many again.
_MAX_PICKLE_BYTES = 2**21
_MAX_MESSAGE = 1000
_TAR_BLOCK = 512


def load_torch_weights(
    path: str | os.PathLike, *, max_bytes: int = 2**31, left_out: list[str] | None = None
) -> Any:
    """Reads a file of `torch.save`, with every tensor as a NumPy array.

    All three formats are read: the zip archive (PyTorch 1.6 and later), the older one, and the tar
    archive of PyTorch before 0.2. Tensors and parameters may be of floating point (64, 32, 16 bits,
    bfloat16), integers and booleans, in dicts, lists and tuples with numbers, strings, booleans and
    None. The numbers must be little-endian; the device of the tensors does not matter.

    A file may hold other things in its dicts, such as the arguments of the program that wrote it,
    bytes, or entries whose keys are neither texts nor whole numbers. The result leaves them out.
    Nothing of them is imported, made or called.

    Args:
      path: the file, such as one ending in '.pth' or '.pth.tar'.
      max_bytes: the largest size of the file, and of all tensors together.
      left_out: a list. A text is appended for each thing that is left out: its place in the file
        and the name of its type, such as 'args (argparse.Namespace)'.

    Returns:
      The saved structure, mostly a dict of name to array, or a dict that has such a one under
      'state_dict'. An OrderedDict becomes a dict. Arrays can't be written to, and share memory
      where the tensors did.

    Raises:
      ValueError: the file is of none of the formats, is damaged, is larger than `max_bytes`, or
        holds anything else than the above outside a dict or in place of a tensor.
      OSError: the file cannot be read.
    """
    with open(path, 'rb') as file:
        try:
            size = os.fstat(file.fileno()).st_size
            require(size <= max_bytes, '{} bytes; max_bytes is {}', size, max_bytes)
            head = file.read(_TAR_BLOCK)
            read = _read_zip if head[:4] == b'PK\x03\x04' else _read_old
            if head[257:262] == b'ustar':
                read = _read_tar
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # Python's, on strange escapes in texts.
                value = read(file, size, max_bytes)
            keep_known(value, [] if left_out is None else left_out)
            return value
        except (*DAMAGE, zipfile.BadZipFile) as error:
            # EINVAL: a damaged archive names a place before the file's beginning. Other errors are
            # the disk's.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise ValueError(
                f'{os.fspath(path)!r} is not a file of PyTorch weights that can be read: '
                f'{str(error)[:_MAX_MESSAGE]}'
            ) from error


def _read_zip(file: BinaryIO, size: int, max_bytes: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # Check that the archive is as torch.save writes it: not compressed, and without entries
        # that share bytes of the file.
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

        # Interpret the pickle, then fill in the numbers of the tensors.
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
    # Read from memory: there, a string that claims to be huge only gets the bytes that are left.
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


def _read_tar(file: BinaryIO, size: int, max_bytes: int) -> Any:
    """Reads the tar of PyTorch before 0.2: storages, tensors, and the pickle that names them."""
    members = _tar_members(file, size)
    storages = Storages(size, max_bytes)

    # Read the storages and their numbers.
    stream = members['storages']
    for _ in range(_as_count(run(stream, storages))):
        key, _, dtype = _parts(run(stream, storages), 3)
        if isinstance(dtype, Opaque):
            raise dtype.error()
        require(type(key) is int and isinstance(dtype, np.dtype), 'unknown storage')
        require(str(key) not in storages.arrays, 'two storages have the same number')
        array = storages.add(str(key), dtype, *_int64(stream, 1))
        data = stream.read(array.nbytes)
        require(len(data) == array.nbytes, 'the file ends too early')
        array[:] = np.frombuffer(data, array.dtype.newbyteorder('<'))
    # Read the storages that are parts of others.
    views = run(stream, storages)
    require(type(views) in (list, tuple), 'the views are a {}', type(views).__name__)
    for view in views:
        key, root, offset, count = _parts(view, 4)
        require(type(key) is type(root) is int, 'unknown storage')
        whole = storages.arrays[str(root)]
        fits = _as_count(offset) + _as_count(count) <= whole.size
        require(fits, 'a view does not fit into its storage')
        storages.arrays[str(key)] = whole[offset : offset + count]

    # Read the tensors, each a view of a storage.
    stream = members['tensors']
    tensors = {}
    for _ in range(_as_count(run(stream, storages))):
        key, storage, _ = _parts(run(stream, storages), 3)
        require(type(key) is type(storage) is int, 'unknown tensor')
        num_axes, _ = struct.unpack('<ii', stream.read(8))
        require(0 <= num_axes <= size // 16, 'a tensor of {} axes', num_axes)
        shape, strides = _int64(stream, num_axes), _int64(stream, num_axes)
        (offset,) = _int64(stream, 1)
        tensors[str(key)] = storages.view(storages.stored(str(storage)), offset, shape, strides)

    def find(identity):
        if type(identity) is tuple:  # A module is named by its class and its source.
            return Opaque('a module')
        require(type(identity) is str, 'unknown tensor')
        return tensors[identity]

    return run(members['pickle'], storages, find)


def _tar_members(file: BinaryIO, size: int) -> dict[str, io.BytesIO]:
    """Reads those files of a tar archive that `_read_tar` needs, by name."""
    members = {}
    place = 0
    while place + _TAR_BLOCK <= size:
        file.seek(place)
        header = file.read(_TAR_BLOCK)
        if not header.strip(b'\0'):
            break
        name = header[:100].partition(b'\0')[0].decode('latin-1').removeprefix('./')
        length = int(header[124:136].strip(b' \0'), 8)
        place += _TAR_BLOCK
        require(0 <= length <= size - place, 'an entry of the archive is larger than the file')
        if name in ('storages', 'tensors', 'pickle'):
            require(name not in members, 'two entries of the archive have the same name')
            limit = size if name == 'storages' else _MAX_PICKLE_BYTES
            require(length <= limit, 'the pickle is too large')
            members[name] = io.BytesIO(file.read(length))
        place += -(-length // _TAR_BLOCK) * _TAR_BLOCK
    missing = {'storages', 'tensors', 'pickle'} - set(members)
    require(not missing, 'the archive lacks {}', ' '.join(sorted(missing)))
    return members


def _parts(value: Any, count: int) -> tuple[Any, ...]:
    """Takes apart a tuple of a known length."""
    require(type(value) is tuple and len(value) == count, 'needed: a tuple of {}', count)
    return value


def _as_count(value: Any) -> int:
    check_counts((value,))
    return value


def _int64(stream: BinaryIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f'<{count}q', stream.read(8 * count))
