"""Seconds and memory of a step of label propagation: screened, windowed, dense, dense PyTorch.

    python benchmarks/propagation.py --video=FOLDER --output=propagation.png [--quick]

First all of them on the same inputs at the size of DAVIS, beside the floor: the arithmetic that the
restriction leaves, at the rate of one matrix product of all target cells and one frame's cells,
measured here. Then two larger problems: a grid of twice the side, on the same frames enlarged, and
more channels, on random features. Then how the JAX ones grow with the context n, the radius, the
neighbours k, the grid, the channels, a batch of videos, and devices with a video each, which are
simulated and share the cores: a table, a plot, and every number in a JSON file beside it. Each
measurement has a process of its own, whose memory is what the step takes beside its inputs. Times
are the median of five, with the least and the largest. PyTorch is used if it is installed by hand.

`--video` is a folder with at least 42 frames of 480x854, such as DAVIS/JPEGImages/480p/bear. The
features are those of a shipped network, `--network`; without a video they are random, and
screening, which depends on them, saves nothing.

Ratios are what to read: seconds depend on the machine and what else it does.
"""

import dataclasses
import functools
import importlib.util
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import checkout  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import shipped_network
from absl import app, flags, logging

from jaxprop import Execution, affinity, methods, parallel
from jaxprop.checkpoints.native import DEFAULT_NETWORK
from jaxprop.data.image_files import list_images, read_image, resize_to_cover
from jaxprop.propagation import Context, propagate_step

OUTPUT = flags.DEFINE_string('output', None, 'The plot; the numbers go beside it, as .json.')
VIDEO = flags.DEFINE_string('video', None, 'A folder of frames; without it features are random.')
NETWORK = flags.DEFINE_string('network', DEFAULT_NETWORK, 'The shipped network.')
QUICK = flags.DEFINE_bool('quick', False, 'Tiny sizes, to see that everything runs.')
MEASURE = flags.DEFINE_string('measure', None, 'One case as JSON: used by the benchmark itself.')
LABELS = 2
PATHS = ('screened', 'windowed', 'dense')


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: a path, and the size of the problem."""

    path: str = 'windowed'
    height: int = 60
    width: int = 107
    channels: int = 256
    num_context: int = 20
    num_neighbors: int = 10
    radius: float = 12.0
    batch: int = 1
    devices: int = 1
    repeats: int = 5
    features: str = ''

    def method(self):
        return methods.crw(k=self.num_neighbors, num_frames=self.num_context, radius=self.radius)

    def execution(self):
        return Execution(implementation=self.path)


# Larger problems: the grid of a network with stride 4, and the channels of a small ViT.
LARGER = {
    'grid 120x214': Case(height=120, width=214, radius=24.0),
    '384 channels': Case(channels=384),
}
BASE = Case(height=40, width=70, num_context=10, radius=8.0)
GROWTH = {
    'num_context': (1, 5, 10, 20, 40),
    'radius': (4.0, 8.0, 12.0, 16.0),
    'num_neighbors': (1, 5, 10, 20, 50),
    'height': (20, 40, 60),
    'channels': (64, 128, 256),
    'batch': (1, 2, 4),
    'devices': (1, 2, 4),
}
TITLES = {
    'num_context': 'context frames n',
    'radius': 'radius',
    'num_neighbors': 'neighbours k',
    'height': 'grid rows (7/4 as many columns)',
    'channels': 'channels',
    'batch': 'videos in the batch',
    'devices': 'devices, a video on each',
}


def floor_operations(case):
    """Operations of the affinities that the restriction allows, the free frame 0 included."""
    rule, memory = case.method().rule, case.method().memory
    # The pairs of rows, and of columns, at each offset.
    rows, columns = (side - np.abs(np.arange(1 - side, side)) for side in (case.height, case.width))
    offsets = np.stack(
        np.meshgrid(
            np.arange(1 - case.height, case.height),
            np.arange(1 - case.width, case.width),
            indexing='ij',
        ),
        axis=-1,
    )
    inside = rule.region.allows(offsets)
    allowed = np.sum(np.outer(rows, columns)[np.asarray(inside)])
    free = (case.height * case.width) ** 2  # Frame 0.
    pairs = (memory.num_slots - 1) * int(allowed) + free
    return 2 * case.channels * case.batch * pairs


def matrix_rate(rows, inner):
    """Multiplications and additions a second in a float32 product of [rows, inner] with itself."""
    matrix = jnp.ones((rows, inner))
    product = jax.jit(affinity.affinity)
    seconds = measure(lambda: product(matrix, matrix).block_until_ready(), 5)['seconds']
    return 2 * rows**2 * inner / seconds


def read_frame(path, size=(480, 854)):
    return resize_to_cover(read_image(path), size)


def make_extract():
    """The shipped network: a function from a frame to its features `[H, W, C]`."""
    extract = shipped_network.make_extract(NETWORK.value)
    return jax.jit(lambda frame: extract(frame[None])[0])


def write_features(folder, path, scale=1):
    """Writes the shipped network's features `[T, H, W, C]` of a folder's first frames, enlarged."""
    extract = make_extract()
    # Enlarged frames are not used for growth.
    count = max(GROWTH['num_context']) + 2 if scale == 1 else Case.num_context + 2
    frames = (read_frame(x, (480 * scale, 854 * scale)) for x in list_images(folder)[:count])
    np.save(path, np.stack([np.asarray(extract(frame)) for frame in frames]))


def measure(function, repeats):
    """The median time of calls after a first one, and the memory that they take (Linux)."""
    status, marks = pathlib.Path('/proc/self/status'), pathlib.Path('/proc/self/clear_refs')

    def mebibytes(name):
        return int(status.read_text().split(name)[1].split()[0]) / 1024

    if status.exists():
        # The peak so far, of compiling perhaps, is forgotten.
        marks.write_text('5')
        before = mebibytes('VmRSS:')
    function()
    seconds, processor_seconds = [], []
    for _ in range(repeats):
        start, processor_start = time.perf_counter(), time.process_time()
        function()
        seconds.append(time.perf_counter() - start)
        processor_seconds.append(time.process_time() - processor_start)
    return {
        'seconds': statistics.median(seconds),
        'least_and_most_seconds': [min(seconds), max(seconds)],
        'processor_seconds': statistics.median(processor_seconds),
        'mebibytes': mebibytes('VmHWM:') - before if status.exists() else math.nan,
    }


def inputs(case):
    """Features `[B, M + 1, H, W, C]`, the last frame is the target; labels `[B, M, H, W, L]`."""
    rng = np.random.default_rng(0)
    num_slots = case.num_context + 1
    grid = case.height, case.width
    if case.features:
        video = np.load(case.features, mmap_mode='r')
        features = np.stack(
            [video[: num_slots + 1, : case.height, : case.width, : case.channels]] * case.batch
        )
    else:
        shape = case.batch, num_slots + 1, *grid, case.channels
        features = rng.standard_normal(shape, np.float32)
        np.maximum(features, 0, out=features)
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
    labels = np.eye(LABELS, dtype=np.float32)[
        rng.integers(LABELS, size=(case.batch, num_slots, *grid))
    ]
    return features, labels


def measure_jax(case):
    features, labels = inputs(case)
    num_slots = case.num_context + 1
    context = Context(
        jnp.array(features[:, :-1]),
        jnp.array(labels),
        jnp.ones((case.batch, num_slots), bool),
        jnp.full(case.batch, num_slots),
    )
    target = jnp.array(features[:, -1])
    del features, labels
    step = functools.partial(propagate_step, method=case.method(), execution=case.execution())
    if case.batch == 1:
        context, target = jax.tree.map(lambda x: x[0], (context, target))
    elif case.devices == 1:
        step = jax.vmap(step)
    if case.devices > 1:
        context, target = parallel.put((context, target))
        step = parallel.local_map(step, case.devices, donate=(0,))
    else:
        step = jax.jit(step, donate_argnums=0)
    step = step.lower(context, target).compile()
    first = None

    def run():
        nonlocal context, first
        context, label = step(context, target)
        label.block_until_ready()
        first = label if first is None else first

    measured = measure(run, case.repeats)
    return {**measured, 'label': np.ravel(first)[:1000:10].tolist()}


def torch_step(case, chunk=128):
    """A function from targets `[H * W, C]` to labels, in plain PyTorch, with the case's context.

    It computes the whole affinity of a chunk of targets with all context frames, masks it, and
    takes the top k.
    """
    import torch

    num_slots, num_cells = case.num_context + 1, case.height * case.width
    features, labels = inputs(case)
    keys = torch.tensor(features[0, :-1].reshape(-1, case.channels))
    labels = torch.tensor(labels.reshape(-1, LABELS))
    cells = torch.tensor(np.indices((case.height, case.width)).reshape(2, -1).T.copy()).float()

    def step(target):
        predicted = torch.zeros(num_cells, LABELS)
        for start in range(0, num_cells, chunk):
            part = slice(start, start + chunk)
            logits = target[part] @ keys.T
            far = torch.cdist(cells[part], cells) >= case.radius
            logits = logits.reshape(len(far), num_slots, -1)
            logits[:, 1:].masked_fill_(far[:, None], -math.inf)
            values, chosen = logits.reshape(len(far), -1).topk(case.num_neighbors, dim=-1)
            weights = torch.softmax(values / case.method().rule.temperature, dim=-1)
            predicted[part] = (weights[..., None] * labels[chosen]).sum(1)
        return predicted

    return step


def measure_torch(case):
    import torch

    target = torch.tensor(inputs(case)[0][0, -1].reshape(-1, case.channels))
    step = torch_step(case)
    with torch.no_grad():
        measured = measure(lambda: step(target), case.repeats)
        return {**measured, 'label': step(target).ravel()[:1000:10].tolist()}


def run_alone(case):
    """The measurement of a case in a process of its own."""
    command = [
        sys.executable,
        str(pathlib.Path(__file__).resolve()),
        f'--measure={json.dumps(dataclasses.asdict(case))}',
    ]
    result = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    )
    return json.loads(result.stdout.splitlines()[-1])


def compare_paths(case, rate, paths):
    """Each path on the same inputs."""
    floor = floor_operations(case) / rate
    print(
        f'grid {case.height}x{case.width}, {case.channels} channels, n={case.num_context}, '
        f'k={case.num_neighbors}, radius {case.radius:g}: floor {floor:.3f} s '
        f'({floor_operations(case) / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s)'
    )
    rows = []
    for path in paths:
        row = run_alone(dataclasses.replace(case, path=path))
        rows.append({'path': path, 'floor_seconds': floor, **row})
        np.testing.assert_allclose(row['label'], rows[0]['label'], atol=1e-4)
        print(
            f'{path:9} {row["seconds"]:8.3f} s   '
            f'({" to ".join(f"{s:.3f}" for s in row["least_and_most_seconds"])})   '
            f'{row["processor_seconds"]:8.3f} processor s   '
            f'{row["mebibytes"]:7.1f} MiB   {row["seconds"] / floor:6.2f} x floor   '
            f'{row["seconds"] / rows[0]["seconds"]:5.1f} x screened',
            flush=True,
        )
    return [
        {
            'case': dataclasses.asdict(dataclasses.replace(case, path=row['path'])),
            **{name: value for name, value in row.items() if name != 'label'},
        }
        for row in rows
    ]


def compare_growth(base, growth, rate):
    """Steps in each of `PATHS` as one factor at a time changes."""
    run = functools.cache(run_alone)
    rows = []
    print(
        f'\nGrowth, from grid {base.height}x{base.width}, n={base.num_context}, '
        f'k={base.num_neighbors}, radius {base.radius:g}; seconds a step (MiB)'
    )
    print(f'{"":15} {"":>6} {"floor":>8} ' + ' '.join(f'{path:>18}' for path in PATHS))
    for factor, values in growth.items():
        for value in values:
            case = dataclasses.replace(base, **{factor: value})
            if factor == 'height':
                case = dataclasses.replace(case, width=value * 7 // 4)
            if factor == 'devices':
                case = dataclasses.replace(case, batch=value)
            row = {'factor': factor, 'value': value, 'floor_seconds': floor_operations(case) / rate}
            for path in PATHS:
                measured = dict(run(dataclasses.replace(case, path=path)))
                del measured['label']
                row[path] = measured
            rows.append(row)
            print(
                f'{factor:15} {value:6g} {row["floor_seconds"]:8.3f} '
                + ' '.join(
                    f'{row[path]["seconds"]:8.3f} ({row[path]["mebibytes"]:7.1f})' for path in PATHS
                ),
                flush=True,
            )
    return rows


def plot(rows, path):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    factors = list(dict.fromkeys(row['factor'] for row in rows))
    figure, panels = pyplot.subplots(
        2, len(factors), figsize=(3 * len(factors), 5.5), sharey='row', layout='constrained'
    )
    for factor, (upper, lower) in zip(factors, panels.T):
        chosen = [row for row in rows if row['factor'] == factor]
        values = [row['value'] for row in chosen]
        for number, name in enumerate(PATHS):
            for panel, what in ((upper, 'seconds'), (lower, 'mebibytes')):
                panel.plot(values, [row[name][what] for row in chosen], f'oC{number}-', label=name)
        upper.plot(values, [row['floor_seconds'] for row in chosen], 'k--', label='floor')
        lower.set_xlabel(TITLES[factor])
        for panel in (upper, lower):
            panel.set(xscale='log', yscale='log')
            panel.set_xticks(values, [f'{value:g}' for value in values])
            panel.set_xticks([], minor=True)
    panels[0, 0].set_ylabel('seconds a step')
    panels[1, 0].set_ylabel('MiB beside the inputs')
    panels[0, 0].legend()
    temporary = path.with_name(f'.{path.name}')
    figure.savefig(temporary, format=path.suffix[1:] or 'png', dpi=120)
    temporary.replace(path)


def main(_):
    logging.set_verbosity(logging.WARNING)
    if MEASURE.value:
        case = Case(**json.loads(MEASURE.value))
        jax.config.update('jax_num_cpu_devices', case.devices)
        print(json.dumps(measure_torch(case) if case.path == 'torch' else measure_jax(case)))
        return
    case, base, growth, larger = Case(), BASE, GROWTH, LARGER
    paths = [*PATHS, 'torch'] if importlib.util.find_spec('torch') else PATHS
    if QUICK.value:
        case = Case(height=12, width=21, channels=16, num_context=3, radius=3.0, repeats=1)
        base, larger = case, {'one': case}
        growth = {'num_context': (1, 3), 'batch': (1, 2), 'devices': (1, 2)}
    rate = matrix_rate(case.height * case.width, case.channels)
    print(shipped_network.describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        if VIDEO.value:
            features = str(pathlib.Path(folder, 'features.npy'))
            write_features(VIDEO.value, features)
            case, base = (dataclasses.replace(one, features=features) for one in (case, base))
        if VIDEO.value and not QUICK.value:
            enlarged = str(pathlib.Path(folder, 'enlarged.npy'))
            write_features(VIDEO.value, enlarged, scale=2)
            name = 'grid 120x214'
            larger = {**larger, name: dataclasses.replace(larger[name], features=enlarged)}
        numbers = {
            'operations_a_second': rate,
            'paths': compare_paths(case, rate, paths),
            'larger': {name: compare_paths(one, rate, PATHS[:2]) for name, one in larger.items()},
            'growth_from': dataclasses.asdict(base),
            'growth': compare_growth(base, growth, rate),
        }
    if OUTPUT.value:
        path = pathlib.Path(OUTPUT.value)
        plot(numbers['growth'], path)
        temporary = path.with_name(f'.{path.stem}.json')
        temporary.write_text(json.dumps(numbers, indent=1))
        temporary.replace(path.with_suffix('.json'))


if __name__ == '__main__':
    app.run(main)
