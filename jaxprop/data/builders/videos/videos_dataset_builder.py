"""Builds a data set of unlabelled videos, cut into clips of JPEG frames."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxprop.data.clips import list_videos
from jaxprop.data.image_files import encode_jpeg
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_video

# The frames of an example lie within one clip, so this is one more than the largest gap.
CLIP_FRAMES = 64


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds a data set of all videos below a folder, see `clips.list_videos`.

    A record is a clip: up to 64 frames in a row with a short side of at most 256 pixels, the name
    of its video, and the number of its first frame in the video. If the last clip of a video had
    one frame, it is left out.

    Attributes:
      unreadable: the videos left out by `download_and_prepare`: the reason by the video's name.
    """

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, root: str | os.PathLike = '', **kwargs: Any) -> None:
        super().__init__(file_format='array_record', **kwargs)
        self._root = pathlib.Path(root)
        self.unreadable: dict[str, str] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    # Bytes, not images: a reader of two frames should not decode all of them.
                    'frames': tfds.features.Sequence(tfds.features.Text()),
                    'name': tfds.features.Text(),
                    'start': np.int32,
                }
            )
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {'train': self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in list_videos(self._root):
            name = str(path.relative_to(self._root))
            try:
                # Opening a file decodes all of it, so no clip of a damaged file is written.
                yield from _clips(name, open_video(path).iterate())
            except DataError as error:
                self.unreadable[name] = str(error)


def _clips(name, frames):
    clip, start = [], 0
    for index, frame in enumerate(frames):
        clip.append(encode_jpeg(frame))
        if len(clip) == CLIP_FRAMES:
            yield f'{name}/{start}', {'frames': clip, 'name': name, 'start': start}
            clip, start = [], index + 1
    if len(clip) > 1:
        yield f'{name}/{start}', {'frames': clip, 'name': name, 'start': start}
