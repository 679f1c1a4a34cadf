"""Objects followed by their ids, as DAVIS scores them: J, F and their mean."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxprop import labels
from jaxprop.metrics import davis
from jaxprop.tasks import masks
from jaxprop.tasks.task import Layout, MaskPicture, Measure, SequenceView, Task, Tile

_MEANINGS = (('J', 'region similarity'), ('F', 'boundary accuracy'))


def _beneath(measure):
    return tuple((name.lower(), f'{measure}-{name}') for name in ('Recall', 'Decay'))


LAYOUT = Layout(
    tiles=(
        Tile('J&F', 'mean of J and F', 'J&F-Mean'),
        *(Tile(name, meaning, f'{name}-Mean', _beneath(name)) for name, meaning in _MEANINGS),
    ),
    means={'J&F-Mean': ('J-Mean', 'F-Mean')},
    title=('J&F', 'J&F-Mean'),
    plain=tuple(column for name in 'JF' for _, column in _beneath(name)),
    notes={'J-Recall': 'Recall: frames above 50. Decay: first quarter less last quarter.'},
)


@dataclasses.dataclass(frozen=True, eq=False)
class Objects(Task):
    """Region similarity J and boundary accuracy F of each object of the first label map."""

    printed = ('J-Mean', 'F-Mean', 'J&F-Mean')
    layout = LAYOUT

    def start(self, sequence):
        start = super().start(sequence)
        return dataclasses.replace(
            start, objects=tuple(labels.label_values(start.first)[1:].tolist())
        )

    def take(self, path, start, index, prediction):
        masks.write(path, start.sequence, index, prediction)
        truth = start.label(index)
        if truth is None:
            return None
        return davis.frame_scores(prediction, truth, start.objects)

    def record(self, path, start, taken):
        record = {'objects': list(start.objects), 'J': None, 'F': None}
        if start.sequence.num_frames < 3:
            # The first and the last frame are not scored.
            record['unscored'] = 'with fewer than 3 frames'
        elif None in taken:
            record['unscored'] = 'for lack of annotations'
        else:
            region, boundary = (np.transpose(scores).tolist() for scores in zip(*taken))
            record.update(J=region, F=boundary)
        return record

    def unscored(self, record):
        scored = record['J'] is not None
        return '' if scored else record.get('unscored', 'for lack of annotations')

    def results(self, records):
        results = {name: _result(record) for name, record in records.items()}
        return {
            'summary': davis.summarize(results),
            'per_sequence': davis.sequence_table(results),
        }

    def shown(self, path, sequence, record, chosen):
        shape = (len(record['objects']), record['num_frames'])
        scores = [
            np.full(shape, np.nan) if record[m] is None else np.array(record[m]) for m in 'JF'
        ]
        frames = masks.pictures(path, sequence, chosen)
        return view(
            sequence.name, *scores, record['objects'], masks.palette(sequence), frames, chosen
        )


def view(
    name: str,
    region_similarity: np.ndarray,
    boundary_accuracy: np.ndarray,
    object_ids: Sequence[int],
    palette: np.ndarray,
    frames: Iterable[MaskPicture] | list[bytes],
    frame_numbers: list[int],
) -> SequenceView:
    """Describes a sequence for a report: J and F of objects over time, and frames to play.

    Args:
      name: of the sequence.
      region_similarity, boundary_accuracy: of each object in each frame, `[O, T]`, NaN where not
        scored.
      object_ids: the O ids, which are also their colours' places in `palette`.
      palette: uint8 `[256, 3]`.
      frames, frame_numbers: as `SequenceView` has them.
    """
    colours = [tuple(palette[value].tolist()) for value in object_ids]
    lines = tuple((f'object {value}', colour) for value, colour in zip(object_ids, colours))
    values = region_similarity, boundary_accuracy
    return SequenceView(
        name,
        np.shape(region_similarity)[1],
        tuple(zip(map(str, object_ids), colours)),
        tuple(
            Measure(*measure, np.asarray(scores, np.float64), lines)
            for measure, scores in zip(_MEANINGS, values)
        ),
        frames,
        frame_numbers,
        heading='object',
    )


def _result(record):
    """Makes a `SequenceResult` of a record."""
    return davis.sequence_result(record['objects'], np.array(record['J']), np.array(record['F']))
