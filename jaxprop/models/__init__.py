"""Networks that turn images into feature maps, and their pretrained weights."""

from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.models.pretrained import (
    from_torchvision,
    list_pretrained,
    load_pretrained,
    save_pretrained,
)
from jaxprop.models.resnet import ResNet, estimate_batch_statistics

__all__ = [
    'ColorAutoencoder',
    'ResNet',
    'estimate_batch_statistics',
    'from_torchvision',
    'list_pretrained',
    'load_pretrained',
    'save_pretrained',
]
