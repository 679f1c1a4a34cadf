"""MoCo v1 on ImageNet (He et al., CVPR 2020), as in the study."""

from . import base

SETTINGS = {
    'name': 'moco',
    **base.VIEWS,
    'jitter': (0.4, 0.4, 0.4, 0.4),
    'grayscale': 0.2,
    'dimensions': 128,
    'queue_size': 65536,
    'momentum': 0.999,
    'temperature': 0.07,
    'num_groups': 8,
}


def get_config():
    config = base.get_config()
    config.name = 'moco'
    config.epochs = 200.0
    config.objective = SETTINGS
    config.schedule.update(name='step', learning_rate=0.03, boundaries=(120.0, 160.0), factor=0.1)
    return config
