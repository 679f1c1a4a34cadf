"""MAST on a folder of videos, for a modest machine: --config.data.root=FOLDER.

    jaxprop train --config=small_mast --config.data.root=VIDEOS --workdir=RUN

Affinities are divided by the square root of the 32 channels, also in evaluations while training.
Evaluate with the same temperature: --config.propagation.temperature=5.657. Gradients are clipped,
since the first ones are large.
"""

from . import mast, small_corrflow


def get_config():
    config = mast.get_config()
    config.name = 'small_mast'
    config.epochs = 10.0
    config.optimizer.clip_norm = 1.0
    return small_corrflow.shrink(config, color='lab', learning_rate=1e-3, batch_size=8)
