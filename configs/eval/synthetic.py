"""The default, which needs no files: rendered videos with exact ground truth, CRW's factors."""

import dataclasses

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from jaxprop import Execution, methods
from jaxprop.checkpoints.native import DEFAULT_NETWORK
from jaxprop.models.network import known_attributes


def get_config():
    return ConfigDict(
        {
            'name': 'synthetic',
            'title': 'Rendered videos',
            'dataset': {'kind': 'synthetic', 'num_sequences': 6, 'num_frames': 24, 'seed': 0},
            'skip_bad': False,  # True: list a sequence that can't be read, and go on.
            'network': network(),
            'input': {
                'resize': 'native',
                'size': placeholder(int),
                'height': placeholder(int),  # With resize='fixed'.
                'width': placeholder(int),
                'multiple': 1,
                'floored': 'both',
                'rounding': 'floor',
                'upsample': 1.0,
                'precision': 'uint8',  # Of the resize; frames of native size are not resized.
                'interpolation': 'linear',
                'color': placeholder(str),  # None: the colours that the network was trained to see.
            },
            'propagation': propagation(methods.crw()),
            'labels': {
                'encode': 'bilinear',
                'min_max': False,
                'decode_at': 'frame',
                'resize_first': placeholder(str),
                'smallest': 0,  # An object of fewer pixels in the first mask is background.
                'first_frame': 'given',  # Or 'decoded', as CRW writes it.
                'refine': 'none',  # Or 'guided': edges follow the frame's colours.
                'refine_radius': 1.5,  # In cells, with refine='guided'.
                'refine_eps': 1e-5,  # Likewise.
            },
            'feature_batch': placeholder(int),  # None: 2 frames for a network, else 4.
            'batch': {'videos_per_device': 1},
            'report_frames': 40,
        }
    )


def network(name=DEFAULT_NETWORK, **untrained):
    """Makes the settings of the network whose features are evaluated.

    Every attribute of the networks of `jaxprop.models` is a setting, such as 'output' or 'strides'.
    None takes the value in the network's file. For an untrained network None takes the value of
    `untrained`, or else the default.

    Args:
      name: as `jaxprop.evaluation.networks.load_network` takes it.
      **untrained: attributes of an untrained network, and its 'architecture'.
    """
    section = {
        'name': name,
        'architecture': placeholder(str),  # Of an untrained network: 'resnet', 'vgg16', ...
        'seed': 0,  # Of an untrained network's weights.
        'untrained': untrained,
        'layout': placeholder(str),  # Of a published file, if its arrays' names fit several.
        'prefix': placeholder(str),  # Of a published file with several networks: 'encoder_k.'.
    }
    for attribute, kind in known_attributes().items():
        section[attribute] = placeholder(kind)
    return ConfigDict(section)


def propagation(method):
    """Makes the settings of a method, by the flat names of `jaxprop.methods.from_settings`.

    `num_neighbors` may be set to a number or to None. `implementation`, `precision` and
    `query_chunk` say how the same result is computed. The parameters of your own regions and rules
    are settings, too; None takes their defaults.
    """
    section = {**methods.settings(method), **dataclasses.asdict(Execution())}
    section['num_neighbors'] = FieldReference(section['num_neighbors'], field_type=object)
    for name in methods.own_names():
        section[name] = FieldReference(section.get(name), field_type=object)
    return ConfigDict(section)
