"""What a rule is: how a target frame's cells get their labels from the context frames.

A rule is a frozen dataclass with its own parameters, in a file of its own in this folder. What a
rule must have is in `Rule`, what a spatial restriction must have in `Region`.

Shapes: H, W feature cells, N = H W, C channels, L labels, M context slots.
"""

import dataclasses
import numbers
from typing import Any, Protocol

import jax

from jaxprop.memory import ContextFrames, Memory

IMPLEMENTATIONS = ('auto', 'dense', 'windowed')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How a rule is computed. It changes the result by no more than rounding.

    A run may be resumed with another `Execution`; it is no factor of an experiment.

    Attributes:
      implementation: 'dense': target cells against whole context frames; 'windowed': only against
        the cells that a region can allow; 'auto': whichever is less work.
      query_chunk: how many target cells are compared with a whole context frame at once. It bounds
        memory: about 12 * query_chunk * N bytes.

    Raises:
      ValueError: a value that is not among these.
    """

    implementation: str = 'auto'
    query_chunk: int = 128

    def __post_init__(self):
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f'implementation is {self.implementation!r}; '
                f'it must be one of {", ".join(IMPLEMENTATIONS)}'
            )
        if not isinstance(self.query_chunk, numbers.Integral) or self.query_chunk < 1:
            raise ValueError(
                f'query_chunk is {self.query_chunk!r}; it must be a whole number of at least 1'
            )


class Region(Protocol):
    """Which context cells a target cell may take labels from.

    Attributes:
      bind_first: whether the region also restricts the kept frame 0.
      reach: the largest offset that is allowed along rows and along columns, in cells; None where
        there is no limit.
    """

    @property
    def bind_first(self) -> bool: ...

    @property
    def reach(self) -> tuple[int, int] | None: ...

    def allows(self, offsets: jax.Array) -> jax.Array:
        """Whether a context cell is allowed: offsets `[..., 2]` -> `[...]` boolean.

        Offsets are rows and columns of the target cell less those of the context cell, integers in
        JAX arrays. They may exceed `reach`; there the answer must be False.
        """
        ...


class Rule:
    """How a target frame gets its label; the base of all rules.

    A rule must have `label`. One that follows something through the video, as boxes, keeps data of
    its own for each remembered frame, an entry: any arrays, which the memory stores beside the
    frame's features and label. One that selects neighbours for a cell, the same for all classes,
    has `matches` too:
    `matches(context, features, execution) -> (cells, weights)`, arrays `[N, K]`: the numbers of the
    context cells, slot * N + cell, and what each contributes to the label.
    """

    def check(self, memory: Memory) -> None:
        """Raises ValueError where the rule cannot work with such a memory."""

    def check_grid(self, grid: tuple[int, int], memory: Memory, execution: Execution) -> None:
        """Raises ValueError where the rule cannot work on a grid (H, W), or not in this way."""
        if execution.implementation == 'windowed':
            raise ValueError(
                f"implementation='windowed' is not for {type(self).__name__}; use 'auto' or 'dense'"
            )

    def init(self, features: jax.Array, label: jax.Array) -> Any:
        """The entry of frame 0, from its features `[H, W, C]` and label `[H, W, L]`."""
        return ()

    def init_from_ids(self, ids: Any, values: Any, grid: tuple[int, int], num_labels: int) -> Any:
        """The entry of frame 0 from its label map, or None where `init` knows as much.

        Args:
          ids: the label map `[h, w]` in pixels.
          values: the ids that the labels stand for, the background first.
          grid: (H, W).
          num_labels: L, at least as many as there are values.
        """
        return None

    def label(self, context: ContextFrames, features: jax.Array, execution: Execution) -> jax.Array:
        """The label `[H, W, L]` of the target frame with features `[H, W, C]`."""
        raise NotImplementedError

    def entry(self, context: ContextFrames, features: jax.Array, label: jax.Array) -> Any:
        """The entry of the target frame, now that it has its label `[H, W, L]`."""
        return ()
