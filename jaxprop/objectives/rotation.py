"""Rotation: the network learns to tell by how many quarter turns an image was rotated."""

import flax.linen as nn
import jax.numpy as jnp

from jaxprop.augment import random_view
from jaxprop.models.heads import make_head
from jaxprop.objectives.objective import (
    Objective,
    apply_networks,
    cross_entropy,
    example_keys,
    init_networks,
    network_input,
    unit_images,
)


def objective(
    backbone: nn.Module,
    *,
    size: int = 224,
    min_area: float = 0.2,
    head: str = 'linear',
    gray: bool = False,
    axis_name: str | None = None,
) -> Objective:
    """Cross-entropy of the rotation of each image, seen at 0, 90, 180 and 270 degrees.

    The batch is `{'image': uint8 RGB [B, h, w, 3]}`. A random resized crop and flip of each image
    goes through the network in all four orientations: a batch of 4 B. The metric is 'accuracy'.
    Parameters: 'backbone' and 'head'. State: batch statistics of the backbone, and of the head
    where it has any.

    Args:
      backbone: any, see `jaxprop.models`; the full ResNet18 has output 'res4'.
      size: side of the crops, in pixels.
      min_area: least share of an image that a crop covers.
      head: 'linear' or 'residual' (UVC+), see `jaxprop.models.heads`.
      gray: whether the network gets the lightness alone, as in UVC.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: for another head.

    Source: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image
    Rotations", ICLR 2018.
    """
    networks = {'backbone': backbone, 'head': make_head(head, 4, backbone, axis_name)}

    def init(rng, batch):
        del batch
        return init_networks(networks, rng, jnp.zeros((1, size, size, 3)))

    def loss(params, state, batch, rng):
        images = unit_images(batch)
        keys = example_keys(rng, len(images), axis_name)
        images = network_input(random_view(keys, images, size, min_area), gray)
        turned = jnp.concatenate([jnp.rot90(images, turns, axes=(1, 2)) for turns in range(4)])
        logits, state = apply_networks(networks, params, state, turned)
        value, accuracy = cross_entropy(logits, jnp.repeat(jnp.arange(4), len(images)))
        return value, (state, {'accuracy': accuracy})

    return Objective(init, loss, 'lightness' if gray else 'rgb')
