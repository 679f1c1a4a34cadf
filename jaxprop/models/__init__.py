"""Networks that turn images into feature maps, and their pretrained weights."""

from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.models.pretrained import (
    describe_pretrained,
    from_torchvision,
    list_pretrained,
    load_pretrained,
    save_pretrained,
)
from jaxprop.models.resnet import ResNet, estimate_batch_statistics
from jaxprop.models.vgg import VGG16, from_deepcluster

__all__ = [
    'ColorAutoencoder',
    'ResNet',
    'VGG16',
    'describe_pretrained',
    'estimate_batch_statistics',
    'from_deepcluster',
    'from_torchvision',
    'list_pretrained',
    'load_pretrained',
    'save_pretrained',
]
