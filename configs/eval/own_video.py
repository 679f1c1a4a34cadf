"""The default of `jaxprop propagate`: CRW's factors, and masks with the edges of the frames."""

from . import synthetic


def get_config():
    config = synthetic.get_config()
    config.name = 'own_video'
    config.title = 'Rendered videos, labelled as your own'
    config.labels.refine = 'guided'
    return config
