"""DAVIS with the factors of TimeCycle's released code (Wang et al., CVPR 2019), on ResNet50's res3.

The released network ends in a 1x1 convolution to 512 channels, by whose root it scales affinities.
Pixels of an object that is too small to be followed have no label in the released code; here they
are background.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_timecycle'
    config.title = "DAVIS, TimeCycle's factors"
    config.network.update(name='untrained', depth=50)
    config.input.update(resize='square', size=320, precision='float32')
    config.propagation = synthetic.propagation(methods.timecycle())
    config.labels.update(decode_at='input', resize_first='pillow_nearest', smallest=12)
    return config
