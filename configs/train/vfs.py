"""VFS with ResNet18 on videos (Xu and Wang, ICCV 2021), with the settings of the released model.

    jaxprop train --config=vfs --config.data.root=KINETICS --workdir=RUN

Published for Kinetics: J&F 66.7 on DAVIS, for a network that was trained without jittered colours,
as here. Wide frames are first cropped to 256 x 340, which the release does not do. Videos of fewer
than 8 frames are left out, where the release repeats frames.

For ResNet50 (J&F 69.5) a batch has two frames of 256 videos, and there are 500 passes:
--config.backbone.depth=50 --config.objective.hidden=2048 --config.objective.dimensions=2048
--config.objective.bottleneck=512 --config.data.num_frames=2 --config.data.batch_size=256
--config.data.examples_per_video=5.

Evaluate the network at stride 8: --config.network.strides="(1,2,1,1)" --config.network.output=res3.
"""

from . import base


def get_config():
    config = base.get_config()
    config.name = 'vfs'
    config.epochs = 100.0  # An epoch takes two examples of each video.
    config.backbone.update(output='res4', strides=(1, 2, 2, 2), zero_init_residual=True)
    config.objective = {
        'name': 'vfs',
        'size': 224,
        'min_area': 0.2,
        'jitter': (0.0, 0.0, 0.0, 0.0),
        'jitter_probability': 0.8,
        'grayscale': 0.0,
        'hidden': 512,
        'dimensions': 512,
        'bottleneck': 128,
        'all_pairs': True,
    }
    epochs = config.get_oneway_ref('epochs')  # The rate reaches 0 at the end of the run.
    config.schedule.update(name='cosine', learning_rate=0.05, epochs=epochs)
    config.optimizer.update(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    config.data = base.clips(
        'segments', num_frames=8, examples_per_video=2, size=(256, 340), batch_size=64
    )
    config.evaluation.config = 'davis_vfs'
    config.evaluation.network.update(output='res3', strides=(1, 2, 1, 1))
    return config
