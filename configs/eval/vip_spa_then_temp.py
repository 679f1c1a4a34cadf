"""VIP with the factors of Spa-then-Temp's released code at stride 4 (Li and Liu, CVPR 2023).

    jaxprop evaluate --config=vip_spa_then_temp --config.network.name=FILE --config.dataset.root=VIP

Published for its own files (its README): mIoU 42.0 with ResNet18 and 42.8 with ResNet50. At stride
8 it is 40.9 and 42.2: set the network of stride 8 as `davis_spa_then_temp` says, and
`--config.propagation.radius=17`. Frame 0 is scored with its annotation as the prediction.
"""

from . import davis_spa_then_temp, vip_crw


def get_config():
    config = vip_crw.get_config()
    config.name = 'vip_spa_then_temp'
    config.title = "VIP, Spa-then-Temp's factors"
    davis = davis_spa_then_temp.get_config()
    config.network = davis.network
    config.propagation = davis.propagation
    config.labels = davis.labels
    config.input.update(precision='uint8', color='lab')
    return config
