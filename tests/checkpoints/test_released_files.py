"""Vision transformers, read from files as they are released, which hold more than the network."""

import functools

import jax
import numpy as np
import pytest

from jaxprop.checkpoints import load_published
from jaxprop.checkpoints.published import read_published
from jaxprop.checkpoints.vit_layouts import LAYOUTS
from tests.checkpoints import released_files
from tests.checkpoints.released_files import LAYOUT_OF, RELEASED_AS, SAVED, vit_error, vit_file
from tests.released_networks import NAMES, released_state

BY_NAME = {layout.name: layout for layout in LAYOUTS}


@functools.cache
def first_block(name):
    """Cuts a state down to one block, and makes the network of it."""
    state = released_state(name, num_blocks=1)
    return state, BY_NAME[LAYOUT_OF[name]].build(state, None)


@pytest.mark.parametrize('name', NAMES)
def test_reproduces_the_released_code(name, tmp_path):
    path = vit_file(tmp_path / 'file', name, RELEASED_AS[name], released_files.state(name))
    assert vit_error(path, name) < 1e-4


@pytest.mark.parametrize('kind', SAVED)
@pytest.mark.parametrize('name', NAMES)
def test_each_kind_of_file_holds_the_same(name, kind, tmp_path):
    state, expected = first_block(name)
    path = vit_file(tmp_path / 'file', name, kind, state)
    found = load_published(path, layout=LAYOUT_OF[name])
    assert found[0] == expected[0]
    jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])


def test_what_training_saves_is_told_apart(tmp_path):
    state, _ = first_block('dino_vits8')
    file = read_published(vit_file(tmp_path / 'file', 'dino_vits8', 'training', state), 'dino')
    assert file.prefix == 'teacher.backbone.'
    assert 'student.module.backbone.cls_token' in file.beside
    assert 'args (argparse.Namespace)' in file.left_out
    assert 'seen.<tuple> (a key that is no text)' in file.left_out
