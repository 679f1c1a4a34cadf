"""UVC on Kinetics (root/CLASS/VIDEO.mp4; Li et al., NeurIPS 2019), a run for each stage.

    jaxprop train --config=uvc --workdir=RUN ...
    jaxprop train --config=uvc:joint --config.start_from=RUN ...

Both need --config.objective.color_autoencoder=PATH: the folder of a run of `color_autoencoder`, or
a folder with the two released files, the encoder's and the decoder's.
"""

from ml_collections.config_dict import placeholder

from jaxprop.config_files import closest

from . import base

# The study trains 50 epochs in all; the released network 10 and 20.
EPOCHS = {'warm_up': 10.0, 'joint': 40.0}


def get_config(stage='warm_up'):
    if stage not in EPOCHS:
        raise ValueError(
            f'there is no stage {stage!r}; {closest(stage, EPOCHS)} (stages: {", ".join(EPOCHS)})'
        )
    config = base.get_config()
    config.name = 'uvc' if stage == 'warm_up' else f'uvc_{stage}'
    config.epochs = EPOCHS[stage]
    config.seed = 0 if stage == 'warm_up' else 1  # The stages see the data in different orders.
    config.backbone.update(output='res3', strides=(1, 2, 1, 1))  # Released: res4.
    config.objective = {
        'name': 'uvc',
        'stage': stage,
        'color_autoencoder': '',
        'patch_size': 256,
        'frame_size': 640,
        'max_rotation': 10.0,
        'max_scale': 1.2,
        'min_scale': placeholder(float),  # None: 1 / max_scale.
        'box': 'size',
        'temperature': 1.0,
        'cycle_weight': 0.1,
        'coordinate_weight': 0.0,  # As released; the paper has 0.1 in the joint stage.
        'concentration_weight': 1.2,  # Released: 0.3, summed over 4 devices.
        'concentration_window': 8,
        'outlier_threshold': 2.5,
        # Concentration counts after the first epoch of 'warm_up', and in all of 'joint'. Outliers
        # are left out after the first epoch of 'warm_up', and after the first two of 'joint'.
        'concentration_start_epoch': 1.0 if stage == 'warm_up' else 0.0,
        'outlier_start_epoch': 1.0 if stage == 'warm_up' else 2.0,
    }
    # As released, the learning rate starts anew in each stage, and falls as if the stage had the
    # epochs of both. In the release Adam's moments go on in the second stage, here they start at 0.
    config.schedule.update(name='poly', learning_rate=1e-4, power=0.9, epochs=sum(EPOCHS.values()))
    config.optimizer.update(name='adam', weight_decay=0.0)
    config.data = base.videos()
    config.data.update(
        batch_size=40, max_gap=50, size=(256, 456) if stage == 'warm_up' else (360, 640)
    )
    return config
