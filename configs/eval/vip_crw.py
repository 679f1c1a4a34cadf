"""VIP with the factors of CRW's released code (Jabri et al., NeurIPS 2020).

CRW's release has no file with its settings for VIP. Those here are from its authors' public
answers.
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
            'annotation': 'category',  # Parts; or 'instance', each person's parts, by AP^r_vol.
            'names': (),
        }
    )
    config.measure = ConfigDict({'count_first': True})
    config.input.update(resize='square', size=560, precision='float32')
    config.propagation.num_context = 4
    # The released code should take the nearest id, but interpolates ids: 'bilinear'. Frame 0 is
    # scored, and its prediction is decoded from its labels on the grid.
    config.labels.update(decode_at='input', resize_first='nearest', first_frame='decoded')
    return config
