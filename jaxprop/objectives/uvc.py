"""UVC: learns features by copying the colours of one frame of a video to another.

Li, Liu, De Mello, Wang, Kautz, Yang, "Joint-task Self-supervised Learning for Temporal
Correspondence", NeurIPS 2019. Where the paper is silent, this follows the released code.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxprop import color
from jaxprop.affinity import affinity, expected_coordinates, soft_copy
from jaxprop.augment import random_affine_crop
from jaxprop.checkpoints.convnets import load_released
from jaxprop.geometry import box_of_size, box_of_spread, cell_centers, crop, resize_and_pad
from jaxprop.models.color_autoencoder import STRIDE, ColorAutoencoder
from jaxprop.objectives.objective import (
    Objective,
    Variables,
    apply_networks,
    clip_frames,
    example_keys,
    numbered_keys,
)

STAGES = ('warm_up', 'joint')
BOXES = ('size', 'spread')


def objective(
    backbone: nn.Module,
    color_variables: Mapping[str, Any],
    *,
    stage: str = 'warm_up',
    patch_size: int = 256,
    frame_size: int = 640,
    max_rotation: float = 10.0,
    max_scale: float = 1.2,
    min_scale: float | None = None,
    box: str = 'size',
    temperature: float = 1.0,
    cycle_weight: float = 0.1,
    coordinate_weight: float = 0.0,
    concentration_weight: float = 1.2,
    concentration_window: int = 8,
    concentration_start: int = 0,
    outlier_threshold: float = 2.5,
    outlier_start: int = 0,
    axis_name: str | None = None,
) -> Objective:
    """Colours each frame of a pair by copying from the other one, in one of UVC's two stages.

    The network sees lightness alone. Affinities of its features copy the colour features that a
    frozen autoencoder computes. The stages differ in the images:

    - 'warm_up': both images are crops, with the same random rotation, scale and flip, and each from
      a place of its own.
    - 'joint': image 1 is a rotated crop of frame 1. `locate` finds it in the whole frame 2, and the
      box found there is cropped as image 2.

    The loss is made of the terms of `pair_terms`:

        loss = mean over pairs of (color + cycle_weight cycle), 0 for an outlier
               + coordinate_weight coordinates + concentration_weight concentration

    An outlier is a pair with color + cycle_weight cycle > outlier_threshold. Crops are made in RGB
    and rounded to 8 bits before they become Lab, so that the colours are those of 8-bit images.

    The batch is `{'frames': uint8 RGB [B, 2, h, w, 3]}`, two frames of each video. The metrics are
    'loss'; 'color', 'cycle', 'coordinates' and 'concentration' as they enter it, so that it is
    their sum; and 'outliers', the share of pairs that were left out. Parameters: 'backbone'. State:
    'backbone' (its batch statistics, if any), 'step' (calls so far), 'color_autoencoder' (the
    frozen variables).

    Args:
      backbone: a network of stride 8. Released: output 'res4' (512 channels); the study: 'res3'.
      color_variables: of a `ColorAutoencoder`, as `load_released` returns them.
      stage: 'warm_up' or 'joint'; the second starts from the backbone of the first.
      patch_size: side of the crops, in pixels.
      frame_size: in 'joint', frames are resized to this longer side in pixels, and padded to a
        square.
      max_rotation: of crops, in degrees. The angle is any number up to it to either side. Released:
        whole degrees.
      max_scale, min_scale: bounds of the crops' magnification, in 'warm_up' only. If `min_scale` is
        None, it is 1 / max_scale.
      box: how `locate` finds the size of the box: 'size' (the patch's) or 'spread'. Released: the
        patch's, but cut at the right and bottom of the frame instead of moved into it.
      temperature: T of softmax(A / T).
      cycle_weight: weight of colouring image 1 from image 2.
      coordinate_weight: weight of the distance at which coordinates return from the other image.
        Released: 0; the paper's joint stage: 0.1.
      concentration_weight: weight of how far neighbouring cells are sent apart. Released: 0.3,
        summed over 4 devices.
      concentration_window: side of a window in cells.
      concentration_start: step from which concentration counts. Released: after the first epoch
        of 'warm_up', at once in 'joint'.
      outlier_threshold: of a pair's colour terms.
      outlier_start: step from which outliers are left out. Released: after one epoch of
        'warm_up', two of 'joint'.
      axis_name: the mapped axis of devices, if any.

    Raises:
      ValueError: for another stage or box, another stride, or sizes that don't fit each other.
    """
    if stage not in STAGES:
        raise ValueError(f'stage is {stage!r}; known: {STAGES}')
    if box not in BOXES:
        raise ValueError(f'box is {box!r}; known: {BOXES}')
    if backbone.stride != STRIDE:
        raise ValueError(
            f'the backbone has stride {backbone.stride}; the colour autoencoder needs {STRIDE}'
        )
    if patch_size % STRIDE or patch_size < concentration_window * STRIDE:
        raise ValueError(
            f'patch_size is {patch_size}; needed: a multiple of {STRIDE} that holds a window of '
            f'{concentration_window} cells'
        )
    if stage == 'joint' and (frame_size % STRIDE or frame_size < patch_size):
        raise ValueError(
            f'frame_size is {frame_size}; needed: a multiple of {STRIDE}, at least patch_size'
        )
    networks = {'backbone': backbone}
    autoencoder = ColorAutoencoder()
    cells = (patch_size // STRIDE, patch_size // STRIDE)

    def init(rng, batch):
        del batch
        collections = dict(backbone.init(rng, jnp.zeros((1, patch_size, patch_size, 3))))
        params = {'backbone': collections.pop('params')}
        state = {'color_autoencoder': color_variables, 'step': jnp.zeros((), jnp.int32)}
        if collections:
            state['backbone'] = collections
        return {'params': params, 'state': state}

    def images(frames, rng):
        """Makes the two images of each pair, uint8 RGB; in 'joint' the second is all of frame 2."""
        frames = frames.astype(jnp.float32) / 255
        first, second = frames[:, 0], frames[:, 1]
        keys = example_keys(rng, len(frames), axis_name)
        if stage == 'warm_up':
            first, second = (
                random_affine_crop(
                    keys,
                    frame,
                    patch_size,
                    max_rotation=max_rotation,
                    max_scale=max_scale,
                    min_scale=1 / max_scale if min_scale is None else min_scale,
                    flip=True,
                    place_keys=place_keys,
                )
                for place_keys, frame in zip(numbered_keys(keys, 2).T, (first, second))
            )
        else:
            # The crop is neither scaled nor flipped, as frame 2 is not.
            first = random_affine_crop(
                keys,
                resize_and_pad(first, frame_size),
                patch_size,
                max_rotation=max_rotation,
                max_scale=1.0,
                flip=False,
            )
            second = resize_and_pad(second, frame_size)
        return [jnp.round(255 * x).astype(jnp.uint8) for x in (first, second)]

    def loss(params, state, batch, rng):
        frames = clip_frames(batch, 2, 'each of a pair is copied to the other')
        if frames.shape[1] != 2:
            raise ValueError(
                f'frames are {list(frames.shape)}; needed: pairs, uint8 [B, 2, h, w, 3]. '
                'num_frames of the data must be 2'
            )
        features, labs, colors = [], [], []
        # Compute features and colours, one image after the other: in training each has batch
        # statistics of its own.
        for rgb in images(frames, rng):
            result, state = apply_networks(networks, params, state, color.lightness_input(rgb))
            lab = color.scale_lab(color.rgb_to_lab8(rgb))
            features.append(result.astype(jnp.float32))
            labs.append(lab)
            colors.append(autoencoder.apply(state['color_autoencoder'], lab, method='encode'))

        # Crop frame 2 where image 1 is found in it.
        if stage == 'joint':
            boxes = locate(*features, box=box, temperature=temperature)
            features[1] = crop(features[1], boxes, cells)
            colors[1] = crop(colors[1], boxes, cells)
            labs[1] = crop(labs[1], STRIDE * boxes, (patch_size, patch_size))

        def decode(x) -> Any:
            return autoencoder.apply(state['color_autoencoder'], x, method='decode')

        terms = pair_terms(
            features,
            colors,
            labs,
            decode,
            temperature=temperature,
            window=concentration_window,
        )
        # Leave out the colours of outliers, and weight the terms.
        started = state['step'] >= outlier_start
        pair_loss = terms['color'] + cycle_weight * terms['cycle']
        outlier = started & (pair_loss > outlier_threshold)
        concentration = concentration_weight * terms['concentration']
        metrics = {
            'color': jnp.mean(jnp.where(outlier, 0, terms['color'])),
            'cycle': cycle_weight * jnp.mean(jnp.where(outlier, 0, terms['cycle'])),
            'coordinates': coordinate_weight * jnp.mean(terms['coordinates']),
            'concentration': jnp.where(
                state['step'] >= concentration_start, jnp.mean(concentration), 0
            ),
        }
        metrics['loss'] = jnp.asarray(sum(metrics.values()))
        metrics['outliers'] = jnp.mean(outlier.astype(jnp.float32))
        state = {**state, 'step': state['step'] + 1}
        return metrics['loss'], (state, metrics)

    compared = {'temperature': temperature, 'normalize_features': False}
    return Objective(init, loss, 'lightness', compared)


def from_config(
    backbone: nn.Module,
    *,
    color_autoencoder: str | os.PathLike,
    restore: Callable[[pathlib.Path], Variables],
    **settings: Any,
) -> Objective:
    """Builds `objective` from the settings of a config, in which the autoencoder is a path.

    Args:
      backbone: as for `objective`.
      color_autoencoder, restore: as for `load_color_autoencoder`.
      **settings: the other arguments of `objective`.
    """
    return objective(backbone, load_color_autoencoder(color_autoencoder, restore), **settings)


def load_color_autoencoder(
    path: str | os.PathLike, restore: Callable[[pathlib.Path], Variables]
) -> Variables:
    """Loads the variables of a colour autoencoder.

    Args:
      path: the folder of a run that trained one, or a folder with the two files that UVC was
        released with: *encoder*.pth and *decoder*.pth.
      restore: reads the 'params' and 'state' of the latest checkpoint in a folder.

    Raises:
      ValueError: `path` is neither, or its files are damaged.
    """
    if not path:
        raise ValueError(
            'color_autoencoder is empty: give the folder of a run of configs/train/'
            'color_autoencoder.py, or one with the released encoder and decoder'
        )
    path = pathlib.Path(path)
    parts = {part: sorted(path.glob(f'*{part}*.pth')) for part in ('encoder', 'decoder')}
    if all(len(found) == 1 for found in parts.values()):
        return load_released(*(found for (found,) in parts.values()))
    if not (path / 'checkpoints').is_dir():
        found = ', '.join(f'{len(files)} *{part}*.pth' for part, files in parts.items())
        what = f'holds {found} and no checkpoints' if path.is_dir() else 'there is no such folder'
        raise ValueError(
            f'color_autoencoder is {path}: {what}; needed: a folder with the released encoder and '
            'decoder, one *encoder*.pth and one *decoder*.pth, or the folder of a run of '
            'configs/train/color_autoencoder.py'
        )
    params = restore(path / 'checkpoints')['params'].get('backbone', {})
    if params.keys() != {'encoder', 'decoder'}:
        raise ValueError(
            f'color_autoencoder is {path}: a run of another network; needed: one of '
            'configs/train/color_autoencoder.py'
        )
    return {'params': params}


def locate(
    patch: jax.Array, frame: jax.Array, *, box: str = 'size', temperature: float = 1.0
) -> jax.Array:
    """Finds the boxes of frames in which patches lie.

    Every cell of the patch gets an expected coordinate: the mean of the frame's cells, weighted by
    softmax(A / T). The box is centred at the mean of these coordinates, and is as large as the
    patch, or as the coordinates are spread.

    Args:
      patch: features `[B, h, w, C]`.
      frame: features `[B, H, W, C]`.
      box: 'size': `box_of_size`; 'spread': `box_of_spread`.
      temperature: T.

    Returns:
      `[B, 4]`: top, left, bottom, right in cells, see `jaxprop.geometry`.

    Raises:
      ValueError: for another box.

    Source: Li et al., NeurIPS 2019, section 3.2; both boxes are in the released code.
    """
    weights = jax.nn.softmax(affinity(_flat(patch), _flat(frame)) / temperature, axis=-1)
    _, height, width, _ = patch.shape
    frame_size = (frame.shape[1], frame.shape[2])
    centers = jnp.asarray(cell_centers(*frame_size).reshape(-1, 2))
    coordinates = expected_coordinates(weights, centers)
    if box == 'size':
        return box_of_size(coordinates, (height, width), frame_size)
    if box == 'spread':
        return box_of_spread(coordinates, frame_size)
    raise ValueError(f'box is {box!r}; known: {BOXES}')


def pair_terms(
    features: Sequence[jax.Array],
    colors: Sequence[jax.Array],
    labs: Sequence[jax.Array],
    decode: Callable[[jax.Array], jax.Array],
    *,
    temperature: float = 1.0,
    window: int = 8,
) -> dict[str, jax.Array]:
    """Computes UVC's terms between two images of one size, pair by pair and without weights.

    A_ij = <F1_i, F2_j> are the affinities. P_ij is the softmax of A / T over the cells i of image
    1, Q_ij that over the cells j of image 2. With colour features C and cell coordinates X:

    - 'color': `color_error` of image 2 and decode(P^T C1);
    - 'cycle': `color_error` of image 1 and decode(P C2), the same P, not normalised again;
    - 'coordinates': mean of |Q P^T X - X|, in cells;
    - 'concentration': `concentration` of P^T X plus that of Q X.

    Args:
      features: of image 1 and 2, `[B, H, W, C]` each.
      colors: their colour features, `[B, H, W, D]`.
      labs: the images in scaled Lab, `[B, h, w, 3]`.
      decode: the autoencoder's decoder, from `[B, H, W, D]` to `[B, h, w, 3]`.
      temperature: T.
      window: side of the windows of `concentration`, in cells.

    Returns:
      The four terms, `[B]` each.

    Raises:
      ValueError: the features are smaller than a window.
    """
    grid = features[0].shape[1:3]
    first, second = (_flat(x) for x in features)
    affinities = affinity(second, first) / temperature  # A^T, [B, cells of 2, cells of 1]
    from_first = jax.nn.softmax(affinities, axis=-1)  # P^T
    from_second = jax.nn.softmax(affinities, axis=-2).mT  # Q

    def copy(weights, source):
        return soft_copy(weights, _flat(source)).reshape(source.shape)

    centers = jnp.asarray(cell_centers(grid[0], grid[1]).reshape(-1, 2))
    in_first = expected_coordinates(from_first, centers)
    in_second = expected_coordinates(from_second, centers)
    back = expected_coordinates(from_second, in_first)
    return {
        'color': color_error(decode(copy(from_first, colors[0])), labs[1]),
        'cycle': color_error(decode(copy(from_first.mT, colors[1])), labs[0]),
        'coordinates': jnp.mean(jnp.abs(back - centers), axis=(1, 2)),
        'concentration': concentration(in_first.reshape(-1, *grid, 2), window)
        + concentration(in_second.reshape(-1, *grid, 2), window),
    }


def color_error(prediction: jax.Array, truth: jax.Array) -> jax.Array:
    """The mean distance of two images' colours, with ten times the weight for a and b.

    mean |L - L'| + 10 mean |a - a'| + 10 mean |b - b'| of `prediction` and `truth`, both scaled Lab
    `[B, H, W, 3]`: `[B]`.
    """
    error = jnp.mean(jnp.abs(prediction - truth), axis=(1, 2))
    return error[:, 0] + 10 * error[:, 1] + 10 * error[:, 2]


def concentration(coordinates: jax.Array, window: int) -> jax.Array:
    """Computes how far cells of one window are sent apart: the mean variance of coordinates.

    Coordinates are scaled so that the outermost centres of cells are at -1 and 1. Windows don't
    overlap; the mean is over windows, their cells, rows and columns. Cells beyond the last whole
    window are left out.

    Args:
      coordinates: where each cell goes in a grid of the same size, `[B, H, W, 2]`, in cells.
      window: side of a window, in cells.

    Returns:
      `[B]`.

    Raises:
      ValueError: the grid is smaller than a window.
    """
    batch, height, width, _ = coordinates.shape
    rows, columns = height // window, width // window
    if not (rows and columns) or min(height, width) < 2:
        raise ValueError(f'the grid is {height} x {width}; needed: at least {max(window, 2)} cells')
    scaled = coordinates * jnp.asarray([2 / (height - 1), 2 / (width - 1)])
    scaled = scaled[:, : rows * window, : columns * window]
    scaled = scaled.reshape(batch, rows, window, columns, window, 2)
    return jnp.mean(jnp.var(scaled, axis=(2, 4)), axis=(1, 2, 3))


def _flat(grid: jax.Array) -> jax.Array:
    """`[B, H, W, C]` -> `[B, H W, C]`."""
    return grid.reshape(grid.shape[0], -1, grid.shape[-1])
