"""DAVIS with the factors of CRW's released code (Jabri et al., NeurIPS 2020).

    jaxprop evaluate --config=davis_crw --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own file: J&F 67.6 (its README; the study has 67.5). Its ResNet18 pads by
reflection, and so does the untrained network of this config.
"""

from ml_collections import ConfigDict

from . import synthetic


def get_config():
    config = synthetic.get_config()
    config.name = 'davis_crw'
    config.title = "DAVIS, CRW's factors"
    config.network = synthetic.network(padding='reflect')
    config.dataset = ConfigDict(
        {
            'kind': 'davis',
            'root': '',
            'year': '2017',
            'split': 'val',
            'resolution': '480p',
            'names': (),  # Sequences to evaluate, in place of all of the split.
        }
    )
    return config
