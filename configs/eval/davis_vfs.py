"""DAVIS with the factors of VFS's released code (Xu and Wang, ICCV 2021).

    jaxprop evaluate --config=davis_vfs --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own files (its README): J&F 66.7 with ResNet18; 69.5 with ResNet50 and a radius of
18, `--config.propagation.radius=18`.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_vfs'
    config.title = "DAVIS, VFS's factors"
    config.network = synthetic.network(depth=18, output='res3', strides=(1, 2, 1, 1))
    config.input.update(resize='short_side', size=480)
    config.propagation = synthetic.propagation(methods.vfs())
    config.labels.update(encode='nearest', min_max=True)
    return config
