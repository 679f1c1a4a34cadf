"""UVC+ with rotation on a folder of videos, for a modest machine: --config.data.root=FOLDER.

It is run in two stages, and needs a colour autoencoder, as `uvc` does.
"""

from . import small_uvc, uvc_plus_rotation


def get_config(stage='warm_up'):
    config = small_uvc.shrink(uvc_plus_rotation.get_config(stage))
    config.name = config.name.replace('uvc_plus_rotation', 'small_uvc_plus')
    config.image_objective.size = 96
    config.image_data.update(examples_per_video=16, size=(112, 112), batch_size=4, num_threads=2)
    return config
