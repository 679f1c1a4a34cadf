"""Reads MOSE: frames and masks of a split.

    root/JPEGImages/NAME/00000.jpg ...
    root/Annotations/NAME/00000.png     of `valid` the first masks alone; of `train` all

`root` is the folder `valid` or `train`. There is no list of the videos: they are the folders.

Source: Ding et al., "MOSE: A New Dataset for Video Object Segmentation in Complex Scenes", ICCV
2023.
"""

import os
import pathlib

from jaxprop.data.appearing import AppearingSequence, open_video
from jaxprop.data.sequences import check_name


def mose_sequence(root: str | os.PathLike, name: str) -> AppearingSequence:
    """Opens one video, see `jaxprop.data.appearing.open_video`.

    Args:
      root: the folder that holds JPEGImages and Annotations.
      name: of the video.

    Raises:
      DataError: an error of `open_video`.
    """
    check_name(name, root)
    frames, masks = (pathlib.Path(root) / kind / name for kind in ('JPEGImages', 'Annotations'))
    return open_video(name, frames, masks)
