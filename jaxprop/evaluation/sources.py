"""Opens the source of features that a config names: a network, a user's function, or a folder."""

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
    that name; everything else is a network, see `load_network`. A folder and a function use no
    other setting of `network` than the name.

    Args:
      config: as in configs/eval; its `network`, `input` and `feature_batch` are used.
      network: the network, if it is loaded already.

    Raises:
      ValueError: there is no such source, or the config's settings are wrong.
    """
    name = str(config['network']['name'])
    if network is None and name.startswith(PREFIX):
        return FolderFeatures(name.removeprefix(PREFIX), **_batch(config))
    if network is None and _is_own(name):
        identity = function_features.describe_function(name)
        function = function_features.load_function(name)
        return function_source(function, config, name=name, identity=identity)
    network = network or load_network(**config['network'])
    size = dict(config['input'])
    seen = size.pop('color') or network.color or 'rgb'
    return NetworkFeatures(network, InputConfig(**size), seen, **_batch(config))


def function_source(
    function: Callable[..., Any], config: Mapping[str, Any], **described: Any
) -> FunctionFeatures:
    """Makes the source of a function's features, with a config's `input` and `feature_batch`.

    Args:
      function: as `FunctionFeatures` takes it.
      config: as in configs/eval.
      **described: name, version and identity of the function, see `FunctionFeatures`.
    """
    size = dict(config['input'])
    size.pop('color')  # A function gets RGB; `check_flags` refuses other colours.
    return FunctionFeatures(function, input=InputConfig(**size), **_batch(config), **described)


def _batch(config):
    """The batch that a config asks for; without one each source has its own."""
    return {} if config['feature_batch'] is None else {'batch': config['feature_batch']}


def check_flags(name: str, given: Mapping[str, Any]) -> None:
    """Checks that the user gave no setting that has no effect on a function or a folder.

    Configs may have such settings for their own networks. They are not refused.

    Args:
      name: a config's `network.name`.
      given: the settings that the user gave: values by names such as 'network.output'.

    Raises:
      ValueError: the name is that of a function or a folder, and a given setting is a network's
        attribute, a colour other than RGB, or for a folder any setting of `input`.
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
    """Computes a text that changes if the source of a name changes.

    Args:
      name: a config's `network.name`.

    Returns:
      The SHA-256 of a network's weights, '' if it has none; the SHA-256 of a folder; or the
      identity of a function, see `describe_function`.

    Raises:
      ValueError: there is no such source.
    """
    if name.startswith(PREFIX):
        return folder_digest(name.removeprefix(PREFIX))
    if _is_own(name):
        return json.dumps(function_features.describe_function(name), sort_keys=True)
    return networks.weights_digest(name)


def short_name(name: str) -> str:
    """Shortens the name of a source for tables: without folders and settings."""
    if name.startswith(PREFIX):
        return pathlib.Path(name.removeprefix(PREFIX)).resolve().name
    if _is_own(name):
        return function_features.short_name(name)
    path = pathlib.PurePath(name)
    return path.parent.name if path.stem == 'backbone' and path.parent.name else path.stem


def _is_own(name):
    """Tells whether a name is that of a folder of features or of a function, not of a network."""
    if name.startswith(PREFIX):
        return True
    is_file = any(pathlib.Path(f'{name}{suffix}').exists() for suffix in ('', '.safetensors'))
    return function_features.is_function(name) and not is_file
