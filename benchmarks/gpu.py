"""Frames a second of label propagation on a GPU: every path, beside the rates of the card.

    python benchmarks/gpu.py --output=folder [--video=FOLDER] [--quick] [--seconds=100]

At the size of DAVIS, with a full context; and with the shipped network before it. The measurements
come in the order of their importance, and stop when the time is over. One that fails says why, and
the next one follows. PyTorch is used if it is there.

`--video` is a folder with at least 41 frames of 480x854, whose features by the shipped network are
the inputs. Without it they are a texture that moves, with noise, and frames are random.

"tiles" multiplies as batched does, by each of XLA's ways, and says the largest error for vectors
of length 1. "network" computes features before the labels.

A path's line has milliseconds a frame; frames a second; how far the labels of the first frame are
from those of the windowed path, in how many cells, and the labels of the last frame; memory beside
the inputs; seconds to compile; and the loops, sorts and library calls of the program. "selected"
compares the cells that are selected for the first frame with those of the windowed path: for how
many targets one differs, and how far apart the affinities of the two are then, as a share.
"""

import collections
import dataclasses
import functools
import glob
import json
import math
import pathlib
import re
import statistics
import tempfile
import time

import checkout  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import shipped_network
from absl import app, flags, logging

from jaxprop import Execution, affinity, memory, methods
from jaxprop.data.image_files import list_images, read_image
from jaxprop.propagation import Context, propagate_step

OUTPUT = flags.DEFINE_string('output', None, 'The folder of gpu.json, which has every number.')
VIDEO = flags.DEFINE_string('video', None, 'A folder of frames of 480x854.')
QUICK = flags.DEFINE_bool('quick', False, 'Tiny sizes, to see that everything runs.')
SECONDS = flags.DEFINE_float('seconds', 100.0, 'No measurement starts after this time.')
STARTED = time.perf_counter()


@dataclasses.dataclass(frozen=True)
class Size:
    height: int = 60
    width: int = 107
    channels: int = 256
    labels: int = 4
    num_context: int = 20
    k: int = 10
    radius: float = 12.0
    frames: int = 20
    videos: int = 16
    pixels: tuple[int, int] = (480, 854)

    @property
    def cells(self):
        return self.height * self.width

    def method(self):
        return methods.crw(k=self.k, num_frames=self.num_context, radius=self.radius)


QUICK_SIZE = Size(23, 31, 256, 2, 3, 5, 3.0, 4, 2, (184, 248))


def read_frames(size):
    """Frames `[T, h, w, 3]`: those of the video, or random ones."""
    count = size.num_context + 1 + size.frames
    if VIDEO.value is None:
        return np.random.default_rng(0).integers(0, 256, (count, *size.pixels, 3), np.uint8)
    paths = list_images(VIDEO.value)[:count]
    frames = [read_image(path) for path in paths]
    if len(frames) < count or any(frame.shape[:2] != size.pixels for frame in frames):
        raise app.UsageError(
            f'{VIDEO.value} has {len(frames)} frames, the first of {frames[0].shape[:2]} pixels; '
            f'needed are {count} frames of {size.pixels}'
            if frames
            else f'{VIDEO.value} has no frames'
        )
    return np.stack(frames)


def moving_texture(size):
    """Features of a texture that moves, with noise."""

    @jax.jit
    def make(key):
        texture, noise = jax.random.split(key)
        shape = size.height, size.width, size.channels
        texture = jax.random.normal(texture, shape)
        count = size.num_context + 1 + size.frames
        moved = jnp.stack([jnp.roll(texture, t // 4, axis=1) for t in range(count)])
        return affinity.l2_normalize(moved + jax.random.normal(noise, moved.shape))

    return make(jax.random.key(0))


def inputs(size, frames):
    """A full context, and the features of the frames that follow."""
    num_slots = size.num_context + 1
    if VIDEO.value is None:
        features = moving_texture(size)
    else:
        with jax.default_matmul_precision('highest'):
            extract = jax.jit(shipped_network.make_extract())
            features = jnp.concatenate([extract(frame[None]) for frame in frames])
    labels = jax.random.uniform(
        jax.random.key(1), (num_slots, size.height, size.width, size.labels)
    )
    labels /= jnp.sum(labels, axis=-1, keepdims=True)
    context = Context(
        features[:num_slots], labels, jnp.ones(num_slots, bool), jnp.asarray(num_slots, jnp.int32)
    )
    return context, features[num_slots:]


def seconds(call, repeats=5, most=3.0):
    """The median time of a call, after a first one; fewer repeats where they take too long."""
    jax.block_until_ready(call())
    times = []
    while len(times) < repeats and (len(times) < 2 or sum(times) < most):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def program_facts(text, size):
    """What XLA made of a program: loops and their rounds where it knows them, sorts, copies of all
    features of the context, and calls of kernels that it did not write.
    """
    calls = collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    context = f'{size.num_context + 1},{size.height},{size.width},{size.channels}'
    rounds = re.findall(r'"known_trip_count":\{"n":"(\d+)"\}', text)
    return {
        'while': len(re.findall(r'\bwhile\(', text)),
        'rounds': [int(number) for number in rounds],
        'sort': len(re.findall(r'\bsort\(', text)),
        'copies': len(re.findall(rf'f32\[(?:\d+,)?{context}\]\S* copy\(', text)),
        'calls': dict(calls.most_common(6)),
    }


def _short(calls):
    return ' '.join(f'{count}x{name[-24:]}' for name, count in calls.items())


def compile_scan(size, execution, context, frames, videos=0, over=jax.vmap):
    """Compiles the labelling of all frames of a video, or of several."""
    step = functools.partial(propagate_step, method=size.method(), execution=execution)

    def label(context, frames):
        return jax.lax.scan(step, context, frames)[1]

    if videos:
        one = label
        if over is jax.vmap:
            label = jax.vmap(one)
        else:

            def label(*arrays):
                return jax.lax.map(lambda some: one(*some), arrays)

        context, frames = jax.tree.map(lambda x: jnp.stack([x] * videos), (context, frames))
    start = time.perf_counter()
    program = jax.jit(label).lower(context, frames).compile()
    return functools.partial(program, context, frames), program, time.perf_counter() - start


def kernel_times(call):
    """The device's kernels of a call and their milliseconds, the longest first."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        (path,) = glob.glob(f'{folder}/**/*.xplane.pb', recursive=True)
        profile = jax.profiler.ProfileData.from_file(path)
        totals = collections.Counter()
        counts = collections.Counter()
        for plane in profile.planes:
            if not plane.name.startswith('/device:'):
                continue
            for line in plane.lines:
                if not line.name.startswith('Stream'):
                    continue
                for event in line.events:
                    totals[event.name] += event.duration_ns / 1e6
                    counts[event.name] += 1
    return [(name, time, counts[name]) for name, time in totals.most_common(12)]


class Report:
    """Prints what is measured as it comes, and keeps it."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / 'gpu.json' if folder else None
        self.rows = {}
        self.left_out = []

    def say(self, name, line, **values):
        self.rows[name] = values
        print(f'{time.perf_counter() - STARTED:5.0f}s {name} | {line}', flush=True)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name('.gpu.json')
            temporary.write_text(json.dumps(self.rows, indent=1))
            temporary.replace(self.path)

    def attempt(self, name, measure):
        """Measures, unless the time is over; a failure is reported and nothing else."""
        if time.perf_counter() - STARTED > SECONDS.value:
            self.left_out.append(name)
            return
        try:
            measure()
        except Exception as error:  # noqa: BLE001
            text = f'{type(error).__name__}: {error}'
            self.say(name, ' '.join(text[:300].split()), error=text[:2000])


def measure_scan(report, size, name, execution, data, reference, **videos):
    call, program, compiled = compile_scan(size, execution, *data, **videos)
    labels = np.asarray(call())
    num_videos = videos.get('videos') or 1
    if num_videos > 1:
        labels = labels[0]
    reference.setdefault('labels', labels)
    difference = np.abs(labels - reference['labels']).max(axis=-1)
    a_frame = seconds(call) / size.frames / num_videos
    facts = program_facts(program.as_text(), size)
    memory = program.memory_analysis()
    mebibytes = memory.temp_size_in_bytes / 2**20 if memory else math.nan
    share = float(np.mean(difference[0] > 1e-3))
    report.say(
        name,
        f'{1e3 * a_frame:.3f} ms {1 / a_frame:.1f}/s, differs {difference[0].max():.0e} in '
        f'{share:.1%}, last {difference[-1].max():.0e}, {mebibytes:.0f} MiB, '
        f'{compiled:.0f} s, while {facts["while"]} sort {facts["sort"]} {_short(facts["calls"])}',
        seconds_a_frame=a_frame,
        difference=float(difference[0].max()),
        last_difference=float(difference[-1].max()),
        share=share,
        mebibytes=mebibytes,
        **facts,
    )
    return call


def measure_selected(report, size, name, execution, data):
    """Compares the selected cells of the first frame with those of the windowed path."""
    context, frames = data
    method = size.method()

    @functools.partial(jax.jit, static_argnums=0)
    def select(execution, context, target):
        return method.rule.matches(memory.read(method.memory, context), target, execution)[0]

    found, wanted = (
        np.sort(np.asarray(select(one, context, frames[0])), axis=-1)
        for one in (execution, Execution(implementation='windowed'))
    )
    keys = np.asarray(context.features, np.float64).reshape(-1, size.channels)
    targets = np.asarray(frames[0], np.float64).reshape(-1, size.channels)
    (differing,) = np.nonzero(np.any(found != wanted, axis=-1))
    gaps = [0.0]
    for target in differing:
        ours, theirs = (
            np.sort(keys[np.setdiff1d(*pair)] @ targets[target])
            for pair in ((found[target], wanted[target]), (wanted[target], found[target]))
        )
        gaps.append(float(np.max(np.abs(ours - theirs) / np.abs(theirs))))
    report.say(
        f'{name}, selected',
        f'differ for {len(differing)} of {len(found)} targets, affinities by {max(gaps):.1e}',
        targets=len(differing),
        largest_gap=max(gaps),
    )


def measure_network(report, size, name, execution, data, frames, highest=False, videos=0):
    """The network on some frames at once, then their labels; and the network alone."""
    extract = shipped_network.make_extract()
    step = functools.partial(propagate_step, method=size.method(), execution=execution)
    context = data[0]
    frames = jnp.asarray(frames[-size.frames :])
    if videos:
        # One frame of each video at once.
        step = jax.vmap(step)
        context, frames = (
            jax.tree.map(lambda x, axis=axis: jnp.stack([x] * videos, axis), tree)
            for axis, tree in ((0, context), (1, frames))
        )
    else:
        # Four frames at once.
        frames = frames.reshape(-1, 4, *frames.shape[1:])

    def features(some):
        with jax.default_matmul_precision('highest' if highest else 'default'):
            return extract(some)

    @jax.jit
    def label(context, frames):
        def label_some(context, some):
            found = features(some)
            return step(context, found) if videos else jax.lax.scan(step, context, found)

        return jax.lax.scan(label_some, context, frames)[1]

    alone = jax.jit(lambda frames: jax.lax.map(features, frames))
    num_frames = size.frames * (videos or 1)
    both = seconds(lambda: label(context, frames)) / num_frames
    network = seconds(lambda: alone(frames)) / num_frames
    report.say(
        name,
        f'{1e3 * both:.3f} ms {1 / both:.1f}/s, network alone {1e3 * network:.3f} ms',
        seconds_a_frame=both,
        network=network,
    )


def measure_trace(report, name, call):
    kernels = kernel_times(call)
    lines = [f'{total:8.2f} ms {count:5}x {name[:44]}' for name, total, count in kernels[:8]]
    report.say(name, '\n        '.join(['kernels of one scan', *lines]), kernels=kernels)


def measure_rate(report, size):
    """The rate of one product of two frames, as affinities are computed and in fewer bits."""
    left = jax.random.normal(jax.random.key(1), (size.cells, size.channels))
    for name in ('HIGHEST', 'DEFAULT'):
        precision = jax.lax.Precision[name]
        product = jax.jit(lambda a, precision=precision: jnp.matmul(a, a.T, precision=precision))
        a_call = seconds(lambda product=product: [product(left) for _ in range(20)], 5) / 20
        rate = 2 * size.cells**2 * size.channels / a_call
        report.say(
            f'product {name}', f'{rate / 1e12:6.1f} TFLOP/s, {1e3 * a_call:.3f} ms', rate=rate
        )


def measure_products(report, size):
    """A product as of tiles with windows by each way to multiply: its time, and its error.

    At the size of DAVIS there are 66 tiles, each of 100 places in 20 frames, and a window around
    each of 1024 targets. The vectors have length 1.
    """
    num_tiles = 2 if QUICK.value else 66
    keys, targets = (
        affinity.l2_normalize(jax.random.normal(key, (num_tiles, count, size.channels)))
        for key, count in zip(jax.random.split(jax.random.key(2)), (2000, 1024))
    )
    exact = np.asarray(keys[0], np.float64) @ np.asarray(targets[0], np.float64).T
    ways = {'float32': affinity.affinity, 'float16x3': affinity.affinity_float16x3}
    for preset in ('TF32_TF32_F32', 'TF32_TF32_F32_X3', 'BF16_BF16_F32_X6', 'BF16_BF16_F32_X9'):
        ways[preset] = functools.partial(
            jnp.einsum, 'tqc,tkc->tqk', precision=jax.lax.DotAlgorithmPreset[preset]
        )

    def measure(name, multiply):
        product = jax.jit(multiply)
        error = np.abs(np.asarray(product(keys, targets)[0]) - exact).max()
        a_call = seconds(lambda: [product(keys, targets) for _ in range(5)], 5) / 5
        rate = 2 * num_tiles * 2000 * 1024 * size.channels / a_call
        report.say(
            f'tiles {name}',
            f'{1e3 * a_call:.3f} ms, {rate / 1e12:.0f} TFLOP/s, error {error:.1e}',
            seconds=a_call,
            error=float(error),
        )

    for name, multiply in ways.items():
        report.attempt(f'tiles {name}', functools.partial(measure, name, multiply))


def measure_copy(report, size):
    array = jnp.ones(2**20 if QUICK.value else 2**28)
    add = jax.jit(lambda x: x + 1)
    rate = 2 * array.nbytes / seconds(lambda: add(array), 10)
    report.say('memory', f'{rate / 1e9:.0f} GB/s read and written', rate=rate)


def measure_torch(report, size, data, reference, tf32):
    """The whole affinity of all cells with all context frames, masked, then top-k."""
    import torch

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cuda.matmul.allow_tf32 = tf32
    context, frames = data
    keys = torch.tensor(np.asarray(context.features)).reshape(-1, size.channels).to(device)
    labels = torch.tensor(np.asarray(context.labels)).reshape(-1, size.labels).to(device)
    target = torch.tensor(np.asarray(frames[0])).reshape(-1, size.channels).to(device)
    cells = np.indices((size.height, size.width)).reshape(2, -1).T
    cells = torch.tensor(cells.copy()).float().to(device)
    far = torch.cdist(cells, cells) >= size.radius
    temperature = size.method().rule.temperature

    def run():
        logits = torch.einsum('qc,kc->qk', target, keys).reshape(len(target), -1, len(target))
        logits[:, 1:].masked_fill_(far[:, None], -math.inf)
        values, chosen = logits.reshape(len(target), -1).topk(size.k, dim=-1)
        weights = torch.softmax(values / temperature, dim=-1)
        found = (weights[..., None] * labels[chosen]).sum(1)
        if device == 'cuda':
            torch.cuda.synchronize()
        return found

    with torch.no_grad():
        found = run().cpu().numpy().reshape(size.height, size.width, -1)
        run()
        times = []
        for _ in range(7):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    a_frame = statistics.median(times)
    difference = np.abs(found - reference['labels'][0]).max()
    report.say(
        f'torch dense{" tf32" * tf32}',
        f'{1e3 * a_frame:8.3f} ms a frame {1 / a_frame:7.1f}/s  differs {difference:.1e}',
        seconds_a_frame=a_frame,
        difference=float(difference),
    )


def main(_):
    logging.set_verbosity(logging.ERROR)
    size = QUICK_SIZE if QUICK.value else Size()
    report = Report(OUTPUT.value)
    report.say('device', f'{jax.devices()[0].device_kind} jax {jax.__version__}')
    images = read_frames(size)
    data = inputs(size, images)
    reference, calls = {}, {}

    def scan(name, implementation, precision='float32', **videos):
        execution = Execution(implementation=implementation, precision=precision)

        def measure():
            calls[name] = measure_scan(report, size, name, execution, data, reference, **videos)

        report.attempt(name, measure)
        if implementation == 'batched' and not videos:
            report.attempt(name, lambda: measure_selected(report, size, name, execution, data))

    def network(name, precision='float32', **settings):
        execution = Execution(precision=precision)
        report.attempt(
            name,
            lambda: measure_network(report, size, name, execution, data, images, **settings),
        )

    def trace(name):
        if name in calls:
            report.attempt(
                f'trace {name}', lambda: measure_trace(report, f'trace {name}', calls[name])
            )

    scan('windowed', 'windowed')
    scan('batched', 'batched')
    scan('batched float16x3', 'batched', 'float16x3')
    trace('batched')
    trace('batched float16x3')
    network('network, affinities in float32')
    network('network, affinities in float16x3', 'float16x3')
    videos = f'{size.videos} videos'
    scan(f'{videos} at once', 'batched', videos=size.videos, over=jax.vmap)
    scan(f'{videos} at once, float16x3', 'batched', 'float16x3', videos=size.videos, over=jax.vmap)
    network(f'{videos}, network, affinities in float32', videos=size.videos)
    network(f'{videos}, network, affinities in float16x3', 'float16x3', videos=size.videos)
    scan(f'{videos} in turns', 'batched', videos=size.videos, over=jax.lax.map)
    measure_products(report, size)
    report.attempt('torch', lambda: measure_torch(report, size, data, reference, False))
    report.attempt('torch tf32', lambda: measure_torch(report, size, data, reference, True))
    report.attempt('product', lambda: measure_rate(report, size))
    report.attempt('memory', lambda: measure_copy(report, size))
    network('network in float32, affinities in float32', highest=True)
    trace('windowed')
    scan('dense', 'dense')
    report.say('end', f'not measured, for time: {", ".join(report.left_out) or "nothing"}')


if __name__ == '__main__':
    app.run(main)
