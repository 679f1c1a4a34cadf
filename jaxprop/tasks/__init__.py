"""The benchmarks: one module each, found by its name.

`open_task({'kind': 'davis', 'root': ...})` imports `jaxprop.tasks.davis` and calls its `open_task`.
A new benchmark is one new module here with such a function; nothing else names it.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from jaxprop.names import nearest
from jaxprop.tasks.task import SettingsError, Task


def open_task(dataset: Mapping[str, Any], measure: Mapping[str, Any] | None = None) -> Task:
    """Opens the benchmark that a config's `dataset` names.

    Args:
      dataset: 'kind', the name of the module, and the keyword arguments of its `open_task`.
      measure: settings of the scores; those of a config's `measure`, if it has one.

    Raises:
      SettingsError: no module has that name, it has no such setting, or a folder is not given.
    """
    settings = dict(dataset)
    kind = settings.pop('kind')
    module = _find(kind)
    if module is None:
        raise SettingsError(_unknown(kind))
    parameters = inspect.signature(module.open_task).parameters.values()
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters][1:]
        if unknown := sorted(set(settings) - set(known)):
            raise SettingsError(
                f'dataset.{unknown[0]} is no setting of the benchmark {kind!r}, which has '
                f'{", ".join(known)}; take the config of that benchmark'
            )
    missing = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if missing := [name for name in missing if name not in settings]:
        raise SettingsError(
            f'dataset.{missing[0]} is not given, but the benchmark {kind!r} needs it; take the '
            'config of that benchmark'
        )
    return module.open_task(dict(measure or {}), **settings)


def _find(kind):
    """The module of this name if it opens a task, else None."""
    name = f'{__name__}.{kind}'
    if not str(kind).isidentifier():
        return None
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise  # The module is there, but something that it imports is not.
        return None
    return module if hasattr(module, 'open_task') else None


def _unknown(kind):
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if _find(module.name))
    near = nearest(kind, names, cutoff=0)
    return f'dataset.kind is {kind!r}; did you mean {near!r}? It must be one of {tuple(names)}'
