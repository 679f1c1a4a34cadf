"""TimeCycle: a patch, tracked back through a clip and forward again, should reach its own place.

Wang, Jabri, Efros, "Learning Correspondence from the Cycle-Consistency of Time", CVPR 2019, with
the settings of the released code.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxprop import color
from jaxprop.affinity import affinity, l2_normalize
from jaxprop.augment import random_crop, random_flip
from jaxprop.geometry import affine_places, sample
from jaxprop.models.heads import TransformHead
from jaxprop.objectives.objective import (
    Objective,
    apply_networks,
    clip_frames,
    example_keys,
    init_networks,
    numbered_keys,
)


def objective(
    backbone: nn.Module,
    *,
    frame_size: int = 240,
    patch_size: int = 80,
    hidden: tuple[int, int] = (128, 64),
    head_kernel: int = 4,
    temperature: float = 512**-0.5,
    inlier_weight: float = 1.0,
    skip_weight: float = 0.1,
    cycle_weight: float = 0.02,
    max_rotation: float = 45.0,
    num_windows: int = 7,
    num_salient: int = 10,
    corner_aligned: bool = True,
    crop_offset: float = 1.0,
    inlier_offset: float = 1.0,
    detach_steps: int = 0,
    axis_name: str | None = None,
) -> Objective:
    """The distance from a patch's true place to the place where tracking it back and forth ends.

    The patch is cut from a frame that follows after the clip, at a place where something moves and
    at a random angle: see `salient_thetas`. The network tracks it back through the clip to an
    earlier frame, then forward again to the patch's own frame: see `cycle_terms`.

        loss = inlier_weight inlier + skip_weight skip + cycle_weight mean of cycle_c over c

    The batch is `{'frames': uint8 RGB [B, V + 2, h, w, 3]}`: the V frames of a clip, the frame from
    which the patch is cut, and one more, whose difference to that frame shows what moves. Released:
    V = 4, frames 0, 2, 4, 6, 15 and 17 at 12 a second. All frames of an example are cropped and
    flipped alike. Clips, patches and the patches' frames go through the network one after the
    other, each of the three with batch statistics of its own.

    The metrics are 'inlier', 'skip' and 'cycle', the terms as they enter the loss, 'loss', their
    sum, and 'cycle_c' for c = 1 .. V without a weight. Parameters: 'backbone' and 'head'. State:
    'backbone' (its batch statistics, if any), 'step' (calls so far).

    Example:

        backbone = ResNet(depth=50, projection=512, projection_relu=True)
        timecycle = objective(backbone)
        variables = timecycle.init(jax.random.key(0), batch)
        loss, (state, metrics) = timecycle.loss(
            variables['params'], variables['state'], batch, jax.random.key(1)
        )

    Args:
      backbone: any. Released: as in the example, of stride 8 and 512 channels after a ReLU.
      frame_size, patch_size: sides of frames and patches, in pixels.
      hidden, head_kernel: see `TransformHead`.
      temperature: T of softmax(A / T), for features of length 1. Released: 1 / sqrt(512).
      inlier_weight, skip_weight, cycle_weight: of the terms.
      max_rotation: of patches, in degrees.
      num_windows, num_salient: a patch lies at one of the `num_salient` windows that move most, of
        num_windows^2 windows.
      corner_aligned: how crops count pixels, see `affine_places`. Released: True.
      crop_offset: factor of the shifts of crops. Released: 1, or 227 / 210 by an error under
        Python 3.
      inlier_offset: factor of the shifts in `inlier_score`. Released: 227 / 210, by an error.
      detach_steps: in so many first steps no gradient flows into the features of clips and patches.
        Released: 0. It is said to help where the loss does not fall.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: sizes or numbers don't fit each other; (from loss) clips have fewer than 3 frames,
        or frames smaller than `frame_size`.
    """
    stride = backbone.stride
    cells, patch_cells = frame_size // stride, patch_size // stride
    if frame_size % stride or patch_size % stride or patch_size >= frame_size:
        raise ValueError(
            f'frame_size and patch_size are {frame_size} and {patch_size}; needed: multiples of '
            f"the backbone's stride {stride}, the second smaller"
        )
    if patch_cells < 2 * head_kernel - 1:
        raise ValueError(
            f'head_kernel is {head_kernel} and a patch has {patch_cells} cells a side; needed: at '
            f'least {2 * head_kernel - 1} cells'
        )
    if num_windows < 2 or not 0 < num_salient <= num_windows**2 or temperature <= 0:
        raise ValueError(
            f'num_windows, num_salient and temperature are {num_windows}, {num_salient} and '
            f'{temperature}; needed: at least 2, from 1 to num_windows^2, and more than 0'
        )
    networks = {'backbone': backbone}
    head = TransformHead(hidden, head_kernel)
    scale = patch_size / frame_size

    def init(rng, batch):
        del batch
        backbone_rng, head_rng = jax.random.split(rng)
        images = jnp.zeros((1, patch_size, patch_size, 3))
        affinities = jnp.zeros((1, patch_cells, patch_cells, cells, cells))
        variables = init_networks(networks, backbone_rng, images)
        variables['params']['head'] = head.init(head_rng, affinities)['params']
        variables['state']['step'] = jnp.zeros((), jnp.int32)
        return variables

    def loss(params, state, batch, rng):
        frames = clip_frames(
            batch, 3, "the frames of a clip, the patch's own, and one that tells what moves there"
        )
        # Crop and flip all frames of a clip alike.
        batch_size, num_frames = len(frames), frames.shape[1] - 2
        crop_keys, flip_keys, place_keys = numbered_keys(
            example_keys(rng, batch_size, axis_name), 3
        ).T
        frames = random_crop(crop_keys, frames, frame_size)
        # A clip is flipped as one tall image, its frames above each other.
        tall = rearrange(frames, 'b t h w c -> b (t h) w c').astype(jnp.float32)
        tall = color.normalize_rgb(random_flip(flip_keys, tall))
        frames = rearrange(tall, 'b (t h) w c -> b t h w c', h=frame_size)
        # Cut the patch where something moves.
        target, following = frames[:, -2], frames[:, -1]
        theta = salient_thetas(
            place_keys,
            target,
            following,
            scale=scale,
            max_rotation=max_rotation,
            num_windows=num_windows,
            num_salient=num_salient,
        )
        patch = sample(target, affine_places(theta, patch_size, frame_size, corner_aligned))

        # Compute features of clips, patches and targets.
        features = []
        for images in (rearrange(frames[:, :-2], 'b t h w c -> (b t) h w c'), patch, target):
            result, state = apply_networks(networks, params, state, images)
            features.append(result.astype(jnp.float32))
        of_clip, of_patch, of_target = features
        detached = state['step'] < detach_steps
        of_clip, of_patch = (
            jnp.where(detached, jax.lax.stop_gradient(x), x) for x in (of_clip, of_patch)
        )

        # Track the patch, and weight the terms.
        def predict(affinities):
            outputs: Any = head.apply({'params': params['head']}, affinities)
            return theta_of(outputs, scale)

        terms = cycle_terms(
            predict,
            of_clip.reshape(batch_size, num_frames, *of_clip.shape[1:]),
            of_patch,
            of_target,
            theta,
            temperature=temperature,
            corner_aligned=corner_aligned,
            crop_offset=crop_offset,
            inlier_offset=inlier_offset,
        )
        cycles = {name: value for name, value in terms.items() if name.startswith('cycle_')}
        metrics = {
            'inlier': inlier_weight * terms['inlier'],
            'skip': skip_weight * terms['skip'],
            'cycle': cycle_weight * jnp.mean(jnp.stack(list(cycles.values()))),
        }
        metrics['loss'] = jnp.asarray(sum(metrics.values()))
        state = {**state, 'step': state['step'] + 1}
        return metrics['loss'], (state, {**metrics, **cycles})

    compared = {'temperature': temperature, 'normalize_features': True}
    return Objective(init, loss, affinity=compared)


def cycle_terms(
    predict: Callable[[jax.Array], jax.Array],
    clip: jax.Array,
    patch: jax.Array,
    target: jax.Array,
    theta: jax.Array,
    *,
    temperature: float,
    corner_aligned: bool = True,
    crop_offset: float = 1.0,
    inlier_offset: float = 1.0,
) -> dict[str, jax.Array]:
    """Computes TimeCycle's terms of the loss from features.

    A patch is tracked in a frame as follows. A = softmax of <patch cell, frame cell> / T over the
    frame's cells; theta = predict(A), an affine map, is its place. The frame's features, cropped by
    theta, are the patch that is tracked next. With D `point_distance`, and frames 0 .. V - 1:

    - 'cycle_c', c = 1 .. V: D(theta of the last step, true theta) of the cycle that goes from the
      patch back through the frames V - 1 .. V - c, forward through V - c + 1 .. V - 1 and to the
      target;
    - 'skip': the mean over frames t of D(theta, true theta), where the patch is tracked in frame t
      and from there at once in the target;
    - 'inlier': minus the mean over t of `inlier_score` of the patch tracked in t.

    Gradients flow through every step, both into the features and into the theta of crops.

    Args:
      predict: a function from affinities `[N, n, n, H, H]` to theta `[N, 2, 3]`.
      clip: features of the clip, `[B, V, H, H, C]`, not normalised.
      patch: features of the patch, `[B, n, n, C]`.
      target: features of the frame from which the patch was cut, `[B, H, H, C]`.
      theta: the affine map by which it was cut, `[B, 2, 3]`.
      temperature: T, for features of length 1.
      corner_aligned, crop_offset, inlier_offset: see `objective`.

    Returns:
      The terms, scalars.
    """
    num_frames, cells, patch_cells = clip.shape[1], clip.shape[2], patch.shape[1]

    def track(queries, bases):
        """Computes affinities and theta of patches `[N, ...]` in frames; features have length 1."""
        logits = affinity(_flat(queries), _flat(bases)) / temperature
        shape = (len(logits), patch_cells, patch_cells, cells, cells)
        affinities = jax.nn.softmax(logits, axis=-1).reshape(shape)
        return affinities, predict(affinities)

    def crop(features, thetas):
        thetas = thetas.at[..., 2].multiply(crop_offset)
        places = affine_places(thetas, patch_cells, cells, corner_aligned)
        return l2_normalize(sample(features, places))

    def step(queries, frames):
        """Tracks patches in frames, `[B, k, ...]` each; returns those found, the next queries."""
        queries, frames = (x.reshape(-1, *x.shape[2:]) for x in (queries, frames))
        _, thetas = track(queries, l2_normalize(frames))
        return crop(frames, thetas).reshape(len(clip), -1, *patch.shape[1:])

    def in_target(queries):
        """Tracks patches `[B, V, ...]` in the target; returns distances to the true place."""
        bases = jnp.repeat(l2_normalize(target), num_frames, axis=0)
        _, thetas = track(queries.reshape(-1, *queries.shape[2:]), bases)
        distances = point_distance(thetas, jnp.repeat(theta, num_frames, axis=0))
        return distances.reshape(-1, num_frames)

    # Track the patch in each frame, and from there in the target.
    frames = clip.reshape(-1, *clip.shape[2:])
    queries = jnp.repeat(l2_normalize(patch), num_frames, axis=0)
    affinities, thetas = track(queries, l2_normalize(frames))
    score = inlier_score(affinities, thetas, inlier_offset, corner_aligned)
    found = crop(frames, thetas).reshape(*clip.shape[:2], *patch.shape[1:])
    terms = {'inlier': -jnp.mean(score), 'skip': jnp.mean(in_target(found))}

    # Track the patch back frame by frame. The first step, to the last frame, is done.
    back = [found[:, -1:]]
    for frame in range(num_frames - 2, -1, -1):
        back.append(step(back[-1], clip[:, frame : frame + 1]))
    # Track forward, all cycles at once. Entry t starts at frame t; when it has reached the last
    # frame, it waits there for the others.
    queries = jnp.concatenate(back[::-1], axis=1)
    for ahead in range(1, num_frames):
        moved = step(queries[:, :-ahead], clip[:, ahead:])
        queries = jnp.concatenate([moved, queries[:, -ahead:]], axis=1)
    cycles = jnp.mean(in_target(queries), axis=0)[::-1]
    return terms | {f'cycle_{c + 1}': cycles[c] for c in range(num_frames)}


def theta_of(outputs: jax.Array, scale: float) -> jax.Array:
    """Makes affine maps `[N, 2, 3]` of one `scale` from a head's outputs.

    A row of `outputs [N, 3]` is the shift (x, y) and the angle.
    """
    sine, cosine = scale * jnp.sin(outputs[:, 2]), scale * jnp.cos(outputs[:, 2])
    rows = [cosine, -sine, outputs[:, 0]], [sine, cosine, outputs[:, 1]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=1)


def point_distance(theta: jax.Array, other: jax.Array) -> jax.Array:
    """The mean squared distance between the places to which two affine maps take points.

    The maps `theta` and `other` are `[N, 2, 3]`, the distance is `[N]`.

    The points are a grid of 20 x 20 from -1 to 1, whose mean square along an axis is 21 / 57. With
    M and t the matrix and the shift of `theta`, and M' and t' those of `other`:
    D = 21 / 57 |M - M'|^2 + |t - t'|^2.
    """
    squares = jnp.sum(jnp.square(theta - other), axis=1)
    return 21 / 57 * (squares[:, 0] + squares[:, 1]) + squares[:, 2]


def inlier_score(
    affinities: jax.Array, theta: jax.Array, offset: float = 1.0, corner_aligned: bool = True
) -> jax.Array:
    """Computes how large affinities are at the places to which a map takes the patch's cells.

    S = sum of A_p at p's place / (sum of the bilinear weights there + 1e-5 n^2 H^2).

    Args:
      affinities: A_p for each cell p of the patch, `[N, n, n, H, H]`.
      theta: the affine maps, `[N, 2, 3]`.
      offset: factor of the maps' shifts.
      corner_aligned: see `affine_places`.

    Returns:
      `[N]`.
    """
    num, size, cells = len(affinities), affinities.shape[1], affinities.shape[-1]
    places = affine_places(theta.at[..., 2].multiply(offset), size, cells, corner_aligned)
    maps = affinities.reshape(-1, cells, cells, 1)
    values = sample(maps, places.reshape(-1, 2)).reshape(num, -1)
    weights = sample(jnp.ones((num, cells, cells, 1)), places).reshape(num, -1)
    # The release adds 1e-5 for each pair of a patch's and a frame's cell.
    return jnp.sum(values, axis=1) / (jnp.sum(weights, axis=1) + 1e-5 * maps[0].size * size**2)


def salient_thetas(
    keys: jax.Array,
    frames: jax.Array,
    following: jax.Array,
    *,
    scale: float,
    max_rotation: float = 45.0,
    num_windows: int = 7,
    num_salient: int = 10,
) -> jax.Array:
    """Draws where to cut a patch from each frame: where something moves, at a random angle.

    Motion is the sum of |frame - following| in a window. There are num_windows^2 windows; each is
    three boxes wide and high, and neighbours lie one box apart.

    Args:
      keys: `[B]`.
      frames, following: frames and those that follow them, `[B, H, H, 3]`.
      scale: side of the patch as a share of the frame's.
      max_rotation: degrees to either side.
      num_windows: number of windows along an axis.
      num_salient: the patch is cut at one of so many windows that move most.

    Returns:
      `[B, 2, 3]`, see `affine_places`.
    """
    box = frames.shape[1] // (num_windows + 2)
    size = box * (num_windows + 2)
    motion = jnp.sum(jnp.abs(frames - following), axis=-1)[:, :size, :size]
    boxes = rearrange(motion, 'b (i h) (j w) -> b i h j w', h=box, w=box).sum(axis=(2, 4))
    moving = sum(
        boxes[:, i : i + num_windows, j : j + num_windows] for i in range(3) for j in range(3)
    )
    _, salient = jax.lax.top_k(jnp.asarray(moving).reshape(len(frames), -1), num_salient)

    def draw(key, salient):
        uniform = jax.random.uniform(key, (4,))
        window = salient[jnp.floor(uniform[0] * num_salient).astype(jnp.int32)]
        place = jnp.stack([window % num_windows, window // num_windows]) + uniform[1:3] - 0.5
        place = jnp.clip(place / (num_windows - 1), 0, 1)
        angle = math.radians(max_rotation) * (2 * uniform[3] - 1)
        return jnp.append((2 * place - 1) * (1 - scale), angle)

    return theta_of(jax.vmap(draw)(keys, salient), scale)


def _flat(grid: jax.Array) -> jax.Array:
    """`[B, H, W, C]` -> `[B, H W, C]`."""
    return grid.reshape(len(grid), -1, grid.shape[-1])
