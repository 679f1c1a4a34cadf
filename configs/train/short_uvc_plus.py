"""UVC+ with rotation on a folder of videos, for some minutes on one GPU: --config.data.root=FOLDER.

    jaxprop train --config=short_uvc_plus --config.data.root=VIDEOS --config.epochs=100 \\
        --config.objective.color_autoencoder=FOLDER --workdir=RUN

The warm-up stage at the released size of patches. The learning rate is that of `small_uvc_plus`:
the released one is for 100 times as many steps.
"""

from . import uvc_plus_rotation


def get_config():
    config = uvc_plus_rotation.get_config()
    config.name = 'short_uvc_plus'
    config.epochs = 100.0
    config.schedule.update(learning_rate=1e-3, epochs=config.get_oneway_ref('epochs'))
    # A second of DAVIS's videos has 24 frames, and little of what is in the first frame of a pair
    # is left after 50.
    config.data.update(
        examples_per_video=16, max_gap=10, size=(256, 448), batch_size=16, num_threads=4
    )
    config.image_data.update(examples_per_video=16, batch_size=16, num_threads=4)
    config.statistics = {'frames': 96, 'size': (256, 448), 'color': 'lightness'}
    config.log_every = 50
    config.checkpoint_every = 500
    return config
