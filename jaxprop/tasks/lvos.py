"""LVOS: objects in long videos, which may appear later."""

import dataclasses
import functools

from jaxprop.data.appearing import video_names
from jaxprop.data.lvos import lvos_names, lvos_sequence
from jaxprop.tasks.appearing import AppearingObjects
from jaxprop.tasks.task import check_folders, named_sequences


def open_task(measure, *, root, list='', names=()):
    """Opens LVOS: all videos, those of a list, or `names`; see `jaxprop.data.lvos`."""
    check_folders(root=(root, 'meta.json, JPEGImages and Annotations: val'))
    opened = functools.partial(lvos_sequence, root)

    def sequences():
        listed = names or (video_names(root, list) if list else lvos_names(root))
        return named_sequences(listed, opened)

    return LvosObjects(sequences, **measure)


@dataclasses.dataclass(frozen=True, eq=False)
class LvosObjects(AppearingObjects):
    """J and F as LVOS has them: the given frame counts, and the last one of an object does not."""

    count_given: bool = True

    server = ''
