"""The Lab autoencoder whose features UVC copies, trained on images or on frames of videos."""

from . import base


def get_config():
    config = base.get_config()
    config.name = 'color_autoencoder'
    config.epochs = 1.0
    config.backbone = None  # The network is the autoencoder.
    config.objective = {'name': 'color_autoencoder', 'size': 128}
    config.schedule.learning_rate = 1e-4
    config.optimizer.update(name='adam', weight_decay=0.0)
    config.data.batch_size = 32
    return config
