"""MATLAB files as SciPy writes them, and as MATLAB does: numbers in the smallest type."""

import struct

import numpy as np
import pytest
from scipy import io as scipy_io

from jaxprop.data.mat_file import read_array
from jaxprop.data.sequences import DataError


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('shape', [(2, 15, 4), (2, 15), (1, 1), (3, 0), (2, 3, 4, 5)])
@pytest.mark.parametrize('dtype', ['f8', 'f4', 'i1', 'u2', 'i4', 'u8'])
def test_as_scipy_writes_and_reads_them(tmp_path, compressed, shape, dtype):
    path = tmp_path / 'a.mat'
    values = np.random.default_rng(0).normal(size=shape).__mul__(50).astype(dtype)
    others = {
        'text': 'S',
        'cell': np.array([1, 'a'], object),
        'record': {'x': 1},
        'yes': np.array([[True]]),
        'pos': values + 1,
    }
    scipy_io.savemat(path, {**others, 'pos_img': values}, do_compression=compressed)
    found = read_array(path, 'pos_img')
    assert found.dtype == np.float64 and found.flags.writeable
    np.testing.assert_array_equal(found, scipy_io.loadmat(path)['pos_img'])
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(read_array(path, 'pos'), values + 1)


def element(kind, data, order):
    return struct.pack(f'{order}II', kind, len(data)) + data + bytes(-len(data) % 8)


def matlab(values, kind, code, order='<', klass=6, flags=0, small_name=True):
    """A file of one array 'pos' whose values are stored as another type than the array's."""
    name = struct.pack(f'{order}I', 3 << 16 | 1) + b'pos\0'
    content = (
        element(6, struct.pack(f'{order}II', klass | flags, 0), order)
        + element(5, struct.pack(f'{order}{values.ndim}i', *values.shape), order)
        + (name if small_name else element(1, b'pos', order))
        + element(kind, values.astype(order + code).tobytes('F'), order)
    )
    end = b'\x00\x01IM' if order == '<' else b'\x01\x00MI'
    return b'MATLAB 5.0 MAT-file'.ljust(124) + end + element(14, content, order)


TYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
VALUES = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('small_name', [True, False])
def test_doubles_in_smaller_types_and_both_orders_of_bytes(tmp_path, kind, order, small_name):
    path = tmp_path / 'a.mat'
    path.write_bytes(matlab(VALUES, kind, TYPES[kind], order, small_name=small_name))
    np.testing.assert_array_equal(read_array(path, 'pos'), VALUES)
    np.testing.assert_array_equal(scipy_io.loadmat(path)['pos'], VALUES)


@pytest.mark.parametrize(
    'data, message',
    [
        (b'', 'its header is of another kind'),
        (b'x' * 200, 'its header is of another kind'),
        (b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM' + bytes(99), 'of another kind'),
        (matlab(VALUES, 9, 'f8')[:-8], 'longer than the data'),
        (matlab(VALUES, 9, 'f8')[:130], 'cut short'),
        (matlab(VALUES, 9, 'f4'), 'not as its shape says'),
        (matlab(VALUES, 10, 'f8'), 'does not hold real numbers'),
        (matlab(VALUES, 9, 'f8', klass=4), 'does not hold real numbers'),
        (matlab(VALUES, 9, 'f8', flags=0x800), 'does not hold real numbers'),
        (matlab(VALUES, 9, 'f8')[:128], 'holds no pos'),
        (matlab(VALUES, 9, 'f8')[:128] + element(99, b'', '<') * 101, 'more than 100 arrays'),
    ],
)
def test_refuses(tmp_path, data, message):
    (tmp_path / 'a.mat').write_bytes(data)
    with pytest.raises(DataError, match=f'a.mat: .*{message}'):
        read_array(tmp_path / 'a.mat', 'pos')


def test_a_compressed_array_that_grows_is_refused(tmp_path):
    path = tmp_path / 'a.mat'
    scipy_io.savemat(path, {'pos': np.zeros((2, 1 << 21))}, do_compression=True)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match='a.mat: .*too large'):
        read_array(path, 'pos')


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match='absent.mat: there is no such file'):
        read_array(tmp_path / 'absent.mat', 'pos')
