"""Converts label maps (ids of pixels) to soft labels of feature cells, and back.

Shapes: H0, W0 pixels of the label map, H, W feature cells, L labels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ('area', 'nearest', 'bilinear')  # The methods of `resize_matrix`.
_VOID = 255


def resize_matrix(source: int, target: int, method: str) -> np.ndarray:
    """Makes the matrix R that resizes one axis: y = R x. Every row sums to 1.

    Pixels are intervals of the axis. Source and target pixels together cover the same length, so
    the centre of target pixel i lies at (i + 1/2) * source / target in source pixels.

    Args:
      source: number of source pixels.
      target: number of target pixels.
      method: 'area': the mean over the target pixel's interval, source pixels weighted by overlap;
        'nearest': the source pixel that holds the centre, as Pillow chooses it; 'bilinear':
        between the two source pixels whose centres are nearest, the edge pixel beyond the
        outermost centres, no antialiasing (OpenCV, and PyTorch with align_corners=False).

    Returns:
      float32 `[target, source]`.

    Raises:
      ValueError: an unknown method, or a size below 1.
    """
    if source < 1 or target < 1:
        raise ValueError(f'the sizes are {source} and {target}; both must be at least 1')
    if method == 'area':
        # Count in units of 1 / (source * target): every boundary is then a whole number.
        start = np.arange(target)[:, None] * source
        pixel = np.arange(source)[None] * target
        overlap = np.minimum(start + source, pixel + target) - np.maximum(start, pixel)
        return (np.maximum(overlap, 0) / source).astype(np.float32)
    if method == 'nearest':
        return np.eye(source, dtype=np.float32)[_nearest(source, target)]
    if method == 'bilinear':
        # Where each target centre lies among the source centres; beyond them, at the outermost one.
        position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        distance = np.abs(position[:, None] - np.arange(source)[None])
        return np.maximum(1 - distance, 0).astype(np.float32)
    raise ValueError(f'method is {method!r}; it must be one of {", ".join(METHODS)}')


def resize(array: jax.Array, size: tuple[int, int], method: str) -> jax.Array:
    """Resizes the two spatial axes by `resize_matrix`.

    Args:
      array: `[..., H, W, L]`.
      size: (h, w).
      method: 'area', 'nearest' or 'bilinear'.

    Returns:
      `[..., h, w, L]`, float32.

    Raises:
      ValueError: an unknown method, or an array or size that does not fit.
    """
    if array.ndim < 3:
        raise ValueError(f'the array is {list(array.shape)}; it must be [..., H, W, L]')
    _check_size(size)
    rows = resize_matrix(array.shape[-3], size[0], method)
    columns = resize_matrix(array.shape[-2], size[1], method)
    array = jnp.asarray(array, jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    array = jnp.einsum('yh,...hwl->...ywl', rows, array, precision=highest)
    return jnp.einsum('xw,...ywl->...yxl', columns, array, precision=highest)


def label_values(ids: np.ndarray) -> np.ndarray:
    """Lists the ids that a video's labels stand for: those of its first frame, background first.

    A 255 beside other objects marks void pixels, which are background; as the only id beside 0 it
    is the object (DAVIS-2016).

    Args:
      ids: integers (or booleans) `[H0, W0]`, 0 for background; objects need not be numbered
        without gaps.

    Returns:
      int32 `[L]`: 0, then the other ids in ascending order.

    Raises:
      ValueError: not a two-dimensional map of integers from 0 up.

    >>> import jaxprop
    >>> import numpy as np
    >>> jaxprop.label_values(np.array([[0, 0, 7], [3, 3, 7]]))
    array([0, 3, 7], dtype=int32)
    """
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.dtype.kind not in 'iub':
        raise ValueError(f'ids are {ids.dtype} {list(ids.shape)}; they must be integers [H0, W0]')
    present = np.unique(ids).astype(np.int32)
    if present.size and present[0] < 0:
        raise ValueError(f'the smallest id is {present[0]}; ids start at 0, the background')
    objects = present[present > 0]
    if objects.size > 1:
        objects = objects[objects != _VOID]
    return np.concatenate([np.zeros(1, np.int32), objects])


def encode(
    ids: jax.Array, values: jax.Array, grid: tuple[int, int], method: str = 'bilinear'
) -> jax.Array:
    """Turns a label map into soft labels of feature cells: one-hot at full size, then resized.

    Args:
      ids: integers `[H0, W0]`.
      values: `[L]` the id of each label, background first: `label_values` of the first frame.
        Pixels of any other id are background.
      grid: (H, W), that of the features.
      method: as in `resize_matrix`.

    Returns:
      float32 `[H, W, L]`; the labels of a cell sum to 1.

    Raises:
      ValueError: shapes that do not fit, or an unknown method.

    >>> import jaxprop
    >>> import numpy as np
    >>> ids = np.array([[0, 0, 7, 7], [0, 0, 7, 7]])  # 2 x 4 pixels
    >>> soft = jaxprop.encode(ids, values=[0, 7], grid=(1, 2), method='area')
    >>> soft[0]  # A cell a row: the shares of the background and of object 7.
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    if ids.ndim != 2:
        raise ValueError(f'ids are {list(ids.shape)}; they must be [H0, W0]')
    values = _check_values(values)
    objects = ids[..., None] == values[1:]
    background = ~jnp.any(objects, axis=-1, keepdims=True)
    one_hot = jnp.concatenate([background, objects], axis=-1)
    return resize(one_hot, grid, method)


def decode(
    labels: jax.Array,
    values: jax.Array,
    size: tuple[int, int],
    min_max: bool = False,
    decode_size: tuple[int, int] | None = None,
    enlarge: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Turns soft labels into a label map: enlarges them and takes the largest label of each pixel.

    Of equal labels the first wins: a pixel without any weight becomes
    background.

    Args:
      labels: `[..., H, W, L]`.
      values: `[L]` the id of each label.
      size: (H0, W0) of the result.
      min_max: scale each label to [0, 1] over the upsampled frame before labels are compared, see
        `min_max_normalize`. A label that is the same everywhere becomes zero.
      decode_size: labels are compared at this size, and the ids then brought to `size` by nearest
        neighbour. UVC, TimeCycle and DINO compare at the network's input size. None: at `size`.
      enlarge: a function that brings labels to the size at which they are compared, such as
        `jaxprop.refine.enlarge_guided`. None: bilinear.

    Returns:
      int32 ids `[..., H0, W0]`.

    Raises:
      ValueError: shapes that do not fit.

    >>> import jaxprop
    >>> import numpy as np
    >>> soft = np.array([[[0.9, 0.1], [0.2, 0.8]]], np.float32)  # 1 x 2 cells, 2 labels
    >>> jaxprop.decode(soft, values=[0, 7], size=(2, 4))
    Array([[0, 0, 7, 7],
           [0, 0, 7, 7]], dtype=int32)
    """
    values = _check_values(values)
    if labels.ndim < 3 or labels.shape[-1] != values.size:
        raise ValueError(
            f'labels are {list(labels.shape)} with {values.size} values; they must be '
            '[..., H, W, L] with a value for each label'
        )
    _check_size(size)
    if min_max:
        # Upsampling rounds, so a constant label would vary a little, and min-max would stretch
        # that to the whole range. Set such labels to 0 first.
        constant = jnp.ptp(labels, axis=(-3, -2), keepdims=True) == 0
        labels = jnp.where(constant, 0, labels)
    compared_at = size if decode_size is None else decode_size
    labels = resize(labels, compared_at, 'bilinear') if enlarge is None else enlarge(labels)
    if labels.shape[-3:-1] != tuple(compared_at):
        raise ValueError(
            f'enlarge makes labels of {list(labels.shape)}; they must be [..., h, w, L] with '
            f'(h, w) {tuple(compared_at)}'
        )
    if min_max:
        labels = min_max_normalize(labels)
    winner = jnp.argmax(labels, axis=-1)
    if decode_size is not None:
        rows, columns = (_nearest(*sides) for sides in zip(decode_size, size))
        winner = winner[..., rows, :][..., columns]
    return values[winner]


def min_max_normalize(label: jax.Array) -> jax.Array:
    """Scales each class of a soft label `[..., H, W, L]` to [0, 1] over the frame.

    The result is (y - min y) / (max y - min y). A class that is the same everywhere, such as one
    that has vanished, becomes zero: the quotient would be 0 / 0.
    """
    low = jnp.min(label, axis=(-3, -2), keepdims=True)
    span = jnp.max(label, axis=(-3, -2), keepdims=True) - low
    return (label - low) / jnp.where(span > 0, span, 1)


def harden(label: jax.Array) -> jax.Array:
    """Makes a soft label `[..., L]` one-hot at its largest class, the first one where tied."""
    return jax.nn.one_hot(jnp.argmax(label, axis=-1), label.shape[-1], dtype=label.dtype)


def _nearest(source, target):
    """`[target]`: the source pixel that holds each target pixel's centre.

    The centres are running sums, as in Pillow. Some centres lie on the boundary of two source
    pixels (two columns of 854 from 832), and there the rounding of the sum decides.
    """
    steps = np.full(target, source / target)
    steps[0] /= 2
    return np.add.accumulate(steps).astype(np.int32)


def _check_values(values):
    values = jnp.asarray(values, jnp.int32)
    if values.ndim != 1 or values.size < 1:
        raise ValueError(f'values are {list(values.shape)}; they must be [L], the background first')
    return values


def _check_size(size):
    if len(size) != 2:
        raise ValueError(f'size is {size}; it must be (height, width)')
