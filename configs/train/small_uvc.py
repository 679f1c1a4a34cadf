"""UVC on a folder of videos, for a modest machine: --config.data.root=FOLDER.

It is run in two stages, and needs a colour autoencoder, as `uvc` does. The learning rate falls to 0
over the epochs of each stage; in `uvc` each stage falls as if it had the epochs of both.
"""

from . import uvc


def get_config(stage='warm_up'):
    config = uvc.get_config(stage)
    config.name = config.name.replace('uvc', 'small_uvc')
    return shrink(config)


def shrink(config):
    config.epochs = 10.0
    config.objective.update(patch_size=128, frame_size=224)
    config.schedule.update(learning_rate=1e-3, epochs=config.get_oneway_ref('epochs'))
    config.data.update(
        examples_per_video=16, max_gap=10, size=(160, 280), batch_size=4, num_threads=2
    )
    config.statistics = {'frames': 48, 'size': (256, 448), 'color': 'lightness'}
    config.log_every = 10
    config.checkpoint_every = 100
    return config
