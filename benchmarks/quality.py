r"""The time of a frame for each `--quality` of `jaxprop propagate`, and the time to the first mask.

    python benchmarks/quality.py --qualities=fast,normal,best

A rendered video is labelled as the command does it, twice for each quality, each time in a process
of its own: with an empty cache of compiled programs (cold), and with that of the first time (warm).
The first mask is that of frame 1, in processor time from the start of the process; frames are
labelled in batches, and one batch waits for the next. The time of a frame is that of its features,
by batches, and of its label, with all context frames there, which are random. Processor time is the
sum over the cores.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time

import checkout  # noqa: F401
import jax
import numpy as np
from absl import app, flags

from jaxprop import compilation_cache
from jaxprop.commands.quality import QUALITIES, changes
from jaxprop.config_files import load_config

SIZE = flags.DEFINE_list('size', ['480', '854'], 'Height and width of the frames.')
CHOSEN = flags.DEFINE_list('qualities', list(QUALITIES), 'The qualities to measure.')
MEASURE = flags.DEFINE_string('measure', None, 'Used by the benchmark itself.')


def timed(function, repeats):
    """Mean seconds of a call, on the clock and of the processor, after a first call."""
    jax.block_until_ready(function())
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        jax.block_until_ready(function())
    spent = time.perf_counter() - wall, time.process_time() - processor
    return np.array(spent) / repeats


def measure(quality):
    """Labels the video; returns processor seconds to its first mask, and the times of a frame."""
    from jaxprop.data.synthetic import synthetic_sequences
    from jaxprop.evaluation.features import compute_features, stack
    from jaxprop.evaluation.labeller import plan_video, start_video
    from jaxprop.evaluation.run import Labeller, label_frames
    from jaxprop.parallel import put
    from jaxprop.propagation import init_context, propagate_step, remember

    compilation_cache.enable()
    config = load_config('own_video')
    config.update_from_flattened_dict(changes(quality, ()))
    labeller = Labeller.from_config(config)
    source, target, method = labeller.source, labeller.target, labeller.propagation
    began = time.process_time()
    size, count = tuple(map(int, SIZE.value)), 2 * source.batch
    [video] = synthetic_sequences(num_sequences=1, num_frames=count, size=size)
    frames, ids = [video.read_frame(index) for index in range(count)], video.read_label(0)
    rendering = time.process_time() - began  # The command renders nothing.
    masks = label_frames(frames, ids, labeller)
    next(masks), next(masks)
    first = time.process_time() - rendering

    variables = put(stack([source.network.variables]))
    own = frames[: source.batch]

    def features_of_batch():
        prepared = [source.prepare(frame, size) for frame in own]
        return compute_features(source, prepared, variables)

    plan = plan_video(ids, video, labeller)
    start = start_video(video.name, ids, plan, labeller)
    feature = features_of_batch()[0]
    context = init_context(feature, start.labels, method)
    add = jax.jit(remember, static_argnames='method', donate_argnums=0)
    random = np.random.default_rng(0)
    for _ in range(method.memory.num_slots):
        noisy = feature + random.normal(0, feature.std(), feature.shape).astype(feature.dtype)
        context = add(context, noisy, start.labels, method=method)

    @jax.jit
    def label(context, feature, frame):
        context, soft = propagate_step(context, feature, method, execution=labeller.execution)
        return context, target.decode(soft, start.values, plan.sizes, frame)

    times = timed(features_of_batch, 1) / source.batch
    times += timed(functools.partial(label, context, feature, frames[1]), 2)
    return [first, *times]


def run(quality, cache):
    """Measures in a process of its own."""
    done = subprocess.run(
        [sys.executable, *sys.argv, f'--measure={quality}'],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, 'XDG_CACHE_HOME': cache},
    )
    return json.loads(done.stdout)


def main(_):
    if MEASURE.value:
        return print(json.dumps(measure(MEASURE.value)))
    columns = 'first mask, cold', 'warm', 'seconds a frame', 'processor'
    print(f'{"":8}' + ''.join(f'{column:>18}' for column in columns))
    for quality in CHOSEN.value:
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = run(quality, cache), run(quality, cache)
        values = cold[0], warm[0], *np.minimum(cold[1:], warm[1:])
        print(f'{quality:8}' + ''.join(f'{value:18.2f}' for value in values), flush=True)


if __name__ == '__main__':
    app.run(main)
