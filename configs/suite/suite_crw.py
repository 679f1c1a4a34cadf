"""Several benchmarks on one network, with the factors of CRW's released code.

    jaxprop evaluate --config=suite_crw --config.network.name=FILE \\
        --config.davis.dataset.root=DAVIS --config.vip.dataset.root=VIP \\
        --config.jhmdb.dataset.root=JHMDB

DAVIS, VIP and JHMDB; `--config=suite_crw:davis,badja` takes others. Each benchmark has the settings
of its config, `--config.jhmdb.propagation.num_context=7`.
"""

from ..eval import (
    badja_crw,
    davis_crw,
    jhmdb_crw,
    lvos_crw,
    mose_crw,
    tapvid_crw,
    vip_crw,
    youtube_vos_crw,
)
from . import common

_CONFIGS = {
    'davis': davis_crw,
    'vip': vip_crw,
    'jhmdb': jhmdb_crw,
    'badja': badja_crw,
    'youtube_vos': youtube_vos_crw,
    'mose': mose_crw,
    'lvos': lvos_crw,
    'tapvid': tapvid_crw,
}


def get_config(benchmarks='davis,vip,jhmdb'):
    return common.suite('crw', _CONFIGS, benchmarks)
