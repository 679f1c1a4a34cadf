"""DAVIS with the factors of UVC's released code without its boxes (Li et al., NeurIPS 2019)."""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_uvc'
    config.title = "DAVIS, UVC's factors"
    config.network.update(name='untrained', output='res4')  # As released; the study says res3.
    config.input.update(
        resize='short_side', size=480, multiple=64, floored='long', color='lightness'
    )
    config.propagation = synthetic.propagation(methods.uvc())
    config.labels.update(encode='nearest', min_max=True, decode_at='input')
    return config
