"""Training of the colour autoencoder: UVC copies its features, and does not train it further."""

from typing import Any

import jax.numpy as jnp

from jaxprop import color
from jaxprop.augment import random_affine_crop
from jaxprop.models.color_autoencoder import STRIDE, ColorAutoencoder
from jaxprop.objectives.objective import Objective, example_keys, unit_images


def objective(*, size: int = 256, axis_name: str | None = None) -> Objective:
    """Reconstruction of colours: the mean |decode(encode(x)) - x| over scaled Lab.

    The batch is `{'image': uint8 RGB [B, h, w, 3]}`; the images x are random crops of it, flipped
    half of the time. The metrics are 'loss', and 'error_l', 'error_a' and 'error_b', the mean
    absolute errors in levels of 8-bit Lab. The loss is the mean of these errors, divided by 128.
    Parameters: the autoencoder's, under 'backbone'.

    Args:
      size: side of the crops, in pixels.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: the size is not a multiple of the stride 8, or too small for it.

    Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence",
    NeurIPS 2019.
    """
    if size % STRIDE or size < STRIDE:
        raise ValueError(f'size is {size}; needed: a multiple of {STRIDE}')
    autoencoder = ColorAutoencoder()

    def init(rng, batch):
        del batch
        variables = autoencoder.init(rng, jnp.zeros((1, size, size, 3)))
        return {'params': {'backbone': variables['params']}, 'state': {'backbone': {}}}

    def loss(params, state, batch, rng):
        images = unit_images(batch)
        keys = example_keys(rng, images.shape[0], axis_name)
        images = random_affine_crop(keys, images, size, max_rotation=0.0, max_scale=1.0, flip=True)
        lab = color.scale_lab(color.rgb_to_lab8(jnp.round(255 * images).astype(jnp.uint8)))
        result: Any = autoencoder.apply({'params': params['backbone']}, lab)
        error = jnp.mean(jnp.abs(result - lab), axis=(0, 1, 2))
        loss = jnp.mean(error)
        metrics = {f'error_{name}': 128 * error[i] for i, name in enumerate('lab')}
        return loss, (state, {'loss': loss, **metrics})

    return Objective(init, loss)
