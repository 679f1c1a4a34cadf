"""CRW on a folder of videos, for a modest machine: --config.data.root=FOLDER.

    jaxprop train --config=small_crw --config.data.root=VIDEOS --workdir=RUN

A frame has 25 nodes of 48 x 48 pixels, and the network ends in res3. As long as the network has
learned nothing, the loss is log 25 = 3.22 and the accuracy 4 %.
"""

from . import crw


def get_config():
    config = crw.get_config()
    config.name = 'small_crw'
    return shrink(config)


def shrink(config):
    config.epochs = 8.0
    config.backbone.update(output='res3', padding='zero')  # Reflection costs time on a CPU.
    # Crops cover a smaller part of a frame, so that patches of 48 pixels in 160 show as much detail
    # as those of 64 in 256.
    config.objective.update(
        size=160, patch_size=48, patch_stride=28, frame_area=(0.3, 0.6), temperature=0.07
    )
    epochs = config.get_oneway_ref('epochs')
    config.schedule = {'name': 'cosine', 'learning_rate': 1e-3, 'epochs': epochs, 'warmup': 0.5}
    config.data.update(examples_per_video=16, size=(256, 448), batch_size=4, num_threads=2)
    config.statistics = {'frames': 48, 'size': (256, 448), 'color': 'rgb'}
    config.log_every = 10
    config.checkpoint_every = 100
    return config
