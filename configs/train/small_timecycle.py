"""TimeCycle on a folder of videos, for a modest machine: --config.data.root=FOLDER.

    jaxprop train --config=small_timecycle --config.data.root=VIDEOS --workdir=RUN

In the first epoch no gradient flows into the features of clips and patches, so that the head learns
first. If nothing is learned, 'inlier' stays near -0.0031, the value of chance, and 'cycle_1' above
0.3. The temperature is 1 divided by the square root of the 128 channels. Evaluate with the same:
--config.propagation.temperature=0.0884.
"""

from . import timecycle


def get_config():
    config = timecycle.get_config()
    config.name = 'small_timecycle'
    config.epochs = 10.0
    config.backbone.update(depth=18, projection=128)
    config.objective.update(
        frame_size=144,
        patch_size=48,
        hidden=(64, 32),
        head_kernel=3,
        temperature=128**-0.5,
        detach_steps_epoch=1.0,
    )
    config.data.update(examples_per_video=16, size=(160, 280), batch_size=4, num_threads=2)
    config.log_every = 10
    config.checkpoint_every = 100
    return config
