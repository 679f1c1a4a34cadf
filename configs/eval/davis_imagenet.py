"""DAVIS with the study's best factors for a still-image network, classification's (Table 6b).

Overall aggregation with T = 1, a fixed region of 12 cells, n = 20 (McKee et al., BMVC 2022).
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_imagenet'
    config.title = 'DAVIS, still-image factors (classification)'
    # Networks of configs/train end in res4, with stride 32. Here they are cut after res3.
    config.network = synthetic.network()
    config.network.update(output='res3', strides=(1, 2, 1, 1))
    config.input.update(resize='short_side', size=480, multiple=64, floored='long')
    config.propagation = synthetic.propagation(methods.still_image())
    config.labels.update(encode='nearest', min_max=True)
    return config


def per_frame(config, inverse_temperature):
    """Sets the study's per-frame factors (Tables 1 to 3) in `config`: n = 7, k = 5, no region."""
    method = methods.still_image_per_frame(inverse_temperature=inverse_temperature)
    config.propagation = synthetic.propagation(method)
    return config
