"""DAVIS with the factors of UVC's released code without its boxes (Li et al., NeurIPS 2019).

    jaxprop evaluate --config=davis_uvc --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own file (its README): J 56.3, F 59.2. All networks see lightness alone, as UVC's
was trained to; results note if a network was trained to see other colours.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_uvc'
    config.title = "DAVIS, UVC's factors"
    # As released; the study says res3.
    config.network = synthetic.network('untrained', output='res4', strides=(1, 2, 1, 1))
    config.input.update(
        resize='short_side', size=480, multiple=64, floored='long', color='lightness'
    )
    config.propagation = synthetic.propagation(methods.uvc())
    config.labels.update(encode='nearest', min_max=True, decode_at='input')
    return config
