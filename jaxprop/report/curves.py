"""The curves of a report: where a template draws lines, levels and ticks of an SVG.

They are drawn by hand since a plotting library fixes colours when it draws, and a light and a dark
page need different ones.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxprop.tasks.task import Colour, Measure, SequenceView

# In units of the SVG: a panel for each measure, under one another.
_WIDTH = 520
_LEFT, _RIGHT = 34, 510
_TOP, _HEIGHT, _SPACING = 26, 104, 142


class Line(NamedTuple):
    """A line's name and colour, and its SVG path."""

    name: str
    colour: Colour
    path: str


class Panel(NamedTuple):
    """A measure's name and meaning; its top; levels in percent with their heights; its lines."""

    name: str
    meaning: str
    top: int
    levels: list[tuple[str, float]]
    lines: list[Line]


class Chart(NamedTuple):
    """Panels under one another, in units of their SVG.

    Attributes:
      label: what it shows, for who can't see it.
      panels: from the top down.
      ticks: numbers of frames, each with its x.
      step: from a frame to the next.
      cursor: the x of the frame that the player shows; None without a player.
      bottom: of the last panel.
      width, left, right, top: of the whole, and of the area of the lines.
    """

    label: str
    panels: list[Panel]
    ticks: list[tuple[int, str]]
    step: float
    cursor: str | None
    bottom: int
    width: int = _WIDTH
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP


def chart(view: SequenceView, shown_frame: int | None) -> Chart:
    """The measures of a view over time; `shown_frame` is the one that the player opens at."""
    step = (_RIGHT - _LEFT) / max(view.num_frames - 1, 1)
    spacing = next(
        (size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500) if view.num_frames / size <= 10),
        1000,
    )
    names = ' and '.join(measure.name for measure in view.measures)
    return Chart(
        f'{names} of {view.name} over time',
        [_panel(measure, index, step) for index, measure in enumerate(view.measures)],
        [(number, f'{_LEFT + number * step:.1f}') for number in range(0, view.num_frames, spacing)],
        step,
        None if shown_frame is None else f'{_LEFT + shown_frame * step:.2f}',
        _TOP + (len(view.measures) - 1) * _SPACING + _HEIGHT,
    )


def _panel(measure: Measure, index: int, step: float) -> Panel:
    top = _TOP + index * _SPACING
    return Panel(
        measure.name,
        measure.meaning,
        top,
        [(f'{100 * level:g}', top + (1 - level) * _HEIGHT) for level in (0, 0.5, 1)],
        [
            Line(name, colour, _path(values, step, top))
            for (name, colour), values in zip(measure.lines, measure.values)
        ],
    )


def _path(values: np.ndarray, step: float, top: float) -> str:
    """An SVG path through the values, with a gap wherever one is not finite."""
    commands, drawing = [], False
    for number, value in enumerate(values):
        if math.isfinite(value):
            x, y = _LEFT + number * step, top + (1 - value) * _HEIGHT
            # Of no length, but with round ends: it makes a value between two gaps a dot.
            commands.append(f'L{x:.1f} {y:.1f}' if drawing else f'M{x:.1f} {y:.1f}h0')
        drawing = math.isfinite(value)
    return ''.join(commands)
