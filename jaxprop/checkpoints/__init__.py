"""Reads and writes files of weights: our own, published ones, and PyTorch's."""

from jaxprop.checkpoints.convnets import from_deepcluster, from_torchvision
from jaxprop.checkpoints.native import (
    describe_pretrained,
    list_pretrained,
    load_pretrained,
    save_pretrained,
    weights_digest,
)
from jaxprop.checkpoints.published import load_published
from jaxprop.checkpoints.torch_file import load_torch_weights

__all__ = [
    'describe_pretrained',
    'from_deepcluster',
    'from_torchvision',
    'list_pretrained',
    'load_pretrained',
    'load_published',
    'load_torch_weights',
    'save_pretrained',
    'weights_digest',
]
