"""The files that networks were released as, written by hand, and what they give when read.

    python -m tests.checkpoints.released_files

prints the largest error of each network's features through each kind of file, relative to the
largest value that the released code gives.
"""

import functools
import pathlib
import tempfile

import jax
import numpy as np
from safetensors.numpy import save_file

from jaxprop.checkpoints import load_published
from tests import rule
from tests.checkpoints import test_published as convnets
from tests.checkpoints.test_published import EMPTY, NAMESPACE, prefixed, write, zeros
from tests.checkpoints.test_torch_file import Call, Name
from tests.checkpoints.test_vit_layouts import LAYOUT_OF
from tests.released_networks import NAMES as VITS
from tests.released_networks import released_outputs, released_state
from tests.support import REFERENCE

SAVED = ('zip', 'old', 'safetensors', 'training')
# The kind that a network was released as; the others are how it may come.
RELEASED_AS = {
    'dino_vits16': 'training',
    'dino_vits8': 'old',
    'dinov2_vits14': 'zip',
    'dinov2_vits14_reg4': 'safetensors',
    'dinov3_vits16': 'zip',
    'mae_vit': 'training',
}


def vit_file(path, name, kind, arrays):
    """Writes a file of a vision transformer.

    Args:
      path: of the file.
      name: of the network.
      kind: 'zip' or 'old': of PyTorch; 'safetensors'; 'training': what the training saved, with
        the objects beside the network.
      arrays: by their names in the release.
    """
    if kind == 'safetensors':
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path)
        return path
    if kind != 'training':
        wrapped = {'model': arrays} if name.startswith('mae') else {'': arrays}
        return write(
            path,
            kind,
            lambda **groups: groups.get('') or groups,
            wrapped,
            parameters=True,
        )
    facts = {
        'epoch': 100,
        'args': NAMESPACE,
        'scaler': {'scale': 65536.0, '_growth_tracker': 0},
        'optimizer': {'state': {0: {'step': 7}}, 'param_groups': [{'betas': (0.9, 0.95)}]},
        'seen': {(1, 2): 3, None: 4},
        'random': Call(Name('_codecs encode'), ('abc', 'latin1')),
    }
    if not name.startswith('dino'):
        return write(path, 'zip', lambda net: {'model': net, **facts}, {'net': arrays})
    # What a teacher learned is evaluated, not its student.
    student = dict.fromkeys(prefixed('module.backbone.', arrays), zeros(2))
    head = {'head.mlp.0.weight': zeros(4, 4), 'head.last_layer.weight_g': zeros(4, 1)}
    teacher = {**prefixed('backbone.', arrays), **head}
    loss = Call(Name('collections OrderedDict'), ([('center', 0)],))
    return write(
        path,
        'zip',
        lambda teacher, student: {
            'student': student,
            'teacher': teacher,
            'dino_loss': loss,
            'metadata': EMPTY,
            **facts,
        },
        {'teacher': teacher, 'student': student},
    )


def vit_error(path, name):
    """Computes the largest relative error of a network's patch tokens, read from its file."""
    images, outputs = released_outputs(name)
    model, variables = load_published(path, layout=LAYOUT_OF[name])
    return error(jax.jit(model.apply)(variables, images), outputs['tokens'])


def error(features, expected):
    """Computes the largest difference, relative to the largest value."""
    assert features.shape == expected.shape
    return float(np.abs(np.asarray(features) - expected).max() / np.abs(expected).max())


def convnet_file(path, name, kind):
    """Writes a convolutional network as it was released, or flat in another kind of file."""
    if kind == 'released':
        return convnets.release(name, path)
    arrays = prefixed(convnets.NETWORKS[name]['prefix'], convnets.state(name))
    if kind == 'safetensors':
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path)
        return path
    return write(path, kind, lambda net: {'state_dict': net}, {'net': arrays})


def convnet_errors(path, name):
    """Yields outputs of a convolutional network, each with its largest relative error.

    Every fourth channel is compared.
    """
    entry = convnets.NETWORKS[name]
    images = rule.images(entry['input'], entry['input_seed'])
    layout = name if convnets.recognised_by_name(name) else None
    for key in convnets.OUTPUTS:
        if key.startswith(f'{name}/'):
            output = key.split('/')[1]
            output = None if output == 'features' else output
            model, variables = load_published(path, output, layout)
            features = jax.jit(model.apply)(variables, images).transpose(0, 3, 1, 2)[:, ::4]
            yield output, error(features, np.load(REFERENCE / 'convnets.npz')[key])


@functools.cache
def state(name):
    return released_state(name)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'file'
        print(f'{"network":22} {"container":12} {"output":8} largest error')
        for name in convnets.NETWORKS:
            for kind in ('released', 'zip', 'old', 'tar', 'safetensors'):
                convnet_file(path, name, kind)
                for output, found in convnet_errors(path, name):
                    print(f'{name:22} {kind:12} {output or "own":8} {found:.1e}', flush=True)
        for name in VITS:
            for kind in SAVED:
                vit_file(path, name, kind, state(name))
                print(f'{name:22} {kind:12} {"tokens":8} {vit_error(path, name):.1e}', flush=True)


if __name__ == '__main__':
    main()
