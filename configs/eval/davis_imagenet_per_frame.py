"""DAVIS with the study's per-frame factors for imagenet features: 1/T = 40 (Figure 4)."""

from . import davis_imagenet


def get_config():
    config = davis_imagenet.per_frame(davis_imagenet.get_config(), inverse_temperature=40)
    config.name += '_per_frame'
    return config
