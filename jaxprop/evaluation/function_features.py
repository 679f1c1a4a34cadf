"""The source of features that the user's own function computes, in NumPy, JAX, PyTorch or others.

Shapes: B frames in a call, h, w pixels of the frames that the function gets, B' feature maps that
it returns, H, W cells, C channels.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import itertools
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxprop import files
from jaxprop.data.inputs import InputConfig, input_size, resize_frame
from jaxprop.evaluation.features import OpenedVideo, cells_of, check_frame
from jaxprop.evaluation.targets import Sizes
from jaxprop.names import nearest

# MODULE:FUNCTION, or MODULE:FACTORY(SETTING=VALUE, ...).
_PATTERN = re.compile(
    r'(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)(?P<call>\s*\(.*\))?', re.DOTALL
)
# If the ratio of a cell's sides is larger than this, the axes must be in another order.
_UNSQUARE = 2


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionFeatures:
    """The features of a function of frames: a `FeatureSource` for any model.

    The function is called as `function(frames)` with uint8 RGB frames `[B, h, w, 3]` in NumPy, and
    returns features `[B', H, W, C]`, floats in an array of NumPy, JAX or PyTorch. Every call has B
    frames in order: at a video's end the last one is repeated, and features of the copies are
    dropped. B' is B. A clip encoder may return fewer maps, B / B' being a whole number: each map
    then stands for B / B' frames. Calls do not overlap.

    Attributes:
      function: the function of frames. For frames of one size it returns features of one shape.
      name: of the function, recorded in every output; None takes its module and its name.
      version: recorded, to tell results of different weights apart; None takes the version of the
        function's package, if there is one.
      input: how frames are resized for the function: in 'uint8', whatever the precision.
      batch: B.
      identity: recorded in place of the SHA-256 of the function's source file.

    Raises:
      ValueError: a batch below 1.
    """

    function: Callable[[np.ndarray], Any]
    name: str | None = None
    version: str | None = None
    input: InputConfig = InputConfig()
    batch: int = 4
    identity: Mapping[str, Any] | None = None

    network, color, trained = None, 'rgb', True

    def __post_init__(self):
        if self.batch < 1:
            raise ValueError(f'feature_batch is {self.batch}; it must be at least 1')
        own = _unwrapped(self.function)
        name = self.name or f'{own.__module__}:{own.__qualname__}'
        is_told = self.identity is not None or self.version is not None
        identity = _identity(own) if self.identity is None else dict(self.identity)
        if self.version is not None:
            identity['version'] = self.version
        for attribute, value in (
            ('name', name),
            ('identity', identity),
            ('_has_untold', not is_told and _holds_values(self.function)),
            ('_lock', threading.Lock()),
            ('_shapes', {}),
        ):
            object.__setattr__(self, attribute, value)

    @property
    def description(self) -> Mapping[str, Any]:
        return {'name': self.name, **self.identity}

    @property
    def warnings(self) -> Sequence[str]:
        notes, precision = [], self.input.precision
        if not {'sha256', 'version'} & set(self.identity):
            notes.append(f'{self.name} has no source file or version that tells it from others.')
        elif self._has_untold:
            notes.append(
                f'{self.name} holds values that are not recorded: a version would tell it from '
                'others of the same source.'
            )
        if precision != 'uint8':
            notes.append(f'input.precision is {precision!r}; {self.name} is given uint8 frames.')
        return notes

    def settings(self) -> dict[str, Any]:
        size = dataclasses.asdict(self.input)
        return {'input': {**size, 'precision': 'uint8', 'color': self.color}}

    def sizes(self, video: Any) -> Sizes:
        frame_size = tuple(video.size)
        seen = input_size(*frame_size, self.input)
        grid = self._shape(seen)[1:3]
        stride = cells_of(seen, grid)
        if max(stride) > _UNSQUARE * min(stride):
            raise ValueError(
                f'the function {self.name} makes {grid[0]} x {grid[1]} cells of frames of '
                f'{seen[0]} x {seen[1]} pixels (height x width): are the axes [B, H, W, C]?'
            )
        height, width = (
            side * pixels / seen_pixels
            for side, pixels, seen_pixels in zip(stride, frame_size, seen)
        )
        return Sizes(frame_size, seen, grid, (height, width))

    def open(self, video: Any, frames: Iterator[np.ndarray]) -> OpenedVideo:
        seen = input_size(*video.size, self.input)
        step = self.batch // self._shape(seen)[0]
        if step == 1:
            spans = None
        elif video.num_frames is None:
            spans = itertools.repeat(step)
        else:
            whole, left = divmod(video.num_frames, step)
            spans = [step] * whole + [left] * (left > 0)
        return OpenedVideo(self._arrays(video, frames, seen, step), spans=spans)

    def _arrays(self, video, frames, seen, step):
        while batch := list(itertools.islice(frames, self.batch)):
            for frame in batch:
                check_frame(frame, video.size)
            batch = [resize_frame(frame, seen, self.input.interpolation) for frame in batch]
            features = self._call(np.stack(batch + batch[-1:] * (self.batch - len(batch))))
            expected = self._shape(seen)
            if features.shape != expected:
                raise ValueError(
                    f'the function {self.name} gives features {list(features.shape)}, but gave '
                    f'{list(expected)} for other frames of this size'
                )
            features = features[: -(-len(batch) // step)]
            if not np.isfinite(features).all():
                raise ValueError(
                    f'the function {self.name} gives features that are not finite for {video.name}'
                )
            yield from features

    def _shape(self, seen):
        """Finds the shape `[B', H, W, C]` of the features of frames of this size."""
        # Call the function with zeros, not with the first frames: a plan is made before any frame
        # is read, and the frames of a stream can be read only once. The values do not matter.
        if seen not in self._shapes:
            self._shapes[seen] = self._call(np.zeros((self.batch, *seen, 3), np.uint8)).shape
        return self._shapes[seen]

    def _call(self, frames):
        """Calls the function on frames `[B, h, w, 3]`, and returns float32 `[B', H, W, C]`."""
        with self._lock:
            try:
                # A device may raise its error only when the values are asked for.
                features = _to_numpy(self.function(frames))
            except (Exception, SystemExit) as error:
                raise ValueError(f'the function {self.name} fails: {_said(error)}') from error
        wrong = None
        if features is None:
            wrong = 'returns no array'
        elif features.ndim != 4:
            wrong = f'returns an array {list(features.shape)}'
        elif not jnp.issubdtype(features.dtype, jnp.floating):
            wrong = f'returns {features.dtype}, not floats'
        elif 0 in features.shape or len(features) > len(frames) or len(frames) % len(features):
            wrong = f'returns features {list(features.shape)}'
        if wrong:
            raise ValueError(
                f'the function {self.name} {wrong} for frames {list(frames.shape)}; it must return '
                f"features [B', H, W, C] as floats, B' being {len(frames)} or a whole part of it"
            )
        # Copy the features: the function may write its next ones to the same memory.
        with np.errstate(over='ignore'):  # The caller finds values too large for float32.
            return np.array(features, np.float32)


def is_function(text: str) -> bool:
    """Tells whether a text has the form of a function's name; the function need not exist."""
    return _PATTERN.fullmatch(text) is not None


def short_name(text: str) -> str:
    """Returns the name of the function alone, for tables."""
    return _PATTERN.fullmatch(text)['name']


def load_function(text: str) -> Callable[[np.ndarray], Any]:
    """Finds a function by its module and name, or calls a factory that makes it.

    Modules are found as `python -m` finds them: in the current folder, then where Python looks.

    Args:
      text: 'PACKAGE.MODULE:FUNCTION', or 'PACKAGE.MODULE:FACTORY(size=480, weights="x.pth")'. The
        factory is called with these keyword arguments, which are literals, and must return the
        function.

    Raises:
      ValueError: there is no such module or name, importing the module or calling the factory
        fails, or the result can't be called.
    """
    module, name, settings = _parse(text)
    found = getattr(module, name, None)
    if found is None:
        near = nearest(name, [key for key, value in vars(module).items() if callable(value)])
        raise ValueError(
            f'{text}: the module {module.__name__} has no {name!r}'
            + (f'; did you mean {near!r}?' if near else '')
        )
    if callable(found) and settings is not None:
        try:
            with _current_folder():
                found = found(**settings)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f'{text} fails: {_said(error)}; with parentheses {name} is called with these '
                'settings alone, and must return the function of frames'
            ) from error
    if not callable(found):
        raise ValueError(f'{text} is a {type(found).__name__}, which is no function')
    return found


def describe_function(text: str) -> dict[str, Any]:
    """Identifies a function by its package's version and the digests of its files.

    Args:
      text: as `load_function` takes it.

    Returns:
      'version', if there is one; 'sha256' of the module's source file; 'files': for each setting
      that is the path of a file the file's SHA-256, for each that holds paths a list of SHA-256s.

    Raises:
      ValueError: as for `load_function`, but no factory is called.
    """
    module, _, settings = _parse(text)
    identity = _module_identity(module)
    digests = {
        key: [*map(files.sha256, _files_in(value))] for key, value in (settings or {}).items()
    }
    if any(digests.values()):
        identity['files'] = {
            key: found[0] if isinstance(settings[key], str) else found
            for key, found in digests.items()
            if found
        }
    return identity


def _files_in(setting):
    """Lists the paths of files that a literal is or holds, always in the same order."""
    if isinstance(setting, str):
        path = os.path.expanduser(setting)
        return [path] if os.path.isfile(path) else []
    if isinstance(setting, dict):
        setting = [*setting, *setting.values()]
    elif isinstance(setting, set):
        setting = sorted(setting, key=repr)
    elif not isinstance(setting, (list, tuple)):
        return []
    return [path for part in setting for path in _files_in(part)]


def _parse(text):
    """Splits a text: the module, imported; the name in it; the settings, None if there are none."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} names no function; PACKAGE.MODULE:FUNCTION does')
    settings = None
    if match['call']:
        try:
            call = ast.parse(f'f{match["call"].strip()}', mode='eval').body
            if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
                raise ValueError
            settings = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
            if None in settings or len(settings) < len(call.keywords):
                raise ValueError
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(
                f'{text}: the settings must be written as (size=480, weights="x.pth"): names, each '
                'once, with numbers, texts, True, False, None, and tuples, lists or dicts of them'
            ) from error
    return _import(match['module'], text), match['name'], settings


def _import(name, text):
    try:
        with _current_folder():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f'{name}.'.startswith(f'{error.name}.'):
            hint = '; a module is named without .py' if name.endswith('.py') else ''
            raise ValueError(
                f'{text}: there is no module {error.name}, neither in the current folder nor among '
                f'those installed{hint}'
            ) from error
        raise ValueError(f'{text}: importing {name} fails: {_said(error)}') from error
    except (Exception, SystemExit) as error:
        raise ValueError(f'{text}: importing {name} fails: {_said(error)}') from error


@contextlib.contextmanager
def _current_folder():
    """Lets Python find modules of the current folder, which console scripts do not do."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _unwrapped(function):
    """Finds the function or class that has a callable's name and module."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if hasattr(function, '__qualname__') else type(function)


def _holds_values(function):
    """Tells whether a callable holds values that no source file has, as closures and objects do."""
    if isinstance(function, functools.partial) or inspect.ismethod(function):
        return True
    function = inspect.unwrap(function)
    return not hasattr(function, '__qualname__') or bool(getattr(function, '__closure__', None))


def _identity(own):
    """Identifies a function by its module, or if that has no file by its own source."""
    identity = _module_identity(sys.modules.get(own.__module__))
    if 'sha256' not in identity:
        with contextlib.suppress(OSError, TypeError):
            source = inspect.getsource(own)
            identity['sha256'] = hashlib.sha256(source.encode()).hexdigest()
    return identity


def _module_identity(module):
    if module is None:
        return {}
    identity, package = {}, module.__name__.partition('.')[0]
    version = getattr(sys.modules.get(package), '__version__', None)
    if version is None:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(package)
    if isinstance(version, str):
        identity['version'] = version
    if path := getattr(module, '__file__', None):
        with contextlib.suppress(OSError):
            identity['sha256'] = files.sha256(path)
    return identity


def _to_numpy(value):
    """Converts an array of NumPy, JAX or PyTorch to NumPy; returns None for anything else."""
    if all(hasattr(value, name) for name in ('detach', 'float', 'cpu')):
        # This is a tensor of PyTorch, which this package does not import. NumPy has no bfloat16, so
        # floats are converted to float32 first.
        is_float = value.is_floating_point()
        value = (value.detach().float() if is_float else value.detach()).cpu().numpy()
    return np.asarray(value) if hasattr(value, '__array__') else None


def _said(error):
    """Describes an error in the user's code: its type, its message, and the user's line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f'SyntaxError: {error.msg} ({error.filename}, line {error.lineno})'
    text = ' '.join(str(error).split())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__)
        and not frame.filename.startswith('<frozen')
    ]
    # Name the last line in the user's file, not one deep in the libraries that it uses.
    frames = [frame for frame in frames if frame.filename == frames[0].filename]
    where = f' ({frames[-1].filename}, line {frames[-1].lineno})' if frames else ''
    return f'{type(error).__name__}: {text}{where}'
