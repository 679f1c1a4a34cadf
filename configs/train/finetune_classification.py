"""Stride fine-tuning after `classification`: --config.start_from=FOLDER_OF_ITS_RUN."""

from . import classification, finetune_rotation


def get_config():
    config = classification.get_config()
    config.name = 'finetune_classification'
    return finetune_rotation.fine_tune(config)
