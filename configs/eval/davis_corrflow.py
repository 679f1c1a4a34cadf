"""DAVIS with the factors of CorrFlow's released code (Lai and Xie, BMVC 2019).

    jaxprop evaluate --config=davis_corrflow --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own file: J 48.4, F 52.2 (trained on OxUvA). The network is as released: a
ResNet18 without max pool, four pixels to a cell, whose res4 has 256 channels, and a 3x3 convolution
to 64. So is what it sees, RGB from 0 to 1: all networks are shown it, and results note where one
was trained to see something else. What is not as released: there frames are cropped to multiples of
8 pixels, the numbers of classes are averaged, the class of each pixel is taken before going on, and
masks are written 3 pixels to the right; here frames are resized, labels are the nearest pixels',
and classes are those of cells.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_corrflow'
    config.title = "DAVIS, CorrFlow's factors"
    config.network = synthetic.network(
        'untrained',
        output='res4',
        strides=(1, 2, 1, 1),
        max_pool=False,
        widths=(64, 128, 256, 256),
        projection=64,
        projection_kernel=3,
        projection_bias=True,
    )
    config.input.update(multiple=8, color='rgb_unit')
    config.propagation = synthetic.propagation(methods.corrflow())
    config.labels.update(encode='nearest', decode_at='input')
    return config
