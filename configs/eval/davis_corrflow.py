"""DAVIS with the factors of CorrFlow's released code (Lai and Xie, BMVC 2019).

    jaxprop evaluate --config=davis_corrflow --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own file: J 48.4, F 52.2 (trained on OxUvA). The network is as released: a
ResNet18 without max pool, with cells of 4 x 4 pixels and 256 channels in res4, and a 3x3
convolution to 64 channels. Frames are shown as released, in RGB from 0 to 1. All networks see them
so; results note if a network was trained to see other colours.

Some things differ from the release. It crops frames to multiples of 8 pixels, averages the numbers
of classes, goes on with the class of each pixel, and writes masks 3 pixels too far to the right.
Here frames are resized, a cell of the first frame has the label of the nearest pixel, and
propagation goes on with the class of each cell.
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
