"""DAVIS with the factors of MAST's released code (Lai et al., CVPR 2020), on ResNet18's res3.

Context are frames 0 and 5 and the frames 1, 3 and 5 before the target. The released network sees
all three channels of Lab, and ends in a 3x3 convolution to 64 channels; the released code takes the
class of each pixel before it goes on, here it is that of each cell. A cell's first label there is
that of the first pixel of its four by four, here that of a pixel in their middle.
"""

from jaxprop import methods

from . import davis_corrflow, synthetic


def get_config():
    config = davis_corrflow.get_config()
    config.name = 'davis_mast'
    config.title = "DAVIS, MAST's factors"
    config.input.update(multiple=1, color='rgb')
    config.propagation = synthetic.propagation(methods.mast())
    config.labels.update(decode_at='frame')
    return config
