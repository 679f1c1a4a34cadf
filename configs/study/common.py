"""Common parts of the study's tables and figures: methods with their factors, bases and cells.

McKee et al., "Transfer of Representations to Video Label Propagation: Implementation Factors
Matter", BMVC 2022. A cell is an evaluation: changes to the base, which is the config itself. A
setting that no cell changes can be changed for all cells on the command line.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxprop import methods
from jaxprop.checkpoints.native import DEFAULT_NETWORK

from ..eval import davis_imagenet, davis_uvc, jhmdb_crw, vip_crw

# The study chose its temperatures, k, n and localization on this split: Figure 4 and its tables.
DAVIS = 'davis/val'
VIP = 'vip/val'  # The study chose k and n of its own rows for VIP on this split: Figure 5.


class Method(NamedTuple):
    """A method of the study.

    Attributes:
      network: the name of its checkpoint in `networks`. 'rotation', 'moco' and 'imagenet' are the
        checkpoints before the fine-tuning of Table 3.
      inverse_temperatures: 1/T by aggregation, the best of Figure 4.
      changes: settings of how its features are compared, and attributes of the network that a
        checkpoint does not say.
    """

    network: str
    inverse_temperatures: dict[str, float]
    changes: dict[str, Any] = {}


# Attributes of the networks of published cells, unless a cell says otherwise. Files of weights do
# not say all of these, and may hold later stages. A file that does not fit is an error.
_NETWORK = {
    'network.depth': 18,
    'network.output': 'res3',
    'network.strides': (1, 2, 1, 1),
    'network.max_pool': True,
    'network.padding': 'zero',
}
# Networks that end in a convolution of their own, which is in their files. They have no
# `network.output`, since naming one would leave the convolution out.
_PROJECTED = {
    'timecycle': {'network.depth': 50, 'network.output': None},
    'corrflow': {
        'network.max_pool': False,
        'network.output': None,
        'network.layout': 'corrflow_resnet18',
    },
    'mast': {
        'network.max_pool': False,
        'network.output': None,
        'network.layout': 'mast_resnet18',
    },
}
_LIGHTNESS = {'propagation.normalize_features': False, 'input.color': 'lightness'}
METHODS = {
    'Rotation': Method('rotation_finetuned', {'per-frame': 40, 'overall': 1}),
    'MoCo': Method('moco_finetuned', {'per-frame': 50, 'overall': 1}),
    'ImageNet': Method('imagenet_finetuned', {'per-frame': 40, 'overall': 1}),
    # In Tables 4 and 5 and the figures this is the study's own UVC, which ends in res3; elsewhere
    # it is the released one, which ends in res4.
    'UVC': Method('uvc', {'per-frame': 1, 'overall': 1}, _LIGHTNESS),
    'CRW': Method('crw', {'per-frame': 50, 'overall': 20}, {'network.padding': 'reflect'}),
    'UVC+': Method('uvc_plus', {'per-frame': 1, 'overall': 1}, _LIGHTNESS),
}
FIGURE_METHODS = ('ImageNet', 'Rotation', 'MoCo', 'UVC', 'CRW')

AGGREGATIONS = {
    'per-frame': {
        'propagation.aggregation': 'per_frame',
        'propagation.softmax': 'frame',
        'propagation.padding': 'mask',
    },
    'overall': {
        'propagation.aggregation': 'overall',
        'propagation.softmax': 'neighbors',
        'propagation.padding': 'repeat_first',
    },
}
# None of these sets the radius: it is the base's.
LOCALIZATIONS = {
    'none': {'propagation.restriction': 'none'},
    'fixed region': {'propagation.restriction': 'radius'},
    'track': {
        'propagation.restriction': 'track',
        'propagation.restrict_first': True,
        'propagation.as_released': methods.settings(methods.uvc_tracked())['as_released'],
    },
}
DAVIS_MEASURES = (
    ('J&F-Mean', 'J&F'),
    ('J-Mean', 'JM'),
    ('J-Recall', 'JO'),
    ('F-Mean', 'FM'),
    ('F-Recall', 'FO'),
)


def davis(name: str, title: str) -> ConfigDict:
    """Makes the base of Tables 1 to 4: DAVIS at 480 pixels, per frame, k = 5, n = 7, no region."""
    config = davis_imagenet.per_frame(davis_imagenet.get_config(), inverse_temperature=40)
    return _base(config, name, title)


def vip(name: str, title: str) -> ConfigDict:
    """Makes the base for VIP: 560x560, overall, T = 1, k = 10, n = 1, no region, UVC's labels."""
    config = vip_crw.get_config()
    config.propagation.update(temperature=1.0, num_context=1, restriction='none')
    config.input.precision = 'uint8'  # UVC resizes VIP's frames so.
    config.labels = davis_uvc.get_config().labels
    return _base(config, name, title)


def jhmdb(name: str, title: str) -> ConfigDict:
    """Makes the base for JHMDB: 320x320, overall, T = 1, k = 10, n = 7, no region."""
    config = jhmdb_crw.get_config()
    config.propagation.update(temperature=1.0, restriction='none')
    return _base(config, name, title)


def factors(method: str, aggregation: str) -> dict[str, Any]:
    """Makes a method's changes: the aggregation, its best temperature, how features compare."""
    known = METHODS[method]
    temperature = 1 / known.inverse_temperatures[aggregation]
    return {**AGGREGATIONS[aggregation], 'propagation.temperature': temperature, **known.changes}


def released(
    config: ConfigDict,
    sections: tuple[str, ...] = ('network', 'input', 'propagation', 'labels'),
) -> dict[str, Any]:
    """Makes the changes that turn these sections into those of a config in configs/eval.

    Two things stay as in the base. Sizes of frames change only to squares: DAVIS's native size at
    480p has a short side of 480, too. The radius changes only with a square or a predicted window.
    """
    left_out = {'network.name', 'network.seed', 'network.untrained', 'input.upsample'}
    left_out |= {f'propagation.{name}' for name in methods.EXECUTION}
    if config.input.resize != 'square':
        left_out |= {'input.resize', 'input.size'}
    if config.propagation.restriction not in ('square', 'predicted'):
        left_out.add('propagation.radius')
    changes = {
        f'{section}.{name}': value
        for section in sections
        for name, value in config[section].items()
        # Skip attributes that the config leaves to the network's card.
        if not (section == 'network' and value is None)
    }
    if 'network' in sections:
        # A config has the attributes of the released network as those of the untrained one.
        attributes = config.network.untrained.to_dict()
        if 'projection' in attributes:
            attributes['output'] = None  # It follows the output that the file's network has.
        untrained = {f'network.{name}': value for name, value in attributes.items()}
        changes = {**untrained, **changes}
    return {name: value for name, value in changes.items() if name not in left_out}


def cell(
    labels: dict[str, Any],
    network: str,
    changes: dict[str, Any],
    published: dict[str, float | None],
    chosen_on: str = '',
    factors: str = '',
) -> dict[str, Any]:
    """Makes a cell of a published method.

    `factors` is the method whose settings a user's own network takes in this cell.
    """
    published = {key: value for key, value in published.items() if value is not None}
    own = _PROJECTED.get(network, {})
    return {
        'labels': labels,
        'network': network,
        'changes': changes if 'network' in changes else {**_NETWORK, **own, **changes},
        'published': published,
        'chosen_on': chosen_on,
        'factors': factors,
    }


def templates(cells: list[dict[str, Any]], **labels: str) -> list[dict[str, Any]]:
    """Makes the cells of users' own networks: the cells with `factors`, each once.

    `labels` replace those of the cells. Changes of `network.*` and `input.color` are dropped: a
    user's network brings its own.
    """
    found = []
    for one in cells:
        template = {
            'labels': {
                name: text for name, text in {**one['labels'], **labels}.items() if name != 'method'
            },
            'factors': one['factors'],
            'changes': {
                name: value
                for name, value in one['changes'].items()
                if name.split('.')[0] != 'network' and name != 'input.color'
            },
            'chosen_on': one['chosen_on'],
        }
        if one['factors'] and template not in found:
            found.append(template)
    return found


def add_study(
    config: ConfigDict,
    cells: list[dict[str, Any]],
    own_cells: list[dict[str, Any]],
    own_factors: str = 'CRW',
    **study: Any,
) -> ConfigDict:
    """Puts a study into the config of its base."""
    config.networks = {one['network']: '' for one in cells}
    config.own = (DEFAULT_NETWORK,)
    config.own_factors = own_factors
    # A setting that all cells leave at the base's value stays open to the command line.
    varied = {
        name
        for one in cells
        for name, value in one['changes'].items()
        if value != _get(config, name)
    }
    if 'input.resize' in varied:
        varied.add('input.size')  # The way of resizing has no meaning without the size.

    def finished(one, left_out=()):
        changes = {name: value for name, value in one['changes'].items() if name in varied}
        return {
            **{key: value for key, value in one.items() if key not in left_out},
            'changes': changes,
        }

    config.study = {
        'kind': 'table',
        'pivot': '',
        'curves': (),
        'panels': (),
        **study,
        'cells': tuple(finished(one, ('factors',)) for one in cells),
        'own_cells': tuple(map(finished, own_cells)),
    }
    return config


def _base(config, name, title):
    config.name, config.title = name, title
    # A user's own network has the attributes in its card. Published cells set those of theirs.
    config.network.update(dict.fromkeys(('depth', 'output', 'strides', 'max_pool', 'padding')))
    config.network.untrained = ConfigDict()
    return config


def _get(config, name):
    for part in name.split('.'):
        config = config[part]
    return config
