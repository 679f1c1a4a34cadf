"""DAVIS for the networks of DINOv2 (Oquab et al., TMLR 2024), with DINO's factors.

    jaxprop evaluate --config=davis_dinov2 --config.network.name=FILE --config.dataset.root=DAVIS

The release does not say how its networks are evaluated on videos, so there is no number to compare
with. The factors are those of `davis_dino`, except that both sides are floored to multiples of 14,
the side of a patch: the network sees frames of 480 x 854 at 476 x 854. Files tell whether a network
has registers, and how its position embeddings are interpolated. The untrained network is a ViT-S/14
without registers.
"""

from . import davis_dino, synthetic


def get_config():
    config = davis_dino.get_config()
    config.name = 'davis_dinov2'
    config.title = "DAVIS, DINOv2's networks with DINO's factors"
    config.network = synthetic.network(
        'untrained',
        architecture='vit',
        patch=14,
        width=384,
        depth=12,
        heads=6,
        grid=37,
        layer_scale=1.0,
    )
    config.input.update(multiple=14, floored='both')
    return config
