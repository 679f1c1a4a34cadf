"""Networks with their weights as files: NAME.safetensors, and NAME.json that says how to build it.

A network here is a Flax module that `jaxprop.models.find_network` finds.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxprop.files import replacing
from jaxprop.models.network import attribute_names, find_network

FOLDER = pathlib.Path(__file__).resolve().parents[1] / 'weights'
DTYPES = ('float16', 'float32')


def save_pretrained(
    path: str | os.PathLike,
    model: nn.Module,
    variables: Mapping[str, Any],
    description: Mapping[str, Any] | None = None,
    dtype: str = 'float32',
) -> None:
    """Writes a network and its weights to PATH.safetensors and PATH.json.

    Args:
      path: with or without '.safetensors'. The folder is made where needed.
      model: the network. All its attributes are kept; `load_pretrained` can replace them.
      variables: its variables; what it doesn't need of them is left out.
      description: free-form facts about the network, for the JSON file: data, epochs, results.
      dtype: of the parameters in the file: 'float32', or 'float16' for half the size. Other
        floating point values, such as batch statistics, stay float32.

    Raises:
      ValueError: for another dtype, for a module that `jaxprop.models` doesn't have, and for
        variables that are not this network's.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype is {dtype!r}; known: {DTYPES}')
    name = type(model).__name__
    if find_network(name) is not type(model):
        raise ValueError(f'{type(model)} is not the {name} of jaxprop.models')
    weights_path, card_path = _paths(path)
    flat = select(model, traverse_util.flatten_dict(variables, sep='/'), 'the variables')
    arrays = {
        # safetensors writes the memory as it lies.
        key: np.asarray(value, _saved_dtype(key, value, dtype), order='C')
        for key, value in flat.items()
    }
    card = {
        'network': name,
        'attributes': {key: getattr(model, key) for key in attribute_names(model)},
        'jaxprop': _version(),
        'dtype': dtype,
        'description': dict(description or {}),
    }
    # What JSON doesn't know among a network's attributes are dtypes.
    text = json.dumps(card, indent=2, default=lambda value: np.dtype(value).name)

    from safetensors.numpy import save_file  # Here: reading this module shouldn't load it.

    with replacing(card_path) as card_file, replacing(weights_path) as weights_file:
        save_file(arrays, weights_file)
        card_file.write_text(text + '\n', encoding='utf-8')


def load_pretrained(
    name_or_path: str | os.PathLike, **attributes: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Builds a saved network and reads its weights.

    Args:
      name_or_path: one of `list_pretrained()`, or the path that `save_pretrained` was given.
      **attributes: put in place of the saved ones, such as `output='res2'` or
        `strides=(1, 2, 1, 1)`. Parameters that the network then doesn't need are dropped.

    Returns:
      The network, and its variables, floating point ones in float32.

    Raises:
      ValueError: where there is no such network, it has no such attribute, or it needs a
        parameter that the file doesn't have or has in another shape.
    """
    weights_path, card_path = _find(name_or_path)
    card = json.loads(card_path.read_text(encoding='utf-8'))
    network = find_network(card['network'])
    known = attribute_names(network)
    if unknown := sorted(set(attributes) - set(known)):
        raise ValueError(f'{card["network"]} has no {unknown}; known: {known}')
    model = network(**{**card['attributes'], **attributes})

    from safetensors.numpy import load_file  # Here: reading this module shouldn't load it.

    flat = select(model, load_file(weights_path), str(weights_path))
    flat = {key: jnp.asarray(value, _saved_dtype(key, value)) for key, value in flat.items()}
    return model, traverse_util.unflatten_dict(flat, sep='/')


def describe_pretrained(name_or_path: str | os.PathLike) -> dict[str, Any]:
    """What a saved network's JSON file says of it: 'description' is `save_pretrained`'s.

    Args:
      name_or_path: as for `load_pretrained`.

    Raises:
      ValueError: there is no such network.
    """
    return json.loads(_find(name_or_path)[1].read_text(encoding='utf-8'))


def weights_digest(name_or_path: str | os.PathLike) -> str:
    """SHA-256 of a saved network's file of weights, in hexadecimal.

    Args:
      name_or_path: as for `load_pretrained`.

    Raises:
      ValueError: there is no such network.
    """
    with _find(name_or_path)[0].open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def list_pretrained() -> list[str]:
    """Names of the networks that come with jaxprop."""
    return sorted(path.name.removesuffix('.json') for path in FOLDER.glob('*.json'))


def _paths(path: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    name = os.fspath(path).removesuffix('.safetensors')
    return pathlib.Path(f'{name}.safetensors'), pathlib.Path(f'{name}.json')


def _find(name_or_path: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    weights_path, card_path = _paths(name_or_path)
    if os.fspath(name_or_path) in list_pretrained():
        weights_path, card_path = _paths(FOLDER / name_or_path)
    for path in (weights_path, card_path):
        if not path.is_file():
            raise ValueError(
                f'no network {os.fspath(name_or_path)!r}: neither a file {str(path)!r} nor one of '
                f'the shipped networks: {list_pretrained()}'
            )
    return weights_path, card_path


def _version() -> str:
    try:
        return importlib.metadata.version('jaxprop')
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'


def _saved_dtype(path: str, value: Any, dtype: str = 'float32') -> np.dtype:
    """The dtype of a variable in a file or, by default, in memory. Integers keep theirs."""
    found = np.asarray(value).dtype
    if not jnp.issubdtype(found, jnp.floating):
        return found
    return np.dtype(dtype if path.startswith('params/') else 'float32')


def variable_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every variable that `model` needs, by 'collection/module/.../name'."""
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    flat: dict[str, Any] = traverse_util.flatten_dict(variables, sep='/')
    return {path: value.shape for path, value in flat.items()}


def select(model: nn.Module, flat: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What `model` needs of `flat`; ValueError where it is missing or of another shape."""
    shapes = variable_shapes(model)
    missing = [path for path in shapes if path not in flat]
    if missing:
        raise ValueError(f'{where} lacks {missing}, needed by {type(model).__name__}')
    for path, shape in shapes.items():
        if np.shape(flat[path]) != shape:
            raise ValueError(
                f'{path} has shape {np.shape(flat[path])} in {where}; '
                f'{type(model).__name__} needs {shape}'
            )
    return {path: flat[path] for path in shapes}
