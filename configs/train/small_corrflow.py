"""CorrFlow on a folder of videos, for a modest machine: --config.data.root=FOLDER.

    jaxprop train --config=small_corrflow --config.data.root=VIDEOS --workdir=RUN

Affinities are divided by the square root of the 32 channels, also in evaluations while training.
Evaluate with the same temperature: --config.propagation.temperature=5.657. If the network has
learned something, 'accuracy' is above the share of the most frequent colour.
"""

from . import corrflow


def get_config():
    config = corrflow.get_config()
    config.name = 'small_corrflow'
    config.epochs = 10.0
    return shrink(config, color='rgb_unit', learning_rate=2e-4, batch_size=4)


def shrink(config, color, learning_rate, batch_size):
    """Gives CorrFlow or MAST half the channels, and frames of 96 x 96 pixels."""
    config.backbone.update(widths=(32, 64, 128, 128), projection=32)
    config.objective.update(size=96, temperature=32**0.5)
    config.schedule = {
        'name': 'cosine',
        'learning_rate': learning_rate,
        'epochs': config.get_oneway_ref('epochs'),
        'warmup': 0.5,
    }
    config.data.update(examples_per_video=16, size=(96, 96), batch_size=batch_size, num_threads=2)
    # Training hides colours, the same ones in all clips of a step, so that its running statistics
    # change from step to step. Evaluations show whole frames in all colours.
    config.statistics = {'frames': 48, 'size': (256, 448), 'color': color}
    config.log_every = 10
    config.checkpoint_every = 100
    return config
