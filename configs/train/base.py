"""The base of every training config: all settings with defaults, which train rotation on images."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Settings of all image objectives: the size of a random resized crop in pixels, the least share of
# the image that it covers, whether the network sees it in gray, and the head on the backbone.
VIEWS = {'size': 224, 'min_area': 0.2, 'gray': False, 'head': 'linear'}


def get_config():
    return ConfigDict(
        {
            'name': 'base',
            'seed': 0,
            'epochs': 1.0,  # The length of the run: passes over `data`.
            'steps': placeholder(int),  # The length in steps, in place of epochs.
            'accumulate': 1,  # A device takes its batch in so many parts.
            'start_from': '',  # The folder of another run, or a network saved by save_pretrained.
            # The network, by default a jaxprop.models.ResNet with these arguments.
            'backbone': {
                'depth': 18,
                'output': 'res4',
                'strides': (1, 2, 2, 2),
                'max_pool': True,
                'padding': 'zero',
                'frozen_until': placeholder(str),
                'dtype': 'float32',
            },
            # The module in jaxprop.objectives, and the arguments of its `objective`. NAME_epoch is
            # the argument NAME, given in epochs instead of steps.
            'objective': {'name': 'rotation', **VIEWS},
            # If this is another objective, the two are trained together:
            # objective + image_weight * image_objective.
            'image_objective': None,
            'image_weight': 0.0,
            # Adds the metrics video/gradient_norm and image/gradient_norm, the lengths of the two
            # losses' gradients on the backbone. They help to choose image_weight. A step takes up
            # to twice as long.
            'image_gradient_norms': False,
            # The arguments of make_schedule, in epochs, and of make_optimizer, see
            # jaxprop.training.schedules.
            'schedule': {'name': 'constant', 'learning_rate': 0.1, 'warmup': 0.0},
            'optimizer': {
                'name': 'sgd',
                'momentum': 0.9,
                'beta1': 0.9,
                'weight_decay': 1e-4,
                'decay_all': False,
                'clip_norm': placeholder(float),
            },
            # See jaxprop.data.pipeline.DatasetConfig. batch_size is that of all devices together.
            'data': images(),
            'image_data': None,  # The data of image_objective.
            # The frames from which the exported backbone's batch statistics are computed:
            # {'frames': their number, taken from `data`, 'size': (height, width),
            # 'color': a name of `jaxprop.color.network_input`}. None keeps those of training.
            'statistics': None,
            'evaluation': evaluation(),
            'log_every': 100,  # Steps.
            'checkpoint_every': 1000,  # Steps.
            # So many of the latest checkpoints are kept, and beside them the one with the best
            # evaluation, or without evaluations the one with the lowest loss.
            'keep': 3,
        }
    )


def evaluation():
    """Settings of evaluations while training, see `jaxprop.evaluation.while_training`."""
    return ConfigDict(
        {
            # The network is evaluated after so many steps, and after the last one. None: never.
            'every': placeholder(int),
            # One of configs/eval. Values in the sections below change it, unless None or empty.
            'config': 'davis_crw',
            'measure': 'J&F-Mean',  # The checkpoint with the largest value is the best.
            'dataset': {'root': '', 'split': 'train', 'names': ()},
            # Results are reported on the sequences of the config's own split, so evaluations that
            # tune a network must not use them. True allows them nevertheless.
            'allow_val': False,
            'network': {'output': placeholder(str), 'strides': placeholder(tuple)},
            'input': {'resize': 'short_side', 'size': 240},
            'propagation': {
                'num_neighbors': placeholder(int),
                'num_context': placeholder(int),
                'radius': placeholder(float),
                'temperature': placeholder(float),
                'normalize_features': placeholder(bool),
            },
        }
    )


def images():
    return ConfigDict(
        {
            'kind': 'images',
            'root': '',
            'split': 'train',
            'size': (256, 256),
            'batch_size': 256,
            'num_threads': 16,
            'num_workers': 0,
            'max_unreadable': 0.05,
        }
    )


def videos():
    config = images()
    config.update(kind='videos', num_frames=2, max_gap=50, examples_per_video=1)
    return config


def clips(sampling, num_frames, examples_per_video=1, **settings):
    """The data of clips of videos; `settings` are those of the sampling, and others of the data."""
    config = images()
    config.update(
        kind='videos',
        num_frames=num_frames,
        sampling=sampling,
        examples_per_video=examples_per_video,
        **settings,
    )
    return config
