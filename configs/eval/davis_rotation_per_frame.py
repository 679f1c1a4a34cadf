"""DAVIS with the study's per-frame factors for rotation features: 1/T = 40 (Figure 4)."""

from . import davis_imagenet, davis_rotation


def get_config():
    config = davis_imagenet.per_frame(davis_rotation.get_config(), inverse_temperature=40)
    config.name += '_per_frame'
    return config
