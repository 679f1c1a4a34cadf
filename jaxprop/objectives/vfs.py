"""VFS: features of whole frames should be alike for frames of one video.

Xu, Wang, "Rethinking Self-supervised Correspondence Learning: A Video Frame-level Similarity
Perspective", ICCV 2021, in the released form without negative pairs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxprop.affinity import affinity, l2_normalize
from jaxprop.augment import (
    color_jitter,
    random_choice,
    random_flip,
    random_grayscale,
    random_resized_crop,
)
from jaxprop.models.heads import PredictionHead, ProjectionHead, shared_attributes
from jaxprop.objectives.objective import (
    Objective,
    apply_networks,
    clip_frames,
    example_keys,
    init_networks,
    network_input,
    numbered_keys,
)


def objective(
    backbone: nn.Module,
    *,
    size: int = 224,
    min_area: float = 0.2,
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    jitter_probability: float = 0.8,
    grayscale: float = 0.0,
    hidden: int = 512,
    dimensions: int = 512,
    bottleneck: int = 128,
    all_pairs: bool = True,
    axis_name: str | None = None,
) -> Objective:
    """SimSiam's loss between frames of the first and of the second half of a clip.

    Each frame is a random resized crop, flipped at random. With z = projector(backbone(x)) and
    p = predictor(z), sg the stop-gradient and D(p, z) = 2 - 2 cos(p, sg(z)):

        l(a, b) = D(p_a, z_b) / 2 + D(p_b, z_a) / 2
        loss = mean of l(a, b) over the frames a of the first and b of the second half

    The halves go through the networks one after the other, each with batch statistics of its own.
    The loss is 2 if vectors are unrelated. It is 0 if frames of a video have equal vectors, and
    also in a collapse, where all frames of all videos have the same: the metric 'spread' tells.

    The batch is `{'frames': uint8 RGB [B, 2 T, h, w, 3]}`. Released: one frame from each of 8 parts
    of a video (2 for ResNet50). With two views of one image as frames this is SimSiam itself.
    Metrics: 'shift_i', the mean of l over the pairs of frame t of the first and frame t - i (modulo
    T) of the second half; their mean is the loss. 'spread', sqrt(D) times the mean standard
    deviation of the elements of z / |z|: 1 for vectors in all directions, 0 for a collapse.
    Parameters: 'backbone', 'projector', 'predictor'. State: their batch statistics.

    Differences to the release: crops are resized in floating point, antialiased where they shrink,
    while the release resizes 8 bits by OpenCV's bilinear interpolation without antialiasing.
    Colours are jittered in the order of `color_jitter`, in the release in a random order. The
    release then blurs half of the frames by 0.1 to 0.2 pixels; here none is. Dense layers of heads
    start with Flax's initialisation, in the release with PyTorch's.

    Example:

        backbone = ResNet(output='res4', strides=(1, 2, 2, 2), zero_init_residual=True)
        vfs = objective(backbone)
        variables = vfs.init(jax.random.key(0), batch)
        loss, (state, metrics) = vfs.loss(
            variables['params'], variables['state'], batch, jax.random.key(1)
        )

    Args:
      backbone: any. Released: as in the example, or ResNet50; evaluated at res3 of stride 8.
      size: side of the crops, in pixels.
      min_area: least share of a frame that a crop covers.
      jitter: strengths of brightness, contrast, saturation and hue. Released: none for label
        propagation; (0.4, 0.4, 0.4, 0.1) and `grayscale` 0.2 for tracking objects.
      jitter_probability: probability that a frame's colours are jittered.
      grayscale: probability of a frame in grayscale.
      hidden, dimensions: widths of the projector's hidden layers and output; ResNet50: 2048.
      bottleneck: width of the predictor's hidden layer; ResNet50: 512.
      all_pairs: whether every frame of one half is compared with every frame of the other; if not,
        frame t only with frame t.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: arguments of an augmentation are out of their range; (from loss) clips have an odd
        number of frames.
    """
    projector = ProjectionHead(
        hidden, dimensions, **shared_attributes(ProjectionHead, backbone, axis_name)
    )
    predictor = PredictionHead(
        bottleneck, dimensions, **shared_attributes(PredictionHead, backbone, axis_name)
    )
    encoder = {'backbone': backbone, 'projector': projector}
    networks = {**encoder, 'predictor': predictor}

    def init(rng, batch):
        del batch
        return init_networks(networks, rng, jnp.zeros((1, size, size, 3)))

    def augment(keys, images):
        keys = jnp.moveaxis(numbered_keys(keys, 5), -1, 0)
        images = random_flip(keys[0], random_resized_crop(keys[1], images, size, (min_area, 1.0)))
        if any(jitter):
            jittered = color_jitter(keys[2], images, *jitter)
            images = random_choice(keys[3], jitter_probability, jittered, images)
        return random_grayscale(keys[4], images, grayscale) if grayscale else images

    def loss(params, state, batch, rng):
        frames = clip_frames(batch, 2, 'one of them is compared with the other')
        batch_size, num_frames = frames.shape[:2]
        if num_frames % 2:
            raise ValueError(
                f'clips have {num_frames} frames, num_frames of the data; needed: an even number, '
                'two halves'
            )
        # Augment each frame, and split clips into halves.
        keys = numbered_keys(example_keys(rng, batch_size, axis_name), num_frames).reshape(-1)
        images = rearrange(frames, 'b t h w c -> (b t) h w c').astype(jnp.float32) / 255
        views = network_input(augment(keys, images))
        views = rearrange(views, '(b s t) h w c -> s (b t) h w c', b=batch_size, s=2)
        # Compute vectors, each half with batch statistics of its own, and compare the halves.
        projections, predictions = [], []
        for view in views:
            z, state = apply_networks(encoder, params, state, view)
            p, state = apply_networks({'predictor': predictor}, params, state, z)
            projections.append(z.reshape(batch_size, -1, dimensions))
            predictions.append(p.reshape(batch_size, -1, dimensions))
        losses = jnp.mean(pair_losses(predictions, projections), axis=0)
        shifts = jnp.stack([jnp.mean(jnp.diag(jnp.roll(losses, i, 1))) for i in range(len(losses))])
        metrics = {f'shift_{i}': value for i, value in enumerate(shifts)}
        metrics['spread'] = spread(jnp.stack(projections), axis_name)
        return jnp.mean(shifts) if all_pairs else shifts[0], (state, metrics)

    return Objective(init, loss)


def pair_losses(
    predictions: list[jax.Array] | tuple[jax.Array, ...],
    projections: list[jax.Array] | tuple[jax.Array, ...],
) -> jax.Array:
    """Computes l(a, b) for each frame a of the first and each frame b of the second half of a clip.

    Args:
      predictions: p of the two halves, `[B, T, D]` each.
      projections: z of the two halves, `[B, T, D]` each; no gradient flows into them.

    Returns:
      `[B, T, T]`, rows for a, columns for b.
    """
    p1, p2 = (l2_normalize(p) for p in predictions)
    z1, z2 = (jax.lax.stop_gradient(l2_normalize(z)) for z in projections)
    return 2 - affinity(p1, z2) - affinity(z1, p2)


def spread(projections: jax.Array, axis_name: str | None = None) -> jax.Array:
    """sqrt(D) times the mean over D of the standard deviation of z / |z|, for `[..., D]`.

    Args:
      projections: z.
      axis_name: the mapped axis of devices over whose vectors the deviation is, if any.
    """
    unit = l2_normalize(jax.lax.stop_gradient(projections)).reshape(-1, projections.shape[-1])
    mean, square = jnp.mean(unit, axis=0), jnp.mean(jnp.square(unit), axis=0)
    if axis_name is not None:
        mean, square = jax.lax.pmean((mean, square), axis_name)
    deviation = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0))
    return jnp.sqrt(unit.shape[-1]) * jnp.mean(deviation)
