"""Several benchmarks on one network, with the factors of UVC's released code without its boxes.

    jaxprop evaluate --config=suite_uvc --config.network.name=FILE \\
        --config.davis.dataset.root=DAVIS --config.vip.dataset.root=VIP \\
        --config.jhmdb.dataset.root=JHMDB
"""

from ..eval import davis_uvc, jhmdb_uvc, vip_uvc
from . import common

_CONFIGS = {'davis': davis_uvc, 'vip': vip_uvc, 'jhmdb': jhmdb_uvc}


def get_config(benchmarks='davis,vip,jhmdb'):
    return common.suite('uvc', _CONFIGS, benchmarks)
