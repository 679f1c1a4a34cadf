"""UVC+ (McKee et al., BMVC 2022, Table 5): UVC + 0.3 rotation, on colour frames of its videos.

It is run in two stages, see configs/train/uvc.py.
"""

from . import base, uvc


def get_config(stage='warm_up'):
    config = uvc.get_config(stage)
    return plus(config, {'name': 'rotation', **base.VIEWS}, weight=0.3, batch_size=64)


def plus(config, objective, weight, batch_size, name='uvc_plus_rotation'):
    """Adds an image objective, on single frames of the videos."""
    config.name = config.name.replace('uvc', name, 1)
    config.image_objective = dict(objective)
    config.image_objective.head = 'residual'
    config.image_weight = weight
    config.image_data = base.videos()
    config.image_data.update(
        num_frames=1,
        size=(256, 256),
        batch_size=batch_size,
        root=config.data.get_oneway_ref('root'),
    )
    return config


def on_imagenet(config):
    """Takes images root/CLASS/*.jpg in place of frames: --config.image_data.root=IMAGENET/train."""
    batch_size = config.image_data.batch_size
    config.image_data = base.images()
    config.image_data.batch_size = batch_size
    return config
