"""JHMDB: the joints of one person, scored by PCK."""

import functools

from jaxprop.data.jhmdb import jhmdb_names, jhmdb_sequence
from jaxprop.tasks.joints import Joints
from jaxprop.tasks.task import check_folders


def open_task(measure, *, root, split=1, list='', names=()):
    """The test clips of a split, of a list, or of these names; see `jaxprop.data.jhmdb`."""
    check_folders(root=(root, 'Rename_Images, joint_positions and splits'))
    opened = functools.partial(jhmdb_sequence, root)

    def sequences():
        chosen = names or jhmdb_names(root, split, list or None)
        return [(name, functools.partial(opened, name)) for name in chosen]

    return Joints(sequences, **measure)
