"""Evaluations while training: of which steps, and what they gave, in the run's evaluation.jsonl.

An evaluation follows the checkpoint of its step, so a killed run repeats no more than that one. An
entry stays when the run goes on from an earlier step: the step's network will be the same, and is
not evaluated again.
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxprop import parallel
from jaxprop.files import write_text
from jaxprop.training.log import read_entries

# Of the network, its variables, the colour that it sees and the step: 'mean', by which checkpoints
# are compared (the largest is the best), and more for JSON. All processes of a run call it.
Evaluate = Callable[[Any, Mapping[str, Any], str, int], Mapping[str, Any]]


class Evaluations:
    """The evaluations of a run.

    Attributes:
      entries: by step: 'step', what `evaluate` gave, and 'seconds'.
    """

    def __init__(self, workdir: pathlib.Path, every: int | None, evaluate: Evaluate | None) -> None:
        """Reads what the run's earlier processes have evaluated.

        Args:
          workdir: the run's folder.
          every: the number of steps between two evaluations; None for none at all.
          evaluate: the function that evaluates a network.

        Raises:
          ValueError: one of `every` and `evaluate` is given without the other; the file is damaged.
        """
        if every is not None and evaluate is None:
            raise ValueError(
                f'evaluation.every is {every}, but train() was given no function that evaluates'
            )
        if every is None and evaluate is not None:
            raise ValueError('evaluation.every is None: it must say after how many steps')
        self._path, self._every, self._evaluate = workdir / 'evaluation.jsonl', every, evaluate
        # Also where nothing is evaluated any more: the best checkpoint is to stay.
        lines = read_entries(self._path)
        self.entries: dict[int, dict[str, Any]] = {entry['step']: entry for _, entry in lines}

    def is_due(self, step: int, is_last: bool) -> bool:
        """Is the network of this step to be evaluated, now or by an earlier process?"""
        return self._every is not None and step > 0 and (is_last or step % self._every == 0)

    def make(self, step: int, network: Callable[[], tuple[Any, Any, str]]) -> dict[str, Any]:
        """Evaluates a step's network and writes the entry, unless it is there.

        Args:
          step: its number.
          network: called to get the network, its variables and the colour that it sees.

        Returns:
          The entry.
        """
        if step not in self.entries:
            assert self._evaluate is not None
            began = time.perf_counter()
            found = self._evaluate(*network(), step)
            seconds = round(time.perf_counter() - began, 1)
            self.entries[step] = {'step': step, **found, 'seconds': seconds}
            if parallel.is_writer():
                entries = [self.entries[step] for step in sorted(self.entries)]
                write_text(self._path, ''.join(json.dumps(entry) + '\n' for entry in entries))
        return self.entries[step]

    def score(self, step: int) -> float | None:
        """What the network of a step has scored; None where it was not evaluated."""
        return self.entries[step]['mean'] if step in self.entries else None
