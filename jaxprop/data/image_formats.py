"""JPEG and PNG in memory: told by their content, limited in size, their compressed data checked."""

import io

import av
from PIL import Image, JpegImagePlugin, PngImagePlugin

MAX_PIXELS = 50_000_000
# A progressive JPEG has about ten scans. Each makes a decoder go over all pixels again.
_MAX_SCANS = 100
_READERS = {
    b'\xff\xd8\xff': JpegImagePlugin.JpegImageFile,
    b'\x89PNG\r\n\x1a\n': PngImagePlugin.PngImageFile,
}
# How files begin that people save under the names of others.
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

    No other format than JPEG and PNG is tried: Pillow knows forty, one of which starts a program.

    Args:
      data: the whole file.

    Returns:
      The image, of mode '1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I' or 'I;16'.

    Raises:
      ValueError: it is neither; it has more than 50 million pixels, or 16 bits a channel and more
        channels than one; a JPEG is cut short, or has more than 100 scans.
      Exception: whatever Pillow raises for a damaged header.
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
        if data[12:16] != b'IHDR':
            raise ValueError('its header does not come first')
        depth, colour = data[24:26]
        if depth == 16 and colour != 0:
            raise ValueError('it has 16 bits a channel; save it with 8')
        return image
    # A JPEG decoder fills what is missing with grey. The mark of the end (ff d9) must follow the
    # last start of compressed data (ff da); inside the data neither can occur.
    if data.rfind(b'\xff\xd9') < data.rfind(b'\xff\xda'):
        raise ValueError('it is cut short: its compressed data has no end')
    if data.count(b'\xff\xda') > _MAX_SCANS:
        raise ValueError(f'its data has more than {_MAX_SCANS} scans')
    return image


def check_jpeg_data(data: bytes) -> None:
    """Checks the compressed data of a JPEG with FFmpeg's decoder, whose errors are not silent.

    Pillow's decoder guesses on where codes are wrong and tells nobody. FFmpeg's stops at codes that
    no encoder writes, blocks of more than 64 coefficients, and data that ends too early. Damage
    that leaves valid codes cannot be seen by any decoder: JPEG has no checksum.

    Args:
      data: a file that `opened` has accepted.

    Raises:
      ValueError: it is corrupt. A kind of JPEG that FFmpeg does not know passes.
    """
    decoder = av.CodecContext.create('mjpeg', 'r')
    decoder.thread_count = 1
    decoder.options = {'err_detect': 'explode+crccheck+bitstream+buffer'}
    try:
        frames = decoder.decode(av.Packet(data))
    except (av.error.PatchWelcomeError, NotImplementedError):
        return
    except av.FFmpegError as error:
        raise ValueError('its compressed data is corrupt') from error
    if not frames or frames[0].is_corrupt:
        raise ValueError('its compressed data is corrupt')


def _known(data, kinds):
    """The value whose key the data begins with, or None."""
    return next((kinds[start] for start in kinds if data.startswith(start)), None)
