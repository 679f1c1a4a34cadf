"""DAVIS with the factors of TimeCycle's released code (Wang et al., CVPR 2019).

    jaxprop evaluate --config=davis_timecycle --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own file: J 41.9, F 39.4 at 320 x 320, and J 46.4, F 50.0 at 480 x 480
(`--config.input.size=480`). The network is as released: ResNet50's res3 and a 1x1 convolution to
512 channels with a ReLU. Affinities are multiplied by the square root of 512. One thing differs
from the release: if an object is too small to be followed, its pixels have no label there; here
they are background.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_timecycle'
    config.title = "DAVIS, TimeCycle's factors"
    config.network = synthetic.network(
        'untrained',
        depth=50,
        output='res3',
        strides=(1, 2, 1, 1),
        projection=512,
        projection_relu=True,
    )
    config.input.update(resize='square', size=320, precision='float32')
    config.propagation = synthetic.propagation(methods.timecycle())
    config.labels.update(decode_at='input', resize_first='pillow_nearest', smallest=12)
    return config
