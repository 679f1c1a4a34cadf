"""Trains a backbone on videos or images.

    python train.py --config=configs/train/rotation.py --config.data.root=IMAGENET/train
    python train.py --config=configs/train/small_rotation.py --config.data.root=FRAMES --workdir=RUN

Started again with the same folder, a run goes on where it stopped. SIGTERM (kill PID) saves and
ends it. With several hosts, start it on each with --coordinator, --num_processes, --process_id.
"""

import pathlib

from absl import app, flags, logging
from ml_collections import config_flags

from jaxprop import parallel

ROOT = pathlib.Path(__file__).resolve().parent
CONFIG = config_flags.DEFINE_config_file(
    'config', str(ROOT / 'configs/train/small_rotation.py'), 'The run; see configs/train.'
)
WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run; output/train/ and the name of the config if not given.'
)
COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0, or JAX_COORDINATOR_ADDRESS.'
)
NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'How many processes, or JAX_NUM_PROCESSES.'
)
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, or JAX_PROCESS_ID.')


def main(arguments):
    if len(arguments) > 1:
        raise app.UsageError(f'unknown argument {arguments[1]!r}')
    logging.set_verbosity(logging.ERROR)  # Orbax tells every step of a checkpoint.
    config = CONFIG.value
    if not config.data.root:
        raise app.UsageError('data.root is empty: say --config.data.root=FOLDER')
    parallel.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)

    from jaxprop.training.loop import train

    workdir = pathlib.Path(WORKDIR.value or ROOT / 'output/train' / config.name)
    result = train(config, workdir)
    if parallel.is_writer():
        if result['finished']:
            print(f'finished at step {result["step"]}: {workdir}')
        else:
            print(f'stopped at step {result["step"]}; start again with the same folder to go on')


if __name__ == '__main__':
    app.run(main)
