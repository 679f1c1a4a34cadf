"""JHMDB with the factors of Spa-then-Temp's released code at stride 4 (Li and Liu, CVPR 2023).

    jaxprop evaluate --config=jhmdb_spa_then_temp --config.network.name=FILE \
        --config.dataset.root=JHMDB

Published for its own files (its README): PCK@.1 and .2 of 65.6 and 83.8 with ResNet18, of 66.4 and
84.4 with ResNet50. At stride 8 they are 63.5 and 83.1 with ResNet18, 63.6 and 83.8 with ResNet50:
set the network of stride 8 as `davis_spa_then_temp` says, and `--config.propagation.radius=6`.
Joints are drawn, read and scored as in VFS, which also scores frame 0.
"""

from jaxprop import methods

from . import davis_spa_then_temp, jhmdb_vfs, synthetic


def get_config():
    config = jhmdb_vfs.get_config()
    config.name = 'jhmdb_spa_then_temp'
    config.title = "JHMDB, Spa-then-Temp's factors"
    config.network = davis_spa_then_temp.network()
    config.input.color = 'lab'
    config.propagation = synthetic.propagation(methods.spa_then_temp(reach=12))
    return config
