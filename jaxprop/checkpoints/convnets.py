"""Variables of our ResNets, VGG and colour autoencoder from the arrays of released files."""

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import ArrayLike

from jaxprop.checkpoints.native import check_finite, select, variable_shapes
from jaxprop.checkpoints.torch_file import load_torch_weights
from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.models.resnet import ResNet
from jaxprop.models.vgg import POOLED, VGG16


def from_torchvision(
    state: Mapping[str, ArrayLike], model: ResNet, prefix: str | None = None
) -> dict[str, Any]:
    """Variables of a ResNet from arrays under torchvision's names.

    Args:
      state: name to array, such as a state dict with every tensor as NumPy array. Names may have
        a prefix, such as 'module.encoder_q.'. What the network doesn't need is ignored: the
        classifier, layers after its output, counters.
      model: the network.
      prefix: needed where `state` holds several networks; else it is what precedes the stem's
        'conv1.weight'.

    Returns:
      `params` and `batch_stats`, float32.

    Raises:
      ValueError: where `state` lacks arrays of the network, has them in another shape or not
        finite, or holds a deeper network.
    """
    if prefix is None:
        stems = [re.fullmatch(r'(|.*\.)conv1\.weight', name) for name in state]
        prefixes = [
            stem[1] for stem in stems if stem and not re.search(r'layer\d\.\d+\.$', stem[1])
        ]
        if len(prefixes) != 1:
            raise ValueError(
                "needed: one stem, '<prefix>conv1.weight', or the argument prefix to choose one; "
                f'prefixes found: {prefixes}'
            )
        prefix = str(prefixes[0])
    start = prefix
    state = {
        name.removeprefix(start): value
        for name, value in state.items()
        if name.startswith(start) and not name.endswith('num_batches_tracked')
    }
    flat = {}
    missing = []
    for path in variable_shapes(model):
        name = _torchvision_name(path)
        if name in state:
            value = _array(state.pop(name), name)
            # [out, in, height, width] -> [height, width, in, out]
            flat[path] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        else:
            missing.append(start + name)
    if missing:
        raise ValueError(f'the state lacks {missing}')
    flat = select(model, flat, 'the state')
    # Those of ResNet18 are found in a ResNet34 too.
    stage = int(model.output.removeprefix('res'))
    left = [name for name in state if re.match(rf'layer[1-{stage}]\.', name)]
    if left:
        raise ValueError(f'the state is not of a ResNet{model.depth}, which has no {left}')
    flat = {path: jnp.asarray(value) for path, value in flat.items()}
    return traverse_util.unflatten_dict(flat, sep='/')


def _torchvision_name(path: str) -> str:
    """'params/res1_0/norm1/scale' -> 'layer1.0.bn1.weight'."""
    _, *modules, leaf = path.split('/')
    renamed = {
        'stem_conv': 'conv1',
        'stem_norm': 'bn1',
        'shortcut_conv': 'downsample.0',
        'shortcut_norm': 'downsample.1',
        'kernel': 'weight',
        'scale': 'weight',
        'mean': 'running_mean',
        'var': 'running_var',
    }
    names = [renamed.get(name, name) for name in (*modules, leaf)]
    names = [re.sub(r'^res(\d)_(\d+)$', r'layer\1.\2', name) for name in names]
    return '.'.join(re.sub(r'^norm(\d)$', r'bn\1', name) for name in names)


def from_deepcluster(state: Mapping[str, ArrayLike], model: VGG16) -> dict[str, Any]:
    """Variables of a VGG16 from arrays under PyTorch's names.

    Args:
      state: name to array, such as a state dict with every tensor as NumPy array. The names are
        'features.0.weight' and so on, those of DeepCluster's networks and of torchvision's
        vgg16_bn, or 'features.module.0.weight', as DeepCluster saves them; they may have a prefix.
        What the network doesn't need is ignored: the fixed Sobel filter, the classifier, layers
        after its output, counters.
      model: the network.

    Returns:
      `params` and `batch_stats`, float32.

    Raises:
      ValueError: where `state` lacks arrays of the network, has them in another shape, or not
        finite.
    """
    found = {}
    for name, value in state.items():
        match = re.fullmatch(r'(?:.*\.)?features\.(?:module\.)?(\d+\.[a-z_]+)', name)
        if match:
            found[match[1]] = value
    images = jnp.zeros((1, 64, 64, 3))
    shapes: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(
        jax.eval_shape(model.init, jax.random.key(0), images)
    )
    variables = {}
    for path, shape in shapes.items():
        name = _torch_name(path)
        if name not in found:
            raise ValueError(f"the state lacks 'features.{name}'")
        value = _array(found[name], f'features.{name}')
        # [out, in, height, width] -> [height, width, in, out]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        if value.shape != shape.shape:
            raise ValueError(
                f"'features.{name}' has the shape {value.shape} as {'/'.join(path)}, but this "
                f'network needs {shape.shape}'
            )
        check_finite({f'features.{name}': value}, 'the state')
        variables[path] = jnp.asarray(value)
    return traverse_util.unflatten_dict(variables)


def _torch_name(path: tuple[str, ...]) -> str:
    """('params', 'norm3', 'scale') -> '8.weight', in the list of conv, norm, ReLU and max pool."""
    _, layer, leaf = path
    kind, index = layer[:4], int(layer[4:])
    position = 3 * (index - 1) + sum(pooled < index for pooled in POOLED) + (kind == 'norm')
    renamed = {
        'kernel': 'weight',
        'scale': 'weight',
        'mean': 'running_mean',
        'var': 'running_var',
    }
    return f'{position}.{renamed.get(leaf, leaf)}'


def load_released(
    encoder_path: str | os.PathLike, decoder_path: str | os.PathLike
) -> dict[str, Any]:
    """Variables of a `ColorAutoencoder` from the two files that UVC was released with.

    Args:
      encoder_path: PyTorch weights of the encoder, as `load_torch_weights` reads them.
      decoder_path: likewise, of the decoder.

    Returns:
      `params`, float32.

    Raises:
      ValueError: a file is not of PyTorch weights, or not of this network.
    """
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    expected = jax.eval_shape(ColorAutoencoder().init, jax.random.key(0), images)['params']
    params = {}
    for part, path in {'encoder': encoder_path, 'decoder': decoder_path}.items():
        state = load_torch_weights(path)
        params[part] = {}
        for name, shapes in expected[part].items():
            # The two are in a sequence with pooling or upsampling.
            source = f'{name}.1' if name in ('downsample', 'upsample') else name
            try:
                kernel = _array(state[f'{source}.weight'], f'{source}.weight')
                bias = _array(state[f'{source}.bias'], f'{source}.bias')
            except (KeyError, TypeError, IndexError, ValueError) as error:
                raise ValueError(
                    f"{os.fspath(path)!r} lacks '{source}', which the {part} needs"
                ) from error
            # [out, in, height, width] -> [height, width, in, out]
            if kernel.ndim == 4:
                kernel = kernel.transpose(2, 3, 1, 0)
            layer = {'kernel': kernel, 'bias': bias}
            check_finite({f'{source}.{key}': layer[key] for key in layer}, os.fspath(path))
            for key, value in layer.items():
                if value.shape != shapes[key].shape:
                    raise ValueError(
                        f'{source} has a {key} of shape {value.shape} in {os.fspath(path)!r}; '
                        f'the {part} needs {shapes[key].shape}'
                    )
            params[part][name] = jax.tree.map(jnp.asarray, layer)
    return {'params': params}


def _array(value: Any, name: str) -> np.ndarray:
    """A value of a state dict as float32; a container there could stand for billions of values."""
    if not hasattr(value, 'shape'):
        raise ValueError(f'{name!r} is a {type(value).__name__}, not an array')
    return np.asarray(value, np.float32)
