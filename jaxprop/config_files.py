"""Finds a config by its name or its path, and changes its fields as the command line says.

A config is a Python file with a function `get_config()` that returns a `ConfigDict`. The project's
own configs are the package `jaxprop.configs`: the folder configs/ of a checkout, or the installed
package. A config may import its siblings relatively, a user's own config too.
"""

import contextlib
import functools
import importlib.machinery
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
from collections.abc import Iterable, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxprop.names import nearest

PACKAGE = 'jaxprop.configs'
FOLDERS = ('eval', 'study', 'suite', 'train')
_WIDEST = 72  # `describe` cuts values to so many characters.


class ConfigError(Exception):
    """Raised where there is no such config, field or argument; the message says what there is."""


def closest(name: str, names: Iterable[str]) -> str:
    """Makes the end of a message about a wrong name: the nearest right one, or all of them."""
    names = sorted(names)
    if near := names[0] if len(names) == 1 else nearest(name, names):
        return f'did you mean {near!r}?'
    return f'there are: {", ".join(names)}'


@functools.cache
def config_folder() -> pathlib.Path:
    """Finds the folder of the project's own configs, and makes it the package `jaxprop.configs`."""
    spec = importlib.util.find_spec(PACKAGE)
    installed = spec.submodule_search_locations if spec else ()
    for folder in map(pathlib.Path, installed):
        if (folder / 'eval').is_dir():
            return folder.resolve()
    folder = pathlib.Path(__file__).resolve().parents[1] / 'configs'
    _add_package(PACKAGE, folder)
    return folder


def config_names(folders: Sequence[str] = FOLDERS) -> dict[str, pathlib.Path]:
    """Lists the project's config files by name. If two folders have one name, the earlier wins."""
    paths = {}
    for folder in folders:
        for path in sorted((config_folder() / folder).glob('*.py')):
            if '\ndef get_config(' in path.read_text(encoding='utf-8'):
                paths.setdefault(path.stem, path)
    return paths


def load_config(name: str, folders: Sequence[str] = FOLDERS) -> ConfigDict:
    """Builds a config.

    Args:
      name: 'davis_crw', 'eval/davis_crw' or the path of a file, which ends in '.py'; 'uvc:joint'
        gives `get_config` an argument.
      folders: the folders of `jaxprop.configs` in which a bare name is looked for, in this order.

    Raises:
      ConfigError: there is no such config, or it does not take the argument.
    """
    name, colon, argument = name.partition(':')
    path = _find(name, folders)
    get_config = getattr(_import(path), 'get_config', None)
    if get_config is None:
        raise ConfigError(f'{path} is no config: it has no function get_config()')
    if not colon:
        with _naming(path):
            config = get_config()
        if not isinstance(config, ConfigDict):
            raise ConfigError(f'{path}: get_config() returns no ConfigDict')
        return config
    if not inspect.signature(get_config).parameters:
        raise ConfigError(f'the config {name!r} takes no argument; leave out {colon + argument!r}')
    try:
        return get_config(argument)
    except (KeyError, ValueError) as error:
        raise ConfigError(f'the config {name!r} takes no argument {argument!r}: {error}') from error


def define_flags(
    arguments: Sequence[str],
    default: str,
    folders: Sequence[str] = FOLDERS,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> list[str]:
    """Loads the config that arguments name, and defines the flags that change its fields.

    Let `flag_values` parse the arguments that this returns: `flag_values.config` is then the config
    with its fields changed.

    Args:
      arguments: of the command line, the command's name first.
      default: the name of the config if no argument is `--config=NAME`.
      folders: as for `load_config`.
      flag_values: gets a flag for each `--config.FIELD`.

    Returns:
      The arguments without `--config=NAME`.

    Raises:
      ConfigError: there is no such config or field.
    """
    # Take the config's name out of the arguments.
    rest, names = [], [default]
    remaining = iter(arguments)
    for argument in remaining:
        if argument in ('--config', '-config'):
            names.append(next(remaining, ''))
        elif match := re.match('--?config=', argument):
            names.append(argument[match.end() :])
        else:
            rest.append(argument)
    # Load it, and refuse fields that it does not have.
    config = load_config(names[-1], folders)
    for argument in rest:
        if match := re.match(r'--?(?:no)?config\.([^=]*)', argument):
            _check_field(config, match[1])
    try:
        config_flags.DEFINE_config_dict('config', config, flag_values=flag_values, sys_argv=rest)
    except flags.Error as error:
        raise ConfigError(str(error)) from error
    return rest


def describe(config: ConfigDict) -> dict[str, str]:
    """Lists the fields of a config by name, 'propagation.radius', with values as short texts."""
    texts = {name: repr(value) for name, value in _flattened(config).items()}
    return {
        name: text if len(text) <= _WIDEST else f'{text[: _WIDEST - 3]}...'
        for name, text in texts.items()
    }


def _find(name, folders):
    """Finds the file of a config."""
    if not name:
        raise ConfigError('--config needs a value: the name of a config, or the path of a file')
    path = pathlib.Path(name)
    if path.suffix == '.py' and path.is_file():
        return path.resolve()
    # A path as in the manual, configs/eval/davis_crw.py, names a config from any folder.
    bare = name.removeprefix('configs/').removesuffix('.py')
    names = config_names(folders)
    if '/' in bare:
        names = {f'{path.parent.name}/{path.stem}': path for path in _all_paths()}
    if bare in names:
        return names[bare]
    if path.suffix == '.py' and not name.startswith('configs/'):
        raise ConfigError(f'there is no file {name!r}')
    if others := [found for found in _all_paths() if found.stem == bare]:
        raise ConfigError(
            f'the config {name!r} is in {others[0].parent.name}/, this command takes those in '
            + ' and '.join(f'{folder}/' for folder in folders)
        )
    raise ConfigError(f'there is no config {name!r}; {closest(bare, names)}')


def _all_paths():
    return [path for folder in FOLDERS for path in config_names((folder,)).values()]


def _add_package(name, folder):
    """Makes a folder importable as a package, whether it has an __init__.py or not."""
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)


def _import(path):
    """Imports a config as part of a package, so that its relative imports find its siblings."""
    if path.is_relative_to(config_folder()):
        parts = path.relative_to(config_folder()).with_suffix('').parts
        return importlib.import_module('.'.join((PACKAGE, *parts)))
    # Make two packages, so that a config can import siblings by `from . import name`, and configs
    # of folders beside its own by `from ..folder`.
    outer, inner, name = (
        re.sub(r'\W', '_', text)
        for text in (f'configs of {path.parent.parent}', path.parent.name, path.stem)
    )
    _add_package(outer, path.parent.parent)
    _add_package(f'{outer}.{inner}', path.parent)
    spec = importlib.util.spec_from_file_location(f'{outer}.{inner}.{name}', path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with _naming(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _naming(path):
    """Turns an exception of a user's own config into an error that names the file and the line."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        lines += [error.lineno] if isinstance(error, SyntaxError) else []
        where = f'{path}, line {lines[-1]}' if lines else str(path)
        hint = ''
        if isinstance(error, ImportError):
            hint = '; configs beside it are imported by `from . import NAME`'
        raise ConfigError(f'{where}: {type(error).__name__}: {error}{hint}') from error


def _flattened(config, prefix=''):
    """Lists fields by name: {'propagation.radius': 12.0, ...}."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields.update(_flattened(value, f'{prefix}{name}.'))
        else:
            fields[prefix + name] = value
    return fields


def _check_field(config, field):
    """Raises ConfigError if a config has no such field."""
    node, found = config, []
    for part in re.split(r'[.\[]', field):
        if not isinstance(node, ConfigDict):
            if isinstance(node, (tuple, list, dict)):
                return  # ml_collections itself checks indices into these.
            raise ConfigError(f'--config.{field}: {".".join(found)} is {node!r} and has no fields')
        if part not in node:
            names = ['.'.join((*found, name)) for name in node]
            everywhere = [name for name in _flattened(config) if name.split('.')[-1] == part]
            raise ConfigError(
                f'--config.{field}: the config has no field {".".join((*found, part))!r}; '
                + closest('.'.join((*found, part)), everywhere or names)
            )
        if node[part] is None and node.get_type(part) is type(None):
            raise ConfigError(f'--config.{field}: None cannot be changed on the command line')
        node = node[part]
        found.append(part)
