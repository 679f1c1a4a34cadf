"""DAVIS with the factors of UVC's released code and its boxes (Li et al., NeurIPS 2019)."""

from . import davis_uvc


def get_config():
    config = davis_uvc.get_config()
    config.name = 'davis_uvc_track'
    config.title = "DAVIS, UVC's factors with its boxes"
    config.propagation.update(
        restriction='track', restrict_first=True, as_released=('signed_stop', 'corner_cells')
    )
    return config
