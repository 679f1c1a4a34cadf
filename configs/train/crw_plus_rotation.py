"""CRW and rotation of colour frames of its videos on one backbone: an open question of the study.

    jaxprop train --config=crw_plus_rotation --config.data.root=KINETICS --workdir=RUN

The study (McKee et al., BMVC 2022, section 5) reports UVC with image losses, and leaves open how
CRW does with them. As in UVC+ the shared backbone ends in res3, and each objective has a residual
head; CRW alone has res4 in the backbone, and a linear head. With the weight of 1 the two losses
have one order of magnitude in the beginning (log 49 and log 4). Tune the weight:
--config.image_gradient_norms helps.
"""

from . import base, crw, uvc_plus_rotation


def get_config():
    config = plus(crw.get_config(), {'name': 'rotation', **base.VIEWS}, weight=1.0, batch_size=20)
    config.name = 'crw_plus_rotation'
    return config


def plus(config, objective, weight, batch_size):
    """Adds an image objective to CRW, on single frames of the videos."""
    config.backbone.output = 'res3'
    config.objective.head = 'residual'
    # Export batch statistics of whole frames, which evaluations show: training sees patches and
    # image crops.
    config.statistics = {'frames': 64, 'size': (256, 340), 'color': 'rgb'}
    return uvc_plus_rotation.plus(config, objective, weight, batch_size)
