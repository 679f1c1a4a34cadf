"""DAVIS with the factors of UVC's released code and its boxes (Li et al., NeurIPS 2019).

    jaxprop evaluate --config=davis_uvc_track --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own file (its README): J 57.7, F 61.3.
"""

from jaxprop import methods

from . import davis_uvc, synthetic


def get_config():
    config = davis_uvc.get_config()
    config.name = 'davis_uvc_track'
    config.title = "DAVIS, UVC's factors with its boxes"
    config.propagation = synthetic.propagation(methods.uvc_tracked())
    return config
