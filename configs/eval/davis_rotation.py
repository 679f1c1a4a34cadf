"""DAVIS with the study's best factors for a still-image network, rotation's (Table 6b)."""

from . import davis_imagenet


def get_config():
    config = davis_imagenet.get_config()
    config.name = 'davis_rotation'
    config.title = 'DAVIS, still-image factors (rotation)'
    return config
