r"""CRW and classification of ImageNet (root/CLASS/*.jpg), see `crw_plus_rotation`.

    jaxprop train --config=crw_plus_classification --config.data.root=KINETICS \
        --config.image_data.root=IMAGENET/train --workdir=RUN
"""

from . import base, crw, crw_plus_rotation, uvc_plus_rotation


def get_config():
    objective = {'name': 'classification', 'num_classes': 1000, **base.VIEWS}
    config = crw_plus_rotation.plus(crw.get_config(), objective, weight=0.2, batch_size=64)
    config.name = 'crw_plus_classification'
    return uvc_plus_rotation.on_imagenet(config)
