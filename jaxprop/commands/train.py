"""Trains a backbone on videos or images.

Writes settings, metrics, checkpoints and at its end backbone.safetensors to the run's folder.
Started again with the same folder, a run goes on. Ctrl-C and SIGTERM (kill PID) save and end it;
Ctrl-C a second time ends it at once.

    jaxprop train --config.data.root=VIDEOS --workdir=RUN
    jaxprop train --config=uvc:joint --config.start_from=RUN --config.data.root=VIDEOS
"""

import pathlib

from absl import app

from jaxprop import config_files
from jaxprop.commands.command import CACHE, PROCESSES, Command, Field, Option


def run(options, arguments, root):
    if arguments:
        raise app.UsageError(f'unknown argument {arguments[0]!r}')
    config = options.config
    if not config.data.root:
        raise app.UsageError('data.root is empty: say --config.data.root=FOLDER')
    if config.image_data is not None and not config.image_data.root:
        raise app.UsageError('image_data.root is empty: say --config.image_data.root=FOLDER')
    from absl import logging

    from jaxprop import parallel

    logging.set_verbosity(logging.ERROR)  # Orbax logs every step of writing a checkpoint.
    parallel.initialize(options.coordinator, options.num_processes, options.process_id)

    from jaxprop.training.loop import train

    workdir = pathlib.Path(options.workdir or root / 'output/train' / config.name)
    result = train(config, workdir, _evaluate(config, workdir))
    if parallel.is_writer():
        if result['finished']:
            print(f'finished at step {result["step"]}: {workdir}')
        else:
            print(f'stopped at step {result["step"]}; start again with the same folder to go on')
            if (workdir / 'backbone.safetensors').exists():
                print(f'its network so far: {workdir / "backbone"}')


def _evaluate(config, workdir):
    """Makes the function that evaluates the network while it trains; None if none is asked for."""
    settings = config.get('evaluation')
    if settings is None or settings.every is None:
        return None
    from jaxprop.evaluation.while_training import make_evaluate
    from jaxprop.training import setup

    setup.check_settings(config)
    base = config_files.load_config(settings.config, ('eval',))
    network = setup.without_training(setup.make_backbone(config))
    output = workdir / 'evaluation'
    return make_evaluate(base, settings, output, name=config.name, network=network)


COMMAND = Command(
    run=run,
    usage='--config.data.root=FOLDER [--config=CONFIG] [--config.FIELD=VALUE ...]',
    summary='trains a backbone on videos or images',
    about=__doc__,
    extra='train',
    options=(
        Option('workdir', 'DIR', "the run's folder; default output/train/ and the config's name"),
        *PROCESSES,
        CACHE,
    ),
    config='small_rotation',
    folders=('train',),
    section='objective',
    fields=(
        Field('data.root', 'VIDEOS', 'folders of frames or video files, at any depth'),
        Field('data.batch_size', '32', 'of all devices together'),
        Field('accumulate', '2', 'parts in which a device takes its batch'),
        Field('epochs', '5.0', 'of the data'),
        Field('steps', '1000', 'in place of epochs'),
        Field('schedule.learning_rate', '0.01', 'the largest one'),
        Field('backbone.output', 'res3', 'the last stage'),
        Field('start_from', 'RUN', 'the folder of another run, or a saved network'),
        Field('checkpoint_every', '100', 'steps'),
        Field('evaluation.every', '500', 'steps after which J&F on a few sequences is measured'),
        Field('evaluation.dataset.root', 'DAVIS', 'the folder of these sequences'),
        Field('evaluation.dataset.names', '"(\'bear\',)"', 'some of the split train'),
    ),
)
