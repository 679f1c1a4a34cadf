"""Methods of published systems, and methods from the flat settings of configs and command lines.

Each function returns the `Propagation` of one system, with the settings of its released evaluation
on DAVIS. `dataclasses.replace` changes any of them. `from_settings` is the one place where strings
become objects.
"""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

from jaxprop import rules
from jaxprop.memory import Memory
from jaxprop.names import nearest
from jaxprop.propagation import Propagation
from jaxprop.rules.neighbors import Attention, TopK
from jaxprop.rules.predicted import PredictedWindow
from jaxprop.rules.regions import Disk, Everywhere, Square
from jaxprop.rules.rule import Execution, Rule
from jaxprop.rules.tracked import TrackedBoxes


def crw(
    *, k: int = 10, num_frames: int = 20, radius: float = 12.0, temperature: float = 0.05
) -> Propagation:
    """CRW: labels from the k nearest cells of all context frames, within a circle.

    Frame 0 is always context and without the circle. While the video starts, copies of frame 0
    stand for frames that are not there yet.

    Source: Jabri, Owens, Efros, "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS
    2020, as released.

    Args:
      k: how many context cells a target cell takes its label from.
      num_frames: n, how many of the latest frames are context beside frame 0.
      radius: of the circle around the target cell, in feature cells.
      temperature: T of the softmax over the neighbours.

    >>> from jaxprop import methods
    >>> methods.crw(k=5).rule.k
    5
    """
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='repeat_first'),
        rule=TopK(k=k, temperature=temperature, region=Disk(radius)),
    )


def vfs(
    *, k: int = 10, num_frames: int = 20, radius: float = 12.0, temperature: float = 0.07
) -> Propagation:
    """VFS: as `crw`, but the circle binds frame 0 too, and frame 0 stands twice at the start.

    Source: Xu and Wang, "Rethinking Self-supervised Correspondence Learning: A Video Frame-level
    Similarity Perspective", ICCV 2021, as released.
    Arguments as in `crw`.
    """
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='first_once'),
        rule=TopK(k=k, temperature=temperature, region=Disk(radius, bind_first=True)),
    )


def dino(
    *, k: int = 5, num_frames: int = 7, reach: int = 12, temperature: float = 0.1
) -> Propagation:
    """DINO: labels from the k nearest cells within a square of `reach` cells to each side.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
    as released; there ties with the k-th neighbour are kept as well.
    Arguments as in `crw`; `reach` is the largest distance in rows and in columns, in cells.
    """
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='mask'),
        rule=TopK(k=k, temperature=temperature, region=Square(reach + 1.0, bind_first=True)),
    )


def dinov3(
    *, k: int = 5, num_frames: int = 7, reach: int = 12, temperature: float = 0.2
) -> Propagation:
    """DINOv3: as `dino`, within a circle of `reach` cells, at twice the temperature.

    Source: Simeoni et al., "DINOv3", 2025: the notebook on tracking segmentations of its release.
    As there, and in DINO, features have unit length, frame 0 is restricted too, the context grows
    while the video starts, and the softmax is over the neighbours; ties with the k-th of them are
    kept as well there. The release does not say which factors the numbers of its tables have.
    Arguments as in `dino`.
    """
    # Squares of distances between cells are whole numbers. So the region `< radius` holds exactly
    # the cells of distance `<= reach`.
    region = Disk(math.sqrt(reach**2 + 0.5), bind_first=True)
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='mask'),
        rule=TopK(k=k, temperature=temperature, region=region),
    )


def rsp(
    *, k: int = 7, num_frames: int = 30, reach: int = 30, temperature: float = 0.1
) -> Propagation:
    """RSP: as `dino`, with more neighbours, more context frames and a larger square.

    Source: Jang et al., "Visual Representation Learning with Stochastic Frame Prediction", ICML
    2024, as released.
    Arguments as in `dino`.
    """
    return dino(k=k, num_frames=num_frames, reach=reach, temperature=temperature)


def crop_mae(
    *, k: int = 7, num_frames: int = 20, radius: float = 20.0, temperature: float = 0.7
) -> Propagation:
    """CropMAE and SiamMAE: as `crw`, with a larger circle and a higher temperature.

    Source: Eymael et al., "Efficient Image Pre-Training with Siamese Cropped Masked Autoencoders",
    ECCV 2024, as released.
    Arguments as in `crw`.
    """
    return crw(k=k, num_frames=num_frames, radius=radius, temperature=temperature)


def spa_then_temp(
    *, k: int = 10, num_frames: int = 20, reach: int = 35, temperature: float = 0.07
) -> Propagation:
    """Spa-then-Temp: as `vfs`, within a square of `reach` cells, 35 at stride 4 or 12 at stride 8.

    Source: Li and Liu, "Spatial-then-Temporal Self-Supervised Learning for Video Correspondence",
    CVPR 2023, as released.
    Arguments as in `dino`.
    """
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='first_once'),
        rule=TopK(k=k, temperature=temperature, region=Square(reach + 1.0, bind_first=True)),
    )


def uvc(*, k: int = 5, num_frames: int = 7, temperature: float = 1.0) -> Propagation:
    """UVC without its boxes: labels from the k nearest cells of each context frame, averaged.

    The softmax in each frame is over all of its cells.
    Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence", NeurIPS
    2019, as released.
    Arguments as in `crw`; `k` cells are taken of each context frame.
    """
    rule = TopK(
        k=k,
        temperature=temperature,
        region=Everywhere(),
        aggregation='per_frame',
        softmax='frame',
    )
    memory = Memory(num_frames=num_frames, padding='mask')
    return Propagation(memory=memory, rule=rule, normalize_features=False)


def uvc_tracked(*, k: int = 5, num_frames: int = 7, temperature: float = 1.0) -> Propagation:
    """UVC with a box for each class, and with the errors of the released code.

    The published numbers contain these errors, see `TrackedBoxes`. Source and arguments: as in
    `uvc`.
    """
    rule = TrackedBoxes(
        k=k, temperature=temperature, stop='signed', cells='corner', limit='pixels', lost='gone'
    )
    return dataclasses.replace(uvc(num_frames=num_frames), rule=rule)


def timecycle(*, k: int = 5, num_frames: int = 7, temperature: float = 512**-0.5) -> Propagation:
    """TimeCycle: labels from the k nearest cells of each context frame, scaled to [0, 1].

    Source: Wang, Jabri, Efros, "Learning Correspondence from the Cycle-consistency of Time", CVPR
    2019, as released: affinities are scaled by the root of its 512 channels, and the context of
    frames 1 to 7 holds the label predicted for frame 0, an error that its numbers have in them.
    Arguments as in `uvc`.
    """
    rule = TopK(
        k=k,
        temperature=temperature,
        region=Everywhere(),
        aggregation='per_frame',
        softmax='frame',
    )
    memory = Memory(num_frames=num_frames, predict_first=True)
    return Propagation(memory=memory, rule=rule, feedback='min_max')


def corrflow(*, radius: float = 7.0, temperature: float = 1.0) -> Propagation:
    """CorrFlow: labels from all cells of a window in the frame before, and from no other frame.

    Source: Lai and Xie, "Self-supervised Learning for Video Correspondence Flow", BMVC 2019, as
    released.
    Arguments as in `crw`; the window is a square, of `radius` - 1 cells to each side.
    """
    return Propagation(
        memory=Memory(num_frames=1, keep_first=False, padding='mask'),
        rule=Attention(temperature=temperature, region=Square(radius)),
        normalize_features=False,
        feedback='hard',
    )


def mast(*, radius: float = 13.0, temperature: float = 1.0) -> Propagation:
    """MAST: labels from windows around predicted places in frames 0, 5, t - 1, t - 3 and t - 5.

    Source: Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020, as
    released, with the two errors that its numbers have in them.
    Arguments as in `corrflow`.
    """
    return Propagation(
        memory=Memory(num_frames=3, step=2, kept_frames=(5,), padding='mask'),
        rule=PredictedWindow(
            radius=radius, temperature=temperature, outside='zero', label_offset='latest'
        ),
        normalize_features=False,
        feedback='hard',
    )


def still_image(*, k: int = 10, num_frames: int = 20, radius: float = 12.0) -> Propagation:
    """The study's best settings for networks trained on still images: `crw` with T = 1.

    Source: McKee et al., BMVC 2022, Table 6b.
    Arguments as in `crw`.
    """
    return crw(k=k, num_frames=num_frames, radius=radius, temperature=1.0)


def still_image_per_frame(
    *, k: int = 5, num_frames: int = 7, inverse_temperature: float = 40
) -> Propagation:
    """The study's per-frame settings for networks trained on still images: `uvc`, unit features.

    Source: McKee et al., BMVC 2022, Tables 1 to 3 and Figure 4.
    Arguments as in `uvc`; `inverse_temperature` is 1/T.
    """
    method = uvc(k=k, num_frames=num_frames, temperature=1 / inverse_temperature)
    return dataclasses.replace(method, normalize_features=True)


# Flat settings.

# Fields of the dataclasses whose flat settings have another name.
_FLAT_NAMES = {
    'k': 'num_neighbors',
    'num_frames': 'num_context',
    'step': 'context_step',
    'bind_first': 'restrict_first',
}
_RESTRICTIONS: Mapping[str, type] = {
    'none': Everywhere,
    'radius': Disk,
    'square': Square,
    'track': TrackedBoxes,
    'predicted': PredictedWindow,
}
# Rules that work in one way only: the one value that a flat setting may have with them.
_FIXED: Mapping[type, Mapping[str, Any]] = {
    TrackedBoxes: {'aggregation': 'per_frame', 'restrict_first': True},
    PredictedWindow: {'num_neighbors': None, 'softmax': 'region', 'restrict_first': True},
}
# The errors of released systems by their names in `as_released`: field and value that have them.
_RELEASED_ERRORS: Mapping[str, tuple[str, Any]] = {
    'signed_stop': ('stop', 'signed'),
    'corner_cells': ('cells', 'corner'),
    'pixel_limit': ('limit', 'pixels'),
    'lost_is_gone': ('lost', 'gone'),
    'zero_outside': ('outside', 'zero'),
    'shared_offset': ('label_offset', 'latest'),
    'predicted_first': ('predict_first', True),
}
EXECUTION = tuple(field.name for field in dataclasses.fields(Execution))
_DEFAULTS: Mapping[str, Any] = {
    'aggregation': 'overall',
    'temperature': 0.05,
    'num_neighbors': 10,
    'num_context': 20,
    'context_step': 1,
    'keep_first': True,
    'kept_frames': (),
    'padding': 'repeat_first',
    'restriction': 'radius',
    'radius': 12.0,
    'restrict_first': False,
    'softmax': 'neighbors',
    'normalize_features': True,
    'feedback': 'soft',
    'as_released': (),
}


def from_settings(**flat: Any) -> Propagation:
    """Makes a method of flat settings, as configs and command lines have them.

    Args:
      **flat: names that are left out have CRW's values.
        method: the name of a function of this module, whose values the others then replace.
        aggregation: 'overall' or 'per_frame'. temperature: T. num_neighbors: k; None or 'none' for
        all cells (`Attention`). num_context: n (`Memory.num_frames`). context_step (`Memory.step`).
        keep_first, kept_frames, padding: see `Memory`. restriction: 'none', 'radius' (`Disk`),
        'square', 'predicted' (`PredictedWindow`), 'track' (`TrackedBoxes`), or the name of a module
        in jaxprop/rules whose region or rule has the module's name in CamelCase. radius.
        restrict_first: the region binds frame 0 too. softmax: 'neighbors', 'frame' or 'region'.
        normalize_features. feedback: 'soft', 'min_max' or 'hard'. as_released: errors of released
        systems: 'signed_stop', 'corner_cells', 'pixel_limit' and 'lost_is_gone' of `TrackedBoxes`,
        'zero_outside' and 'shared_offset' of `PredictedWindow`, 'predicted_first' of `Memory`.
        implementation, precision and query_chunk are for `execution_from_settings`. A region or
        rule of your own may have further names, see `own_names`; None stands for their defaults.

    Raises:
      ValueError: an unknown name or value, or settings that cannot be combined.

    >>> from jaxprop import methods
    >>> methods.from_settings(num_neighbors=5, restriction='none').rule.region
    Everywhere()
    """
    flat = {key: value for key, value in flat.items() if value is not None or key in _DEFAULTS}
    name = flat.pop('method', None)
    base = dict(_DEFAULTS) if name in (None, '') else settings(_method(name))
    given = {**base, **{key: value for key, value in flat.items() if key not in EXECUTION}}
    if given['num_neighbors'] in ('none', 'None'):
        given['num_neighbors'] = None
    errors = tuple(given.pop('as_released'))
    for error in errors:
        if error not in _RELEASED_ERRORS:
            raise ValueError(f'as_released holds {error!r}; {_known(error, _RELEASED_ERRORS)}')

    # A restriction names a region, or a rule that has its own: build the rule.
    kind = _restriction(given.pop('restriction'))
    renamed = {new: given.get(old) for new, old in _FLAT_NAMES.items() if old in given}
    values = {**given, **renamed, **dict(_RELEASED_ERRORS[error] for error in errors)}
    region = kind
    if issubclass(kind, Rule):
        _check_fixed(kind, given)
        if 'region' in _names(kind) and 'region' in given:
            region = _restriction(given['region'])
            values['region'] = _build(region, values)
        if values['k'] is None and any(field.name == 'k' for field in _fields(kind)):
            raise ValueError(
                f'num_neighbors is none; restriction={_restriction_name(kind)!r} needs a number'
            )
        rule = _build(kind, values)
    else:
        values['region'] = _build(kind, values)
        selects = given['num_neighbors'] is not None
        if not selects and values['softmax'] == 'neighbors':
            values['softmax'] = 'region'  # All allowed cells are the neighbours.
        rule = _build(TopK if selects else Attention, values)
    method = Propagation(
        memory=_build(Memory, values),
        rule=rule,
        normalize_features=given['normalize_features'],
        feedback=given['feedback'],
    )

    # Refuse a name that no part has.
    parts = (kind, region, Memory, TopK, Attention, Propagation)
    known = {*_DEFAULTS, *EXECUTION, 'method'}.union(*map(_names, parts))
    known -= {'rule', 'memory', *(name for name, _ in _RELEASED_ERRORS.values())}
    if not issubclass(kind, Rule):
        known -= {'region'}
    for key in flat:
        if key not in known:
            raise ValueError(f'propagation has no setting {key!r}; {_known(key, known)}')
    return method


def execution_from_settings(**flat: Any) -> Execution:
    """Makes an `Execution` of the flat settings `implementation`, `precision` and `query_chunk`.

    Raises:
      ValueError: a value that is not among the known ones.
    """
    return Execution(**{name: flat[name] for name in EXECUTION if name in flat})


def settings(method: Propagation) -> dict[str, Any]:
    """Lists the flat settings of a method: `from_settings(**settings(method)) == method`.

    Names without a meaning for the method have their default values. `Memory.num_given` is no
    setting: it says how many masks a user gives for a video.
    """
    rule, memory = method.rule, method.memory
    region = getattr(rule, 'region', rule)
    flat = dict(_DEFAULTS)
    flat.update(_FIXED.get(type(rule), {}))
    for part in (memory, rule, region):
        for field in _fields(type(part)):
            flat[_FLAT_NAMES.get(field.name, field.name)] = getattr(part, field.name)
    flat.pop('region', None)
    # TopK and Attention go by the name of their region, other rules by their own.
    flat['restriction'] = _restriction_name(type(region))
    if region is not rule and not isinstance(rule, (TopK, Attention)):
        flat['region'] = flat['restriction']
        flat['restriction'] = _restriction_name(type(rule))
    if isinstance(rule, Attention):
        flat['num_neighbors'] = None
    flat['as_released'] = tuple(
        error for error, (name, value) in _RELEASED_ERRORS.items() if flat.pop(name, None) == value
    )
    flat.update(normalize_features=method.normalize_features, feedback=method.feedback)
    return flat


def _method(name):
    known = {
        key: value
        for key, value in globals().items()
        if inspect.isfunction(value) and value.__annotations__.get('return') is Propagation
    }
    del known['from_settings']
    if name not in known:
        raise ValueError(f'method is {name!r}; {_known(name, known)}')
    return known[name]()


def own_names() -> tuple[str, ...]:
    """Lists the flat names of settings that only your own files in jaxprop/rules have."""
    names = set().union(*map(_names, _own_kinds().values()))
    return tuple(sorted(names - {*_DEFAULTS, 'region'}))


def _restriction(name) -> type:
    """The class of a region or rule, by its name among the flat settings."""
    kinds = {**_own_kinds(), **_RESTRICTIONS}
    if name not in kinds:
        raise ValueError(f'restriction is {name!r}; {_known(name, kinds)}')
    return kinds[name]


def _own_kinds():
    """The regions and rules in jaxprop/rules that are not this project's own, by their modules."""
    ours = {kind.__module__.rpartition('.')[2] for kind in _RESTRICTIONS.values()}
    names = {module.name for module in pkgutil.iter_modules(rules.__path__)} - ours
    kinds = {name: _find_kind(name) for name in names}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _find_kind(module_name) -> type | None:
    """The dataclass that has its module's name, NarrowBand of 'narrow_band'; None without one."""
    module = importlib.import_module(f'{rules.__name__}.{module_name}')
    for name, kind in vars(module).items():
        is_class = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        if (
            is_class
            and kind.__module__ == module.__name__
            and name.lower() == module_name.replace('_', '').lower()
        ):
            return kind
    return None


def _restriction_name(kind):
    for name, known in _RESTRICTIONS.items():
        if kind is known:
            return name
    package, _, module_name = kind.__module__.rpartition('.')
    if package == rules.__name__:
        return module_name
    return re.sub('(?<!^)([A-Z])', r'_\1', kind.__name__).lower()


def _names(kind):
    """The flat names of a part's fields."""
    return {_FLAT_NAMES.get(field.name, field.name) for field in _fields(kind)}


def _fields(kind):
    return [field for field in dataclasses.fields(kind) if field.init and field.name != 'num_given']


def _build(kind, values):
    """Builds a part of a method from those values that are its fields."""
    return kind(**{f.name: values[f.name] for f in _fields(kind) if f.name in values})


def _check_fixed(kind, given):
    for name, value in _FIXED.get(kind, {}).items():
        if name == 'restrict_first' and not given['keep_first']:
            continue  # There is no frame 0 to be restricted.
        if given[name] != value:
            raise ValueError(
                f'{name} is {given[name]!r}; restriction={_restriction_name(kind)!r} needs '
                f'{value!r}'
            )


def _known(name, known):
    """The end of a message about a wrong name: the nearest right one, and all of them."""
    near = nearest(name, known)
    return (f'did you mean {near!r}? Known' if near else 'known') + f': {", ".join(sorted(known))}'
