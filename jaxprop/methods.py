"""The published systems as methods, and the flat settings by which command lines name factors.

Each function gives the factors of one system's released evaluation on DAVIS as a `Propagation`;
`dataclasses.replace` changes any of them. `from_settings` is the one place where names as strings
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
from jaxprop.rules.neighbors import Attention, Disk, Everywhere, Square, TopK
from jaxprop.rules.predicted import PredictedWindow
from jaxprop.rules.rule import Execution, Rule
from jaxprop.rules.tracked import TrackedBoxes


def crw(
    *, k: int = 10, num_frames: int = 20, radius: float = 12.0, temperature: float = 0.05
) -> Propagation:
    """CRW: the k nearest of all context cells, frame 0 free, repeated while the video starts.

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
    """VFS: as CRW, but frame 0 is restricted too, and stands twice while the video starts.

    Arguments as in `crw`.

    Source: Xu and Wang, "Rethinking Self-supervised Correspondence Learning: A Video Frame-level
    Similarity Perspective", ICCV 2021, as released.
    """
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='first_once'),
        rule=TopK(k=k, temperature=temperature, region=Disk(radius, bind_first=True)),
    )


def dino(
    *, k: int = 5, num_frames: int = 7, reach: int = 12, temperature: float = 0.1
) -> Propagation:
    """DINO: the k nearest within a square of at most `reach` cells around the target cell.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
    as released; there ties with the k-th neighbour are kept as well.

    Args:
      k: how many context cells a target cell takes its label from.
      num_frames: n, how many of the latest frames are context beside frame 0.
      reach: the largest distance in rows and in columns, in feature cells.
      temperature: T of the softmax over the neighbours.
    """
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='mask'),
        rule=TopK(k=k, temperature=temperature, region=Square(reach + 1.0, bind_first=True)),
    )


def dinov3(
    *, k: int = 5, num_frames: int = 7, reach: int = 12, temperature: float = 0.2
) -> Propagation:
    """DINOv3: as DINO, within a circle of at most `reach` cells, at twice the temperature.

    Arguments as in `dino`.

    Source: Simeoni et al., "DINOv3", 2025: the notebook on tracking segmentations of its release.
    As there, and in DINO, features have unit length, frame 0 is restricted too, the context grows
    while the video starts, and the softmax is over the neighbours; ties with the k-th of them are
    kept as well there. The release does not say which factors the numbers of its tables have.
    """
    # Squares of distances are whole numbers, so that none lies between reach^2 and this radius^2.
    region = Disk(math.sqrt(reach**2 + 0.5), bind_first=True)
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='mask'),
        rule=TopK(k=k, temperature=temperature, region=region),
    )


def rsp(
    *, k: int = 7, num_frames: int = 30, reach: int = 30, temperature: float = 0.1
) -> Propagation:
    """RSP: DINO's code with more neighbours of a longer and wider context.

    Arguments as in `dino`.

    Source: Jang et al., "Visual Representation Learning with Stochastic Frame Prediction", ICML
    2024, as released.
    """
    return dino(k=k, num_frames=num_frames, reach=reach, temperature=temperature)


def crop_mae(
    *, k: int = 7, num_frames: int = 20, radius: float = 20.0, temperature: float = 0.7
) -> Propagation:
    """CropMAE, which is evaluated as SiamMAE: CRW's code with a wider region and a flat softmax.

    Arguments as in `crw`.

    Source: Eymael et al., "Efficient Image Pre-Training with Siamese Cropped Masked Autoencoders",
    ECCV 2024, as released.
    """
    return crw(k=k, num_frames=num_frames, radius=radius, temperature=temperature)


def spa_then_temp(
    *, k: int = 10, num_frames: int = 20, reach: int = 35, temperature: float = 0.07
) -> Propagation:
    """Spa-then-Temp: as VFS, within a square of at most `reach` cells, 35 at stride 4, 12 at 8.

    Arguments as in `dino`.

    Source: Li and Liu, "Spatial-then-Temporal Self-Supervised Learning for Video Correspondence",
    CVPR 2023, as released.
    """
    return Propagation(
        memory=Memory(num_frames=num_frames, padding='first_once'),
        rule=TopK(k=k, temperature=temperature, region=Square(reach + 1.0, bind_first=True)),
    )


def uvc(*, k: int = 5, num_frames: int = 7, temperature: float = 1.0) -> Propagation:
    """UVC without its boxes: k cells of each frame, their softmax over the whole frame.

    Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence", NeurIPS
    2019, as released.

    Args:
      k: how many cells of each context frame a target cell takes its label from.
      num_frames: n, how many of the latest frames are context beside frame 0.
      temperature: T of the softmax over the frame.
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
    """UVC with its boxes, and the errors of the released code that its numbers have in them.

    Source and arguments: as in `uvc`.
    """
    rule = TrackedBoxes(
        k=k, temperature=temperature, stop='signed', cells='corner', limit='pixels', lost='gone'
    )
    return dataclasses.replace(uvc(num_frames=num_frames), rule=rule)


def timecycle(*, k: int = 5, num_frames: int = 7, temperature: float = 512**-0.5) -> Propagation:
    """TimeCycle: k cells of each frame; labels are fed back scaled to [0, 1].

    Arguments as in `uvc`.

    Source: Wang, Jabri, Efros, "Learning Correspondence from the Cycle-consistency of Time", CVPR
    2019, as released: affinities are scaled by the root of its 512 channels, and the context of
    frames 1 to 7 holds the label predicted for frame 0, an error that its numbers have in them.
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
    """CorrFlow: attention to a window of the frame before, and to nothing else.

    Source: Lai and Xie, "Self-supervised Learning for Video Correspondence Flow", BMVC 2019, as
    released.

    Args:
      radius: half of the window's side, in feature cells: it reaches `radius` - 1 to each side.
      temperature: T of the softmax over the window.
    """
    return Propagation(
        memory=Memory(num_frames=1, keep_first=False, padding='mask'),
        rule=Attention(temperature=temperature, region=Square(radius)),
        normalize_features=False,
        feedback='hard',
    )


def mast(*, radius: float = 13.0, temperature: float = 1.0) -> Propagation:
    """MAST: attention to windows around predicted places in frames 0, 5, t - 1, t - 3 and t - 5.

    Arguments as in `corrflow`.

    Source: Lai, Lu, Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020, as
    released, with the two errors that its numbers have in them.
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
    """The study's best factors for networks of still images: CRW's, with T = 1.

    Arguments as in `crw`.

    Source: McKee et al., BMVC 2022, Table 6b.
    """
    return crw(k=k, num_frames=num_frames, radius=radius, temperature=1.0)


def still_image_per_frame(
    *, k: int = 5, num_frames: int = 7, inverse_temperature: float = 40
) -> Propagation:
    """The study's per-frame factors for networks of still images: UVC's, on unit features.

    Arguments as in `uvc`; `inverse_temperature` is 1/T.

    Source: McKee et al., BMVC 2022, Tables 1 to 3 and Figure 4.
    """
    method = uvc(k=k, num_frames=num_frames, temperature=1 / inverse_temperature)
    return dataclasses.replace(method, normalize_features=True)


# Flat settings.

# Names whose meaning stands elsewhere under another name.
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
# Rules that fix a factor: the only value that its flat setting may have.
_FIXED: Mapping[type, Mapping[str, Any]] = {
    TrackedBoxes: {'aggregation': 'per_frame', 'restrict_first': True},
    PredictedWindow: {'num_neighbors': None, 'softmax': 'region', 'restrict_first': True},
}
# The errors of released systems, by the names they have in `as_released`.
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
    """The method that flat settings describe, as configs and command lines have them.

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
        implementation and query_chunk are for `execution_from_settings`. A region or rule of your
        own may have further names, see `own_names`; None stands for their defaults.

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

    # The region, or the rule that is one.
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

    # A name that no part has is a mistake.
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
    """The `Execution` that flat settings describe: of them `implementation` and `query_chunk`.

    Raises:
      ValueError: a value that is not among the known ones.
    """
    return Execution(**{name: flat[name] for name in EXECUTION if name in flat})


def settings(method: Propagation) -> dict[str, Any]:
    """The flat settings of a method: `from_settings(**settings(method)) == method`.

    Names without a meaning for the method have their default values.
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
    """The flat names that only regions and rules of your own have, in files of jaxprop/rules."""
    kinds = [_find_kind(module) for module in _own_modules()]
    names = set().union(*(_names(kind) for kind in kinds if kind is not None))
    return tuple(sorted(names - {*_DEFAULTS, 'region'}))


def _restriction(name) -> type:
    """The class of a region or rule, by its name among the flat settings."""
    kind = _RESTRICTIONS.get(name) or (_find_kind(name) if name in _own_modules() else None)
    if kind is None:
        raise ValueError(
            f'restriction is {name!r}; {_known(name, {*_RESTRICTIONS, *_own_modules()})}'
        )
    return kind


def _own_modules():
    """The modules of jaxprop/rules that are not this project's own."""
    ours = {kind.__module__.rpartition('.')[2] for kind in _RESTRICTIONS.values()}
    ours |= {'rule', 'windowed'}
    return {module.name for module in pkgutil.iter_modules(rules.__path__)} - ours


def _find_kind(module_name) -> type | None:
    """The dataclass that is named as its module: 'narrow_band' has NarrowBand; None without one."""
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
    return [field for field in dataclasses.fields(kind) if field.init]


def _build(kind, values):
    """A part of a method from those of the values that it has a name for."""
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
    """What to say of a wrong name: the nearest right one, and all of them."""
    near = nearest(name, known)
    return (f'did you mean {near!r}? ' if near else '') + f'Known: {", ".join(sorted(known))}'
