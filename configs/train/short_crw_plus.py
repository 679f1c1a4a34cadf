"""CRW with rotation on a folder of videos, for some minutes on one GPU: --config.data.root=FOLDER.

jaxprop train --config=short_crw_plus --config.data.root=VIDEOS --config.epochs=50 --workdir=RUN
"""

from . import crw_plus_rotation, short_crw


def get_config():
    config = short_crw.shorten(crw_plus_rotation.get_config())
    config.name = 'short_crw_plus'
    config.objective.head = 'linear'  # As in `short_crw`; rotation has its residual head.
    config.image_data.update(examples_per_video=16, num_threads=4)
    return config
