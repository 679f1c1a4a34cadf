"""UVC+ with MoCo on ImageNet (Table 5); --config.image_data.root=IMAGENET/train."""

from . import uvc_plus_moco, uvc_plus_rotation


def get_config(stage='warm_up'):
    config = uvc_plus_rotation.on_imagenet(uvc_plus_moco.get_config(stage))
    config.name = config.name.replace('moco', 'moco_imagenet')
    return config
