"""Makes variables of our ResNets, VGG and colour autoencoder of the arrays of released files."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import ArrayLike

from jaxprop.checkpoints.layout import Layout
from jaxprop.checkpoints.native import check_finite, select, variable_shapes
from jaxprop.checkpoints.torch_file import load_torch_weights
from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.models.resnet import ARCHITECTURES, ResNet
from jaxprop.models.vgg import POOLED, VGG16


def from_torchvision(
    state: Mapping[str, ArrayLike], model: ResNet, prefix: str | None = None
) -> dict[str, Any]:
    """Makes the variables of a ResNet of arrays under torchvision's names.

    Args:
      state: name to array, such as a state dict with every tensor as NumPy array. Names may have
        a prefix, such as 'module.encoder_q.'. Arrays that the network doesn't need are ignored: the
        classifier, layers after its output, counters.
      model: the network. Its projection is 'projection.weight' and 'projection.bias'.
      prefix: of the network's names, where `state` holds several networks; None: the text in front
        of the stem's 'conv1.weight'.

    Returns:
      `params` and `batch_stats`, float32.

    Raises:
      ValueError: where `state` lacks arrays of the network, has them in another shape or not
        finite, or holds a deeper network.
    """
    # Find the network's arrays in the state.
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
    # Bring them into Flax's layout.
    flat = {}
    missing = []
    for path in variable_shapes(model):
        name = _torchvision_name(path)
        if name in state:
            value = _array(state.pop(name), name)
            # TimeCycle's kernels have an axis of one frame: [out, in, 1, height, width].
            if value.ndim == 5 and value.shape[2] == 1:
                value = value[:, :, 0]
            # [out, in, height, width] -> [height, width, in, out]
            flat[path] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        else:
            missing.append(start + name)
    if missing:
        raise ValueError(f'the state lacks {missing}')
    flat = select(model, flat, 'the state')
    # A ResNet34 has all arrays of a ResNet18: refuse a state with more blocks than the network.
    stage = int(model.output.removeprefix('res'))
    left = [name for name in state if re.match(rf'layer[1-{stage}]\.', name)]
    if left:
        raise ValueError(f'the state is not of a ResNet{model.depth}, which has no {left}')
    flat = {path: jnp.asarray(value) for path, value in flat.items()}
    return traverse_util.unflatten_dict(flat, sep='/')


def _torchvision_name(path: str) -> str:
    """Translates our name to torchvision's: 'params/res1_0/norm1/scale', 'layer1.0.bn1.weight'."""
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
    """Makes the variables of a VGG16 of arrays under PyTorch's names.

    Args:
      state: name to array, such as a state dict with every tensor as NumPy array. The names are
        'features.0.weight' and so on, those of DeepCluster's networks and of torchvision's
        vgg16_bn, or 'features.module.0.weight', as DeepCluster saves them; they may have a prefix.
        Arrays that the network doesn't need are ignored: the fixed Sobel filter, the classifier,
        layers after its output, counters.
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
    """Translates ('params', 'norm3', 'scale') to '8.weight': PyTorch numbers ReLUs, pools too."""
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
    """Makes the variables of a `ColorAutoencoder` of the two files that UVC was released with.

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
            # In the release these two layers are the second ones after pooling or upsampling.
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
    """Converts an array of a state dict to float32; refuses containers, which could be huge."""
    if not hasattr(value, 'shape'):
        raise ValueError(f'{name!r} is a {type(value).__name__}, not an array')
    return np.asarray(value, np.float32)


def _torchvision_names(depth: int, num_blocks: tuple[int, ...]) -> list[str]:
    """Lists the names in torchvision's ResNets, for any number of blocks in each stage."""
    num_convs = 3 if depth == 50 else 2
    names = [('conv1', 'bn1')]
    for stage, count in enumerate(num_blocks, start=1):
        for block in range(count):
            start = f'layer{stage}.{block}'
            names += [(f'{start}.conv{k}', f'{start}.bn{k}') for k in range(1, num_convs + 1)]
            if block == 0 and (stage > 1 or depth == 50):
                names.append((f'{start}.downsample.0', f'{start}.downsample.1'))
    norm = ('weight', 'bias', 'running_mean', 'running_var')
    return [
        name
        for conv, norm_name in names
        for name in (f'{conv}.weight', *(f'{norm_name}.{leaf}' for leaf in norm))
    ]


def _resnet(
    name: str,
    depth: int = 18,
    rename: Sequence[tuple[str, Any]] = (),
    prefixes: tuple[str, ...] = (),
    bare: bool = True,
    output: str = 'res3',
    color: str = 'rgb',
    **attributes: Any,
) -> Layout:
    """Makes the layout of a ResNet.

    Args:
      name: of the layout.
      depth: 18, 34 or 50.
      rename: pairs of a pattern and its replacement. One after the other, they turn torchvision's
        names into the release's.
      prefixes: see `Layout`.
      bare: see `Layout`.
      output: the stage that the release evaluates.
      color: see `Layout`.
      **attributes: of `ResNet`. A projection belongs to the release's output alone.
    """
    _, _, num_blocks = ARCHITECTURES[depth]

    def released(names: list[str]) -> list[str]:
        for pattern, replacement in rename:
            names = [re.sub(pattern, replacement, name) for name in names]
        return names

    def build(state: Mapping[str, np.ndarray], wanted: str | None):
        settings = dict(attributes)
        if wanted is not None:
            settings = {k: v for k, v in settings.items() if not k.startswith('projection')}
        model = ResNet(depth, (1, 2, 1, 1), wanted or output, **settings)
        # Rename more blocks than any known network has, so that those of a deeper one are found.
        names = [*_torchvision_names(depth, (50,) * 4), 'projection.weight', 'projection.bias']
        renamed = dict(zip(released(names), names, strict=True))
        arrays = {renamed.get(name, name): value for name, value in state.items()}
        return model, from_torchvision(arrays, model, prefix='')

    # The signature is without res4: most releases do not evaluate it, and files may lack it.
    signature = _torchvision_names(depth, num_blocks[:3])
    if 'projection' in attributes:
        signature.append('projection.weight')
    return Layout(name, tuple(released(signature)), build, prefixes, bare, color)


def _vgg(name: str, start: str) -> Layout:
    """Makes the layout of a VGG16 with BatchNorm; `start` precedes the numbers of its layers."""
    paths = [
        path
        for index in range(1, 11)
        for path in (
            *(('params', f'conv{index}', leaf) for leaf in ('kernel', 'bias')),
            *(('params', f'norm{index}', leaf) for leaf in ('scale', 'bias')),
            *(('batch_stats', f'norm{index}', leaf) for leaf in ('mean', 'var')),
        )
    ]
    signature = tuple(start + _torch_name(path) for path in paths)

    def build(state: Mapping[str, np.ndarray], wanted: str | None):
        state = {name: value for name, value in state.items() if name.startswith(start)}
        # DeepCluster's networks see the two Sobel derivatives, torchvision's the three colours.
        sobel = np.shape(state[signature[0]])[1:2] == (2,)
        model = VGG16(sobel=sobel, output=wanted or 'conv10')
        return model, from_deepcluster(state, model)

    return Layout(name, signature, build)


_MMCV = (
    (r'conv(\d)\.', r'conv\1.conv.'),
    (r'bn(\d)\.', r'conv\1.bn.'),
    (r'downsample\.0', 'downsample.conv'),
    (r'downsample\.1', 'downsample.bn'),
)
_TRANSFORMERS = (
    (r'^conv1', 'embedder.embedder.convolution'),
    (r'^bn1', 'embedder.embedder.normalization'),
    (r'^layer(\d)', lambda match: f'encoder.stages.{int(match[1]) - 1}.layers'),
    (r'\.conv(\d)', lambda match: f'.layer.{int(match[1]) - 1}.convolution'),
    (r'\.bn(\d)', lambda match: f'.layer.{int(match[1]) - 1}.normalization'),
    (r'downsample\.0', 'shortcut.convolution'),
    (r'downsample\.1', 'shortcut.normalization'),
)
# CRW pads by reflection in a layer of its own, so its convolutions are the second in a sequence.
_CRW = ((r'conv([12])\.', r'conv\1.1.'),)
_TIMECYCLE = ((r'^projection', 'afterconv1'), (r'^(conv|bn|layer)', r'encoderVideo.\1'))
_CORRFLOW = (
    (r'^conv1', 'conv1.0'),
    (r'^bn1', 'conv1.1'),
    (r'(\.\d+)\.conv1', r'\1.left.0'),
    (r'(\.\d+)\.bn1', r'\1.left.1'),
    (r'(\.\d+)\.conv2', r'\1.left.3'),
    (r'(\.\d+)\.bn2', r'\1.left.4'),
    ('downsample', 'shortcut'),
    (r'^projection', 'post_convolution'),
    (r'^(conv1|layer)', r'feature_extraction.\1'),
)
_CORRFLOW_NETWORK = {
    'rename': _CORRFLOW,
    'output': 'res4',
    'max_pool': False,
    'widths': (64, 128, 256, 256),
    'projection': 64,
    'projection_kernel': 3,
    'projection_bias': True,
}

# Where layouts have the same names, the first one is taken: most such files are of it. VFS's files
# have torchvision's names; checkpoints of its training have mmcv's.
LAYOUTS = (
    _resnet('torchvision_resnet18'),
    _resnet('torchvision_resnet34', 34),
    _resnet('torchvision_resnet50', 50),
    _resnet('moco_resnet18', prefixes=('encoder_q.',), bare=False),
    _resnet('moco_resnet50', 50, prefixes=('encoder_q.',), bare=False),
    _resnet('crw_resnet18', prefixes=('encoder.model.',), padding='reflect'),
    _resnet('crw_resnet18', rename=_CRW, prefixes=('encoder.model.',), padding='reflect'),
    _resnet(
        'uvc_resnet18',
        prefixes=('gray_encoder.',),
        bare=False,
        output='res4',
        color='lightness',
    ),
    _resnet('vfs_resnet18', rename=_MMCV, prefixes=('backbone.',)),
    _resnet('vfs_resnet50', 50, _MMCV, prefixes=('backbone.',)),
    *(_resnet(f'transformers_resnet{depth}', depth, _TRANSFORMERS) for depth in ARCHITECTURES),
    _resnet('timecycle_resnet50', 50, _TIMECYCLE, projection=512, projection_relu=True),
    _resnet('corrflow_resnet18', color='rgb_unit', **_CORRFLOW_NETWORK),
    _resnet('mast_resnet18', color='lab', **_CORRFLOW_NETWORK),
    _vgg('deepcluster_vgg16', 'features.module.'),
    _vgg('vgg16_bn', 'features.'),
)
