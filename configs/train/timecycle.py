"""TimeCycle on videos (Wang, Jabri, Efros, CVPR 2019), with the settings of the released model.

    jaxprop train --config=timecycle --config.data.root=VLOG --workdir=RUN

Published for VLOG, after 14 of the 30 epochs: J 41.9, F 39.4 on DAVIS at 320 x 320. Prepare VLOG as
the release does: as folders of frames at 12 a second, 256 pixels high. The offsets are in frames.

Three things differ from the release. It cuts patches of mirrored clips at the mirror image of the
place that moves, here they are cut at that place. It shortens clips of videos of fewer than 18
frames by another rule. It draws the crop of 240 pixels over the full width of a frame, here frames
are first cropped to 256 x 340 at a random place.

Others found that the loss does not always fall from random weights. With
--config.objective.detach_steps_epoch=1.0 no gradient flows into the features of clips and patches
in the first epoch, so that the head learns first.
"""

from . import base


def get_config():
    config = base.get_config()
    config.name = 'timecycle'
    config.epochs = 30.0
    config.backbone.update(
        depth=50, output='res3', strides=(1, 2, 1, 1), projection=512, projection_relu=True
    )
    config.objective = {
        'name': 'timecycle',
        'frame_size': 240,
        'patch_size': 80,
        'hidden': (128, 64),
        'head_kernel': 4,
        'temperature': 512**-0.5,
        'max_rotation': 45.0,
        'num_windows': 7,
        'num_salient': 10,
        'inlier_weight': 1.0,
        'skip_weight': 0.1,
        'cycle_weight': 0.02,
        'corner_aligned': True,
        'crop_offset': 1.0,  # Released: 1, or under Python 3 227 / 210, an error.
        'inlier_offset': 1.0,  # Released: 227 / 210, an error.
        'detach_steps_epoch': 0.0,
    }
    config.schedule.update(name='constant', learning_rate=2e-4)
    config.optimizer.update(name='adam', beta1=0.5, weight_decay=0.0, clip_norm=10.0)
    # Four frames of a clip, the frame of the patch, and one whose difference to that shows what
    # moves.
    config.data = base.clips(
        'offsets', num_frames=6, offsets=(0, 2, 4, 6, 15, 17), size=(256, 340), batch_size=36
    )
    config.evaluation.config = 'davis_timecycle'
    temperature = config.objective.get_oneway_ref('temperature')
    config.evaluation.propagation.temperature = temperature
    config.evaluation.input.update(resize='square', size=240)
    return config
