"""The regions of `jaxprop.rules.neighbors` against hand-counted cells and loops."""

import numpy as np
import pytest

from jaxprop.rules.neighbors import Disk, Everywhere, Square


@pytest.mark.parametrize(
    'region, radius, count',
    [
        (Disk, 1, 1),
        (Disk, 1.01, 5),
        (Disk, 2, 9),
        (Disk, 5, 69),
        (Disk, 5.01, 81),
        (Disk, 12, 437),
        (Disk, 12.01, 441),
        (Square, 1, 1),
        (Square, 2, 9),
        (Square, 2.5, 25),
        (Square, 12, 529),
        (Square, 12.5, 625),
    ],
)
def test_number_of_allowed_cells(region, radius, count):
    context = np.indices((31, 31)).reshape(2, -1).T
    mask = region(radius).allows(np.array([[15, 15]])[:, None] - context)
    assert mask.shape == (1, 31 * 31)
    assert int(mask.sum()) == count
    # The reach is the largest offset among them.
    rows, columns = np.abs(context[np.asarray(mask[0])] - 15).max(axis=0)
    assert region(radius).reach == (rows, columns)


@pytest.mark.parametrize('region', [Disk, Square])
def test_places_of_allowed_cells(region):
    targets, context = np.array([[0, 0], [3, 1], [2, 4]]), np.indices((4, 5)).reshape(2, -1).T
    mask = region(2.5).allows(targets[:, None] - context)
    for q, (row, column) in enumerate(targets):
        for k, (other_row, other_column) in enumerate(context):
            offsets = abs(row - other_row), abs(column - other_column)
            distance = np.hypot(*offsets) if region is Disk else max(offsets)
            assert bool(mask[q, k]) == (distance < 2.5)


def test_everywhere_allows_all():
    offsets = np.indices((9, 9)).reshape(2, -1).T - 4
    assert np.all(Everywhere().allows(offsets)) and Everywhere().reach is None
