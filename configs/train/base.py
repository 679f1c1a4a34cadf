"""What every training config starts from: rotation on images, unless another one says otherwise."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Of the image objectives: the size of a random resized crop in pixels, the least share of the image
# that it covers, whether the network sees it in gray, and what is on top of the backbone.
VIEWS = {'size': 224, 'min_area': 0.2, 'gray': False, 'head': 'linear'}


def get_config():
    return ConfigDict(
        {
            'name': 'base',
            'seed': 0,
            'epochs': 1.0,  # Of `data`.
            'steps': placeholder(int),  # In place of epochs.
            'accumulate': 1,  # Parts in which a device takes its batch.
            'start_from': '',  # The folder of another run, or a network saved by save_pretrained.
            # The arguments of jaxprop.models.ResNet.
            'backbone': {
                'depth': 18,
                'output': 'res4',
                'strides': (1, 2, 2, 2),
                'max_pool': True,
                'padding': 'zero',
                'frozen_until': placeholder(str),
                'dtype': 'float32',
            },
            # The module in jaxprop.objectives, and the arguments of its `objective`; NAME_epoch is
            # NAME, in epochs instead of steps.
            'objective': {'name': 'rotation', **VIEWS},
            # With another objective the two are trained together:
            # objective + weight image_objective.
            'image_objective': None,
            'image_weight': 0.0,
            # Adds the metrics video/gradient_norm and image/gradient_norm, the lengths of the two
            # losses' gradients on the backbone, by which image_weight is chosen. A step takes up to
            # twice as long.
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
            # See jaxprop.data.pipeline.DatasetConfig. batch_size is of all devices together.
            'data': images(),
            'image_data': None,  # Of image_objective.
            # What the exported backbone's batch statistics are of: {'frames': how many of `data`,
            # 'size': theirs, 'color': as `jaxprop.color.network_input` has it}. None: of training.
            'statistics': None,
            'evaluation': evaluation(),
            'log_every': 100,  # Steps.
            'checkpoint_every': 1000,
            # Latest checkpoints, beside the one with the best evaluation, or the lowest loss.
            'keep': 3,
        }
    )


def evaluation():
    """Label propagation with the network of every so many steps, see evaluation.while_training."""
    return ConfigDict(
        {
            'every': placeholder(int),  # Steps; the last one too. None: no evaluation.
            'config': 'davis_crw',  # One of configs/eval. What follows changes it, where not None.
            'measure': 'J&F-Mean',  # By which the best checkpoint is chosen: the largest.
            'dataset': {'root': '', 'split': 'train', 'names': ()},
            # The sequences of the config's own split are to be reported. True: use them even so.
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
    """Clips of videos in order of time; `settings` are the sampling's and others of the data."""
    config = images()
    config.update(
        kind='videos',
        num_frames=num_frames,
        sampling=sampling,
        examples_per_video=examples_per_video,
        **settings,
    )
    return config
