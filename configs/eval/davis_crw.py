"""DAVIS with the factors of CRW's released code (Jabri et al., NeurIPS 2020)."""

from ml_collections import ConfigDict

from . import synthetic


def get_config():
    config = synthetic.get_config()
    config.name = 'davis_crw'
    config.title = "DAVIS, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'davis',
            'root': '',
            'year': '2017',
            'split': 'val',
            'resolution': '480p',
            'names': (),  # Some sequences instead of a split.
        }
    )
    return config
