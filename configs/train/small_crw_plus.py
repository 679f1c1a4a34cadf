"""CRW with rotation on a folder of videos, for a modest machine: --config.data.root=FOLDER.

    jaxprop train --config=small_crw_plus --config.data.root=VIDEOS --workdir=RUN

CRW's head is linear, as in `small_crw`: a residual head on 400 patches makes a step on a CPU take
several times as long. Rotation has its residual head.
"""

from . import crw_plus_rotation, small_crw


def get_config():
    config = small_crw.shrink(crw_plus_rotation.get_config())
    config.name = 'small_crw_plus'
    config.objective.head = 'linear'
    config.image_objective.size = 96
    config.image_data.update(examples_per_video=16, size=(112, 112), batch_size=4, num_threads=2)
    return config
