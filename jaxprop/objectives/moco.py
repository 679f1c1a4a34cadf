"""MoCo: features of two views of one image should be more alike than those of different images.

He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning",
CVPR 2020, in its first version.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxprop.augment import random_view
from jaxprop.models.heads import make_head
from jaxprop.models.network import replace_attributes
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
    grayscale: float = 0.2,
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.4),
    dimensions: int = 128,
    queue_size: int = 65536,
    momentum: float = 0.999,
    temperature: float = 0.07,
    num_groups: int = 8,
    head: str = 'linear',
    gray: bool = False,
    axis_name: str | None = None,
) -> Objective:
    """The InfoNCE loss of queries, their keys and a queue of the keys of earlier batches.

    Each image gives two views, see `random_view`. The query q is the network's L2-normalised output
    for the first view, the key k that of the momentum encoder for the second, n_j are the keys in
    the queue:

        loss = mean of -log(exp(q.k / T) / (exp(q.k / T) + sum_j exp(q.n_j / T)))

    A step first moves the momentum encoder to m * itself + (1 - m) * params. The first step makes
    it a copy of `params` and of the networks' statistics instead, so that it has a backbone that
    was loaded after `init`. After the loss the keys of all devices replace the oldest of the queue.

    Keys share no batch statistics with their queries, as these would give the answer away. The
    batch of all devices is cut into `num_groups` groups, and each is normalised by itself, whatever
    the backbone's `norm_axis_name`. Queries are in the batch's order and keys in a random one, so
    that a key's group is another part of the batch than its query's. MoCo's groups are the batches
    of its 8 devices; here the result depends on the number of groups, and not on that of devices.
    Each group updates the running statistics by itself, and their mean is kept.

    The batch is `{'image': uint8 RGB [B, h, w, 3]}`. Metrics: 'accuracy', the share of queries
    whose q.k is above all q.n_j; 'positive' and 'negative', the means of q.k and of q.n_j.
    Parameters: 'backbone' and 'head'. State: their batch statistics (the head's where it has any),
    'momentum' with the 'params' and 'state' of the momentum encoder, 'queue'
    `[queue_size, dimensions]`, 'pointer' to its oldest key, 'step' (calls so far).

    Args:
      backbone: any, see `jaxprop.models`; the full ResNet18 has output 'res4'.
      size: side of the views, in pixels.
      min_area: least share of an image that a view covers.
      grayscale: probability of a view in grayscale.
      jitter: strengths of brightness, contrast, saturation and hue.
      dimensions: of queries and keys.
      queue_size: keys in the queue; at least the batch of all devices.
      momentum: m.
      temperature: T.
      num_groups: 2 or more; a multiple of the number of devices that divides the batch into groups
        of at least 2.
      head: 'linear' or 'residual' (UVC+), see `jaxprop.models.heads`.
      gray: whether the network gets the lightness alone, as in UVC.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: for another head, or numbers out of their range; (from loss) the batch can't be
        cut into the groups, or is larger than the queue.
    """
    if num_groups < 2:
        raise ValueError(f'num_groups is {num_groups}; needed: at least 2')
    if not 0 <= momentum <= 1:
        raise ValueError(f'momentum is {momentum}; needed: 0 to 1')
    if temperature <= 0:
        raise ValueError(f'temperature is {temperature}; needed: more than 0')
    backbone = replace_attributes(backbone, norm_axis_name=None)
    networks = {'backbone': backbone, 'head': make_head(head, dimensions, backbone)}

    def init(rng, batch):
        del batch
        network_rng, queue_rng = jax.random.split(rng)
        variables = init_networks(networks, network_rng, jnp.zeros((1, size, size, 3)))
        # Copy the momentum encoder's arrays: a training loop that donates its arrays to the
        # compiled step may hold none of them twice.
        variables['state'] |= {
            'momentum': jax.tree.map(jnp.copy, variables),
            'queue': _normalize(jax.random.normal(queue_rng, (queue_size, dimensions))),
            'pointer': jnp.zeros((), jnp.int32),
            'step': jnp.zeros((), jnp.int32),
        }
        return variables

    def encode(params, statistics, images, groups):
        """Computes L2-normalised outputs, each of the groups with batch statistics of its own."""
        images = images.reshape(groups, -1, *images.shape[1:])
        outputs, statistics = jax.vmap(
            lambda group: apply_networks(networks, params, statistics, group)
        )(images)
        statistics = jax.tree.map(_mean_of_groups, statistics)
        return _normalize(outputs.reshape(-1, dimensions)), statistics

    def gather(values):
        """Collects the values of all devices in a row."""
        return values if axis_name is None else jax.lax.all_gather(values, axis_name, tiled=True)

    def loss(params, state, batch, rng):
        # Check that the batch fits the groups and the queue.
        images = unit_images(batch)
        batch_size = len(images)
        devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
        groups = num_groups // devices
        if num_groups % devices or batch_size % groups or batch_size < 2 * groups:
            raise ValueError(
                f'num_groups is {num_groups} for a batch of {batch_size} on each of {devices} '
                'devices; needed: on each device as many groups of equal size, 2 or more'
            )
        if batch_size * devices > queue_size:
            raise ValueError(
                f'queue_size is {queue_size}; needed: at least the batch, {batch_size * devices}'
            )
        # Draw the views, and encode the first ones.
        view_rng, shuffle_rng = jax.random.split(rng)
        view_keys = jax.vmap(jax.random.split, out_axes=1)(
            example_keys(view_rng, batch_size, axis_name)
        )
        views = [
            network_input(random_view(keys, images, size, min_area, grayscale, jitter), gray)
            for keys in view_keys
        ]
        statistics = {name: state[name] for name in networks if name in state}
        queries, new_statistics = encode(params, statistics, views[0], groups)

        # Move the momentum encoder.
        first = state['step'] == 0
        moved = jax.lax.stop_gradient(
            {
                'params': jax.tree.map(
                    lambda old, new: jnp.where(first, new, momentum * old + (1 - momentum) * new),
                    state['momentum']['params'],
                    params,
                ),
                'state': jax.tree.map(
                    lambda old, new: jnp.where(first, new, old),
                    state['momentum']['state'],
                    statistics,
                ),
            }
        )
        # Encode the second views in a random order, and bring the keys back into the batch's.
        order = jax.random.permutation(shuffle_rng, batch_size * devices)
        mine = jax.lax.dynamic_slice_in_dim(order, device * batch_size, batch_size)
        shuffled, moved['state'] = encode(
            moved['params'], moved['state'], gather(views[1])[mine], groups
        )
        all_keys = gather(shuffled)[jnp.argsort(order)]
        keys = jax.lax.dynamic_slice_in_dim(all_keys, device * batch_size, batch_size)

        # Compare queries with their keys and the queue, then put the keys into the queue.
        positive = jnp.sum(queries * keys, axis=1, keepdims=True)
        negative = jnp.matmul(
            queries, jax.lax.stop_gradient(state['queue']).T, precision=jax.lax.Precision.HIGHEST
        )
        logits = jnp.concatenate([positive, negative], axis=1) / temperature
        value, accuracy = cross_entropy(logits, jnp.zeros(batch_size, jnp.int32))
        slots = (state['pointer'] + jnp.arange(len(all_keys))) % queue_size
        new_state = {
            **new_statistics,
            'momentum': moved,
            'queue': state['queue'].at[slots].set(all_keys),
            'pointer': (state['pointer'] + len(all_keys)) % queue_size,
            'step': state['step'] + 1,
        }
        metrics = {
            'accuracy': accuracy,
            'positive': jnp.mean(positive),
            'negative': jnp.mean(negative),
        }
        return value, (new_state, metrics)

    return Objective(init, loss, 'lightness' if gray else 'rgb')


def _mean_of_groups(values):
    """Averages floating point values over groups; integers are counters, the same in all groups."""
    return jnp.mean(values, axis=0) if jnp.issubdtype(values.dtype, jnp.floating) else values[0]


def _normalize(vectors):
    """Scales vectors `[..., D]` to length 1; the gradient of a vector 0 is finite."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(squared + 1e-12)
