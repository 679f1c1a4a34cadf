"""Classification of images: supervised training, to compare self-supervised networks with."""

import flax.linen as nn
import jax.numpy as jnp

from jaxprop.augment import random_view
from jaxprop.models.heads import make_head
from jaxprop.objectives.objective import (
    Objective,
    apply_networks,
    cross_entropy,
    entry,
    example_keys,
    init_networks,
    network_input,
    unit_images,
)


def objective(
    backbone: nn.Module,
    num_classes: int,
    *,
    size: int = 224,
    min_area: float = 0.2,
    head: str = 'linear',
    gray: bool = False,
    axis_name: str | None = None,
) -> Objective:
    """Cross-entropy of the class of each image, after a random resized crop and flip.

    The batch is `{'image': uint8 RGB [B, h, w, 3], 'label': int32 [B]}`, labels from 0 up. The
    metric is 'accuracy', of the augmented images. Parameters: 'backbone' and 'head'. State: batch
    statistics of the backbone, and of the head where it has any.

    Args:
      backbone: any, see `jaxprop.models`; the full ResNet18 has output 'res4'.
      num_classes: number of labels.
      size: side of the crops, in pixels.
      min_area: least share of an image that a crop covers.
      head: 'linear' or 'residual' (UVC+), see `jaxprop.models.heads`.
      gray: whether the network gets the lightness alone, as in UVC.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: for another head.
    """
    networks = {'backbone': backbone, 'head': make_head(head, num_classes, backbone, axis_name)}

    def init(rng, batch):
        del batch
        return init_networks(networks, rng, jnp.zeros((1, size, size, 3)))

    def loss(params, state, batch, rng):
        images, labels = unit_images(batch), entry(batch, 'label')
        keys = example_keys(rng, len(images), axis_name)
        images = network_input(random_view(keys, images, size, min_area), gray)
        logits, state = apply_networks(networks, params, state, images)
        value, accuracy = cross_entropy(logits, labels)
        return value, (state, {'accuracy': accuracy})

    return Objective(init, loss, 'lightness' if gray else 'rgb')
