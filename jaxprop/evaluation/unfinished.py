"""Keeps how far the labelling of a video has come, so that it can go on in another process.

A folder holds the masks so far, and beside them the latest place (`given_masks.Place`) with the
confidence of the frames up to it. The place is one file, so it is there whole or not at all.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import jaxprop
from jaxprop import files
from jaxprop.evaluation.given_masks import Place


class Unfinished:
    """The folder of a video that is being labelled.

    Attributes:
      folder: for masks and other files of single frames.
      place: the latest place; None where there is none of these settings.
      confidence: of the frames up to it: `[T]` for each object, by its id.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        """Opens the folder, and removes it if nothing can go on with it.

        Args:
          folder: its path. Nothing else may have this name.
          settings: all on which labels depend. A place of others, or of another version of jaxprop,
            does not count.
        """
        self.folder = folder
        self.place: Place | None = None
        self.confidence: dict[int, np.ndarray] = {}
        self._path = folder / 'place.safetensors'
        self._settings = {**files.as_json(settings), 'jaxprop': jaxprop.__version__}
        self._read()
        self.close()

    def keep(self, place: Place, confidence: Mapping[int, np.ndarray]) -> None:
        """Keeps a place. All files of frames up to it must have been written.

        Raises:
          OSError: it cannot be written.
        """
        arrays = {str(index): np.array(leaf, order='C') for index, leaf in enumerate(place.context)}
        arrays |= {f'confidence {value}': found for value, found in confidence.items()}
        described = {'number': place.number, 'start': place.start, 'settings': self._settings}
        with files.replacing(self._path) as partial:
            save_file(arrays, partial, {'place': json.dumps(described)})
        self.place = place

    def _read(self):
        try:
            with safe_open(self._path, framework='numpy') as opened:
                described = json.loads(opened.metadata()['place'])
                if described['settings'] != self._settings:
                    return
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, TypeError, KeyError, ValueError):
            return  # There is no place, or its file is damaged.
        context = [arrays[str(index)] for index in range(sum(map(str.isdecimal, arrays)))]
        self.place = Place(described['number'], described['start'], context)
        self.confidence = {
            int(name.removeprefix('confidence ')): array
            for name, array in arrays.items()
            if not name.isdecimal()
        }

    def forget(self) -> None:
        """Forgets the place. Call it before the folder's files are moved to where they belong."""
        files.remove(self._path)
        self.place = None

    def close(self) -> None:
        """Removes the folder unless something can go on with it."""
        if self.place is None:
            files.remove(self.folder)
