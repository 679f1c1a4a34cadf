r"""DAVIS with the factors of MAST's released code (Lai et al., CVPR 2020).

    jaxprop evaluate --config=davis_mast --config.network.name=FILE \
        --config.network.layout=mast_resnet18 --config.dataset.root=DAVIS

Published for its own file: J 63.3, F 67.6. Context are frames 0 and 5 and the frames 1, 3 and 5
before the target. The network is as released, and is CorrFlow's; so is what it sees, all three
channels of Lab. Files of the two have the same names: without the layout a file is taken for
CorrFlow's. All networks are shown Lab, and results note where one was trained to see something
else. A network that was trained with another temperature needs it here too:
`--config.propagation.temperature=8.0`. What is not as released: there the class of each pixel is
taken before going on, here it is that of each cell; a cell's first label there is that of the first
pixel of its four by four, here that of a pixel in their middle; there 7 labels are computed with at
most, here as many as there are.
"""

from jaxprop import methods

from . import davis_corrflow, synthetic


def get_config():
    config = davis_corrflow.get_config()
    config.name = 'davis_mast'
    config.title = "DAVIS, MAST's factors"
    config.input.update(multiple=1, color='lab')
    config.propagation = synthetic.propagation(methods.mast())
    config.labels.update(decode_at='frame')
    return config
