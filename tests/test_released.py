"""Configs against released code: its recorded masks, and its errors."""

import importlib
import json
import types

import numpy as np
import pytest
from flax import traverse_util

from jaxprop import methods
from jaxprop.checkpoints.native import variable_shapes
from jaxprop.checkpoints.published import LAYOUTS
from jaxprop.data.davis import davis_sequence
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation.features import open_features
from jaxprop.evaluation.labeller import Labeller, plan_video, start_video
from jaxprop.evaluation.networks import load_network
from jaxprop.evaluation.run import label_frames
from jaxprop.evaluation.sources import open_source
from jaxprop.labels import resize
from jaxprop.models import ResNet, ViT
from jaxprop.propagation import propagate_video
from jaxprop.rules import screened
from jaxprop.rules.rule import Execution
from tests.support import REFERENCE, shared

RESIZED_IN_FLOATS = {'davis_timecycle', 'davis_siammae', 'jhmdb_crw', 'jhmdb_uvc', 'vip_crw'}
ERRORS = {
    'davis_timecycle': {'predicted_first'},
    'jhmdb_uvc': {'predicted_first'},
    'davis_uvc_track': {'signed_stop', 'corner_cells', 'pixel_limit', 'lost_is_gone'},
    'davis_mast': {'zero_outside', 'shared_offset'},
}
CONFIGS = (
    'davis_crw davis_vfs davis_uvc davis_uvc_track davis_timecycle davis_corrflow davis_mast '
    'davis_dino davis_dinov2 davis_dinov3 davis_mae davis_siammae davis_spa_then_temp '
    'jhmdb_crw jhmdb_uvc jhmdb_vfs jhmdb_spa_then_temp '
    'vip_crw vip_uvc vip_spa_then_temp badja_crw'
).split()
# The layout of the released network, and the name of its reference.
NETWORKS = {
    'davis_crw': ('crw_resnet18', 'crw_resnet18'),
    'davis_vfs': ('torchvision_resnet18', 'torchvision_resnet18'),
    'davis_uvc': ('uvc_resnet18', 'uvc_resnet18'),
    'davis_timecycle': ('timecycle_resnet50', 'timecycle_resnet50'),
    'davis_corrflow': ('corrflow_resnet18', 'corrflow_resnet18'),
    'davis_mast': ('mast_resnet18', 'mast_resnet18'),
    'davis_dino': ('dino', 'dino_vits16'),
    'davis_dinov2': ('dinov2', 'dinov2_vits14'),
    'davis_dinov3': ('dinov3', 'dinov3_vits16'),
    'davis_mae': ('mae', 'mae_vit'),
    'davis_siammae': ('mae', 'mae_vit'),
}
SEEN = {
    'davis_uvc': 'lightness',
    'davis_uvc_track': 'lightness',
    'jhmdb_uvc': 'lightness',
    'vip_uvc': 'lightness',
    'davis_corrflow': 'rgb_unit',
    'davis_mast': 'lab',
    'davis_spa_then_temp': 'lab',
    'jhmdb_spa_then_temp': 'lab',
    'vip_spa_then_temp': 'lab',
}
# At which size a frame of DAVIS is seen, and the grid of features.
GRIDS = {
    'davis_crw': ((480, 854), (60, 107)),
    'davis_vfs': ((480, 854), (60, 107)),
    'davis_uvc': ((480, 832), (60, 104)),
    'davis_timecycle': ((320, 320), (40, 40)),
    'davis_corrflow': ((480, 848), (120, 212)),
    'davis_mast': ((480, 854), (120, 214)),
    'davis_dino': ((480, 832), (30, 52)),
    'davis_dinov2': ((476, 854), (34, 61)),
    'davis_dinov3': ((960, 1712), (60, 107)),
    'davis_mae': ((480, 880), (30, 55)),
    'davis_siammae': ((480, 880), (30, 55)),
    'davis_spa_then_temp': ((480, 854), (120, 214)),
}


def load(name):
    return importlib.import_module(f'configs.eval.{name}').get_config()


@pytest.mark.parametrize('name', CONFIGS)
def test_what_a_config_has_of_the_released_code(name):
    config = load(name)
    assert (config.input.precision == 'float32') == (name in RESIZED_IN_FLOATS)
    assert config.input.color == SEEN.get(name)
    method = methods.from_settings(**config.propagation)
    assert set(methods.settings(method)['as_released']) == ERRORS.get(name, set())
    if 'labels' in config:
        decoded = config.labels.first_frame == 'decoded'
        assert decoded == (name == 'vip_crw')


def untrained(name, monkeypatch):
    """Makes the untrained network of a config, without its weights."""
    for network in (ResNet, ViT):
        monkeypatch.setattr(network, 'init', lambda *_: {})
    return load_network(**{**load(name).network, 'name': 'untrained'})


@pytest.mark.parametrize('name', NETWORKS)
def test_untrained_networks_are_the_released_ones(name, monkeypatch):
    layout_name, reference = NETWORKS[name]
    with monkeypatch.context() as patched:
        model = untrained(name, patched).model
    shapes = {}
    for file in ('convnets.json', 'vit.json'):
        shapes |= json.loads((REFERENCE / file).read_text())
    state = {key: np.zeros(shape) for key, shape in shapes[reference]['shapes'].items()}
    layout = next(one for one in LAYOUTS if one.name == layout_name)
    released, variables = layout.build(state, None)
    if layout_name == 'mae':  # The reference is a small one.
        sizes = {key: getattr(model, key) for key in ('width', 'depth', 'heads')}
        assert model == released.clone(**sizes)
    else:
        assert model == released
        flat = traverse_util.flatten_dict(variables, sep='/')
        assert variable_shapes(model) == {path: value.shape for path, value in flat.items()}


@pytest.mark.parametrize('name', GRIDS)
def test_sizes_of_davis(name, monkeypatch):
    source = open_source(load(name), untrained(name, monkeypatch))
    sizes = source.sizes(types.SimpleNamespace(name='a', size=(480, 854), num_frames=1))
    assert (sizes.seen, sizes.grid) == GRIDS[name]


def test_the_network_of_spa_then_temp_is_that_of_stride_4():
    network = load('davis_spa_then_temp').network
    # Also of a file, which does not say.
    assert network.strides == (1, 1, 1, 1) and network.average_pool
    assert load('vip_spa_then_temp').network == load('jhmdb_spa_then_temp').network == network
    squares = {'davis': 36, 'vip': 36, 'jhmdb': 13}
    for start, radius in squares.items():
        propagation = load(f'{start}_spa_then_temp').propagation
        assert (propagation.restriction, propagation.radius) == ('square', radius)


@pytest.mark.usefixtures('all_optimizations')
def test_a_vit_labels_a_video_by_the_flags_of_a_config():
    """DINOv3's config labels small frames with a small network of its kind."""
    config = load('davis_dinov3')
    config.network.update(depth=1, width=24, heads=2)
    config.input.size = 60  # Rounded up to 64.
    config.propagation.update(num_context=1, implementation='dense')
    (video,) = synthetic_sequences(num_sequences=1, num_frames=3, size=(66, 90), num_objects=2)
    labeller = Labeller.from_config(config)
    assert labeller.source.sizes(video).seen == (64, 96)
    frames = (video.read_frame(t) for t in range(3))
    found = list(label_frames(frames, video.read_label(0), labeller))
    assert all(ids.shape == (66, 90) for ids in found)
    assert set(np.unique(found)) <= {0, 1, 2} and np.any(found[2])


def crw_dog():
    """Twelve frames of 480 x 854 as CRW's `scratch` model sees them, and its masks of them.

    Returns:
      The masks of CRW's test code with the weights of `uvc_plus_davis`; the sequence; and the
      config.
    """
    expected = np.load(shared('reference', 'crw_released_dog.npz'))['masks']
    config = load('davis_crw')
    # As CRW's model, whatever the card of the weights says.
    config.network.update(name='uvc_plus_davis', padding='reflect')
    config.input.color = 'rgb'
    return expected, davis_sequence(shared('data', 'DAVIS'), 'dog', year='2016'), config


@pytest.mark.slow
@pytest.mark.usefixtures('all_optimizations')
def test_crw_masks_are_those_of_the_released_code():
    expected, sequence, config = crw_dog()
    config.propagation.implementation = 'windowed'
    frames = (sequence.read_frame(t) for t in range(len(expected)))
    found = label_frames(frames, sequence.read_label(0), Labeller.from_config(config))
    # Frame 0 is the given mask here; there it is what its labels on the grid show.
    for ids, mask in list(zip(found, expected, strict=True))[1:]:
        np.testing.assert_array_equal(ids == 1, mask)


@pytest.mark.slow
@pytest.mark.usefixtures('all_optimizations')
def test_screened_masks_differ_from_crws_in_ties_alone(monkeypatch):
    """Where a pixel differs, its two soft labels are equal up to rounding.

    In frame 6 there is one such pixel. In 64 bits its labels are 0.49999974 and 0.50000026.
    """
    expected, sequence, config = crw_dog()
    labeller = Labeller.from_config(config)
    ids = sequence.read_label(0)
    plan = plan_video(ids, sequence, labeller)
    first = start_video('dog', ids, plan, labeller).labels
    frames = (sequence.read_frame(t) for t in range(len(expected)))
    features = np.stack(list(open_features(labeller.source, sequence, frames).arrays))
    for limit in ('_WORTHWHILE', '_MOST_COPIES'):
        monkeypatch.setattr(screened, limit, 2.0)  # Screen whatever it saves.
    execution = Execution(implementation='screened')
    soft = propagate_video(features, first, labeller.propagation, execution=execution)
    soft = np.asarray(resize(soft, ids.shape, 'bilinear'))[1:]
    differs = (soft[..., 1] > soft[..., 0]) != expected[1:]
    assert np.count_nonzero(differs) <= 2
    np.testing.assert_allclose(soft[differs][:, 0], soft[differs][:, 1], rtol=0, atol=2e-6)
