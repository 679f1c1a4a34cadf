"""Evaluations while training: when they are due, and their results in the run's evaluation.jsonl.

A step is evaluated after its checkpoint is saved, so a killed run repeats at most one evaluation.
An entry stays when the run goes on from an earlier step: the network of the entry's step will be
the same again, and is not evaluated twice.
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxprop import parallel
from jaxprop.files import write_text
from jaxprop.training.log import read_entries

# A function of the network, its variables, the colours that it sees and the step. It returns
# 'mean', by which checkpoints are compared (the largest is the best), and more values that JSON can
# write. All processes of a run call it.
Evaluate = Callable[[Any, Mapping[str, Any], str, int], Mapping[str, Any]]


class Evaluations:
    """The evaluations of a run.

    Attributes:
      entries: by step, a dict with 'step', the results of `evaluate`, and 'seconds'.
    """

    def __init__(self, workdir: pathlib.Path, every: int | None, evaluate: Evaluate | None) -> None:
        """Reads the entries that the run's earlier processes have written.

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
        # Entries are read also if nothing is evaluated any more: the best checkpoint must stay.
        lines = read_entries(self._path)
        self.entries: dict[int, dict[str, Any]] = {entry['step']: entry for _, entry in lines}

    def is_due(self, step: int, is_last: bool) -> bool:
        """Tells whether this step is one of those whose networks are evaluated.

        Args:
          step: its number.
          is_last: whether it is the last step of the run.
        """
        return self._every is not None and step > 0 and (is_last or step % self._every == 0)

    def make(self, step: int, network: Callable[[], tuple[Any, Any, str]]) -> dict[str, Any]:
        """Evaluates a step's network and writes the entry, unless it is there.

        Args:
          step: its number.
          network: a function that returns the network, its variables and the colours that it sees.

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
        """Returns the score of a step's network; None if it was not evaluated."""
        return self.entries[step]['mean'] if step in self.entries else None
