"""What a run writes about itself while it goes on."""

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

# Steps that are dispatched ahead of the device; each holds a batch there.
_AHEAD = 2


def note(message: str) -> None:
    """Tells the user, in one process of several, what is no error but should be known."""
    if parallel.is_writer():
        print(f'note: {message}', file=sys.stderr)


class Log:
    """metrics.jsonl and TensorBoard's events, one entry for several steps, by the one writer."""

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
        """Averages what was added since the last time, if anything; refuses what isn't finite."""
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
    """Refuses metrics that are not finite.

    Raises:
      FloatingPointError: naming the step and every metric that is infinite or not a number.
    """
    bad = {name: float(value) for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        terms = ', '.join(f'{name} = {value}' for name, value in bad.items())
        raise FloatingPointError(f'step {step}: not finite: {terms}')


def read_entries(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of a file of JSON objects that have a 'step', each with its object.

    What a killed run or a power cut leaves at the end, half a line or zeros, is left out. Without
    the file there is no line.

    Raises:
      ValueError: naming the file and the line that is damaged.
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
    """Leaves only what was written up to a step, as later ones are done again; gives the last."""
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
