"""JHMDB with the factors of CRW's released code (Jabri et al., NeurIPS 2020).

CRW's release has no file with its settings for JHMDB. Those here are from its authors' public
answers.
"""

from ml_collections import ConfigDict

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'jhmdb_crw'
    config.title = "JHMDB, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'jhmdb',
            'root': '',
            'split': 1,
            'list': '',  # A file that lists clips and their positions, such as UVC and CRW have.
            'names': (),
        }
    )
    config.measure = ConfigDict(
        {
            'lost': 'skip',  # Joints that are lost are left out; with 'wrong' they count as wrong.
            'count_first': False,
            'average': 'joints',
        }
    )
    # As released; the papers say 240.
    config.input.update(resize='square', size=320, precision='float32')
    config.propagation.num_context = 7
    del config.labels
    config.keypoints = ConfigDict(
        {'encode_by': 'stamp', 'sigma': 0.5, 'num_cells': 3, 'at': 'grid'}
    )
    return config
