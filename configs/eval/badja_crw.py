"""BADJA, joints of animals in DAVIS's sequences, with the factors of CRW's released code.

Frames keep their own size. Distances are in units of the square root of the animal's area. A joint
that is lost counts as wrong.
"""

from ml_collections import ConfigDict

from . import davis_crw, jhmdb_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'badja_crw'
    config.title = "BADJA, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'badja',
            'root': '',  # The folder of DAVIS.
            'folder': '',  # The folder of BADJA's annotations.
            'resolution': '480p',
            'names': (),
        }
    )
    config.measure = ConfigDict({'lost': 'wrong', 'count_first': False, 'average': 'sequences'})
    del config.labels
    config.keypoints = jhmdb_crw.get_config().keypoints
    return config
