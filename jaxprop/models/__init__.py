"""Networks that turn images into feature maps."""

from jaxprop.models.color_autoencoder import ColorAutoencoder
from jaxprop.models.resnet import ResNet, estimate_batch_statistics
from jaxprop.models.vgg import VGG16

__all__ = ['VGG16', 'ColorAutoencoder', 'ResNet', 'estimate_batch_statistics']
