"""UVC+ as `uvc_plus_rotation`, with gray images for rotation (Table 5)."""

from . import uvc_plus_rotation


def get_config(stage='warm_up'):
    config = uvc_plus_rotation.get_config(stage)
    config.name = config.name.replace('rotation', 'rotation_gray')
    config.image_objective.gray = True
    return config
