"""DAVIS with the factors of the tracking notebook of DINOv3's release (Simeoni et al., 2025).

    jaxprop evaluate --config=davis_dinov3 --config.network.name=FILE --config.dataset.root=DAVIS

Published (its model card): J&F 72.7 with ViT-S/16, 75.5 with S+, 77.2 with B, 79.9 with L, 79.3
with H+ and 79.7 with 7B. The card does not say with which sizes and factors. Those here are of the
notebook, which is for videos of one's own. The network sees frames of 480 x 854 at 960 x 1712, a
grid of 60 x 107 cells. The untrained network is a ViT-S/16.

Two things differ from the notebook. It enlarges labels by nearest, here they are enlarged
bilinearly. It also keeps neighbours that tie with the fifth one.
"""

from jaxprop import methods

from . import davis_crw, synthetic


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_dinov3'
    config.title = "DAVIS, the factors of DINOv3's notebook"
    config.network = synthetic.network(
        'untrained',
        architecture='vit',
        patch=16,
        width=384,
        depth=12,
        heads=6,
        registers=4,
        position='rotary',
        layer_scale=1.0,
        biases='qv',
        epsilon=1e-5,
    )
    config.input.update(
        resize='short_side', size=960, multiple=16, rounding='ceil', interpolation='bicubic'
    )
    config.propagation = synthetic.propagation(methods.dinov3())
    config.labels.update(encode='nearest', min_max=True)
    config.feature_batch = 1  # A frame has 6424 tokens.
    return config
