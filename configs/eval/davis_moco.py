"""DAVIS with the study's best factors for a still-image network, MoCo's (Table 6b)."""

from . import davis_imagenet


def get_config():
    config = davis_imagenet.get_config()
    config.name = 'davis_moco'
    config.title = 'DAVIS, still-image factors (MoCo)'
    return config
