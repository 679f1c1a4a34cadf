"""Opens JPEG and PNG in memory: finds the format by content, limits the size, checks the data."""

import io
import re
import zlib
from collections.abc import Iterator

import av
from PIL import Image, JpegImagePlugin, PngImagePlugin

MAX_PIXELS = 50_000_000
# A progressive JPEG has about ten scans. Each makes a decoder go over all pixels again.
_MAX_SCANS = 100
# The markers of segments. In compressed data ff may also be followed by 0, which escapes it, or by
# the number of a restart; neither is a marker of a segment.
_MARKER = re.compile(rb'\xff([\x02-\xcf\xd8-\xfe])')
_PROGRESSIVE, _END, _SCAN, _RESTARTS = 0xC2, 0xD9, 0xDA, 0xDD
_ONES = b'\xff\0' * 8  # 64 bits of ones. No code of a JPEG has ones alone.
_READERS = {
    b'\xff\xd8\xff': JpegImagePlugin.JpegImageFile,
    b'\x89PNG\r\n\x1a\n': PngImagePlugin.PngImageFile,
}
# The first bytes of other formats, which people may save under a wrong name.
_OTHERS = {
    b'BM': 'BMP',
    b'II*\0': 'TIFF',
    b'MM\0*': 'TIFF',
    b'GIF8': 'GIF',
    b'RIFF': 'WebP',
    b'8BPS': 'Photoshop',
    b'gimp xcf': 'GIMP',
    b'%!PS': 'PostScript',
}


def opened(data: bytes) -> Image.Image:
    """Opens an image: reads its header, decodes no pixels.

    Only JPEG and PNG are tried. Pillow knows forty formats, and one of them starts a program.

    Args:
      data: the whole file.

    Returns:
      The image, of mode '1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I' or 'I;16'.

    Raises:
      ValueError: the data is neither JPEG nor PNG; the image has more than 50 million pixels, or
        several channels of 16 bits; a PNG is cut short or has a wrong checksum; a JPEG is cut
        short, or has more than 100 scans.
      Exception: Pillow may raise any error for a damaged header.
    """
    reader = _known(data, _READERS)
    if reader is None:
        kind = _known(data, _OTHERS)
        found = f'its content is {kind}' if kind else 'it is neither a JPEG nor a PNG file'
        raise ValueError(f'{found}; export it as PNG')
    image = reader(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f'it has {image.height} x {image.width} pixels, more than {MAX_PIXELS // 1_000_000} '
            'million'
        )
    if image.format == 'PNG':
        _check_png(data)
        depth, colour = data[24:26]
        if depth == 16 and colour != 0:
            raise ValueError('it has 16 bits a channel; save it with 8')
        return image
    markers = [marker for marker, _ in _segments(data)]
    if not markers or markers[-1] != _END:  # A decoder would fill the missing part with grey.
        raise ValueError('it is cut short: its compressed data has no end')
    if markers.count(_SCAN) > _MAX_SCANS:
        raise ValueError(f'its data has more than {_MAX_SCANS} scans')
    return image


def check_jpeg_data(data: bytes) -> None:
    """Checks the compressed data of a JPEG with FFmpeg's decoder, which reports errors.

    Pillow's decoder guesses where codes are wrong, and reports nothing. FFmpeg's decoder stops at
    codes that no encoder writes, and at blocks of more than 64 coefficients. Ones are no code, so a
    test with them finds out whether it reads all of the data: ones in place of the last bytes must
    stop it, ones after the data must not. Damage that leaves valid codes cannot be found, since
    JPEG has no checksum.

    Args:
      data: a file that `opened` has accepted.

    Raises:
      ValueError: the data is corrupt. A kind of JPEG that FFmpeg does not know is not refused.
    """
    segments = list(_segments(data))
    markers, end = {marker for marker, _ in segments}, segments[-1][1]
    # Not every JPEG can be tested with ones in place of its last bytes: progressive data may end in
    # bits that are no codes, and any bits may stand before a restart.
    can_end_early = not markers & {_PROGRESSIVE, _RESTARTS} and end - segments[-2][1] > 32
    try:
        if not _decodes(data[:end] + _ONES):
            raise ValueError('its compressed data is corrupt')
        if can_end_early and _decodes(data[: end - len(_ONES) // 2].rstrip(b'\xff') + _ONES):
            raise ValueError('its compressed data is corrupt: a part of it is left over')
    except av.error.PatchWelcomeError:  # FFmpeg does not know this kind of JPEG.
        return


def _decodes(data):
    """Tells whether FFmpeg decodes a JPEG without an error; `data` lacks the marker of the end."""
    decoder = av.CodecContext.create('mjpeg', 'r')
    decoder.thread_count = 1
    decoder.options = {'err_detect': 'explode+crccheck+bitstream+buffer'}
    try:
        frames = decoder.decode(av.Packet(data + b'\xff\xd9'))
    except av.error.PatchWelcomeError:
        raise
    except av.FFmpegError:
        return False
    return bool(frames) and not frames[0].is_corrupt


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the marker and the place of each segment of a JPEG, to the end of its first image."""
    place = 2
    while match := _MARKER.search(data, place):
        marker = match[1][0]
        yield marker, match.start()
        if marker == _END:
            return
        place = match.end() + int.from_bytes(data[match.end() : match.end() + 2])


def _check_png(data):
    """Checks that a PNG's header comes first, and all checksums: Pillow leaves out the pixels'."""
    if data[12:16] != b'IHDR':
        raise ValueError('its header does not come first')
    place, kind = 8, b''
    while kind != b'IEND':
        kind = data[place + 4 : place + 8]
        end = place + 8 + int.from_bytes(data[place : place + 4])
        if len(data) < end + 4:
            raise ValueError('it is cut short')
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise ValueError('its data is corrupt: a checksum is wrong')
        place = end + 4


def _known(data, kinds):
    """Returns the value of the key with which the data begins; None if there is none."""
    return next((kinds[start] for start in kinds if data.startswith(start)), None)
