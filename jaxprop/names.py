"""Errors for wrong names of networks, objectives and the like, with the nearest right name."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Finds the known name that is most like a wrong one, capitals aside; None if none is alike.

    Args:
      name: the wrong one.
      known: the right ones.
      cutoff: how alike they must be, from 0 (not at all) to 1 (equal).
    """
    by_lower = {right.lower(): right for right in sorted(known)}
    near = difflib.get_close_matches(str(name).lower(), by_lower, 1, cutoff)
    return by_lower[near[0]] if near else None


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """Makes the error for a name that nothing has, with the nearest name that something has.

    Args:
      kind: the kind of thing that was looked up, such as 'network'.
      name: the name that was asked for.
      known: the right names.
    """
    known = sorted(known)
    if near := nearest(name, known):
        return ValueError(f'there is no {kind} {name!r}; the nearest name is {near!r}')
    return ValueError(f'there is no {kind} {name!r}; known: {", ".join(known)}')
