"""Classification of ImageNet (root/CLASS/*.jpg): the study's supervised network."""

from . import base


def get_config():
    config = base.get_config()
    config.name = 'classification'
    config.epochs = 90.0
    config.objective = {'name': 'classification', 'num_classes': 1000, **base.VIEWS}
    config.schedule.update(name='step', boundaries=(30.0, 60.0), factor=0.1)
    return config
