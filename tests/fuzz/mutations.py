"""Damages files by a seed, and classifies how reading them ends."""

import collections
import contextlib
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jaxprop.data.sequences import DataError

SECONDS = 20  # A reader that takes longer on a small file hangs.


def _flip_bits(data, rng):
    for place in rng.integers(len(data), size=rng.integers(1, 5)):
        data[place] ^= 1 << rng.integers(8)


def _set_bytes(data, rng):
    start = int(rng.integers(len(data)))
    value = int(rng.choice([0x7F, 0x80, 0xFF]))
    data[start : start + 4] = bytes([value]) * len(data[start : start + 4])


def _zero_run(data, rng):
    start = int(rng.integers(len(data)))
    run = data[start : start + int(rng.integers(1, 65))]
    data[start : start + len(run)] = bytes(len(run))


def _cut(data, rng):
    del data[int(rng.integers(len(data))) :]


def _remove(data, rng):
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 65))]


def _duplicate(data, rng):
    start = int(rng.integers(len(data)))
    data[start:start] = data[start : start + int(rng.integers(1, 65))]


def _insert(data, rng):
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, 17)))


KINDS = {
    'flip': _flip_bits,
    'set': _set_bytes,
    'zero': _zero_run,
    'cut': _cut,
    'remove': _remove,
    'duplicate': _duplicate,
    'insert': _insert,
}


def mutate(
    data: bytes, count: int, seed: int = 0, kinds: Iterable[str] = tuple(KINDS)
) -> Iterator[tuple[str, bytes]]:
    """Damages a file `count` times, each time from its whole state.

    Args:
      data: of the file; it must not be empty.
      count: how many damaged copies are made; the kinds of damage take turns.
      seed: of every random choice.
      kinds: keys of `KINDS`.

    Yields:
      A label that says kind and number, and the damaged bytes, which differ from `data`.
    """
    rng = np.random.default_rng(seed)
    kinds = tuple(kinds)
    for index in range(count):
        kind = kinds[index % len(kinds)]
        damaged = bytearray(data)
        while damaged == data:
            KINDS[kind](damaged, rng)
        yield f'{kind} {index}', bytes(damaged)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def classify(
    read: Callable[[], Any],
    named: str | pathlib.Path,
    errors: type[Exception] | tuple[type[Exception], ...] = DataError,
) -> tuple[str, Any]:
    """Runs a reader, and tells how it ended.

    Args:
      read: reads one file.
      named: what a clear error's message must hold: the name or path of the file.
      errors: the exceptions that are meant for wrong files.

    Returns:
      ('ok', value); ('clear', message) for one of `errors` of one short message that names the
      file; ('unnamed', message) where it does not; ('hang', ''); ('traceback', error) for every
      other exception.
    """
    try:
        with _time_limit(SECONDS):
            return 'ok', read()
    except errors as error:
        message = str(error)
        clear = str(named) in message and ' object at 0x' not in message and len(message) < 2000
        return ('clear' if clear else 'unnamed'), message
    except TimeoutError:
        return 'hang', ''
    except (Exception, RecursionError, MemoryError) as error:
        return 'traceback', repr(error)[:500]


def count(outcomes: Iterable[tuple[str, tuple[str, Any]]]) -> collections.Counter[str]:
    """Counts labelled outcomes of `classify` by kind, and fails on those that no user may see.

    Args:
      outcomes: the label of each damaged file, and what `classify` gave for it.
    """
    counts: collections.Counter[str] = collections.Counter()
    bad = []
    for label, (kind, detail) in outcomes:
        counts[kind] += 1
        if kind not in ('ok', 'clear'):
            bad.append(f'{label}: {kind}: {detail}')
    assert not bad, '\n'.join(bad)
    return counts
