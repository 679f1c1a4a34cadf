"""Objects that may appear after the first frame, as YouTube-VOS, MOSE and LVOS score them."""

import dataclasses

import numpy as np

from jaxprop.metrics import davis
from jaxprop.tasks import masks
from jaxprop.tasks.objects import LAYOUT, view
from jaxprop.tasks.task import Start, Task


@dataclasses.dataclass(frozen=True, eq=False)
class AppearingObjects(Task):
    """J and F of each object from the frame on in which it appears.

    Masks are written of the frames that the benchmark asks for.

    Attributes:
      count_given: score the frame in which an object's mask is given.
      count_last: score the last annotated frame.
    """

    count_given: bool = False
    count_last: bool = True
    printed = ('J-Mean', 'F-Mean', 'J&F-Mean')
    layout = LAYOUT

    def start(self, sequence):
        given = sequence.appearing()
        return Start(sequence, given.pop(0), tuple(sequence.starts), given)

    def take(self, path, start, index, prediction):
        sequence = start.sequence
        if index in sequence.asked:
            masks.write(path, sequence, index, prediction)
        if index not in sequence.annotated:
            return None
        here = [value for value in start.objects if sequence.starts[value] <= index]
        scores = davis.frame_scores(prediction, sequence.read_label(index), here)
        return [dict(zip(here, values)) for values in scores]

    def record(self, path, start, taken):
        sequence = start.sequence
        region, boundary = (
            [
                [None if scores is None else scores[measure].get(value) for scores in taken]
                for value in start.objects
            ]
            for measure in (0, 1)
        )
        record = {
            'objects': list(start.objects),
            'starts': [sequence.starts[value] for value in start.objects],
            'ends': [sequence.ends[value] for value in start.objects],
            'categories': [sequence.categories.get(value, '') for value in start.objects],
            'annotated': list(sequence.annotated),
            'notes': list(sequence.notes),
            'J': region,
            'F': boundary,
        }
        if not sequence.annotated:
            record['unscored'] = 'for lack of annotations'
        elif not any(self._scored(record, index) for index in range(len(start.objects))):
            record['unscored'] = 'for lack of annotations after the given ones'
        return record

    def unscored(self, record):
        return record.get('unscored', '')

    def results(self, records):
        results = {name: self._result(record) for name, record in records.items()}
        return {
            'summary': davis.summarize(results),
            'per_sequence': davis.sequence_table(results),
        }

    def shown(self, path, sequence, record, chosen):
        # Only frames that are asked for have masks.
        asked = np.array(sequence.asked)
        chosen = sorted({int(asked[np.abs(asked - frame).argmin()]) for frame in chosen})
        scores = [np.array(record[m], np.float64).reshape(len(record['objects']), -1) for m in 'JF']
        frames = masks.pictures(path, sequence, chosen)
        return view(
            sequence.name, *scores, record['objects'], masks.palette(sequence), frames, chosen
        )

    def _scored(self, record, index):
        """The numbers of the frames in which an object is scored."""
        annotated = record['annotated'] if self.count_last else record['annotated'][:-1]
        start = record['starts'][index] + (not self.count_given)
        return [frame for frame in annotated if start <= frame < record['ends'][index]]

    def _result(self, record):
        """The `SequenceResult` of the objects that are scored."""
        scored = {
            i: frames for i in range(len(record['objects'])) if (frames := self._scored(record, i))
        }
        values = [np.array(record[measure], np.float64) for measure in 'JF']
        return davis.SequenceResult(
            tuple(record['objects'][index] for index in scored),
            *(measure[list(scored)] for measure in values),
            *(
                tuple(
                    davis.sequence_statistics(measure[index, frames])
                    for index, frames in scored.items()
                )
                for measure in values
            ),
        )
