"""DAVIS, 2016 and 2017: objects in videos."""

import functools

from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.tasks.objects import Objects
from jaxprop.tasks.task import check_folders, named_sequences


def open_task(measure, *, root, year='2017', split='val', resolution='480p', names=()):
    """Opens DAVIS: the sequences of a split, or `names`; see `jaxprop.data.davis`."""
    check_folders(root=(root, 'JPEGImages, Annotations and ImageSets'))
    opened = functools.partial(davis_sequence, root, year=year, resolution=resolution)

    def sequences():
        return named_sequences(names or davis_names(root, year, split), opened)

    # The truth of 'test-dev' and 'test-challenge' is kept by a server.
    return (ObjectsOfTestSet if split.startswith('test') else Objects)(sequences, **measure)


class ObjectsOfTestSet(Objects):
    """Objects of a test set: the ZIP file holds a folder for each sequence."""

    server = ''
