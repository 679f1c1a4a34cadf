"""DAVIS with the factors of DINO's released code (Caron et al., ICCV 2021).

    jaxprop evaluate --config=davis_dino --config.network.name=FILE --config.dataset.root=DAVIS

Published for its ViT-S/16: J&F 61.8 (its repository, pull request 46). The factors are the same for
patches of 8 and 16; the file tells which a network has. The untrained network is a ViT-S/16.

Two things differ from the release. It divides red by a standard deviation of 0.228, here it is
0.229. It also keeps neighbours that tie with the fifth one.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_dino'
    config.title = "DAVIS, DINO's factors"
    config.network = synthetic.network(
        'untrained', architecture='vit', patch=16, width=384, depth=12, heads=6
    )
    config.input.update(resize='short_side', size=480, multiple=64, floored='long')
    config.propagation = synthetic.propagation(methods.dino())
    config.labels.update(encode='nearest', min_max=True, decode_at='input')
    return config
