"""UVC+: UVC + 0.1 MoCo, on frames of its videos (Table 5)."""

from . import moco, uvc, uvc_plus_rotation


def get_config(stage='warm_up'):
    return uvc_plus_rotation.plus(
        uvc.get_config(stage), moco.SETTINGS, weight=0.1, batch_size=32, name='uvc_plus_moco'
    )
