"""Rotation on a folder of videos, for a modest machine: --config.data.root=FOLDER."""

from . import base, rotation


def get_config():
    config = rotation.get_config()
    config.name = 'small_rotation'
    config.epochs = 10.0
    config.backbone.update(output='res3', strides=(1, 2, 1, 1))
    config.objective.update(size=96)
    epochs = config.get_oneway_ref('epochs')
    config.schedule.update(name='cosine', epochs=epochs, learning_rate=0.03, warmup=1.0)
    config.data = base.videos()
    config.data.update(
        num_frames=1, examples_per_video=32, size=(112, 112), batch_size=16, num_threads=2
    )
    config.log_every = 10
    config.checkpoint_every = 100
    return config
