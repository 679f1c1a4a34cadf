"""VIP with the factors of UVC's released code (Li et al., NeurIPS 2019).

k is 5 as released; the study has 50.
"""

from . import davis_uvc, vip_crw


def get_config():
    config = vip_crw.get_config()
    config.name = 'vip_uvc'
    config.title = "VIP, UVC's factors"
    config.network = davis_uvc.get_config().network
    config.input.update(color='lightness', precision='uint8')
    config.propagation = davis_uvc.get_config().propagation
    config.propagation.num_context = 1
    config.labels = davis_uvc.get_config().labels
    return config
