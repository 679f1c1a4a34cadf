"""The embedded default: rendered videos with exact ground truth, CRW's factors."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    return ConfigDict(
        {
            'name': 'synthetic',
            'title': 'Rendered videos',
            'dataset': {'kind': 'synthetic', 'num_sequences': 6, 'num_frames': 24, 'seed': 0},
            'skip_bad': False,  # List a sequence that can't be read, and go on.
            # What is not set here is as the network's card says; if it is untrained, by default.
            'network': {
                'name': 'uvc_plus_davis',  # Shipped, the path of a saved one, or 'untrained'.
                'architecture': placeholder(str),  # Of an untrained network: 'resnet', 'vgg16', ...
                'depth': placeholder(int),
                'output': placeholder(str),
                'strides': placeholder(tuple),
                'max_pool': placeholder(bool),
                'padding': placeholder(str),
                'seed': 0,  # Of an untrained network's weights.
            },
            'input': {
                'resize': 'native',
                'size': placeholder(int),
                'multiple': 1,
                'floored': 'both',
                'upsample': 1.0,
                'color': placeholder(str),  # What the network was trained to see.
            },
            'propagation': {
                'aggregation': 'overall',
                'temperature': 0.05,
                'num_neighbors': 10,
                'num_context': 20,
                'keep_first': True,
                'padding': 'repeat_first',
                'restriction': 'radius',
                'radius': 12.0,
                'restrict_first': False,
                'softmax': 'neighbors',
                'normalize_features': True,
                'feedback': 'soft',
            },
            'labels': {'encode': 'bilinear', 'min_max': False, 'decode_at': 'frame'},
            'feature_batch': 4,
            'batch': {'videos_per_device': 1},
            'report_frames': 40,
        }
    )
