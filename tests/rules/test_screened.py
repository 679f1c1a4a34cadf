"""The screened search finds the cells that the dense search finds, and its bounds hold."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import Disk, Everywhere, Execution, Memory, Propagation, Square, TopK
from jaxprop.affinity import l2_normalize
from jaxprop.propagation import propagate_video
from jaxprop.rules import screened, windowed

METHODS = {
    'disk': Propagation(rule=TopK(k=5, region=Disk(4)), memory=Memory(num_frames=3)),
    'square': Propagation(
        rule=TopK(k=7, region=Square(3, bind_first=True)),
        memory=Memory(num_frames=2, padding='mask'),
    ),
    'everywhere': Propagation(
        rule=TopK(k=4, region=Everywhere()), memory=Memory(num_frames=2, padding='first_once')
    ),
    'no first': Propagation(
        rule=TopK(k=4, region=Disk(3)), memory=Memory(num_frames=2, keep_first=False)
    ),
    'predicted first': Propagation(
        rule=TopK(k=5, region=Disk(4)), memory=Memory(num_frames=3, predict_first=True)
    ),
    # A cell has one candidate in each frame but the first.
    'one': Propagation(rule=TopK(k=12, region=Disk(1)), memory=Memory(num_frames=2)),
}
SCREENED = Execution(implementation='screened')
SIZE = 13, 17, 32


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    """On so small a grid nothing would be left to screen, and it would save nothing."""
    monkeypatch.setattr(screened, '_PROMISING', 6)
    monkeypatch.setattr(screened, '_WORTHWHILE', 2.0)
    monkeypatch.setattr(screened, '_MOST_COPIES', 2.0)
    monkeypatch.setattr(screened, '_SIZES', 3)  # Fewer programs to compile.


@functools.cache
def video(kind):
    """Features of a moving scene with four main directions and noise, or nothing but noise.

    Of 'still' the last two frames are the same.
    """
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, *SIZE)).astype(np.float32)
    first = rng.random((*SIZE[:2], 3)).astype(np.float32)
    if kind == 'noise':
        return noise, first
    scene = rng.standard_normal((16, 20, 4)) @ rng.standard_normal((4, SIZE[2])) + 1
    frames = [scene[t : t + SIZE[0], t : t + SIZE[1]] for t in range(3)]
    features = (np.stack(frames) + 0.3 * noise).astype(np.float32)
    return features[[0, 1, 1] if kind == 'still' else slice(None)], first


@functools.cache
def dense(name, kind):
    execution = Execution(implementation='dense')
    return np.asarray(propagate_video(*video(kind), METHODS[name], execution=execution))


@pytest.mark.parametrize('kind', ['scene', 'still', 'noise'])
@pytest.mark.parametrize('name', METHODS)
def test_equals_dense(name, kind):
    found = propagate_video(*video(kind), METHODS[name], execution=SCREENED)
    np.testing.assert_allclose(found, dense(name, kind), atol=1e-5)
    assert np.all(np.max(found, axis=(1, 2)) > 0.1)


def test_where_it_saves_nothing_another_search_answers(monkeypatch):
    # No other test labels by this method, whose program would be used again.
    monkeypatch.setattr(screened, '_WORTHWHILE', 0.0)

    def cell_0_of_frame_0(target, *_, **__):
        shape = math.prod(target.shape[:2]), 6
        return jnp.zeros(shape), jnp.zeros(shape, jnp.int32)

    monkeypatch.setattr(screened, 'search', cell_0_of_frame_0)
    method = Propagation(rule=TopK(k=3, region=Disk(4)), memory=Memory(num_frames=2))
    found, expected = (
        propagate_video(*video('scene'), method, execution=execution)
        for execution in (SCREENED, Execution(implementation='dense'))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('least', ['_LEAST_CELLS', '_LEAST_CHANNELS', None])
def test_auto_screens_large_contexts_of_many_channels(least, monkeypatch):
    height, width, channels = SIZE
    limits = {'_LEAST_CELLS': 3 * height * width, '_LEAST_CHANNELS': channels}
    for name, limit in limits.items():
        monkeypatch.setattr(screened, name, limit + (name == least))
    searched, search = [], screened.search

    def noted(target, *rest, **settings):
        searched.append(target.shape)
        return search(target, *rest, **settings)

    monkeypatch.setattr(screened, 'search', noted)
    # Each case has a method of its own: a program that JAX keeps would not call `search` again.
    k = 6 + [None, *limits].index(least)
    method = Propagation(rule=TopK(k=k, region=Disk(3)), memory=Memory(num_frames=2))
    propagate_video(*video('scene'), method)
    assert set(searched) == (set() if least else {SIZE})


@pytest.mark.parametrize('num_free', [0, 1, 2])
def test_it_is_worthwhile_where_few_places_are_left(num_free, monkeypatch):
    monkeypatch.setattr(screened, '_PROMISING', 128)
    monkeypatch.setattr(screened, '_WORTHWHILE', 0.7)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 32, 32, 32)).astype(np.float32)
    scene = rng.standard_normal((8, 8, 4)) @ rng.standard_normal((4, 32))
    scene = np.kron(scene, np.ones((4, 4, 1)))  # Patches of 4 x 4 cells.
    alike = 100 * rng.standard_normal(32)  # One direction, which tells no cells apart.

    def is_worthwhile(frames, valid=True, radius=12, broken=()):
        frames = l2_normalize(jnp.asarray(frames, jnp.float32))
        target = frames[0].at[broken].set(jnp.nan) if broken else frames[0]
        problem = target, frames, jnp.full(2, valid), screened.codes_of(target, frames)
        return screened.is_worthwhile(*problem, num_free=num_free, region=Disk(radius), k=3)

    assert is_worthwhile(scene + 0.1 * noise)
    assert not is_worthwhile(noise)
    assert not is_worthwhile(alike + noise)
    assert not is_worthwhile(scene + 0.1 * noise, valid=False)
    assert not is_worthwhile(np.where(np.arange(32) == 5, np.nan, scene + 0.1 * noise))
    for cell in ((3, 3), (4, 4)):  # The first is among those that give the directions.
        assert not is_worthwhile(scene + 0.1 * noise, broken=cell)
    if num_free < 2:  # All places are promising.
        assert not is_worthwhile(scene + 0.1 * noise, radius=2)


@pytest.mark.parametrize('scale', [1e-3, 1.0, 300.0])
def test_the_search_itself_equals_a_sort_of_all_affinities(scale):
    # Also without main directions.
    for kind in ('scene', 'noise'):
        features = scale * video(kind)[0]
        valid, region = jnp.array([True, False, True]), Disk(4)
        target, frames = jnp.asarray(features[2]), jnp.asarray(features)
        codes = screened.codes_of(target, frames)
        affinities, cells = screened.search(
            target, frames, valid, codes, num_free=1, region=region, k=6
        )
        affinities, cells = (x[:, :6] for x in screened.best_first(affinities, cells))
        rows, columns = np.divmod(np.arange(SIZE[0] * SIZE[1]), SIZE[1])
        near = np.hypot(rows[:, None] - rows, columns[:, None] - columns) < 4
        flat = features.reshape(3, -1, SIZE[2]).astype(np.float64)
        all_of_them = np.stack([flat[2] @ frame.T for frame in flat])
        all_of_them[1] = -np.inf
        all_of_them[2] = np.where(near, all_of_them[2], -np.inf)
        everything = np.concatenate(list(all_of_them), axis=1)
        wanted = -np.sort(-everything, axis=1)[:, :6]
        np.testing.assert_allclose(affinities, wanted, rtol=1e-5, atol=1e-5 * scale**2)
        found = np.take_along_axis(everything, np.asarray(cells), axis=1)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * scale**2)
        assert all(len(set(row)) == 6 for row in np.asarray(cells))


@pytest.mark.parametrize(
    'num_bound, num_free, region, k',
    [
        (5, 0, Disk(3), 4),
        (7, 1, Disk(3), 60),
        (9, 5, Disk(3), 4),
        (9, 5, Everywhere(), 60),
        (0, 6, Everywhere(), 4),
    ],
)
def test_frames_are_searched_in_groups(num_bound, num_free, region, k):
    """More frames than are bound together, with any number in the last group."""
    rng = np.random.default_rng(num_bound)
    grid, num_frames = (9, 11), num_bound + num_free
    features = rng.standard_normal((num_frames + 1, *grid, 24)).astype(np.float32)
    target, frames = jnp.asarray(features[-1]), jnp.asarray(features[:-1])
    valid = np.arange(num_frames) != num_frames - 2
    codes = screened.codes_of(target, frames)
    affinities, cells = screened.search(
        target, frames, jnp.asarray(valid), codes, num_free=num_free, region=region, k=k
    )
    affinities, cells = (x[:, :k] for x in screened.best_first(affinities, cells))
    places = np.indices(grid).reshape(2, -1).T
    allowed = np.asarray(region.allows(places[:, None] - places))
    allowed = np.stack([allowed | (frame < num_free) for frame in range(num_frames)], axis=1)
    allowed &= valid[:, None]
    flat = features.reshape(num_frames + 1, -1, 24).astype(np.float64)
    everything = np.where(allowed, np.einsum('qc,mkc->qmk', flat[-1], flat[:-1]), -np.inf)
    everything = everything.reshape(len(places), -1)
    wanted = np.argsort(-everything, axis=1)[:, :k]
    best = np.take_along_axis(everything, wanted, axis=1)
    np.testing.assert_allclose(affinities, best, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        np.where(best == -np.inf, 0, cells), np.where(best == -np.inf, 0, wanted)
    )


def test_while_most_frames_are_copies_of_frame_0_another_search_answers(monkeypatch):
    monkeypatch.setattr(screened, '_MOST_COPIES', 0.5)
    screenings, search = [], screened.search

    def counted(*problem, **settings):
        jax.debug.callback(lambda: screenings.append(1))
        return search(*problem, **settings)

    monkeypatch.setattr(screened, 'search', counted)
    features, first = (np.concatenate([x, x]) for x in video('scene'))
    method = Propagation(rule=TopK(k=4, region=Disk(4)), memory=Memory(num_frames=4))
    found = propagate_video(features, first[: SIZE[0]], method, execution=SCREENED)
    dense = Execution(implementation='dense')
    expected = propagate_video(features, first[: SIZE[0]], method, execution=dense)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    jax.effects_barrier()
    assert len(screenings) == 3  # Of the copies are 4, 3, 2, 1 and 0 left.


def test_bounds_are_above_affinities_and_close():
    features = video('scene')[0][0].reshape(-1, SIZE[2])
    features = np.concatenate([features, np.zeros((1, SIZE[2]), np.float32)])
    directions = screened.main_directions(jnp.asarray(video('scene')[0][0]), 5)
    np.testing.assert_allclose(directions.T @ directions, np.eye(5), atol=1e-5)
    codes = np.asarray(screened.bound_codes(jnp.asarray(features), directions), np.float64)
    affinities = features.astype(np.float64) @ features.T
    bounds = codes @ codes.T
    assert np.all(bounds >= affinities)
    lengths = np.linalg.norm(features, axis=-1)
    assert np.mean(bounds - affinities) < 0.2 * np.mean(np.outer(lengths, lengths))


def test_auto_takes_it_for_large_contexts_on_cpus(monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
    assert screened.is_used((21, 60, 107, 256), 'neighbors', 'overall', Execution())
    assert not screened.is_used((8, 60, 107, 256), 'neighbors', 'overall', Execution())
    assert not screened.is_used((21, 60, 107, 32), 'neighbors', 'overall', Execution())
    assert not screened.is_used((21, 60, 107, 256), 'region', 'overall', Execution())
    assert not screened.is_used((21, 60, 107, 256), 'neighbors', 'per_frame', Execution())
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert not screened.is_used((21, 60, 107, 256), 'neighbors', 'overall', Execution())


def test_it_is_refused_where_it_is_not_possible():
    per_frame = Propagation(rule=TopK(k=5, aggregation='per_frame'))
    with pytest.raises(ValueError, match="'screened' needs aggregation='overall'.*'per_frame'"):
        propagate_video(*video('scene'), per_frame, execution=SCREENED)


def test_of_equal_affinities_the_first_cell_wins():
    # All frames are one frame, of which many cells are the same.
    features = np.repeat(np.repeat(video('scene')[0][:1], 3, axis=0), 2, axis=1)[:, : SIZE[0]]
    features = np.round(features)  # Sums of whole numbers have no rounding.
    rules = TopK(k=5, region=Disk(4)), TopK(k=5, region=Everywhere())
    for rule in rules:
        method = Propagation(rule=rule, memory=Memory(num_frames=2), normalize_features=False)
        labels = [
            propagate_video(
                features, video('scene')[1], method, execution=Execution(implementation=name)
            )
            for name in ('screened', 'dense')
        ]
        np.testing.assert_allclose(*labels, atol=1e-6)


def test_with_64_bits():
    with jax.enable_x64(True):
        for implementation in ('screened', 'windowed', 'dense'):
            execution = Execution(implementation=implementation)
            found = propagate_video(*video('scene'), METHODS['disk'], execution=execution)
            np.testing.assert_allclose(found, dense('disk', 'scene'), atol=1e-4)


@pytest.mark.parametrize('frame', [0, 2])
def test_values_that_are_not_finite_show(frame):
    """In labels of the cells that compare with them; with frame 0 all do."""
    features = video('scene')[0].copy()
    features[frame, 6, 6] = np.nan  # One of the cells that give the directions.
    found, expected = (
        # In a compiled function the values of the first frame are not known, and not refused.
        jax.jit(functools.partial(propagate_video, method=METHODS['disk'], execution=execution))(
            features, video('scene')[1]
        )
        for execution in (SCREENED, Execution(implementation='dense'))
    )
    assert np.isnan(found).any() and np.isnan(found[2]).all() == (frame == 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    'grid, far, sides',
    [
        ((60, 107), 11, (5, 9)),  # These cover 6,480 cells where 6,420 are needed.
        ((45, 81), 3, (5, 9)),  # These cover the grid, and no smaller tiles do.
        ((4, 100), 3, (4, 9)),  # No tile has as many cells as it should.
        ((3, 3), 5, (3, 3)),
        ((1, 200), 7, (1, 9)),
    ],
)
def test_tiles(grid, far, sides):
    found = screened._tile_sides(grid, (far, far))
    assert found == sides
    cut = windowed.tiling(grid, (far, far), found)
    cells = (cut.starts[:, None] + cut.tile_cells[None]).reshape(-1, 2)
    np.testing.assert_array_equal(cells[cut.place], np.indices(grid).reshape(2, -1).T)
    # A tile's window holds all cells of the grid that are within reach of the tile.
    for start, corner in zip(cut.starts, cut.corners):
        first = np.maximum(start - far, 0)
        last = np.minimum(start + cut.tile + far, grid)
        assert np.all(corner <= first) and np.all(corner + cut.window >= last)


@pytest.mark.parametrize('kind', ['different', 'equal', 'few', 'not numbers'])
def test_best_of(kind):
    """Against a sort in NumPy."""
    rng = np.random.default_rng(0)
    affinities = rng.permuted(np.tile(np.linspace(-1, 1, 8, dtype=np.float32), (50, 1)), axis=1)
    if kind == 'equal':
        affinities = np.round(affinities)
    elif kind == 'few':
        affinities[:, 2:] = -np.inf
    elif kind == 'not numbers':
        affinities[:, 3], affinities[:, 5] = np.nan, -np.nan
    cells = rng.permuted(np.tile(np.arange(8), (50, 1)), axis=1)
    found = jax.jit(lambda *lists: screened.best_of([lists], 3))(affinities, cells)
    for row, numbers, row_found, numbers_found in zip(affinities, cells, *found):
        order = np.lexsort((numbers, np.where(np.isnan(row), -np.inf, -row)))[:3]
        is_cell = row_found != -np.inf
        np.testing.assert_array_equal(np.sort(row_found), np.sort(row[order]))
        assert set(np.asarray(numbers_found)[is_cell]) == set(numbers[order][row[order] != -np.inf])


def test_under_vmap_labels_are_the_same():
    features, first = video('scene')
    features, first = np.stack([features, features[:, ::-1]]), np.stack([first, first[::-1]])
    label = functools.partial(propagate_video, method=METHODS['disk'], execution=SCREENED)
    found = jax.vmap(label)(features, first)
    np.testing.assert_allclose(found[0], dense('disk', 'scene'), atol=1e-5)
    np.testing.assert_allclose(found[1], label(features[1], first[1]), atol=1e-5)


def test_gradients_equal_those_of_dense():
    features, label = video('scene')

    def total(features, execution):
        labels = propagate_video(features, label, METHODS['disk'], execution=execution)
        return jnp.sum(labels[..., 0] * labels[..., 1])

    executions = SCREENED, Execution(implementation='dense')
    found, wanted = (jax.grad(total)(features[:2], execution) for execution in executions)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted).max() > 0.01
