"""LVOS with the factors of CRW's released code.

    jaxprop evaluate --config=lvos_crw --config.dataset.root=LVOS/val

The validation set has its truth. Videos are long: 1.6 minutes on average. Frames are resized to a
short side of 480 pixels.
"""

from . import mose_crw


def get_config():
    config = mose_crw.get_config()
    config.name = 'lvos_crw'
    config.title = "LVOS, CRW's factors"
    config.dataset.kind = 'lvos'
    config.measure.update(count_given=True, count_last=True)
    return config
