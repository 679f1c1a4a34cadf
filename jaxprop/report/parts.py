"""Parts of a report's pages as plain data; `templates/parts.html` draws them."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxprop.report import curves
from jaxprop.report.render import is_number
from jaxprop.tasks.task import Colour, Layout, SequenceView

AS_IT_IS = Layout()
Rows = Sequence[Mapping[str, Any]]


class Difference(float):
    """A value of a row that is shown with its sign; NaN where there is none."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      name: what it is about.
      cells: values, each with how it is shown: 'count', 'share', 'plain' (a share without a bar) or
        'difference'.
      anchor: the number of the card that it leads to, if any.
      object: the id, '' without one; None where no row of the table has an object.
      colour: of the object, if known.
    """

    name: Any
    cells: list[tuple[Any, str]]
    anchor: int | None = None
    object: Any = None
    colour: Colour | None = None


class Table(NamedTuple):
    """A heading and a note; the columns' titles, each 'text' or 'value'; rows."""

    heading: str
    note: str
    titles: list[tuple[str, str]]
    rows: list[Row]
    sortable: bool


class Run(NamedTuple):
    """The name and the colour of a run in a comparison."""

    letter: str
    name: str
    colour: Colour


class Strip(NamedTuple):
    """Frames of a player as data URIs; in a comparison whose they are, and their scores."""

    pictures: list[str]
    run: Run | None = None
    scores: Sequence[tuple[str, float]] = ()


class Player(NamedTuple):
    """Frames to play: one strip of them, or those of several runs under one slider.

    Attributes:
      name: of the sequence.
      numbers: of the frames.
      rate: frames per second.
      opening: the index of the frame that it opens at.
      strips: the pictures, one for each number.
      truth: of the true objects 'colours', and 'paths', for each number the outlines in these
        colours, or None where the frame is not annotated; {} without a truth.
    """

    name: str
    numbers: list[int]
    rate: float
    opening: int
    strips: list[Strip]
    truth: dict[str, Any]

    @property
    def sources(self) -> list[str | None]:
        """The pictures of all strips; None for those that the page shows when it opens."""
        return [
            None if index == self.opening else picture
            for strip in self.strips
            for index, picture in enumerate(strip.pictures)
        ]


class Card(NamedTuple):
    """The part of a page about a sequence: scores beside its name, a legend, frames and curves."""

    name: str
    scores: Sequence[tuple[str, float]]
    heading: str
    legend: Sequence[tuple[str, Colour]]
    player: Player | None
    chart: curves.Chart

    @property
    def has_truth(self) -> bool:
        return self.player is not None and bool(self.player.truth)


def results(
    rows: Rows,
    sequences: Sequence[SequenceView],
    layout: Layout = AS_IT_IS,
    note: str = 'In percent.',
) -> list[Table]:
    """The table of sequences, and of their objects where they have any; [] without rows."""
    if not rows:
        return []
    anchors = {view.name: index for index, view in enumerate(sequences)}
    has_objects = any('object' in row for row in rows)

    def about(row):
        name, object_id = row.get('sequence', '?'), row.get('object', '')
        anchor = anchors.get(name)
        if not has_objects:
            return {'name': name, 'anchor': anchor}
        legend = {} if anchor is None else dict(sequences[anchor].legend)
        colour = legend.get(str(object_id))
        return {'name': name, 'anchor': anchor, 'object': object_id, 'colour': colour}

    heading, names = 'By sequence', ['Sequence']
    if has_objects:
        heading, names = f'{heading} and object', [*names, 'Object']
    said = (said for column, said in layout.notes.items() if column in rows[0])
    note = ' '.join([note, *said, 'Click a heading to sort.'])
    rows = [with_means(row, layout) for row in rows]
    return [_table(heading, note, names, rows, about, layout.plain, sortable=True)]


def other_tables(tables: Mapping[str, Any], note: str = 'In percent.') -> list[Table]:
    """A table for each list of rows that is called 'per_' and something, by its first column."""
    made = []
    for key, rows in tables.items():
        if key.startswith('per_') and key != 'per_sequence' and rows:
            name = next(iter(rows[0]))
            made += table_by(name, f'By {name}', f'{note} Over all sequences.', rows)
    return made


def table_by(name: str, heading: str, note: str, rows: Rows) -> list[Table]:
    """The table of rows that the column `name` tells apart; [] without rows."""

    def about(row):
        return {'name': row.get(name, '?')}

    return [_table(heading, note, [name.capitalize()], rows, about)] if rows else []


def _table(
    heading: str,
    note: str,
    names: Sequence[str],
    rows: Rows,
    about: Callable[[Mapping[str, Any]], dict[str, Any]],
    plain: Sequence[str] = (),
    sortable: bool = False,
) -> Table:
    """A table of rows: what `about` makes of one, beneath the names, and then its values.

    Shares have a bar, but for those in the `plain` columns.
    """

    def cell(value, column):
        if isinstance(value, Difference):
            return value, 'difference'
        return value, 'count' if isinstance(value, int) else 'plain' if column in plain else 'share'

    written = {'sequence', 'object', *map(str.lower, names)}
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in written))
    titles = [(name, 'text') for name in names]
    titles += [(column.replace('-', ' '), 'value') for column in columns]
    made = [
        Row(cells=[cell(row.get(name), name) for name in columns], **about(row)) for row in rows
    ]
    return Table(heading, note, titles, made, sortable)


def card(view: SequenceView, scores: Sequence[tuple[str, float]], strips: list[Strip]) -> Card:
    """The card of a view: `strips` are its pictures, or those of several runs.

    The player opens in the middle: the first frame shows what was given, and nothing predicted.
    """
    player, opening = None, None
    if view.frame_numbers:
        numbers = [int(number) for number in view.frame_numbers]
        rate, middle = float(view.frames_per_second), len(numbers) // 2
        player = Player(view.name, numbers, rate, middle, strips, _truth(view))
        opening = numbers[player.opening]
    return Card(view.name, scores, view.heading, view.legend, player, curves.chart(view, opening))


def _truth(view: SequenceView) -> dict[str, Any]:
    """See `Player`."""
    colours = list(dict.fromkeys(colour for own in view.outlines for colour in own or ()))
    paths = [
        None if own is None else [own.get(colour, '') for colour in colours]
        for own in view.outlines
    ]
    return {'colours': colours, 'paths': paths} if colours else {}


def scores_of(view: SequenceView, rows: Rows, layout: Layout) -> list[tuple[str, float]]:
    """The scores beside a sequence's name: names and fractions."""
    own = [with_means(row, layout) for row in rows if row.get('sequence') == view.name]
    if layout.title:
        name, column = layout.title
        values = [row[column] for row in own if is_number(row.get(column))]
        return [(name, float(np.mean(values)))] if values else []
    return [(name, value) for row in own for name, value in row.items() if isinstance(value, float)]


def with_means(row: Mapping[str, Any], layout: Layout) -> Mapping[str, Any]:
    """A row with the layout's means in front, None where a number is missing; without their columns
    it stays as it is."""
    means = {}
    for name, columns in layout.means.items():
        if columns[0] in row:
            values = [row.get(column) for column in columns]
            means[name] = sum(values) / len(values) if all(map(is_number, values)) else None
    return {**means, **row}


def pictures_of(view: SequenceView) -> list[str]:
    """The frames of a drawn view as data URIs. Raises ValueError for what is no picture."""
    return [_data_uri(frame, view.name) for frame in view.frames]


def _data_uri(picture: bytes, name: str) -> str:
    for kind, start in (('webp', b'RIFF'), ('jpeg', b'\xff\xd8'), ('png', b'\x89PNG')):
        if picture.startswith(start):
            return f'data:image/{kind};base64,{base64.b64encode(picture).decode()}'
    raise ValueError(
        f'{name}: a frame begins with {picture[:8]!r}; frames must be WebP, JPEG or PNG files'
    )
