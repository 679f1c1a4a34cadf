"""JHMDB: the joints of one person, scored by PCK."""

import functools

from jaxprop.data.jhmdb import jhmdb_names, jhmdb_sequence
from jaxprop.tasks.joints import Joints
from jaxprop.tasks.task import check_folders, named_sequences


def open_task(measure, *, root, split=1, list='', names=()):
    """Opens JHMDB: the test clips of a split or a list, or `names`; see `jaxprop.data.jhmdb`."""
    check_folders(root=(root, 'Rename_Images, joint_positions and splits'))
    opened = functools.partial(jhmdb_sequence, root)

    def sequences():
        return named_sequences(names or jhmdb_names(root, split, list or None), opened)

    return Joints(sequences, **measure)
