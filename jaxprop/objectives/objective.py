"""The interface of objectives, `Objective`, and functions that several objectives use."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxprop import color

Variables = dict[str, Any]
Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]

# What gives the entries of a batch.
_NEEDED = {
    'frames': 'clips, of videos with num_frames of the data above 1',
    'image': 'single images, of images or of videos with num_frames of the data 1',
    'label': "classes, of data of kind 'images'",
}


class Objective(NamedTuple):
    """A pretext task as two pure functions; everything else is up to the training loop.

    Attributes:
      init: `init(rng, batch) -> variables`. `variables['params']` holds the parameters that are
        trained, `variables['state']` all that changes otherwise or not at all: batch statistics,
        queues, frozen networks. Both hold the backbone's part under 'backbone': its 'params', and
        its other collections by name, if it has any. Only the structure of `batch` matters, not its
        values.
      loss: `loss(params, state, batch, rng) -> (loss, (state, metrics))`: a float32 scalar, the
        state after the step, and a dict of float32 scalars to watch, such as the terms of the loss.
        It augments the batch and updates batch statistics, as training does.
      color: the colours that the backbone learns to see, as `jaxprop.color.network_input` names
        them. They are written into a saved backbone's card.
      affinity: how the loss compares features of the backbone itself, by the names of propagation's
        settings: `temperature` and `normalize_features`. These are written into a saved backbone's
        card, and an evaluation that uses another temperature notes the difference. None where the
        loss compares other features, such as a head's.

    Batches hold uint8 pixels: `{'image': [B, h, w, 3]}` (classification adds `'label'`, int32
    `[B]`), `{'frames': [B, T, h, w, 3]}`, clips in order of time, or both as
    `{'video': ..., 'image': ...}`.

    Under `jax.pmap` every device gets its part of the batch and the same `rng`. The caller then
    averages losses, metrics, gradients and state over the devices.
    """

    init: Callable[[jax.Array, Batch], Variables]
    loss: Callable[
        [Variables, Variables, Batch, jax.Array],
        tuple[jax.Array, tuple[Variables, Metrics]],
    ]
    color: str = 'rgb'
    affinity: Mapping[str, Any] | None = None


def example_keys(rng: jax.Array, batch_size: int, axis_name: str | None = None) -> jax.Array:
    """Makes a random key for each example, which doesn't depend on the number of devices.

    The key of an example is `fold_in(rng, i)` with i the example's index in the batch of all
    devices: batch_size times the device's index along the axis, plus the index on the device.

    Args:
      rng: the step's key, the same on all devices.
      batch_size: examples on this device.
      axis_name: the mapped axis of devices; None if there is one device.

    Returns:
      `[batch_size]` keys.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * batch_size
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, first + jnp.arange(batch_size))


def numbered_keys(keys: jax.Array, num: int) -> jax.Array:
    """Makes `num` keys of each of `keys [...]`: `[..., num]`, key i is `fold_in(key, i)`."""
    flat = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num)))(
        keys.reshape(-1)
    )
    return flat.reshape(*keys.shape, num)


def entry(batch: Batch, name: str) -> Any:
    """Takes an entry of a batch.

    Args:
      batch: the data of one step.
      name: 'frames', 'image' or 'label'.

    Raises:
      ValueError: the batch has none; the message says which data have it.
    """
    if name not in batch:
        raise ValueError(f'the data give {", ".join(batch)}; needed: {name}, {_NEEDED[name]}')
    return batch[name]


def unit_images(batch: Batch) -> jax.Array:
    """Takes the images of a batch, as float32 RGB `[B, h, w, 3]` in [0, 1].

    Raises:
      ValueError: there is no `batch['image']`, or it isn't uint8 `[B, h, w, 3]`.
    """
    images = entry(batch, 'image')
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"batch['image'] is {images.dtype} {list(images.shape)}; needed: uint8 [B, h, w, 3]"
        )
    return jnp.asarray(images, jnp.float32) / 255


def clip_frames(batch: Batch, least: int, use: str) -> jax.Array:
    """Takes the frames of a batch of clips, uint8 RGB `[B, T, h, w, 3]`.

    Args:
      batch: with 'frames'.
      least: the number of frames that a clip must have at least.
      use: the end of the error's message, which says why so many are needed.

    Raises:
      ValueError: `batch['frames']` is missing or something else, or has fewer frames.
    """
    frames = entry(batch, 'frames')
    is_clip = frames.dtype == jnp.uint8 and frames.ndim == 5 and frames.shape[-1] == 3
    if not is_clip or frames.shape[1] < least:
        raise ValueError(
            f"batch['frames'] is {frames.dtype} {list(frames.shape)}; needed: uint8 "
            f'[B, T, h, w, 3] with T at least {least}: {use}. T is num_frames of the data'
        )
    return frames


def network_input(images: jax.Array, gray: bool = False) -> jax.Array:
    """Makes a network's input of augmented images: normalised RGB, or lightness alone as in UVC.

    Args:
      images: RGB `[..., 3]` in [0, 1]. They are rounded to 8 bits first, since the conversion to
        Lab takes 8 bits.
      gray: whether to use `jaxprop.color.lightness_input` in place of `normalize_rgb`.

    Returns:
      float32 `[..., 3]`.
    """
    images = jnp.round(255 * images).astype(jnp.uint8)
    return color.lightness_input(images) if gray else color.normalize_rgb(images)


def init_networks(
    networks: Mapping[str, nn.Module], rng: jax.Array, inputs: jax.Array
) -> Variables:
    """Initialises a chain of networks: each takes the output of the one before.

    Args:
      networks: by name, in order.
      rng: a key.
      inputs: of the first network.

    Returns:
      `{'params': {name: ...}, 'state': {name: the other collections, where there are any}}`.
    """
    variables: Variables = {'params': {}, 'state': {}}
    for key, (name, network) in zip(jax.random.split(rng, len(networks)), networks.items()):
        inputs, initial = network.init_with_output(key, inputs)
        collections = dict(initial)
        variables['params'][name] = collections.pop('params')
        if collections:
            variables['state'][name] = collections
    return variables


def apply_networks(
    networks: Mapping[str, nn.Module], params: Variables, state: Variables, inputs: jax.Array
) -> tuple[jax.Array, Variables]:
    """Applies a chain of networks in training: each takes the output of the one before.

    Args:
      networks: by name, in order; called with `train=True`.
      params: of each network, by name.
      state: for each network that has other collections, by its name: these by their names.
      inputs: of the first network.

    Returns:
      The last network's output, and the state after the step.
    """
    state = dict(state)
    for name, network in networks.items():
        others = state.get(name, {})
        inputs, updates = network.apply(
            {'params': params[name], **others}, inputs, train=True, mutable=list(others)
        )
        if others:
            state[name] = {**others, **updates}
    return inputs, state


def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy, and how often the largest logit is that of the label.

    The loss is the mean of -log softmax(logits)[label].

    Args:
      logits: `[B, L]`.
      labels: integers `[B]`.

    Returns:
      The loss and the accuracy.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    loss = -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))
    return loss, jnp.mean(jnp.argmax(logits, axis=1) == labels)
