"""DAVIS with the factors of CorrFlow's released code (Lai and Xie, BMVC 2019), on ResNet18's res3.

The released network ends in a 3x3 convolution to 64 channels. The released code crops frames to
multiples of 8 pixels, averages the numbers of classes, takes the class of each pixel before it goes
on, and writes masks 3 pixels to the right; here frames are resized, labels are the nearest pixels',
and classes are those of cells.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_corrflow'
    config.title = "DAVIS, CorrFlow's factors"
    config.network.update(name='untrained', max_pool=False)  # Four pixels to a cell.
    config.input.update(multiple=8, color='rgb_unit')
    config.propagation = synthetic.propagation(methods.corrflow())
    config.labels.update(encode='nearest', decode_at='input')
    return config
