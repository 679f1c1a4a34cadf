r"""DAVIS with the factors of Spa-then-Temp's released code at stride 4 (Li and Liu, CVPR 2023).

    jaxprop evaluate --config=davis_spa_then_temp --config.network.name=FILE \
        --config.dataset.root=DAVIS

Published for its own files (its README): J&F 73.5 with ResNet18 and 74.1 with ResNet50. A frame of
480 x 854 has 120 x 214 cells, each with a window of 71 x 71 in 21 frames. The networks of stride 8
(J&F 70.7 and 71.2) have no pool in the stem, and their window reaches 12 cells to each side:

    --config.network.strides="(1,2,2,1)" --config.network.max_pool=False \
        --config.network.average_pool=False --config.propagation.radius=13

Arrays in the files have the names of VFS's, and the files do not tell strides, pool and colours.
This config sets these for all networks, and results note if a network's own differ.
"""

from jaxprop import methods

from . import davis_vfs, synthetic


def get_config():
    config = davis_vfs.get_config()
    config.name = 'davis_spa_then_temp'
    config.title = "DAVIS, Spa-then-Temp's factors"
    config.network = network()
    config.input.color = 'lab'
    config.propagation = synthetic.propagation(methods.spa_then_temp())
    return config


def network():
    """Makes the settings of a network of stride 4, for any file."""
    section = synthetic.network('untrained', output='res3')
    section.update(strides=(1, 1, 1, 1), average_pool=True)
    return section
