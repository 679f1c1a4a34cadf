"""DAVIS with the study's per-frame factors for moco features: 1/T = 50 (Figure 4)."""

from . import davis_imagenet, davis_moco


def get_config():
    config = davis_imagenet.per_frame(davis_moco.get_config(), inverse_temperature=50)
    config.name += '_per_frame'
    return config
