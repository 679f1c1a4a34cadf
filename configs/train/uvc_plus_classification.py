"""UVC+: UVC + 0.05 classification of ImageNet (Table 5).

The images are given by --config.image_data.root=IMAGENET/train.
"""

from . import base, uvc, uvc_plus_rotation


def get_config(stage='warm_up'):
    objective = {'name': 'classification', 'num_classes': 1000, **base.VIEWS}
    config = uvc_plus_rotation.plus(
        uvc.get_config(stage),
        objective,
        weight=0.05,
        batch_size=256,
        name='uvc_plus_classification',
    )
    return uvc_plus_rotation.on_imagenet(config)
