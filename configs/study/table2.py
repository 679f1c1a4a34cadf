"""Table 2: the layer from which features are taken. DAVIS 2017 val, per frame, k = 5, n = 7.

The first row is reported by TimeCycle and has TimeCycle's factors. The others have the factors of
ImageNet. Users' own networks must be ResNets, and are evaluated at res2 and res3.
"""

from ..eval import davis_timecycle
from . import common

# Network, layer, resolution, JM, JO, FM, FO.
ROWS = (
    ('DeepCluster VGG16, reported by TimeCycle', 'conv13', '320x320', 37.5, None, 33.2, None),
    ('DeepCluster VGG16', 'conv13', '320x320', 38.8, 34.2, 34.6, 21.8),
    ('DeepCluster VGG16', 'conv10', '320x320', 46.6, 49.0, 45.7, 46.3),
    ('DeepCluster VGG16', 'conv10', '480xfull', 48.2, 49.2, 53.2, 53.8),
    ('ImageNet ResNet18', 'res2', '480xfull', 37.8, 35.8, 45.2, 42.6),
    ('ImageNet ResNet18', 'res3', '480xfull', 51.3, 56.7, 56.6, 59.6),
    ('ImageNet ResNet18', 'res4', '480xfull', 42.2, 41.2, 44.6, 43.6),
)
RESOLUTIONS = {
    '320x320': {'input.resize': 'square', 'input.size': 320, 'input.multiple': 1},
    '480xfull': {},  # The base's.
}


def get_config():
    config = common.davis('table2', 'Table 2: feature layer (DAVIS)')
    measures = common.DAVIS_MEASURES[1:]
    factors = common.factors('ImageNet', 'per-frame')
    timecycle = common.released(davis_timecycle.get_config(), ('input', 'propagation', 'labels'))
    cells = []
    for method, layer, resolution, *numbers in ROWS:
        reported = 'reported' in method
        if 'VGG16' in method:
            # Without the fourth max pool conv13 has stride 8, like the other layers.
            network, changes = (
                'deepcluster',
                {
                    'network': {
                        'name': '',
                        'architecture': 'vgg16',
                        'output': layer,
                        'sobel': True,
                        'pool4': False,
                        'seed': 0,
                    }
                },
            )
        else:
            network, changes = 'imagenet', {'network.output': layer}
        cells.append(
            common.cell(
                {'method': method, 'layer': layer, 'resolution': resolution},
                network,
                {**(timecycle if reported else {**factors, **RESOLUTIONS[resolution]}), **changes},
                dict(zip(dict(measures), numbers)),
                '' if reported else common.DAVIS,
            )
        )
    own_cells = [
        {
            'labels': {'layer': layer, 'resolution': 'full'},
            'factors': 'ImageNet',
            'changes': {**factors, 'network.output': layer},
            'chosen_on': common.DAVIS,
        }
        for layer in ('res2', 'res3')
    ]
    return common.add_study(
        config,
        cells,
        own_cells,
        'ImageNet',
        measures=measures,
        columns=('method', 'layer', 'resolution'),
    )
