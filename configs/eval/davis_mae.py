"""DAVIS for networks of MAE, with the factors of RSP's released code (Jang et al., ICML 2024).

    jaxprop evaluate --config=davis_mae --config.network.name=FILE --config.dataset.root=DAVIS

MAE's release does not evaluate videos, and RSP's gives no number to compare with. For MAE's
ViT-B/16 others report from 37.9 (with DINO's code) to 57.5 (LatentMIM's repository, issue 4), with
different sizes and factors. The untrained network is a ViT-B/16.

RSP's code is DINO's, on a copy of DAVIS whose frames and masks were resized to 480 x 880 by
nearest. Its reader then floors their long side to a multiple of 64, so its network sees 480 x 832:
`--config.input.width=832`. Two things differ from the release: here frames are resized once,
bilinearly, and scores are of masks of the frame's own size.
"""

from jaxprop import methods

from . import davis_dino, synthetic


def get_config():
    config = davis_dino.get_config()
    config.name = 'davis_mae'
    config.title = "DAVIS, RSP's factors"
    config.network = synthetic.network(
        'untrained', architecture='vit', patch=16, width=768, depth=12, heads=12, offset=0.0
    )
    config.input.update(resize='fixed', height=480, width=880, multiple=1, floored='both')
    config.input.size = None
    config.propagation = synthetic.propagation(methods.rsp())
    return config
