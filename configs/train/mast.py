"""MAST on videos (Lai, Lu, Xie, CVPR 2020): the first stage, with pairs; only this is released.

    jaxprop train --config=mast --config.data.root=YOUTUBE_VOS --workdir=RUN

Published, after a second stage with several reference frames: J 63.3, F 67.6 on DAVIS. Affinities
are divided by the temperature 8, the square root of the 64 channels. With the release's temperature
1 training is known not to converge with software of today. Evaluate with the same temperature:
--config.propagation.temperature=8.0. Gaps are in frames, for videos of 30 frames a second. The
release draws the gap once for a video and epoch; here it is drawn for each pair.
"""

from . import base, corrflow


def get_config():
    config = base.get_config()
    config.name = 'mast'
    config.epochs = 20.0
    corrflow.network(config)
    config.objective = {
        'name': 'mast',
        'size': 256,
        'reach': 6,
        'temperature': 8.0,
        'scale': 20.0,
        'zero_outside': True,  # As in propagation with davis_mast.
    }
    corrflow.halved(config, learning_rate=1e-3)
    config.data = base.clips(
        'drawn_gap',
        num_frames=2,
        gaps=(2, 5, 8),
        gap_odds=(0.4, 0.4, 0.2),
        examples_per_video=16,
        fit='stretch',
        size=(256, 256),
        batch_size=12,
    )
    config.evaluation.config = 'davis_mast'
    temperature = config.objective.get_oneway_ref('temperature')
    config.evaluation.propagation.temperature = temperature
    config.evaluation.input.color = 'lab'
    return config
