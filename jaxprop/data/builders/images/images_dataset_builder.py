"""Builds a data set of images with their classes, as JPEG."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from jaxprop.data.image_files import encode_jpeg, list_image_classes, read_image
from jaxprop.data.sequences import DataError


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds a data set of the images root/CLASS/*.jpg, see `image_files.list_image_classes`.

    Images are shrunk until their short side has at most 256 pixels.

    Attributes:
      unreadable: the images left out by `download_and_prepare`: the reason by the image's name.
    """

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, root: str | os.PathLike = '', **kwargs: Any) -> None:
        self._root = pathlib.Path(root)
        self.unreadable: dict[str, str] = {}
        super().__init__(file_format='array_record', **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        _, _, classes = list_image_classes(self._root)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg'),
                    'label': tfds.features.ClassLabel(names=classes),
                }
            )
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {'train': self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        paths, labels, _ = list_image_classes(self._root)
        for path, label in zip(paths, labels.tolist()):
            name = str(path.relative_to(self._root))
            try:
                yield name, {'image': encode_jpeg(read_image(path)), 'label': label}
            except DataError as error:
                self.unreadable[name] = str(error)
