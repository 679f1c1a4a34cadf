"""LVOS with the factors of CRW's released code.

    jaxprop evaluate --config=lvos_crw --config.dataset.root=LVOS/val

The validation set has its truth. Videos are long: 1.6 minutes on average. Frames are resized to a
short side of 480 pixels.
"""

from ml_collections import ConfigDict

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'lvos_crw'
    config.title = "LVOS, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'lvos',
            'root': '',
            'list': '',  # A file that lists videos, in place of all.
            'names': (),
        }
    )
    config.measure = ConfigDict({'count_given': True, 'count_last': True})
    config.input.update(resize='short_side', size=480)
    return config
