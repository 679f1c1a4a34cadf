"""Pages from the templates in `templates/`: HTML files that need nothing else.

jinja2 escapes every text that a page is given. Styles and scripts are files there, which a page
has inside.
"""

import base64
import hashlib
import math
import os
import pathlib
from typing import Any

import jinja2
import numpy as np

from jaxprop.files import write_text


def write_page(path: str | os.PathLike, template: str, **values: Any) -> None:
    """Writes a page by `files.write_text`.

    Args:
      path: of the HTML file.
      template: its name, 'report.html'.
      **values: what the template speaks of; a missing one raises `jinja2.UndefinedError`.
    """
    write_text(path, page(template, **values))


def page(template: str, **values: Any) -> str:
    """Makes the text of a page. Arguments as in `write_page`."""
    return _TEMPLATES.get_template(template).render(values)


def is_number(value: Any) -> bool:
    """Whether there is something to show: a number that is finite."""
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def percent(fraction: float, signed: bool = False) -> str:
    """A fraction in percent with one digit: '55.0', and '+55.0' if `signed`."""
    return f'{100 * fraction:{"+" if signed else ""}z.1f}'


def _filled(fraction: Any) -> str:
    """The filled part of a bar, in percent."""
    return f'{min(max(100 * fraction, 0), 100) if is_number(fraction) else 0:.1f}'


def _exact(value: Any) -> str:
    """A number for scripts to sort by, '' for what is none."""
    return repr(float(value)) if is_number(value) else ''


def _hexadecimal(colour: tuple[int, int, int]) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*colour)


def count(number: int, noun: str) -> str:
    """'1 sequence', '2 sequences'."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def policy(script: str, is_served: bool = False) -> str:
    """The policy of a page: it may load its own pictures and styles, and run its one script.

    The browser refuses scripts of another hash, wherever they come from.

    Args:
      script: the name of its template; '' for a page without one.
      is_served: whether the page comes from a server of ours, of which its script may ask more.
    """
    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if is_served:
        allowed = allowed.replace('data:', "'self' data:") + "; connect-src 'self'"
    if not script:
        return allowed
    text = _TEMPLATES.get_template(script).render()
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"{allowed}; script-src 'sha256-{digest}'"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / 'templates'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(
    count=count, exact=_exact, filled=_filled, hexadecimal=_hexadecimal, percent=percent
)
_TEMPLATES.tests['finite'] = is_number
_TEMPLATES.globals['policy'] = policy
