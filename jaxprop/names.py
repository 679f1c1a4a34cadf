"""Errors for names that are looked up: of networks, objectives and the like."""

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """Returns the error for a name that nothing has, with the nearest name that something has.

    Args:
      kind: what the name is of, such as 'network'.
      name: the name that was asked for.
      known: the right names.
    """
    known = sorted(known)
    by_lower = {right.lower(): right for right in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    if near:
        return ValueError(f'there is no {kind} {name!r}; the nearest name is {by_lower[near[0]]!r}')
    return ValueError(f'there is no {kind} {name!r}; known: {", ".join(known)}')
