"""CRW on videos (Jabri, Owens, Efros, NeurIPS 2020), with the settings of the released model.

    jaxprop train --config=crw --config.data.root=KINETICS --workdir=RUN

Published for Kinetics: J 64.6, F 70.6 on DAVIS. Clips of video files have 8 frames a second, as in
the release. Folders of frames have no rate: a clip takes every third frame (`frame_gap`), as if
they were recorded at 24 a second.

Two things differ from the release. Its code normalises colours by CIFAR-10's mean in training and
by ImageNet's in its test, here both are by ImageNet's. Wide frames are first cropped to 256 x 340,
all frames of a clip at the same place; the release always takes the middle of a frame of 16:9,
since no crop of the wanted size fits.
"""

from . import base


def get_config():
    config = base.get_config()
    config.name = 'crw'
    config.epochs = 25.0
    config.backbone.update(output='res4', strides=(1, 2, 1, 1), padding='reflect')
    config.objective = {
        'name': 'crw',
        'size': 256,
        'patch_size': 64,
        'patch_stride': 32,
        'nodes': 'patches',  # Or 'cells': those of the features of whole crops.
        'frame_area': (0.8, 0.95),
        'frame_aspect': (0.7, 1.3),
        'patch_area': (0.7, 0.9),
        'patch_aspect': (3 / 4, 4 / 3),
        'head': 'linear',
        'hidden_layers': 0,
        'dimensions': 128,
        'temperature': 0.05,
        'edge_dropout': 0.1,
    }
    config.schedule.update(name='step', learning_rate=1e-4, boundaries=(20.0,), factor=0.3)
    config.optimizer.update(name='adam', weight_decay=0.0)
    config.data = base.clips(
        'clip',
        num_frames=4,
        frame_gap=3,
        frame_rate=8.0,
        examples_per_video=5,
        size=(256, 340),
        batch_size=20,
    )
    config.evaluation.network.output = 'res3'  # As in the released test, which drops res4.
    return config
