"""Damaged and disguised images: read whole, or refused with one line that names the file."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxprop.data import image_files
from jaxprop.data.image_files import decode_jpeg, image_size, read_image
from jaxprop.data.sequences import DataError
from tests.fuzz.mutations import classify, count, mutate
from tests.support import shared

SIZE = (96, 128)


def picture(size=SIZE):
    """Makes a picture roughly like a photograph: smooth with a little noise."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
    smooth = np.array(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.int32)
    return np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def encoded(image=None, kind='JPEG', **options):
    buffer = io.BytesIO()
    (Image.fromarray(picture()) if image is None else image).save(buffer, kind, **options)
    return buffer.getvalue()


def turned():
    """EXIF data that says that the image is to be shown turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def outcomes(path, data, number, seed, kinds):
    """Reads damaged copies; returns how each ends, and the share of silently changed ones."""
    path.write_bytes(data)
    truth = read_image(path)
    found, changed = [], 0
    for label, damaged in mutate(data, number, seed, kinds):
        path.write_bytes(damaged)
        for read in (image_size, read_image):
            outcome = classify(lambda: read(path), path)
            found.append((f'{read.__name__} {label}', outcome))
        if outcome[0] == 'ok':
            changed += outcome[1].shape != truth.shape or bool((outcome[1] != truth).any())
    return found, changed


ALL = ('flip', 'set', 'zero', 'cut', 'remove', 'duplicate', 'insert')


@pytest.mark.parametrize('progressive', [False, True])
def test_damaged_jpeg(tmp_path, progressive):
    data = encoded(quality=85, progressive=progressive)
    found, changed = outcomes(tmp_path / 'frame.jpg', data, 140, 0, ALL)
    counts = count(found)
    assert counts['clear'] >= 100
    # What is left decodes to other pixels from codes that are valid.
    assert changed <= 80


def test_damaged_png_is_never_silent(tmp_path):
    found, changed = outcomes(tmp_path / 'frame.png', encoded(kind='PNG'), 140, 0, ALL)
    assert count(found)['clear'] >= 230 and not changed


def test_zeros_in_a_real_frame_are_found(tmp_path):
    """Zeros stand for a lost block of a disk, or a lost page."""
    source = shared('data', 'DAVIS') / 'JPEGImages' / '480p' / 'dog' / '00000.jpg'
    data, path, generator = source.read_bytes(), tmp_path / 'frame.jpg', np.random.default_rng(0)
    silent = 0
    for _ in range(40):
        start = int(generator.integers(1000, len(data) - 5000))
        path.write_bytes(data[:start] + bytes(4096) + data[start + 4096 :])
        kind, detail = classify(lambda: read_image(path), path)
        assert kind in ('ok', 'clear'), detail
        silent += kind == 'ok'
    assert silent <= 4


@pytest.mark.parametrize(
    'options',
    [
        {'subsampling': 0},
        {'subsampling': 1},
        {'progressive': True},
        {'optimize': True},
        {'restart_marker_blocks': 3},
        {'restart_marker_rows': 1, 'progressive': True},
        {'keep_rgb': True},
        {'quality': 1},
        {'quality': 100, 'subsampling': 0},
        {'comment': b'x' * 999, 'icc_profile': b'x' * 70000, 'exif': b'Exif\0\0garbage'},
        {'exif': turned()},
    ],
)
@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
@pytest.mark.parametrize('size', [SIZE, (1, 1), (17, 33)])
def test_whole_jpegs_of_all_kinds_pass_unchanged(tmp_path, options, mode, size):
    data = encoded(Image.fromarray(picture(size)).convert(mode), **options)
    (tmp_path / 'frame.jpg').write_bytes(data + b'what cameras put behind the end')
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(image.convert('RGB'))
    np.testing.assert_array_equal(read_image(tmp_path / 'frame.jpg'), expected)


def test_every_real_frame_passes():
    paths = sorted(shared('data', 'DAVIS').rglob('*.jpg'))[::40]
    for path in paths:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_image(path), np.array(image.convert('RGB')))
    assert len(paths) > 15


@pytest.mark.parametrize('kind', ['BMP', 'TIFF', 'GIF', 'WEBP', 'ICO', 'PCX', 'PPM', 'TGA', 'EPS'])
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_other_formats_are_refused_whatever_their_name(tmp_path, kind, suffix):
    path = tmp_path / f'00000.{suffix}'
    path.write_bytes(encoded(kind=kind))
    known = {'BMP': 'BMP', 'TIFF': 'TIFF', 'GIF': 'GIF', 'WEBP': 'WebP', 'EPS': 'PostScript'}
    found = f'its content is {known[kind]}' if kind in known else 'it is neither a JPEG nor a PNG'
    for read in (read_image, image_size):
        outcome, message = classify(lambda: read(path), path)
        assert outcome == 'clear' and found in message and 'export it as PNG' in message, message


def test_no_program_is_started(tmp_path, monkeypatch):
    """Pillow would start the first `gs` in PATH for PostScript."""
    path, program = tmp_path / '00000.jpg', tmp_path / 'bin' / 'gs'
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n')
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent), prepend=os.pathsep)
    assert classify(lambda: read_image(path), path)[0] == 'clear'
    assert not (tmp_path / 'started').exists()


def test_jpeg_and_png_are_told_by_content(tmp_path):
    for kind, name in (('JPEG', 'frame.png'), ('PNG', 'frame.jpg')):
        (tmp_path / name).write_bytes(encoded(kind=kind))
        assert read_image(tmp_path / name).shape == (*SIZE, 3)


def png_chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def huge_png(side):
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    chunks = (b'IHDR', header), (b'IDAT', zlib.compress(bytes(1000))), (b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*chunk) for chunk in chunks)


def huge_jpeg(side):
    data = bytearray(encoded())
    place = data.index(b'\xff\xc0') + 5
    data[place : place + 4] = struct.pack('>HH', side, side)
    return bytes(data)


@pytest.mark.parametrize('make', [huge_png, huge_jpeg])
@pytest.mark.parametrize('side', [7100, 13000, 65000])
def test_sizes_are_checked_before_decoding(tmp_path, make, side, monkeypatch):
    path = tmp_path / 'frame'
    path.write_bytes(make(side))
    # Decoding would fail.
    monkeypatch.setattr(Image.Image, 'load', None)
    monkeypatch.setattr(image_files, '_decode_with_opencv', None)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=f'frame: .*{side} x {side} pixels, more than 50'):
            read(path)


def test_too_many_scans(tmp_path):
    data = encoded(progressive=True)
    start = data.rfind(b'\xff\xda')
    path = tmp_path / 'frame.jpg'
    path.write_bytes(data[:start] + data[start:-2] * 200 + data[-2:])
    with pytest.raises(DataError, match='frame.jpg: .*more than 100 scans'):
        read_image(path)


def png_of_16_bits(colour, channels):
    header = struct.pack('>IIBBBBB', 4, 3, 16, colour, 0, 0, 0)
    rows = zlib.compress((b'\0' + bytes(4 * channels * 2)) * 3)
    chunks = (b'IHDR', header), (b'IDAT', rows), (b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize('colour, channels', [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_are_not_read_as_8(tmp_path, colour, channels):
    path = tmp_path / 'deep.png'
    path.write_bytes(png_of_16_bits(colour, channels))
    with pytest.raises(DataError, match='deep.png: .*save it with 8'):
        read_image(path)


def test_what_is_no_file(tmp_path):
    for name, make in (('pipe.png', os.mkfifo), ('folder.png', os.mkdir)):
        make(tmp_path / name)
    (tmp_path / 'device.png').symlink_to('/dev/zero')
    for name in ('pipe.png', 'folder.png', 'device.png'):
        with pytest.raises(DataError, match=f'{name}: is no regular file'):
            read_image(tmp_path / name)


def test_images_in_memory():
    truth = decode_jpeg(encoded(quality=95))
    assert np.abs(truth.astype(int) - picture()).mean() < 8
    for _, data in mutate(encoded(quality=95), 60):
        assert classify(lambda: decode_jpeg(data), 'in memory')[0] in ('ok', 'clear')
    for data in (b'', b'%!PS', encoded(kind='GIF'), huge_jpeg(13000)):
        assert classify(lambda: decode_jpeg(data), 'in memory')[0] == 'clear'
