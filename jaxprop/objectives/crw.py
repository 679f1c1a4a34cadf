"""CRW: a random walk over the patches of a clip and back should end where it started.

Jabri, Owens, Efros, "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020, with
the settings of the released model.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxprop.affinity import affinity, l2_normalize, soft_copy
from jaxprop.augment import random_resized_crop
from jaxprop.models.heads import LinearHead, make_head
from jaxprop.objectives.objective import (
    Objective,
    apply_networks,
    clip_frames,
    cross_entropy,
    example_keys,
    init_networks,
    network_input,
    numbered_keys,
)

NODES = ('patches', 'cells')


def objective(
    backbone: nn.Module,
    *,
    size: int = 256,
    patch_size: int = 64,
    patch_stride: int = 32,
    nodes: str = 'patches',
    frame_area: tuple[float, float] = (0.8, 0.95),
    frame_aspect: tuple[float, float] = (0.7, 1.3),
    patch_area: tuple[float, float] = (0.7, 0.9),
    patch_aspect: tuple[float, float] = (3 / 4, 4 / 3),
    head: str = 'linear',
    hidden_layers: int = 0,
    dimensions: int = 128,
    temperature: float = 0.05,
    edge_dropout: float = 0.1,
    axis_name: str | None = None,
) -> Objective:
    """Cross-entropy of the node to which a random walk returns.

    Each frame is cropped at random and cut into overlapping windows; a random resized crop of each
    window is a node. Its vector is the head's output, L2-normalised. With f_t `[N, D]` the vectors
    of frame t, T frames and the softmax of each row:

        F_t = softmax(f_t f_{t+1}^T / temperature)     a step forward, from frame t
        G_t = softmax(f_{t+1} f_t^T / temperature)     a step back, to frame t
        P_i = F_0 F_1 ... F_i G_i ... G_1 G_0          a walk to frame i + 1 and back
        loss = mean over i = 1 .. T - 2 and nodes n of -log P_i[n, n]

    The walk over two frames alone, P_0, is left out as in the released code, so T is at least 3.
    Batch statistics are of all nodes of all frames and clips. If walks end anywhere with equal
    probability, the loss is log N and the accuracy 1 / N.

    Differences to the release: pixels are normalised by ImageNet's mean and deviation, as in
    evaluation, the release trained with CIFAR-10's; crops are rounded to 8 bits once, after the
    crop of the frame and of the window, the release rounds after each; the linear head's first
    weights are Flax's, whose deviation is 1.7 times that of the release.

    The batch is `{'frames': uint8 RGB [B, T, h, w, 3]}`. Metrics: 'cycle_i', the loss of P_i, and
    'accuracy_i', the share of nodes whose most probable end is their start. Parameters: 'backbone'
    and 'head'. State: their batch statistics.

    Example:

        backbone = ResNet(output='res4', strides=(1, 2, 1, 1), padding='reflect')
        crw = objective(backbone)
        variables = crw.init(jax.random.key(0), batch)
        loss, (state, metrics) = crw.loss(
            variables['params'], variables['state'], batch, jax.random.key(1)
        )

    Args:
      backbone: any. Released: as in the example; evaluated at res3.
      size: side of the crops of frames, in pixels.
      patch_size, patch_stride: side of the windows, and the step from one to the next, in pixels:
        N = ((size - patch_size) / patch_stride + 1)^2.
      nodes: 'patches', or 'cells': every cell of the features of a whole crop is a node.
      frame_area, frame_aspect: bounds of the share of a frame's area that its crop covers, and of
        the crop's aspect ratio.
      patch_area, patch_aspect: the same bounds for the crops of windows.
      head: 'linear' on the average of a node's cells; or 'residual' (UVC+), with a backbone up to
        res3 that is shared with an image objective of the same head. See `jaxprop.models.heads`.
      hidden_layers: of the linear head.
      dimensions: D.
      temperature: of the softmax.
      edge_dropout: share of the edges that are cut at random, see `cut_edges`.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: settings are out of their range or don't fit each other; (from loss) clips have
        fewer than 3 frames.
    """
    if nodes not in NODES:
        raise ValueError(f'nodes is {nodes!r}; known: {NODES}')
    if nodes == 'patches' and not 0 < patch_stride <= size - patch_size:
        raise ValueError(
            f'patch_size and patch_stride are {patch_size} and {patch_stride}; needed: two windows '
            f'or more in a crop of size {size}'
        )
    if temperature <= 0 or not 0 <= edge_dropout < 1:
        raise ValueError(
            f'temperature and edge_dropout are {temperature} and {edge_dropout}; needed: more than '
            '0, and a share below 1'
        )
    if head == 'linear':
        node_head = LinearHead(dimensions, hidden_layers)
    elif nodes == 'cells' or hidden_layers:
        raise ValueError(f"head is {head!r}; cells as nodes and hidden_layers need 'linear'")
    else:
        node_head = make_head(head, dimensions, backbone, axis_name)
    networks = {'backbone': backbone, 'head': node_head}
    input_size = patch_size if nodes == 'patches' else size

    def init(rng, batch):
        del batch
        return init_networks(networks, rng, jnp.zeros((1, input_size, input_size, 3)))

    def images(frames, frame_keys, window_keys):
        """Crops the backbone's inputs: all windows of each frame in a row, or the whole crop."""
        num_frames = frames.shape[1]
        frames = rearrange(frames, 'b t h w c -> (b t) h w c').astype(jnp.float32) / 255
        keys = numbered_keys(frame_keys, num_frames).reshape(-1)
        crops = random_resized_crop(keys, frames, size, frame_area, frame_aspect)
        if nodes == 'cells':
            return crops
        patches = windows(crops, patch_size, patch_stride)
        keys = numbered_keys(numbered_keys(window_keys, num_frames), patches.shape[1]).reshape(-1)
        patches = rearrange(patches, 'f n h w c -> (f n) h w c')
        return random_resized_crop(keys, patches, patch_size, patch_area, patch_aspect)

    def loss(params, state, batch, rng):
        frames = clip_frames(batch, 3, 'the shortest walk goes over three frames')
        # Compute the vectors of the nodes.
        batch_size, num_frames = frames.shape[:2]
        keys = numbered_keys(example_keys(rng, batch_size, axis_name), 3)
        inputs = network_input(images(frames, keys[:, 0], keys[:, 1]))
        features, state = apply_networks({'backbone': backbone}, params, state, inputs)
        if nodes == 'cells':
            features = rearrange(features, 'f h w c -> (f h w) 1 1 c')
        vectors, state = apply_networks({'head': node_head}, params, state, features)
        vectors = l2_normalize(vectors).reshape(batch_size, num_frames, -1, dimensions)
        # Walk over them, with some edges cut.
        cut = (None, None)
        if edge_dropout:
            num_nodes = vectors.shape[2]
            cut = jax.vmap(lambda key: cut_edges(key, num_frames - 1, num_nodes, edge_dropout))(
                keys[:, 2]
            )
        losses, accuracies = walk_terms(vectors, temperature, *cut)
        metrics = {f'cycle_{i + 1}': value for i, value in enumerate(losses)}
        metrics |= {f'accuracy_{i + 1}': value for i, value in enumerate(accuracies)}
        return jnp.mean(losses), (state, metrics)

    return Objective(init, loss)


def windows(images: jax.Array, size: int, stride: int) -> jax.Array:
    """Cuts images into all windows at a stride: `[B, h, w, 3]` -> `[B, N, size, size, 3]`.

    Windows lie `stride` pixels apart and are numbered row by row.
    """
    height, width = images.shape[1:3]
    return jnp.stack(
        [
            images[:, top : top + size, left : left + size]
            for top in range(0, height - size + 1, stride)
            for left in range(0, width - size + 1, stride)
        ],
        axis=1,
    )


def cut_edges(
    key: jax.Array, num_steps: int, num_nodes: int, rate: float
) -> tuple[jax.Array, jax.Array]:
    """Draws edges between the nodes of neighbouring frames that walks may not take.

    Each edge is cut for steps forward with probability `rate`. Steps back lose the same edges, and
    each edge once more with probability `rate`: 19 % of them if `rate` is 10 %. The released code
    does so, since it masks the affinities in place before it transposes them.

    Args:
      key: a random key.
      num_steps: steps forward, T - 1.
      num_nodes: N, of each frame.
      rate: from 0 to 1.

    Returns:
      Masks of the edges of F_t and of G_t: `[num_steps, N, N]` each, rows where a step starts.
    """
    forward, more = jax.random.uniform(key, (2, num_steps, num_nodes, num_nodes)) < rate
    return forward, forward.mT | more


def transition(
    affinities: jax.Array, temperature: float, cut: jax.Array | None = None
) -> jax.Array:
    """Computes the step of a random walk: the softmax of each row of affinities / temperature.

    Args:
      affinities: `[..., N, N]`, rows where the step starts.
      temperature: of the softmax.
      cut: `[..., N, N]`, True where there is no edge. A row without any edge is uniform.

    Returns:
      `[..., N, N]`; rows sum to 1.
    """
    if cut is not None:
        affinities = jnp.where(cut, -1e20, affinities)
    return jax.nn.softmax(affinities / temperature, axis=-1)


def walks(forward: jax.Array, backward: jax.Array) -> jax.Array:
    """Multiplies steps to walks there and back: P_i = F_0 ... F_i G_i ... G_0, i = 1 .. T - 2.

    Args:
      forward: F_t `[..., T - 1, N, N]`.
      backward: G_t, the same shape.

    Returns:
      `[..., T - 2, N, N]`.
    """
    there, back = forward[..., 0, :, :], backward[..., 0, :, :]
    results = []
    for i in range(1, forward.shape[-3]):
        there = soft_copy(there, forward[..., i, :, :])
        back = soft_copy(backward[..., i, :, :], back)
        results.append(soft_copy(there, back))
    return jnp.stack(results, axis=-3)


def walk_terms(
    nodes: jax.Array,
    temperature: float,
    forward_cut: jax.Array | None = None,
    backward_cut: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes the loss and the accuracy of each walk there and back.

    Args:
      nodes: L2-normalised `[B, T, N, D]`, T at least 3.
      temperature: of `transition`.
      forward_cut, backward_cut: `[B, T - 1, N, N]`, see `cut_edges`.

    Returns:
      The mean over clips and nodes of -log P_i[n, n], and the share of nodes n for which P_i[n, n]
      is the largest of P_i[n, :] (the first of equal ones): `[T - 2]` each.
    """
    affinities = affinity(nodes[:, :-1], nodes[:, 1:])
    probabilities = walks(
        transition(affinities, temperature, forward_cut),
        transition(affinities.mT, temperature, backward_cut),
    )
    batch_size, num_nodes = len(nodes), nodes.shape[2]
    rows = rearrange(probabilities, 'b i n m -> i (b n) m')
    starts = jnp.tile(jnp.arange(num_nodes), batch_size)
    # The release's 1e-20 keeps the logarithm of a probability that underflows finite.
    return jax.vmap(cross_entropy, (0, None))(jnp.log(rows + 1e-20), starts)
