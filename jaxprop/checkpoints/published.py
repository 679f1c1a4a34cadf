"""Reads the files that networks were published as, and recognises the networks in them."""

import collections
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from jaxprop.checkpoints import convnets, vit_layouts
from jaxprop.checkpoints.layout import Layout
from jaxprop.checkpoints.native import parse_safetensors
from jaxprop.checkpoints.torch_file import load_torch_weights
from jaxprop.names import unknown

# Each family of networks adds its layouts here.
LAYOUTS: tuple[Layout, ...] = (*convnets.LAYOUTS, *vit_layouts.LAYOUTS)

# Where a file holds a teacher and a student, the teacher is evaluated.
_EVALUATED = 'teacher'
_MAX_NAME = 300  # Longer names of arrays, in characters, are left out.
_MAX_SHOWN = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Published:
    """A published file, and the network that was recognised in it.

    Attributes:
      path: of the file.
      layout: of the network.
      others: other layouts that have the same names of arrays.
      prefix: the text in front of the network's names in the file.
      state: the arrays whose names begin with the prefix, by their names without it.
      beside: the names of all other arrays.
      left_out: texts about the things in the file that are no arrays, see `load_torch_weights`.
    """

    path: pathlib.Path
    layout: Layout
    others: tuple[Layout, ...]
    prefix: str
    state: Mapping[str, np.ndarray]
    beside: tuple[str, ...]
    left_out: tuple[str, ...]

    def build(
        self, output: str | None = None, layout: Layout | None = None
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Builds the network and its variables, see `load_published`.

        Args:
          output: as `load_published` takes it.
          layout: one of `others`, in place of the recognised one.
        """
        layout = layout or self.layout
        try:
            return layout.build(self.state, output)
        except ValueError as error:
            raise ValueError(f'{str(self.path)!r}, read as {layout.name}: {error}') from error


def read_published(
    path: str | os.PathLike, layout: str | None = None, prefix: str | None = None
) -> Published:
    """Reads a published file and recognises its network.

    Args:
      path: as `load_published` takes it.
      layout: likewise.
      prefix: likewise.

    Raises:
      ValueError: as `load_published`. Arrays are not checked yet; `Published.build` does that.
      OSError: the file cannot be read.
    """
    arrays, left_out = read_arrays(path)
    try:
        found, start, others = recognise(arrays, layout, prefix)
    except ValueError as error:
        raise ValueError(f'{os.fspath(path)!r}: {error}') from error
    state = {
        name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)
    }
    return Published(
        pathlib.Path(path),
        found,
        tuple(one for one in LAYOUTS if one.name in others and set(one.signature) <= set(state)),
        start,
        state,
        tuple(name for name in arrays if not name.startswith(start)),
        tuple(left_out),
    )


def load_published(
    path: str | os.PathLike,
    output: str | None = None,
    layout: str | None = None,
    *,
    prefix: str | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Builds the network of a published file, with the file's weights.

    The names of the arrays tell which network it is, wherever in the file they are. Where several
    networks have these names, one is taken, and a warning says which.

    Args:
      path: a file of PyTorch weights, as `load_torch_weights` reads them, or of safetensors.
      output: the layer whose features are wanted, such as 'res3' or 'conv10'; None: the one that
        the release evaluates.
      layout: the name of the network, one of `LAYOUTS`; None: it is recognised.
      prefix: the end of the text in front of the network's names, such as 'encoder_k.'. It chooses
        between several networks in a file; None: the one that the release evaluates.

    Returns:
      The network, and its variables in float32: `model.apply(variables, images)` takes normalised
      images `[B, h, w, 3]` and gives features `[B, H, W, C]`. ResNets have the strides of the
      released evaluations, (1, 2, 1, 1).

    Raises:
      ValueError: the file is of neither kind; it holds no known network, or several, and nothing
        says which; arrays of the network are missing, not finite or of another shape; it has no
        such output; or there is no such layout. The message names the file.
      OSError: the file cannot be read.
    """
    published = read_published(path, layout, prefix)
    if published.others:
        warnings.warn(
            f'{os.fspath(path)!r} is read as {published.layout.name}; its names are also those of '
            f'{", ".join(one.name for one in published.others)}: the argument layout says which '
            'it is',
            stacklevel=2,
        )
    return published.build(output)


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads all arrays of a file of weights, whatever dicts they are in.

    Args:
      path: a file of PyTorch weights or of safetensors.

    Returns:
      The arrays, by the keys that lead to them, joined by dots, such as 'state_dict.conv1.weight';
      and a list of the things in the file that were left out, see `load_torch_weights`.

    Raises:
      ValueError: the file is of neither kind, or is damaged.
      OSError: the file cannot be read.
    """
    path = pathlib.Path(path)
    with path.open('rb') as file:
        head = file.read(9)
    if head[8:] == b'{':  # A safetensors file begins with the length of a JSON text, and the text.
        return parse_safetensors(path, path.read_bytes()), []
    left_out: list[str] = []
    # Files may be as large as their networks need. Tensors that share memory are each counted.
    max_bytes = max(2**31, 2 * path.stat().st_size)
    value = load_torch_weights(path, max_bytes=max_bytes, left_out=left_out)
    arrays: dict[str, np.ndarray] = {}
    pending = [('', value)]
    while pending:
        start, value = pending.pop()
        if isinstance(value, np.ndarray):
            if start in arrays:
                raise ValueError(f'{os.fspath(path)!r}: holds two arrays {start!r}')
            arrays[start] = value
        elif isinstance(value, dict):
            start = f'{start}.' if start else ''
            items = [(f'{start}{str(key)[:_MAX_NAME]}', part) for key, part in value.items()]
            pending.extend(item for item in reversed(items) if len(item[0]) <= _MAX_NAME)
    return arrays, left_out


def recognise(
    names: Iterable[str],
    layout: str | None = None,
    prefix: str | None = None,
    layouts: tuple[Layout, ...] | None = None,
) -> tuple[Layout, str, list[str]]:
    """Finds the network to which arrays of these names belong.

    Args:
      names: of all arrays of a file.
      layout: the network's name, if it is known.
      prefix: the end of the text in front of its names, if that is known.
      layouts: the known ones; None: `LAYOUTS`.

    Returns:
      The layout, the text in front of its names, and the names of other layouts that it could be.

    Raises:
      ValueError: there is no layout of this name, or no one network is found.
    """
    layouts = LAYOUTS if layouts is None else layouts
    considered = [one for one in layouts if layout in (None, one.name)]
    if not considered:
        raise unknown('layout', str(layout), {one.name for one in layouts})
    # Find the layouts whose names are all there.
    names = [name for name in names if len(name) <= _MAX_NAME]
    votes = _count_names(names, considered)
    # By its names, a ResNet50 that lacks one array would still be a whole ResNet34. So a layout
    # must also have the most names behind its prefix.
    most = collections.Counter()
    for (_, start), count in votes.items():
        most[start] = max(most[start], count)
    matches = [
        (one, start)
        for (one, start), count in votes.items()
        if count == len(set(one.signature)) == most[start]
        and (prefix is None or _ends(start, prefix))
    ]
    # For the same reason drop networks whose names are part of a larger one's: TimeCycle's ResNet50
    # is no network by itself where only the layer after it is missing.
    matches = [
        match
        for match in matches
        if not any(
            other in matches or len(other[1]) < len(match[1])
            for other in votes
            if _within(match, other)
        )
    ]
    if not matches:
        raise ValueError(_nearest(names, considered, votes, prefix))

    # Choose one of the networks in the file.
    starts = list(dict.fromkeys(start for _, start in matches))
    ends = {end for one in layouts for end in one.prefixes}
    for preferred in (
        [start for start in starts if _EVALUATED in start.split('.')],
        [start for start in starts if any(_ends(start, end) for end in ends)],
    ):
        if len(starts) > 1 and len(preferred) == 1:
            starts = preferred
    if len(starts) > 1:
        shown = ', '.join(map(repr, starts[:_MAX_SHOWN]))
        raise ValueError(f'it holds {len(starts)} networks: prefix={shown} would choose one')
    (start,) = starts

    # Choose one of the layouts with these names.
    found = [one for one, place in matches if place == start]
    released = [one for one in found if any(_ends(start, end) for end in one.prefixes)]
    found = released or [one for one in found if one.bare] or found
    return found[0], start, [one.name for one in found[1:]]


def _count_names(names: list[str], layouts: list[Layout]) -> Mapping[tuple[Layout, str], int]:
    """Counts how many names of each layout there are behind each prefix."""
    owners = collections.defaultdict(list)
    for one in layouts:
        for name in set(one.signature):
            owners[name].append(one)
    longest = max(name.count('.') + 1 for name in owners)
    votes: collections.Counter[tuple[Layout, str]] = collections.Counter()
    for name in names:
        parts = name.split('.')
        for count in range(max(0, len(parts) - longest), len(parts)):
            start = ''.join(f'{part}.' for part in parts[:count])
            for one in owners.get('.'.join(parts[count:]), ()):
                votes[one, start] += 1
    return votes


def _ends(start: str, end: str) -> bool:
    """Whether a prefix ends in `end`, by whole parts of names; '' is the end of '' alone."""
    return f'.{start}'.endswith(f'.{end}') if end else not start


def _within(match: tuple[Layout, str], other: tuple[Layout, str]) -> bool:
    """Whether another network has all names of this one, and more."""
    if not match[1].startswith(other[1]):
        return False
    names, others = ({start + name for name in one.signature} for one, start in (match, other))
    return names < others


def _nearest(
    names: list[str],
    layouts: list[Layout],
    votes: Mapping[tuple[Layout, str], int],
    prefix: str | None,
) -> str:
    """Makes the message about the layouts that came nearest, and the names that they lack."""
    if any(name.startswith('params/') for name in names):
        return (
            "its names are those of jaxprop's own networks: the file with the same name and the "
            'ending .json, which says how to build the network, belongs beside it'
        )
    present = set(names)
    lines: dict[tuple[str, ...], str] = {}
    by_count = sorted(votes.items(), key=lambda item: (-item[1], len(item[0][0].signature)))
    for (one, start), count in by_count:
        if prefix is not None and not _ends(start, prefix):
            continue
        # Layouts of the same names lack the same ones: name one of them.
        if not len(one.signature) // 2 <= count < len(one.signature) or one.signature in lines:
            continue
        missing = [start + name for name in one.signature if start + name not in present]
        more = ', ...' if len(missing) > _MAX_SHOWN else ''
        lines[one.signature] = (
            f'{one.name} lacks {len(missing)} of {len(one.signature)} names: '
            f'{", ".join(missing[:_MAX_SHOWN])}{more}'
        )
    known = ', '.join(dict.fromkeys(one.name for one in layouts))
    if not lines:
        where = f' behind {prefix!r}' if prefix is not None else ''
        return f'none of its {len(names)} arrays{where} is of a known network; known: {known}'
    return f'no known network; nearest: {"; ".join(list(lines.values())[:3])}. Known: {known}'
