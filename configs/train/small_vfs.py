"""VFS on a folder of videos, for a modest machine: --config.data.root=FOLDER.

    jaxprop train --config=small_vfs --config.data.root=VIDEOS --workdir=RUN

The network ends in res3: with res4, whose cells are few, a step on a CPU takes many times as long.
Watch 'spread' beside the loss: near 1 the vectors of frames differ, at 0 all are the same.

Evaluate the network at stride 8: --config.network.strides="(1,2,1,1)". At 16, the stride of
training, its J&F is lower by 20 (docs/TRAINING.md).
"""

from . import vfs


def get_config():
    config = vfs.get_config()
    config.name = 'small_vfs'
    config.epochs = 6.0  # J&F stops rising after 2 of them, see docs/TRAINING.md.
    config.backbone.output = 'res3'
    config.objective.update(size=96)
    config.schedule.learning_rate = 0.01
    config.data.update(examples_per_video=32, size=(128, 224), batch_size=8, num_threads=2)
    config.log_every = 10
    config.checkpoint_every = 100
    return config
