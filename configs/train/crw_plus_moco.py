"""CRW and MoCo on frames of its videos, see `crw_plus_rotation`.

jaxprop train --config=crw_plus_moco --config.data.root=KINETICS --workdir=RUN
"""

from . import crw, crw_plus_rotation, moco


def get_config():
    config = crw_plus_rotation.plus(crw.get_config(), moco.SETTINGS, weight=0.1, batch_size=32)
    config.name = 'crw_plus_moco'
    return config
