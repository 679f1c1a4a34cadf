r"""DAVIS with the factors of MAST's released code (Lai et al., CVPR 2020).

    jaxprop evaluate --config=davis_mast --config.network.name=FILE \
        --config.network.layout=mast_resnet18 --config.dataset.root=DAVIS

Published for its own file: J 63.3, F 67.6. The context is frames 0 and 5, and the frames 1, 3 and 5
before the target. The network is as released, and is CorrFlow's. Arrays in files of the two have
the same names: without the layout a file is taken for CorrFlow's. Frames are shown as released, all
three channels of Lab. All networks see them so; results note if a network was trained to see other
colours. If a network was trained with another temperature, set it here too:
`--config.propagation.temperature=8.0`.

Some things differ from the release. It goes on with the class of each pixel, here propagation goes
on with the class of each cell. In the first frame a cell has the label of the first of its 4 x 4
pixels there, here that of a pixel in their middle. The release computes with 7 labels at most, here
their number is not limited.
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
