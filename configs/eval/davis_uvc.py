"""DAVIS with the factors of UVC's released code without its boxes (Li et al., NeurIPS 2019)."""

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_uvc'
    config.title = "DAVIS, UVC's factors"
    config.network.update(name='untrained', output='res4')  # As released; the study says res3.
    config.input.update(
        resize='short_side', size=480, multiple=64, floored='long', color='lightness'
    )
    config.propagation.update(
        aggregation='per_frame',
        softmax='frame',
        temperature=1.0,
        num_neighbors=5,
        num_context=7,
        padding='mask',
        restriction='none',
        normalize_features=False,
    )
    config.labels.update(encode='nearest', min_max=True, decode_at='input')
    return config
