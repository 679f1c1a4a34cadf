"""The interfaces of rules and of spatial regions, and how a rule is computed.

A rule is a frozen dataclass with its own parameters, in a file of its own in this folder. It says
how the cells of a target frame get their labels from the context frames. `Rule` lists the methods
that a rule must have, `Region` those of a spatial restriction.

Shapes: H, W feature cells, N = H W, C channels, L labels, M context slots.
"""

import dataclasses
import numbers
from typing import Any, Protocol

import jax

from jaxprop.memory import ContextFrames, Memory

IMPLEMENTATIONS = ('auto', 'dense', 'windowed', 'batched', 'screened')
PRECISIONS = ('auto', 'float32', 'float16x3')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How a rule is computed. It changes the result by no more than rounding.

    An experiment does not depend on it: a run may be resumed with another `Execution`.

    Attributes:
      implementation: 'dense' compares target cells with whole context frames; 'windowed' only with
        the cells that a region can allow, one tile of target cells after another; 'batched' as
        'windowed', but all tiles at once, in up to 4 GiB; 'screened' only with the cells
        that can be among the k most similar ones, by bounds on the affinities, where that saves
        work; it takes at most as much memory as the context. 'batched' needs a rule `TopK` whose
        softmax is not over the 'frame', 'screened' one that aggregates 'overall' with a softmax
        over 'neighbors'. 'auto' takes 'batched' on GPUs, and 'screened' on CPUs for a context of
        at least 55,000 cells of 64 channels, where they can be; else 'dense' or 'windowed',
        whichever is less work. 'screened' also takes these two where it saves nothing: early in a
        video, for some features, and under `jax.vmap`.
      precision: how 'batched' multiplies features: 'float32'; or 'float16x3', which is as exact:
        each number is the sum of two float16 parts, see `jaxprop.affinity.affinity_float16x3`.
        'auto' takes 'float16x3' on GPUs, where a step then takes half the time, but 'float32' for
        features of 64 bits. Other implementations always multiply in float32: with
        implementation='auto' a precision has no effect where one of them is taken.
      query_chunk: how many target cells 'dense' compares with a whole context frame at once. It
        bounds memory: about 12 * query_chunk * N bytes.

    Raises:
      ValueError: a value that is not among these.
    """

    implementation: str = 'auto'
    precision: str = 'auto'
    query_chunk: int = 128

    def __post_init__(self):
        for name, known in (('implementation', IMPLEMENTATIONS), ('precision', PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f'{name} is {getattr(self, name)!r}; it must be one of {", ".join(known)}'
                )
        if self.precision == 'float16x3' and self.implementation not in ('auto', 'batched'):
            raise ValueError(
                f'precision is {self.precision!r}; implementation={self.implementation!r} has '
                "'float32' alone"
            )
        if not isinstance(self.query_chunk, numbers.Integral) or self.query_chunk < 1:
            raise ValueError(
                f'query_chunk is {self.query_chunk!r}; it must be a whole number of at least 1'
            )


class Region(Protocol):
    """Which context cells a target cell may take labels from.

    Attributes:
      bind_first: whether the region also restricts the kept frame 0.
      reach: the largest offset that is allowed along rows and along columns, two whole numbers of
        cells; None where there is no limit.
    """

    @property
    def bind_first(self) -> bool: ...

    @property
    def reach(self) -> tuple[int, int] | None: ...

    def allows(self, offsets: jax.Array) -> jax.Array:
        """Says which context cells are allowed: offsets `[..., 2]` -> `[...]` boolean.

        An offset is the target cell's row and column minus the context cell's, integers in JAX
        arrays. Offsets may exceed `reach`; there the answer must be False, which is checked.
        """
        ...


class Rule:
    """The base of all rules: says how a target frame gets its label.

    A rule must have `label`. A rule that follows something through the video, such as boxes, also
    keeps an entry for each remembered frame: any arrays, which the memory stores beside the frame's
    features and label. A rule that selects the same neighbours of a cell for all classes has a
    method `matches(context, features, execution) -> (cells, weights)` too. Both are arrays
    `[N, K]`: the numbers of the context cells, slot * N + cell, and their shares of the label.
    """

    def check(self, memory: Memory) -> None:
        """Raises ValueError where the rule cannot work with such a memory."""

    def check_grid(self, grid: tuple[int, int], memory: Memory, execution: Execution) -> None:
        """Raises ValueError where the rule can't work on a grid (H, W) with such an `execution`."""
        if execution.implementation not in ('auto', 'dense'):
            raise ValueError(
                f'implementation={execution.implementation!r} is not for {type(self).__name__}; '
                "use 'auto' or 'dense'"
            )

    def init(self, features: jax.Array, label: jax.Array) -> Any:
        """Makes the entry of frame 0 from its features `[H, W, C]` and label `[H, W, L]`."""
        return ()

    def init_from_ids(self, ids: Any, values: Any, grid: tuple[int, int], num_labels: int) -> Any:
        """Makes the entry of frame 0 from its label map; None where `init` makes the same.

        Args:
          ids: the label map `[h, w]` in pixels.
          values: the ids that the labels stand for, the background first.
          grid: (H, W).
          num_labels: L, at least as many as there are values.
        """
        return None

    def label(self, context: ContextFrames, features: jax.Array, execution: Execution) -> jax.Array:
        """Computes the label `[H, W, L]` of the target frame with features `[H, W, C]`."""
        raise NotImplementedError

    def entry(self, context: ContextFrames, features: jax.Array, label: jax.Array) -> Any:
        """Makes the entry of the target frame, now that it has its label `[H, W, L]`."""
        return ()
