"""DAVIS with the factors of VFS's released code (Xu and Wang, ICCV 2021)."""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_vfs'
    config.title = "DAVIS, VFS's factors"
    config.input.update(resize='short_side', size=480)
    config.propagation = synthetic.propagation(methods.vfs())
    config.labels.update(encode='nearest', min_max=True)
    return config
