"""Networks that turn images into feature maps.

A backbone of your own is one new file here with a Flax module. No list names it: `find_network`
finds it by the name of its class, for evaluation, training and saved networks. The module must

- be built without arguments: each attribute has a default. JSON holds the attributes, so they are
  numbers, strings, booleans, None, dtypes, or tuples of numbers;
- be called on normalised images `[B, h, w, 3]`, floating point and of any size from 64 x 64 pixels,
  and on `train=True` in training, and give features `[B, H, W, C]`;
- have `stride`, an attribute or a property: the pixels from one feature cell to the next.

Its variables may be any collections. The optimiser changes 'params'. Training keeps the other
collections from step to step and averages them over the devices. Saved networks hold all of them.
For an untrained network an evaluation estimates 'batch_stats' on each video, see
`estimate_batch_statistics`.

Other parts of the package use these attributes of networks that have them: `norm_axis_name`
(training sets it to the axis of devices), `frozen_until` and `dtype` (saved networks drop them),
`norm_momentum` and `padding` (a residual head takes them over, see `heads`).
"""

from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.models.network import estimate_batch_statistics, find_network
from jaxprop.models.resnet import ResNet
from jaxprop.models.vgg import VGG16
from jaxprop.models.vit import ViT

__all__ = [
    'VGG16',
    'ColorAutoencoder',
    'ResNet',
    'ViT',
    'estimate_batch_statistics',
    'find_network',
]
