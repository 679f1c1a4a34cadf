"""MOSE: objects in videos that hide them often."""

import dataclasses
import functools

from jaxprop.data.appearing import video_names
from jaxprop.data.mose import mose_sequence
from jaxprop.tasks.appearing import AppearingObjects
from jaxprop.tasks.task import check_folders, named_sequences


def open_task(measure, *, root, list='', names=()):
    """Opens MOSE: all videos, those of a list, or `names`; see `jaxprop.data.mose`."""
    check_folders(root=(root, 'JPEGImages and Annotations: valid'))
    opened = functools.partial(mose_sequence, root)

    def sequences():
        return named_sequences(names or (video_names(root, list or None)), opened)

    return MoseObjects(sequences, **measure)


@dataclasses.dataclass(frozen=True, eq=False)
class MoseObjects(AppearingObjects):
    """J and F as DAVIS has them, without the given frame and the last one."""

    count_last: bool = False

    server = ''
