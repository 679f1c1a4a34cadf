"""BADJA: the joints of animals in DAVIS's sequences, scored by PCK."""

import functools

from jaxprop.data.badja import badja_names, badja_sequence
from jaxprop.tasks.joints import Joints
from jaxprop.tasks.task import check_folders, named_sequences


def open_task(measure, *, root, folder, resolution='480p', names=()):
    """Opens BADJA: the annotated sequences, or `names`; see `jaxprop.data.badja`."""
    check_folders(
        root=(root, 'JPEGImages and Annotations of DAVIS'),
        folder=(folder, 'the annotations NAME.json'),
    )
    opened = functools.partial(badja_sequence, folder, root, resolution=resolution)

    def sequences():
        return named_sequences(names or badja_names(folder), opened)

    return Joints(sequences, **measure)
