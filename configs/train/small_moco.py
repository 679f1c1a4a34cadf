"""MoCo on a folder of videos, for a modest machine: --config.data.root=FOLDER.

    jaxprop train --config=small_moco --config.data.root=VIDEOS --workdir=RUN

The queue holds 512 keys, a quarter of 2,000 frames, so that few of the negatives are other views of
the query's own frame. As long as the network has learned nothing, the loss is log 513 = 6.24.
"""

from . import moco, small_rotation


def get_config():
    config = small_rotation.get_config()
    config.name = 'small_moco'
    config.objective = {
        **moco.SETTINGS,
        'size': 96,
        'queue_size': 512,
        'momentum': 0.99,
        'num_groups': 4,
    }
    config.data.batch_size = 32
    return config
