"""DAVIS with the study's best factors for a still-image network, classification's (Table 6b).

Overall aggregation with T = 1, a fixed region of 12 cells, n = 20 (McKee et al., BMVC 2022).
"""

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_imagenet'
    config.title = 'DAVIS, still-image factors (classification)'
    # Networks of configs/train end in res4, with stride 32.
    config.network.update(output='res3', strides=(1, 2, 1, 1))
    config.input.update(resize='short_side', size=480, multiple=64, floored='long')
    config.propagation.temperature = 1.0
    config.labels.update(encode='nearest', min_max=True)
    return config


def per_frame(config, inverse_temperature):
    """The study's per-frame factors in `config` (Tables 1 to 3): n = 7, k = 5, no region."""
    config.propagation.update(
        aggregation='per_frame',
        softmax='frame',
        temperature=1 / inverse_temperature,
        num_neighbors=5,
        num_context=7,
        padding='mask',
        restriction='none',
    )
    return config
