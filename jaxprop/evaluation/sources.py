"""Which source of features a config means: a network, the user's own function, or a folder."""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from jaxprop.data.inputs import InputConfig
from jaxprop.evaluation import function_features, networks
from jaxprop.evaluation.features import FeatureSource, NetworkFeatures
from jaxprop.evaluation.folder_features import PREFIX, FolderFeatures, folder_digest
from jaxprop.evaluation.function_features import FunctionFeatures
from jaxprop.evaluation.networks import Network, load_network


def open_source(config: Mapping[str, Any], network: Network | None = None) -> FeatureSource:
    """Opens the source of features that a config names in `network.name`.

    'features:FOLDER' is a folder of arrays, see `FolderFeatures`; 'MODULE:FUNCTION' or
    'MODULE:FACTORY(size=480)' is the user's own function, see `load_function`, unless a file has
    that name; everything else is a network, see `load_network`. Of `network` the first two have
    nothing but the name.

    Args:
      config: as in configs/eval: its `network`, `input` and `feature_batch`.
      network: if it is loaded already.

    Raises:
      ValueError: there is no such source, or the config's settings are wrong.
    """
    name = str(config['network']['name'])
    if network is None and name.startswith(PREFIX):
        return FolderFeatures(name.removeprefix(PREFIX), config['feature_batch'])
    if network is None and _is_own(name):
        identity = function_features.describe_function(name)
        function = function_features.load_function(name)
        return function_source(function, config, name=name, identity=identity)
    network = network or load_network(**config['network'])
    size = dict(config['input'])
    seen = size.pop('color') or network.color or 'rgb'
    return NetworkFeatures(network, InputConfig(**size), seen, config['feature_batch'])


def function_source(
    function: Callable[..., Any], config: Mapping[str, Any], **described: Any
) -> FunctionFeatures:
    """The features of a function, given frames as a config's `input` and `feature_batch` say.

    Args:
      function: as `FunctionFeatures` takes it.
      config: as in configs/eval.
      **described: name, version and identity of the function, see `FunctionFeatures`.
    """
    size = dict(config['input'])
    size.pop('color')  # The function is given RGB, see `check_flags`.
    return FunctionFeatures(
        function, input=InputConfig(**size), batch=config['feature_batch'], **described
    )


def check_flags(name: str, given: Mapping[str, Any]) -> None:
    """Refuses settings without any effect where a name is that of a function or a folder.

    Configs may have such settings: these are for the network that they name themselves.

    Args:
      name: a config's `network.name`.
      given: what the user has set, 'network.output' and the value.

    Raises:
      ValueError: one of them is a network's attribute, a colour, or for a folder the frames' size.
    """
    if not _is_own(name):
        return
    wrong = {'no network': r'network\.(?!name$)'}
    if name.startswith(PREFIX):
        wrong['a folder of features, whose frames were seen before'] = r'input\.'
    elif given.get('input.color') not in (None, 'rgb'):
        wrong['a function, which is given RGB frames'] = r'input\.color'
    for what, pattern in wrong.items():
        if texts := [f'{key}={given[key]}' for key in given if re.match(pattern, key)]:
            raise ValueError(f'{name} is {what}: leave out {", ".join(texts)}')


def source_digest(name: str) -> str:
    """What tells the source of a name from others that have had the same name.

    Args:
      name: a config's `network.name`.

    Returns:
      A network's SHA-256 of its weights, '' without any; a folder's SHA-256; a function's identity.

    Raises:
      ValueError: there is no such source.
    """
    if name.startswith(PREFIX):
        return folder_digest(name.removeprefix(PREFIX))
    if _is_own(name):
        return json.dumps(function_features.describe_function(name), sort_keys=True)
    return networks.weights_digest(name)


def short_name(name: str) -> str:
    """What a table calls the source of a name: no folders, no settings."""
    if name.startswith(PREFIX):
        return pathlib.Path(name.removeprefix(PREFIX)).resolve().name
    if _is_own(name):
        return function_features.short_name(name)
    path = pathlib.PurePath(name)
    return path.parent.name if path.stem == 'backbone' and path.parent.name else path.stem


def _is_own(name):
    """Whether a name is that of a folder of features or of a function, not of a network."""
    if name.startswith(PREFIX):
        return True
    is_file = any(pathlib.Path(f'{name}{suffix}').exists() for suffix in ('', '.safetensors'))
    return function_features.is_function(name) and not is_file
