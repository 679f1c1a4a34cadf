"""Spatial regions: which context cells a target cell may take labels from."""

import dataclasses
import functools
import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from jaxprop.rules.rule import Region


@dataclasses.dataclass(frozen=True)
class Everywhere:
    """The region of all cells of a context frame."""

    bind_first = False
    reach = None

    def allows(self, offsets: jax.Array) -> jax.Array:
        return jnp.ones(offsets.shape[:-1], bool)


@dataclasses.dataclass(frozen=True)
class _WithinRadius:
    """The fields and the reach of a region of cells near the target cell."""

    radius: float = 12.0
    bind_first: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self):
        check_radius(self.radius)

    @property
    def reach(self) -> tuple[int, int]:
        reach = math.ceil(self.radius) - 1
        return reach, reach


@dataclasses.dataclass(frozen=True)
class Disk(_WithinRadius):
    """The region of cells at a Euclidean distance below the radius from the target cell.

    Attributes:
      radius: in feature cells.
      bind_first: whether the kept frame 0 is restricted as well.

    Raises:
      ValueError: the radius is below 1 or not finite.
    """

    def allows(self, offsets: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(offsets), axis=-1) < self.radius**2


@dataclasses.dataclass(frozen=True)
class Square(_WithinRadius):
    """The region of cells whose row and column are both less than the radius away.

    Attributes:
      radius: in feature cells.
      bind_first: whether the kept frame 0 is restricted as well.

    Raises:
      ValueError: the radius is below 1 or not finite.
    """

    def allows(self, offsets: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(offsets), axis=-1) < self.radius


def check_radius(radius: float) -> None:
    """Raises ValueError for a radius that no region can have."""
    if not (isinstance(radius, numbers.Real) and 1 <= radius < math.inf):
        raise ValueError(
            f'radius is {radius!r}; it must be finite and at least 1 feature cell; '
            "without a restriction take Everywhere() (restriction='none')"
        )


@functools.lru_cache
def allowed_offsets(grid: tuple[int, int], region: Region) -> np.ndarray:
    """Asks a region about every offset that two cells of a grid can have: `[2 H - 1, 2 W - 1]`.

    Raises:
      ValueError: it allows an offset beyond its reach, which the windowed search would not see.
    """
    offsets = np.stack(np.meshgrid(*(np.arange(1 - n, n) for n in grid), indexing='ij'), axis=-1)
    with jax.ensure_compile_time_eval():
        allowed = np.asarray(region.allows(jnp.asarray(offsets)))
    beyond = offsets[allowed & np.any(np.abs(offsets) > region.reach, axis=-1)]
    if len(beyond):
        raise ValueError(
            f'{region} allows the offset {tuple(beyond[0].tolist())}, which is beyond its reach '
            f'{region.reach}: let reach be the largest number of rows and of columns'
        )
    return allowed
