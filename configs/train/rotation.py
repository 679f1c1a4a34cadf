"""Rotation prediction on ImageNet (Gidaris et al., ICLR 2018), as in the study."""

from . import base


def get_config():
    config = base.get_config()
    config.name = 'rotation'
    config.epochs = 180.0
    config.schedule.update(name='step', boundaries=(30.0, 60.0, 90.0, 120.0, 150.0), factor=0.1)
    return config
