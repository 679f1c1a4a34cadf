r"""CorrFlow on videos (Lai and Xie, BMVC 2019), with the settings of the released model.

    jaxprop train --config=corrflow --config.data.root=OXUVA \
        --config.data.examples_per_video=250 --workdir=RUN

Published for OxUvA: J 48.4, F 52.2 on DAVIS. The learning rate is halved after 400,000, 600,000,
800,000 and a million clips.

Three things differ from the release. It begins a clip at every twelfth frame of a video, which is
about 250 clips of a video of OxUvA and 25 of one of Kinetics (the number here); here the first
frames are drawn at random. It jitters colours in a random order, here the order is fixed.
It truncates jittered pixels to 8 bits, here they are rounded.
"""

from ml_collections.config_dict import placeholder

from . import base


def get_config():
    config = base.get_config()
    config.name = 'corrflow'
    config.epochs = 10.0
    network(config)
    config.objective = {
        'name': 'corrflow',
        'size': 256,
        'reach': 6,
        'temperature': 1.0,
        'palette': placeholder(tuple),  # None: the released 16 colours.
        'keep_all': 0.3,
        'jitter': 0.1,
        'jitter_probability': 0.1,
        'long_weight': 0.1,
        'truth': (0.9, 0.6),
        'truth_steps_epoch': config.get_oneway_ref('epochs'),  # The whole run.
        'average_class_numbers': False,  # Released: True, an error.
    }
    halved(config, learning_rate=2e-4)
    config.data = base.clips(
        'clip',
        num_frames=3,
        frame_gap=4,
        examples_per_video=25,
        fit='stretch',
        size=(256, 256),
        batch_size=6,
    )
    config.evaluation.config = 'davis_corrflow'
    temperature = config.objective.get_oneway_ref('temperature')
    config.evaluation.propagation.temperature = temperature
    return config


def network(config):
    """Sets the network of CorrFlow and MAST: cells of 4 x 4 pixels, 64 channels without a norm."""
    config.backbone.update(
        output='res4',
        strides=(1, 2, 1, 1),
        max_pool=False,
        widths=(64, 128, 256, 256),
        projection=64,
        projection_kernel=3,
        projection_bias=True,
    )


def halved(config, learning_rate):
    """Sets Adam and a learning rate that is halved after as many clips as in CorrFlow and MAST."""
    config.schedule.update(
        name='step',
        learning_rate=learning_rate,
        boundary_examples=(400_000, 600_000, 800_000, 1_000_000),
        factor=0.5,
    )
    config.optimizer.update(name='adam', weight_decay=0.0)
