"""DAVIS with the factors of TimeCycle's released code (Wang et al., CVPR 2019), on ResNet50's res3.

The released network ends in a 1x1 convolution to 512 channels, by whose root it scales affinities.
"""

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'davis_timecycle'
    config.title = "DAVIS, TimeCycle's factors"
    config.network.update(name='untrained', depth=50)
    config.input.update(resize='square', size=320)
    config.propagation.update(
        aggregation='per_frame',
        softmax='frame',
        temperature=512**-0.5,
        num_neighbors=5,
        num_context=7,
        restriction='none',
        feedback='min_max',
    )
    config.labels.update(decode_at='input')
    return config
