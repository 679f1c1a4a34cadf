"""Configs against what the released code does: its recorded masks, and the errors it has."""

import importlib

import numpy as np
import pytest

from jaxprop import methods
from jaxprop.data.davis import davis_sequence
from jaxprop.evaluation.labeller import Labeller
from jaxprop.evaluation.run import label_frames
from tests.support import shared

RESIZED_IN_FLOATS = {'davis_timecycle', 'jhmdb_crw', 'jhmdb_uvc', 'vip_crw'}
ERRORS = {
    'davis_timecycle': {'predicted_first'},
    'jhmdb_uvc': {'predicted_first'},
    'davis_uvc_track': {'signed_stop', 'corner_cells', 'pixel_limit', 'lost_is_gone'},
    'davis_mast': {'zero_outside', 'shared_offset'},
}
CONFIGS = (
    'davis_crw davis_vfs davis_uvc davis_uvc_track davis_timecycle davis_corrflow davis_mast '
    'jhmdb_crw jhmdb_uvc jhmdb_vfs vip_crw vip_uvc badja_crw'
).split()


def load(name):
    return importlib.import_module(f'configs.eval.{name}').get_config()


@pytest.mark.parametrize('name', CONFIGS)
def test_what_a_config_has_of_the_released_code(name):
    config = load(name)
    assert (config.input.precision == 'float32') == (name in RESIZED_IN_FLOATS)
    method = methods.from_settings(**config.propagation)
    assert set(methods.settings(method)['as_released']) == ERRORS.get(name, set())
    if 'labels' in config:
        decoded = config.labels.first_frame == 'decoded'
        assert decoded == (name == 'vip_crw')


@pytest.mark.slow
def test_crw_masks_are_those_of_the_released_code():
    """CRW's test code, run with the shipped weights, on twelve frames of 480 x 854 pixels."""
    expected = np.load(shared('reference', 'crw_released_dog.npz'))['masks']
    root = shared('data', 'DAVIS')
    config = load('davis_crw')
    # As CRW's `scratch` model, whatever the card of the weights says.
    config.network.padding, config.input.color = 'reflect', 'rgb'
    sequence = davis_sequence(root, 'dog', year='2016')
    frames = (sequence.read_frame(t) for t in range(len(expected)))
    found = label_frames(frames, sequence.read_label(0), Labeller.from_config(config))
    # Frame 0 is the given mask here; there it is what its labels on the grid show.
    for ids, mask in list(zip(found, expected, strict=True))[1:]:
        np.testing.assert_array_equal(ids == 1, mask)
