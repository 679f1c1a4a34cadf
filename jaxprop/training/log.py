"""The log of a run: metrics.jsonl, TensorBoard's events, and notes to the user."""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from jaxprop import parallel
from jaxprop.files import write_text

# The number of steps that may be dispatched before the device is done with an earlier one. Each
# holds a batch in the device's memory.
_AHEAD = 2


def note(message: str) -> None:
    """Prints a note to the user, which is no error, in one process of several."""
    if parallel.is_writer():
        print(f'note: {message}', file=sys.stderr)


class Log:
    """Writes metrics.jsonl and TensorBoard's events, one entry for several steps.

    Of several processes one writes. The time between `start` and `write` gives the speed; the part
    of it inside `waiting` is that of waiting for data.

    Attributes:
      metrics: the entry that was written last.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int) -> None:
        self.metrics: dict[str, float] = {}
        self._pending: list[tuple[int, Any]] = []
        self._losses: list[float] = []
        self._file = self._events = None
        if parallel.is_writer():
            path = workdir / 'metrics.jsonl'
            self.metrics = _cut(path, first_step)
            self._file = path.open('a')
            self._events = SummaryWriter(str(workdir), purge_step=first_step + 1)

    def start(self) -> None:
        self._waited, self._began = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def add(self, step: int, metrics: Any) -> None:
        self._pending.append((step, metrics))
        if len(self._pending) > _AHEAD:
            jax.block_until_ready(self._pending[-1 - _AHEAD][1])

    def write(self, step: int, examples_per_step: int, **more: float) -> None:
        """Writes the mean of the metrics added since the last call, if there are any.

        Args:
          step: the number of steps done.
          examples_per_step: examples in a step, of all devices and processes together.
          **more: values to write beside the metrics.

        Raises:
          FloatingPointError: a metric is not finite.
          OSError: the file cannot be written.
        """
        if not self._pending:
            return
        values = [(number, parallel.unreplicate(metrics)) for number, metrics in self._pending]
        self._pending.clear()
        for number, metrics in values:
            check_finite(number, metrics)
        self._losses += [float(metrics['loss']) for _, metrics in values]
        seconds = time.perf_counter() - self._began
        self.metrics = {
            'step': step,
            **{name: float(np.mean([m[name] for _, m in values])) for name in values[0][1]},
            **more,
            'examples_per_second': len(values) * examples_per_step / seconds,
            'wait_share': self._waited / seconds,
        }
        self.start()
        if self._file is not None:
            try:
                print(json.dumps(self.metrics), file=self._file, flush=True)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._file.name) from error
            self.show(step, self.metrics)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers to TensorBoard's events alone."""
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def loss_since_save(self) -> float:
        mean = float(np.mean(self._losses))
        self._losses.clear()
        return mean

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._events.close()


def check_finite(step: int, metrics: Mapping[str, Any]) -> None:
    """Checks that metrics are finite.

    Raises:
      FloatingPointError: some are infinite or not a number; the message names the step and these.
    """
    bad = {name: float(value) for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        terms = ', '.join(f'{name} = {value}' for name, value in bad.items())
        raise FloatingPointError(f'step {step}: not finite: {terms}')


def read_entries(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """Reads the lines of a file of JSON objects, each of which has a 'step'.

    A killed run or a power cut may leave half a line or zeros at the end; these are left out. A
    file that does not exist has no lines.

    Returns:
      The lines, each with its object.

    Raises:
      ValueError: a line is damaged; the message names the file and the line.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rstrip(b'\0')
    if len(whole) < len(data):
        removed = len(data) - len(whole)
        note(f'{path}: {removed} zero bytes at its end, which a power cut leaves, are removed')
    entries = []
    *lines, _ = whole.decode(errors='replace').split('\n')  # A killed run may leave half a line.
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            entry['step'] + 0
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f'{path}: line {number} is damaged; remove that line, or the file, to go on'
            ) from error
        entries.append((line + '\n', entry))
    return entries


def _cut(path, step):
    """Removes the entries after a step, since later steps are done again; returns the last one."""
    if not path.exists():
        if step:
            note(f'{path}: is missing, so the entries up to step {step} are')
        return {}
    kept = [(line, entry) for line, entry in read_entries(path) if entry['step'] <= step]
    last = kept[-1][1] if kept else {}
    write_text(path, ''.join(line for line, _ in kept))
    if last.get('step', 0) != step:
        note(f'{path}: entries between steps {last.get("step", 0)} and {step} are missing')
    return last
