"""MOSE with the factors of CRW's released code.

    jaxprop evaluate --config=mose_crw --config.dataset.root=MOSE/valid

The truth of the validation set is kept by its server: `submission.zip` is for that. Frames are
resized to a short side of 480 pixels.
"""

from ml_collections import ConfigDict

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'mose_crw'
    config.title = "MOSE, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'mose',
            'root': '',
            'list': '',  # A file that lists videos, in place of all.
            'names': (),
        }
    )
    config.measure = ConfigDict({'count_given': False, 'count_last': False})
    config.input.update(resize='short_side', size=480)
    return config
