"""Writes the features of a video to a file that `FolderFeatures` can read."""

import io
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxprop import files
from jaxprop.evaluation.features import FeatureSource, open_features

DTYPES = ('float32', 'float16')


def export_video(
    source: FeatureSource,
    video: Any,
    frames: Iterator[np.ndarray],
    path: pathlib.Path,
    dtype: str = 'float32',
) -> dict[str, Any]:
    """Writes the features of a video as one array, map by map as they are computed.

    Args:
      source: of the features.
      video, frames: as `FeatureSource.open` takes them; the video's number of frames must be known.
      path: of the file, .npy or .safetensors, which is written by `jaxprop.files.replacing`.
      dtype: 'float32' or 'float16'.

    Returns:
      The facts that `FolderFeatures` needs beside the array: 'num_frames' and 'size' of the video,
      'shape' of the array, 'seen' and 'cell', see `Sizes`, and 'spans', see `OpenedVideo`.

    Raises:
      DataError: the source cannot read the video.
      ValueError: features are not finite, or too large for this dtype; the message names the video.
    """
    sizes = source.sizes(video)
    opened = open_features(source, video, frames)
    spans = None if opened.spans is None else list(opened.spans)
    num_maps = video.num_frames if spans is None else len(spans)
    shape, num_written = None, 0
    with files.replacing(path) as temporary, open(temporary, 'wb') as file:
        # The file is not mapped to memory: if a disk is full, writing to mapped memory kills the
        # process.
        for features in opened.arrays:
            with np.errstate(over='ignore'):  # Values too large for float16 are found below.
                array = np.asarray(features, np.dtype(dtype).newbyteorder('<'))
            if not np.isfinite(array).all():
                beyond = ', or beyond float16: say --dtype=float32' if dtype == 'float16' else ''
                raise ValueError(f'{video.name}: features hold values that are not finite{beyond}')
            if shape is None:
                shape = (num_maps, *array.shape)
                file.write(_header(path.suffix, shape, array.dtype))
            file.write(array.tobytes())
            num_written += 1
        if num_written != num_maps:
            raise ValueError(
                f'{video.name}: the source gives {num_written} feature maps, not {num_maps}'
            )
    return {
        'num_frames': video.num_frames,
        'size': sizes.frame,
        'shape': shape,
        'seen': sizes.seen,
        'cell': sizes.cell,
        'spans': spans,
    }


def _header(suffix, shape, dtype):
    """Makes the bytes with which these containers begin, before the array's values."""
    if suffix == '.npy':
        stream = io.BytesIO()
        described = {'descr': dtype.str, 'fortran_order': False, 'shape': shape}
        np.lib.format.write_array_header_1_0(stream, described)
        return stream.getvalue()
    kind = {4: 'F32', 2: 'F16'}[dtype.itemsize]
    offsets = [0, dtype.itemsize * int(np.prod(shape))]
    text = json.dumps({'features': {'dtype': kind, 'shape': shape, 'data_offsets': offsets}})
    text += ' ' * (-len(text) % 8)
    return len(text).to_bytes(8, 'little') + text.encode()
