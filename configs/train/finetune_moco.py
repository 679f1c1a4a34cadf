"""Stride fine-tuning after `moco`: --config.start_from=FOLDER_OF_ITS_RUN."""

from . import finetune_rotation, moco


def get_config():
    config = moco.get_config()
    config.name = 'finetune_moco'
    return finetune_rotation.fine_tune(config, learning_rate=0.003)
