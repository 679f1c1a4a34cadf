"""DAVIS with the factors of VFS's released code (Xu and Wang, ICCV 2021)."""

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_vfs'
    config.title = "DAVIS, VFS's factors"
    config.input.update(resize='short_side', size=480)
    config.propagation.update(temperature=0.07, padding='first_once', restrict_first=True)
    config.labels.update(encode='nearest', min_max=True)
    return config
