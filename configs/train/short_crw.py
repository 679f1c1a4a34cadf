"""CRW on a folder of videos, for some minutes on one GPU: --config.data.root=FOLDER.

    jaxprop train --config=short_crw --config.data.root=VIDEOS --config.epochs=50 --workdir=RUN

Frames, patches and batches have the released sizes; the network ends in res3, as in the test. The
learning rate is that of `small_crw`: the released one is for 100 times as many steps.
"""

from . import crw


def get_config():
    config = crw.get_config()
    config.name = 'short_crw'
    config.backbone.output = 'res3'
    return shorten(config)


def shorten(config):
    config.epochs = 50.0
    config.objective.temperature = 0.07  # The paper's; the released code has 0.05.
    epochs = config.get_oneway_ref('epochs')
    config.schedule = {'name': 'cosine', 'learning_rate': 1e-3, 'epochs': epochs, 'warmup': 2.0}
    config.data.update(examples_per_video=16, size=(256, 448), num_threads=4)
    config.statistics = {'frames': 96, 'size': (256, 448), 'color': 'rgb'}
    config.log_every = 50
    config.checkpoint_every = 500
    return config
