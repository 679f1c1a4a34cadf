"""VIP with the factors of CRW's released code (Jabri et al., NeurIPS 2020).

Its settings for VIP are in no file: these are the authors' public answers.
"""

from ml_collections import ConfigDict

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'vip_crw'
    config.title = "VIP, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'vip',
            'root': '',
            'split': 'val',
            'annotation': 'category',  # Parts; 'instance': those of each person, AP^r_vol.
            'names': (),
        }
    )
    config.measure = ConfigDict({'count_first': True})
    config.input.update(resize='square', size=560, precision='float32')
    config.propagation.num_context = 4
    # The released code means 'nearest', but interpolates ids: 'bilinear'.
    # Frame 0 is counted as its labels on the grid show it.
    config.labels.update(decode_at='input', resize_first='nearest', first_frame='decoded')
    return config
