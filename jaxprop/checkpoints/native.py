"""Saves networks with their weights, and loads them: NAME.safetensors and NAME.json.

NAME.json, the card, says how to build the network. A network here is a Flax module that
`jaxprop.models.find_network` finds. The card holds digests of the weights and of the network's
class and attributes, so damage to either is an error.
"""

import functools
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
from jaxprop.models.network import attribute_names, check_attributes, find_network

FOLDER = pathlib.Path(__file__).resolve().parents[1] / 'weights'
DEFAULT_NETWORK = 'uvc_plus_davis_long'  # What commands take unless they are told otherwise.
DTYPES = ('float16', 'float32')
_SAFETENSORS = {
    **{'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': jnp.bfloat16},
    **{'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U8': np.uint8},
    **{'U64': np.uint64, 'U32': np.uint32, 'U16': np.uint16, 'BOOL': np.bool_},
}


def save_pretrained(
    path: str | os.PathLike,
    model: nn.Module,
    variables: Mapping[str, Any],
    description: Mapping[str, Any] | None = None,
    dtype: str = 'float32',
    *,
    output: str | None = None,
) -> None:
    """Writes a network and its weights to PATH.safetensors and PATH.json.

    Args:
      path: with or without '.safetensors'. The folder is made where needed.
      model: the network. All its attributes are kept; `load_pretrained` can replace them.
      variables: its variables; those that the network doesn't need are left out.
      description: free-form facts about the network, for the JSON file: data, epochs, results.
      dtype: of the parameters in the file: 'float32', or 'float16' for half the size. Other
        floating point values, such as batch statistics, stay float32.
      output: the output that the saved network has, in place of the `model`'s. The file still holds
        all layers of the `model`, so `load_pretrained` can be asked for a later output.

    Raises:
      ValueError: for another dtype, for a module that `jaxprop.models` doesn't have, and for
        variables that are not this network's, not finite, or too large for the dtype.
      OSError: the files cannot be written.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype is {dtype!r}; known: {DTYPES}')
    name = type(model).__name__
    if find_network(name) is not type(model):
        raise ValueError(f'{type(model)} is not the {name} of jaxprop.models')
    weights_path, card_path = _paths(path)
    flat = select(model, traverse_util.flatten_dict(variables, sep='/'), 'the variables')
    with np.errstate(over='ignore'):  # `check_finite` finds values too large for float16.
        arrays = {
            # safetensors writes memory in the order in which it lies.
            key: np.asarray(value, _saved_dtype(key, value, dtype), order='C')
            for key, value in flat.items()
        }
    check_finite(arrays, f'the variables in {dtype}')
    attributes = {key: getattr(model, key) for key in attribute_names(model)}
    if output is not None:
        attributes['output'] = output
        select(type(model)(**attributes), flat, f'the output {output!r}')
    # The attributes that JSON can't write are dtypes: write their names.
    attributes = json.loads(json.dumps(attributes, default=lambda value: np.dtype(value).name))

    from safetensors.numpy import save  # Imported here, so that this module loads without it.

    data = save(arrays)
    with replacing(card_path) as card_file, replacing(weights_path) as weights_file:
        weights_file.write_bytes(data)
        card = {
            'network': name,
            'attributes': attributes,
            'jaxprop': _version(),
            'dtype': dtype,
            'sha256': hashlib.sha256(data).hexdigest(),
            'network_sha256': _network_digest(name, attributes),
            'description': dict(description or {}),
        }
        card_file.write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')


def load_pretrained(
    name_or_path: str | os.PathLike, **attributes: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Builds a saved network and reads its weights.

    Args:
      name_or_path: one of `list_pretrained()`, or the path that `save_pretrained` was given.
      **attributes: replace the saved ones, such as `output='res2'` or `strides=(1, 2, 1, 1)`.
        Parameters that the network then doesn't need are dropped.

    Returns:
      The network, and its variables, floating point ones in float32.

    Raises:
      ValueError: where there is no such network, its files are damaged or hold values that are not
        finite, it has no such attribute, or it needs a parameter that the file doesn't have or has
        in another shape. The message names the file.
    """
    weights_path, card_path = _find(name_or_path)
    card = _read_card(card_path)
    data = _read_weights(weights_path, card)
    arrays = parse_safetensors(weights_path, data)
    try:
        network = find_network(card['network'])
    except ValueError as error:
        raise ValueError(f'{card_path}: {error}') from error
    check_attributes(network, attributes)
    model = _build(network, card, attributes, card_path)
    flat = select(model, arrays, str(weights_path))
    flat = {key: jnp.asarray(value, _saved_dtype(key, value)) for key, value in flat.items()}
    return model, traverse_util.unflatten_dict(flat, sep='/')


def describe_pretrained(name_or_path: str | os.PathLike) -> dict[str, Any]:
    """Reads the card of a saved network. Its 'description' is the one given to `save_pretrained`.

    Args:
      name_or_path: as for `load_pretrained`.

    Returns:
      The file's contents. 'sha256' is that of the weights' file, as it is now.

    Raises:
      ValueError: there is no such network, or its files are damaged.
    """
    weights_path, card_path = _find(name_or_path)
    card = _read_card(card_path)
    return {**card, 'sha256': hashlib.sha256(_read_weights(weights_path, card)).hexdigest()}


def weights_digest(name_or_path: str | os.PathLike) -> str:
    """Computes the SHA-256 of a saved network's file of weights, in hexadecimal.

    Args:
      name_or_path: as for `load_pretrained`.

    Raises:
      ValueError: there is no such network, or its files are damaged.
    """
    return describe_pretrained(name_or_path)['sha256']


def list_pretrained() -> list[str]:
    """Lists the names of the networks that come with jaxprop."""
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


def _read_card(path: pathlib.Path) -> dict[str, Any]:
    """Reads the contents of a network's JSON file."""
    try:
        card = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: is damaged, it cannot be read as JSON: {error}') from error
    if type(card) is not dict:
        raise ValueError(f'{path}: is damaged: it holds a {type(card).__name__}, no dict')
    # Cards of earlier versions have no digests.
    card = {'description': {}, **card}
    types = {'network': str, 'attributes': dict, 'description': dict}
    types |= {key: str for key in ('sha256', 'network_sha256') if key in card}
    for key, kind in types.items():
        if type(card.get(key)) is not kind:
            raise ValueError(f'{path}: is damaged: {key!r} must be a {kind.__name__}')
    try:
        digest = _network_digest(card['network'], card['attributes'])
    except RecursionError as error:
        raise ValueError(f'{path}: is damaged: its attributes are nested too deeply') from error
    if card.get('network_sha256', digest) != digest:
        raise ValueError(
            f'{path}: is damaged or was edited: network and attributes are not what was saved '
            "('network_sha256'); give other attributes to load_pretrained instead"
        )
    return card


def _read_weights(path: pathlib.Path, card: Mapping[str, Any]) -> bytes:
    """Reads the bytes of a file of weights, and checks that its card belongs to them."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if card.get('sha256', digest) != digest:
        raise ValueError(
            f'{path}: is damaged, or not the file that {path.stem}.json was written with: its '
            f"SHA-256 is {digest}, and 'sha256' there {card['sha256'][:64]}"
        )
    return data


def parse_safetensors(path: pathlib.Path, data: bytes) -> dict[str, np.ndarray]:
    """Parses `data`, the bytes of a safetensors file; ValueError naming `path` if damaged."""
    from safetensors import SafetensorError, deserialize  # Here, as in `save_pretrained`.

    try:
        return {
            name: np.frombuffer(entry['data'], _SAFETENSORS[entry['dtype']]).reshape(entry['shape'])
            for name, entry in deserialize(data)
        }
    except (SafetensorError, KeyError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f'{path}: cannot be read as safetensors: {error}') from error


def _network_digest(network: str, attributes: Mapping[str, Any]) -> str:
    text = json.dumps([network, attributes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _build(
    network: type[nn.Module],
    card: Mapping[str, Any],
    attributes: Mapping[str, Any],
    card_path: pathlib.Path,
) -> nn.Module:
    """Builds the network of a card, with some attributes replaced, and checks that it runs."""
    try:
        model = network(**{**card['attributes'], **attributes})
        variable_shapes(model)
    # A value of a wrong kind can raise any exception, somewhere in Flax or JAX.
    except Exception as error:
        given = f' with {dict(attributes)} in place of some' if attributes else ''
        raise ValueError(
            f'{card_path}: no {card["network"]} can be built of its attributes{given}: '
            f'{type(error).__name__}: {error}'
        ) from error
    return model


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
    """Lists the shape of every variable that `model` needs, by 'collection/module/.../name'."""
    return dict(_variable_shapes(model))


@functools.lru_cache(maxsize=16)
def _variable_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    flat: dict[str, Any] = traverse_util.flatten_dict(variables, sep='/')
    return {path: value.shape for path, value in flat.items()}


def select(model: nn.Module, flat: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Takes from `flat` the variables that `model` needs.

    Raises ValueError, which names `where`, if one is missing, of another shape or not finite.
    """
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
    selected = {path: flat[path] for path in shapes}
    check_finite(selected, where)
    return selected


def check_finite(flat: Mapping[str, Any], where: str) -> None:
    """Raises ValueError, which names the first array with infinite or NaN values."""
    for path, value in flat.items():
        if not np.isfinite(np.asarray(value)).all():
            raise ValueError(f'{where}: {path} holds values that are infinite or not numbers')
