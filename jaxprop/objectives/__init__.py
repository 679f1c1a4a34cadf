"""Pretext tasks, each a pair of pure functions `init` and `loss`: one module per task.

A task is one file here that nothing else names; a training config finds it by the module's name.
The module has a function `objective(backbone, *, ..., axis_name=None) -> Objective`, whose keyword
arguments are the config's settings. If the config has no backbone, it is called without one.

Some settings must be read before they are arguments, such as the path of a frozen network. Then the
module also has `from_config(backbone, *, restore, ...) -> Objective`, and training calls this in
place of `objective`, with the settings and `axis_name`. `restore(folder)` reads the 'params' and
'state' of the latest checkpoint in a folder.
"""

import importlib
import pkgutil
from types import ModuleType

from jaxprop.names import unknown
from jaxprop.objectives.objective import Objective

__all__ = ['Objective', 'find_objective']


def find_objective(name: str) -> ModuleType:
    """Returns the module of a pretext task.

    Raises:
      ValueError: no module here has this name and a function `objective`.
    """
    modules = {
        info.name: importlib.import_module(f'{__name__}.{info.name}')
        for info in pkgutil.iter_modules(__path__)
    }
    known = {key: module for key, module in modules.items() if hasattr(module, 'objective')}
    if name not in known:
        raise unknown('objective', name, known)
    return known[name]
