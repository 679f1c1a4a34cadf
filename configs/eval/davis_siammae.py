"""DAVIS for networks like SiamMAE's, with the factors of CropMAE's released code (ECCV 2024).

    jaxprop evaluate --config=davis_siammae --config.network.name=FILE --config.dataset.root=DAVIS

Published for its own ViT-S/16 (its README): J&F 60.4 trained on ImageNet, 58.6 on Kinetics-400;
users of its files report 59.1 and 58.2 (its issue 15). SiamMAE's own evaluation is not released.
The code is CRW's, on a copy of DAVIS in which all frames and masks are 480 x 880.

Some things may differ from the release. The copy is not published; here frames are resized
bilinearly and the first mask by nearest. Scores of the release are of masks of 480 x 880, here they
are of masks of the frame's own size. The release enlarges position embeddings as DINO does, which
moves them by less than a fiftieth of a patch: `--config.network.offset=0.1`.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_siammae'
    config.title = "DAVIS, CropMAE's factors"
    config.network = synthetic.network(
        'untrained', architecture='vit', patch=16, width=384, depth=12, heads=6, offset=0.0
    )
    config.input.update(resize='fixed', height=480, width=880, precision='float32')
    config.propagation = synthetic.propagation(methods.crop_mae())
    config.labels.update(decode_at='input', resize_first='pillow_nearest')
    return config
