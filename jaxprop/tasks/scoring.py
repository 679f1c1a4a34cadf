"""Scores folders of masks, made by any tool, as DAVIS's official evaluation does."""

import pathlib
from typing import NamedTuple

import numpy as np

from jaxprop.data.image_files import (
    check_size,
    frame_names,
    list_images,
    only_full,
    read_ids,
    read_mask,
    resolve_full,
)
from jaxprop.data.sequences import DataError
from jaxprop.metrics import davis


class Scores(NamedTuple):
    """J and F of masks.

    Attributes:
      summary: as `davis.summarize`, fractions.
      per_object: rows as `davis.sequence_table`.
      notes: sentences on what was not scored.
    """

    summary: dict[str, float]
    per_object: list[dict]
    notes: list[str]


def score_folders(
    predictions: str | pathlib.Path, truth: str | pathlib.Path, *, one_object: bool = False
) -> Scores:
    """J, F and J&F of the masks in a folder against the true ones in another.

    Both hold a folder of PNG files for each sequence, or the files of one sequence. Files belong
    together by their names. Objects are those of the first true mask; of the frames that have a
    true mask, the first and the last are not scored, as DAVIS has it. Every sequence in
    `predictions` is scored. Files are read one after another.

    Args:
      predictions: the folder of the masks to score; frames without a true mask are passed over.
      truth: the folder of the true masks; sequences that `predictions` lacks are passed over, with
        a note.
      one_object: all ids together are one object, as in DAVIS-2016.

    Raises:
      DataError: naming the file: a folder, a sequence or a mask is missing, a mask cannot be read
        or has another size than the true one, or fewer than three frames have a true mask.
    """
    predictions, truth = pathlib.Path(predictions), pathlib.Path(truth)
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise DataError(f'{folder}: there is no such folder')
    pairs, notes = _pairs(predictions, truth), []
    results = {}
    for name, (predicted, true) in pairs.items():
        results[name], unknown = _score_sequence(predicted, true, one_object)
        if unknown:
            told = ', '.join(map(str, sorted(unknown)))
            notes.append(
                f'{predicted}: the ids {told} are no objects of the first true mask and counted as '
                'background'
            )
    passed = len(_folders(truth)) - len(pairs)
    if passed > 0:
        notes.append(f'{passed} sequences of {truth} have no predictions and are not scored')
    return Scores(davis.summarize(results), davis.sequence_table(results), notes)


def _folders(folder):
    """The folders of sequences, by name; hidden ones are none."""
    found = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != '.')
    return {path.name: path for path in sorted(found)}


def _pairs(predictions, truth):
    """The folders of predicted and true masks of each sequence, by its name."""
    predicted, true = _folders(predictions), _folders(truth)
    if not predicted and not true:
        return {predictions.name: (predictions, truth)}
    if not predicted or not true:
        one, many = (truth, predictions) if predicted else (predictions, truth)
        raise DataError(
            f'{one}: holds no folders, but {many} does: give two folders of sequences, or two of '
            'one sequence'
        )
    for name in predicted:
        if name not in true:
            raise DataError(f'{predicted[name]}: {truth} has no sequence of this name')
    return {name: (path, true[name]) for name, path in predicted.items()}


def _score_sequence(predictions, truth, one_object):
    """The scores of a sequence, and the predicted ids that are no objects."""
    predicted, true = list_images(predictions), list_images(truth)
    by_name = dict(zip(frame_names(predicted), predicted))
    if len(true) < 3:
        raise DataError(
            f'{truth}: has {len(true)} masks; with the first and the last left out, 3 are the least'
        )
    first = read_ids(true[0])
    # 255 is the object where the first mask holds nothing else, or else void.
    full_is_object, objects, unknown = only_full(first), (), set()
    region, boundary = [], []
    for path, name in zip(true, frame_names(true)):
        if name not in by_name:
            raise DataError(f'{predictions / name}.png: missing; {path} is to be compared with it')
        ids, found = resolve_full(read_ids(path), full_is_object), read_mask(by_name[name])
        check_size(by_name[name], found.shape, ids.shape, path)
        if one_object:
            ids, found = (ids > 0).astype(int), (found > 0).astype(int)
        if not region:
            objects = tuple(np.unique(ids[ids > 0]).tolist())
            if not objects:
                raise DataError(f'{path}: the first true mask has no object')
        unknown |= set(np.unique(found).tolist()) - {0, *objects}
        for scores, frame in zip((region, boundary), davis.frame_scores(found, ids, objects)):
            scores.append(frame)
    return davis.sequence_result(objects, np.transpose(region), np.transpose(boundary)), unknown
