"""YouTube-VOS: objects in videos, of categories that its training set has and has not."""

import dataclasses
import functools

import numpy as np

from jaxprop.data.youtube_vos import SEEN, youtube_vos_names, youtube_vos_sequence
from jaxprop.tasks.appearing import AppearingObjects
from jaxprop.tasks.task import Layout, Tile, check_folders, named_sequences


def open_task(measure, *, root, all_frames='', names=()):
    """Opens YouTube-VOS: the videos of meta.json, or `names`; see `jaxprop.data.youtube_vos`."""
    check_folders(root=(root, 'meta.json, JPEGImages and Annotations: valid'))
    opened = functools.partial(youtube_vos_sequence, root, all_frames=all_frames or None)

    def sequences():
        return named_sequences(names or youtube_vos_names(root), opened)

    return SeenAndUnseen(sequences, **measure)


@dataclasses.dataclass(frozen=True, eq=False)
class SeenAndUnseen(AppearingObjects):
    """J and F of objects of seen and of unseen categories, and G, the mean of these four.

    Each is a mean over objects, and an object's value is the mean over its frames.
    """

    printed = ('G', 'J-Mean', 'F-Mean')
    server = 'Annotations'
    layout = Layout(
        tiles=(
            Tile('G', 'mean of J and F, seen and unseen', 'G'),
            *(
                Tile(name, meaning, f'{name} seen', (('unseen', f'{name} unseen'),))
                for name, meaning in (('J', 'region similarity'), ('F', 'boundary accuracy'))
            ),
        ),
        means={'J&F-Mean': ('J-Mean', 'F-Mean')},
        title=('J&F', 'J&F-Mean'),
        plain=AppearingObjects.layout.plain,
        notes=AppearingObjects.layout.notes,
    )

    def results(self, records):
        found = super().results(records)
        categories = {
            (name, value): category
            for name, record in records.items()
            for value, category in zip(record['objects'], record['categories'])
        }
        by_category = {}
        for row in found['per_sequence']:
            category = categories[row['sequence'], row['object']]
            by_category.setdefault(category, []).append(row)
        kinds = {kind: [] for kind in ('seen', 'unseen')}
        for category, rows in by_category.items():
            kinds['seen' if category in SEEN else 'unseen'] += rows
        parts = {f'{name} {kind}': _mean(kinds[kind], name) for name in 'JF' for kind in kinds}
        # G needs objects of both kinds.
        values = list(parts.values())
        whole = None if None in values else float(np.mean(values))
        return {
            'summary': {'G': whole, **parts, **found['summary']},
            'per_sequence': found['per_sequence'],
            'per_category': [
                {
                    'category': category if category in SEEN else f'{category} (unseen)',
                    'objects': len(rows),
                    **{f'{name}-Mean': _mean(rows, name) for name in 'JF'},
                }
                for category, rows in sorted(by_category.items())
            ],
        }


def _mean(rows, name):
    """The mean of J or F over objects; None without objects."""
    return float(np.mean([row[f'{name}-Mean'] for row in rows])) if rows else None
