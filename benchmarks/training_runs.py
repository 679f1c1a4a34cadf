"""Every objective of training: what a kill leaves, and what several devices and processes give.

    python benchmarks/training_runs.py [--configs=small_crw,small_vfs] [--output=FILE]

Each config is made so small that a step takes about a second, and trained for six steps on rendered
videos. Chains of runs are killed and compared with the undisturbed run as in `kills.py`: metrics,
the exported network, every array of every checkpoint that is kept. The first three steps of that
run are compared with those on four simulated devices and with two processes: the largest relative
difference of the loss and of the gradient's length, which sees more. The configs are those of
`small_*` and their second stages, and classification.

UVC needs --uvc=FOLDER, which holds the encoder and the decoder of its released colour autoencoder;
without it UVC's configs are left out. Takes about 6 minutes a config on two cores, nearly all of
it compilation. The exit code is 1 where a killed run differs.
"""

import argparse
import functools
import json
import pathlib
import socket
import sys
import tempfile

import kills

STEPS, COMPARED = 6, 3
# UVC's gradient jumps by a thousandth where rounding decides on which side of 0 a value is, and
# Adam's first steps at its own rate turn that into a hundredth of the next losses.
UVC = {
    'objective.patch_size': 64,
    'objective.frame_size': 96,
    'data.size': (80, 104),
    'schedule.learning_rate': 1e-5,
}
# Another stride of the first stage keeps the pixels of a cell without the stages after it.
EIGHT_PIXELS = {'backbone.strides': (2, 1, 1, 1)}
CRW = {
    'objective.size': 64,
    'objective.patch_size': 32,
    'objective.patch_stride': 16,
    'data.size': (80, 104),
}
COPYING = {'objective.size': 48, 'data.size': (48, 48), 'backbone.strides': (2, 1, 1, 1)}
IMAGE = {'objective.size': 32, 'data.size': (40, 40)}
PLUS = {'image_objective.size': 32, 'image_data.size': (40, 40), 'image_data.batch_size': 4}
# The sizes of each config, beside those of all of them.
SMALLER = {
    'classification': IMAGE | {'objective.num_classes': 4},
    'small_corrflow': COPYING,
    'small_crw': CRW,
    'small_crw_plus': CRW | PLUS,
    'small_mast': COPYING,
    # Its groups have two images or more, and four devices a group each. With a lower temperature
    # the first loss is near 0, and only its rounding would be compared.
    'small_moco': IMAGE
    | {'data.batch_size': 8, 'objective.queue_size': 32, 'objective.temperature': 0.5},
    'small_rotation': IMAGE,
    'small_timecycle': EIGHT_PIXELS
    | {'objective.patch_size': 40, 'objective.frame_size': 80, 'data.size': (88, 112)},
    'small_uvc': UVC | EIGHT_PIXELS,
    'small_uvc:joint': UVC | EIGHT_PIXELS,
    'small_uvc_plus': UVC | EIGHT_PIXELS | PLUS,
    'small_vfs': IMAGE,
}


def command(name, data, uvc, output):
    """The arguments of `jaxprop` for a run of a config, made small."""
    settings = {
        'data.root': data,
        'data.batch_size': 4,
        'backbone.output': 'res1',
        'steps': STEPS,
        'log_every': 1,
        'checkpoint_every': 2,
        **SMALLER[name],
    }
    if 'uvc' in name:
        settings['objective.color_autoencoder'] = uvc
    if 'uvc' in name or 'crw' in name:
        settings |= {'statistics.frames': 4, 'statistics.size': (40, 48)}
    changes = [f'--config.{field}={value}' for field, value in settings.items()]
    return ['train', f'--config={name}', f'--workdir={output}', *changes]


def first_steps(output):
    """The metrics of the steps that are compared."""
    lines = (output / 'metrics.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines[:COMPARED]]


def difference(metric, entries, expected):
    """The largest relative difference of a metric."""
    return max(
        abs(one[metric] - other[metric]) / abs(other[metric])
        for one, other in zip(entries, expected, strict=True)
    )


def several(arguments, folder, cache):
    """The metrics of the first steps on four devices, and with two processes; None: it failed."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        place = f'--coordinator=localhost:{free.getsockname()[1]}', '--num_processes=2'
    runs = {
        '4 devices': (4, [[]]),
        '2 processes': (1, [[*place, f'--process_id={number}'] for number in range(2)]),
    }
    found = {}
    for name, (devices, processes) in runs.items():
        output = folder / name.replace(' ', '-')
        started = [
            kills.start(
                output,
                0,
                [*arguments(output), f'--config.steps={COMPARED}', *more],
                cache,
                devices,
            )
            for more in processes
        ]
        ends = [kills.finish(process)[0] for process in started]
        found[name] = None if any(ends) else first_steps(output)
    return found


def measure(name, options, folder):
    """What one config shows."""
    program = name.replace(':', '-')
    arguments = functools.partial(command, name, folder / 'data', options.uvc)
    found = kills.campaign(program, arguments, options.kills, options.seed, folder)
    expected = first_steps(folder / f'{program}-whole')
    for place, entries in several(arguments, folder / program, folder / 'cache').items():
        found['errors'] += entries is None
        found[place] = {
            metric: None if entries is None else difference(metric, entries, expected)
            for metric in ('loss', 'gradient_norm')
        }
    return found


def table(found):
    """The counts and differences, in Markdown."""
    columns = ('operations', 'kills', 'chains', 'errors', 'differing', 'left')
    head = ['config', *columns, 'loss, 4 devices', '2 processes', 'gradient, 4 devices']
    rows = [[*head, '2 processes'], ['---'] * (len(head) + 1)]
    for name, one in found.items():
        counts = [one[column] for column in columns]
        counts = [len(count) if isinstance(count, list) else count for count in counts]
        differences = [
            one[place][metric]
            for metric in ('loss', 'gradient_norm')
            for place in ('4 devices', '2 processes')
        ]
        shown = ['failed' if value is None else f'{value:.0e}' for value in differences]
        rows.append([name, *counts, *shown])
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--configs', type=lambda names: names.split(','), help='Some of them.')
    parser.add_argument('--uvc', type=pathlib.Path, help="UVC's released colour autoencoder.")
    parser.add_argument('--kills', type=int, default=5, help='Of each config.')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--output', type=pathlib.Path, help='The results as JSON.')
    options = parser.parse_args()
    if options.configs is None:
        options.configs = [name for name in SMALLER if options.uvc or 'uvc' not in name]
    if unknown := set(options.configs) - set(SMALLER):
        parser.error(f'unknown config {unknown.pop()}; known: {", ".join(SMALLER)}')
    if options.uvc is None and any('uvc' in name for name in options.configs):
        parser.error("UVC needs --uvc=FOLDER, its released colour autoencoder's files")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # TimeCycle's clips are 18 frames long.
        kills.render(folder / 'data', num_videos=4, num_frames=20)
        (folder / 'data/mask.png').unlink()
        for name in options.configs:
            found[name] = measure(name, options, folder)
            print(name, json.dumps(found[name]), flush=True)
            if options.output:
                options.output.write_text(json.dumps(found, indent=1) + '\n')
    print(table(found))
    return any(kills.failed(one) for one in found.values())


if __name__ == '__main__':
    sys.exit(main())
