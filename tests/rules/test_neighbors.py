"""The regions of `jaxprop.rules.neighbors` against hand-counted cells and loops."""

import dataclasses

import numpy as np
import pytest

from jaxprop import Execution, Memory, Propagation, init_context, memory, remember
from jaxprop.rules.neighbors import TopK
from jaxprop.rules.regions import Disk, Everywhere, Square


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


@dataclasses.dataclass(frozen=True)
class Above:
    """The region of cells in the same column, up to 12 rows above the target cell."""

    bind_first = True
    reach = (12, 0)

    def allows(self, offsets):
        rows, columns = offsets[..., 0], offsets[..., 1]
        return (rows >= 0) & (rows <= 12) & (columns == 0)


def test_a_region_may_be_larger_on_one_side():
    """A cell may have 13 allowed cells, though the middle cell of the grid has 8."""
    grid, one = (14, 3), Memory(num_frames=1, keep_first=False)
    TopK(k=13, region=Above()).check_grid(grid, one, Execution())
    with pytest.raises(ValueError, match='at most 13 candidates'):
        TopK(k=14, region=Above()).check_grid(grid, one, Execution())


@pytest.mark.parametrize('aggregation', ['overall', 'per_frame'])
def test_matches_are_the_neighbors_that_labels_are_copied_from(aggregation):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    labels = rng.random((3, 4, 5, 2)).astype(np.float32)
    method = Propagation(
        memory=Memory(num_frames=2, padding='mask'),
        rule=TopK(k=3, temperature=0.5, region=Disk(2), aggregation=aggregation),
        normalize_features=False,
    )
    context = init_context(features[0], labels[0], method)
    context = remember(context, features[1], labels[1], method)
    frames = memory.read(method.memory, context)
    cells, weights = map(np.asarray, method.rule.matches(frames, features[2]))

    # The neighbours by hand: frame 0 is not bound, frame 1 is.
    similar = np.einsum('hwc,tijc->hwtij', features[2], features[:2]) / 0.5
    rows, columns = np.indices((4, 5))
    for row, column in np.ndindex(4, 5):
        allowed = similar[row, column].copy()
        allowed[1][np.hypot(rows - row, columns - column) >= 2] = -np.inf
        groups = [allowed.reshape(-1)] if aggregation == 'overall' else allowed.reshape(2, -1)
        expected = np.zeros(2)
        chosen = set()
        for slot, group in enumerate(groups):
            best = np.argsort(-group)[:3]
            share = np.exp(group[best] - group[best].max())
            share /= share.sum() * len(groups)
            expected += share @ labels[:2].reshape(-1, 2)[best + slot * 20]
            chosen |= set((best + slot * 20).tolist())
        index = row * 5 + column
        used = weights[index] > 0
        slots = np.asarray(frames.numbers)[cells[index][used] // 20]
        assert set((slots * 20 + cells[index][used] % 20).tolist()) == chosen
        np.testing.assert_allclose(weights[index].sum(), 1, rtol=1e-5)
        held = np.asarray(frames.labels).reshape(-1, 2)[cells[index]]
        np.testing.assert_allclose(weights[index] @ held, expected, rtol=1e-4)
