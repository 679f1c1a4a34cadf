"""The report of a study: measured numbers beside published ones, as a table or as curves."""

import base64
import collections
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxprop.files import replacing, write_csv, write_text
from jaxprop.report.chart import check_labels, curve_of, draw_figure, join, value_of
from jaxprop.report.render import is_number, write_page

Row = Mapping[str, Any]


def write_table(
    output: pathlib.Path,
    study: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes a study as `table.md`, `table.html` and `table.csv`.

    The first two show each measure in percent as 'measured (published)'. A cell that was not run
    has its note up to the first ': ' in place of its first measure, and the whole note beneath the
    table. A dagger marks numbers whose settings were chosen on the split that is reported. The CSV
    file has a line for each cell, and does not round.

    Args:
      output: folder of the files, made where missing.
      study: 'columns', the names of the labels that head the table; 'measures', pairs of a key of
        `measured` and its heading; optionally 'pivot', the name of a label: rows that agree in all
        other columns become one, with a group of measures for each value of this label.
      rows: of each cell 'labels', texts by name; 'measured', fractions by the keys of measures, or
        None; 'published', percentages likewise; 'note', why there is no number, a warning of those
        there are, or ''; 'marked', whether settings were chosen on the reported split; 'report',
        the path, relative to `output`, of the cell's own report, or ''; 'frames' and 'sequences',
        their numbers.
      title: of the table.
      notes: lines beneath it.

    Raises:
      ValueError: a row lacks a label that the study names.
    """
    check_labels(study, rows)
    said = dict.fromkeys(
        row['note'] if row['measured'] else f'Not run: {row["note"]}' for row in rows if row['note']
    )
    _write(output, study, rows, title, [*said, *notes])


def write_figure(
    output: pathlib.Path,
    study: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes a study as `figure.png` and `figure.svg`, and its numbers as `write_table` does.

    The HTML file has the figure inside. The caption says for which curves settings were chosen on
    the split that is reported; lines beneath the table say which were not run.

    Args:
      output: folder of the files, made where missing.
      study: as for `draw_figure` and `write_table`.
      rows: likewise.
      title: of the figure.
      notes: lines beneath the table.

    Raises:
      ValueError: as `draw_figure`.
    """
    figure = draw_figure(study, rows)
    drawn = [row for row in rows if value_of(row, study['measures'][0][0]) is not None]
    marked = [row for row in drawn if row['marked']]
    if not drawn:
        caption = 'Nothing was measured.'
    elif marked:
        caption = (
            'Settings were chosen on the split that is reported here for '
            f'{_name_curves(study, rows, marked)}.'
        )
    else:
        caption = 'No settings were chosen on the split that is reported here.'
    said = collections.defaultdict(list)
    for row in rows:
        if row['note']:
            said['' if row['measured'] else 'Not run, ', row['note']].append(row)
    for name in ('figure.png', 'figure.svg'):
        with replacing(output / name) as temporary:
            figure.savefig(temporary, dpi=200)
    beside = [name for name in ('panel', 'x', *study['curves']) if name not in study['columns']]
    _write(
        output,
        {**study, 'columns': (*beside, *study['columns'])},
        rows,
        title,
        [
            *(
                f'{start}{_name_curves(study, rows, chosen)}: {note}'
                for (start, note), chosen in said.items()
            ),
            *notes,
        ],
        caption,
    )


def _write(output, study, rows, title, notes, caption=''):
    marks = any(
        row['marked'] and value_of(row, key) is not None
        for row in rows
        for key, _ in study['measures']
    )
    compared = ', and in parentheses as published' if _any_published(rows) else ''
    notes = [
        f'In percent: measured{compared}; -: none.',
        *(['† settings were chosen on the split that is reported here.'] if marks else []),
        *notes,
    ]
    picture = (output / 'figure.svg').read_bytes() if caption else b''
    write_text(output / 'table.md', _markdown(study, rows, title, notes, caption))
    page = _page(study, rows, title, notes, caption, picture)
    write_page(output / 'table.html', 'table.html', **page)
    write_csv(output / 'table.csv', _rows_of_csv(study, rows))


def _rows_of_csv(study: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[list[Any]]:
    names = dict.fromkeys([*study['columns'], *(name for row in rows for name in row['labels'])])
    keys = [key for key, _ in study['measures']]
    numbers = (f'{key} {kind}' for key in keys for kind in ('measured', 'published'))
    yield [*names, *numbers, 'marked', 'note', 'sequences', 'frames']
    for row in rows:
        numbers = []
        for key in keys:
            value = value_of(row, key)
            # One digit short of a double's: 0.55 is 55 percent, not 55.00000000000001.
            numbers += [
                '' if value is None else f'{100 * value:.15g}',
                row['published'].get(key, ''),
            ]
        labels = (row['labels'].get(name, '') for name in names)
        yield [*labels, *numbers, bool(row['marked']), row['note'], row['sequences'], row['frames']]


def _markdown(study, rows, title, notes, caption) -> str:
    names, headings, lines = _grid(study, rows)
    table = [[*names, *headings]]
    for labels, cells in lines:
        table.append(
            [
                *labels,
                *(
                    f'{measured} {published}'.rstrip()
                    for _, texts in cells
                    for measured, published in texts
                ),
            ]
        )
    table = [[_escape_markdown(text) for text in texts] for texts in table]
    widths = [max(3, *map(len, column)) for column in zip(*table)]
    # Labels to the left, numbers to the right.
    sides = [str.ljust] * len(names) + [str.rjust] * len(headings)
    table = [
        [side(text, width) for side, text, width in zip(sides, texts, widths)] for texts in table
    ]
    table.insert(
        1, ['-' * (width - 1) + '-:'[side is str.rjust] for side, width in zip(sides, widths)]
    )
    title, caption = _escape_markdown(title), _escape_markdown(caption)
    figure = f'![{title}](figure.png)\n\n{caption}\n\n' if caption else ''
    return (
        f'# {title}\n\n{figure}'
        + ''.join(f'| {" | ".join(texts)} |\n' for texts in table)
        + '\n'
        + ''.join(f'- {_escape_markdown(note)}\n' for note in notes)
    )


def _page(study, rows, title, notes, caption, picture) -> dict[str, Any]:
    """The content of the page, see `templates/table.html`."""
    names, headings, lines = _grid(study, rows)
    if any(row['report'] for row in rows):
        notes = [*notes, 'Measured numbers lead to the reports of their cells.']
    return {
        'title': title,
        'figure': f'data:image/svg+xml;base64,{base64.b64encode(picture).decode()}',
        'caption': caption,
        'names': names,
        'headings': headings,
        'lines': [
            (labels, [cell for row, texts in groups for cell in _cells(study, row, texts)])
            for labels, groups in lines
        ],
        'notes': notes,
    }


def _cells(study, row, texts) -> Iterator[dict[str, str]]:
    """The texts of a row's measures, and an address where one leads to the row's own report."""
    for (key, _), (measured, published) in zip(study['measures'], texts):
        leads = row and row['report'] and value_of(row, key) is not None
        # Names of folders may hold what means something in an address.
        link = urllib.parse.quote(row['report'], errors='surrogateescape') if leads else ''
        yield {'measured': measured, 'published': published, 'link': link}


def _grid(
    study: Mapping[str, Any], rows: Sequence[Row]
) -> tuple[list[str], list[str], list[tuple[list[str], list[tuple[Row | None, list]]]]]:
    """The headings of labels and of measures, and the lines: labels, and rows with their texts."""
    pivot, compared = study.get('pivot'), _any_published(rows)
    names = [name for name in study['columns'] if name != pivot]
    groups, lines = {}, []
    for row in rows:
        labels = [str(row['labels'][name]) for name in names]
        group = str(row['labels'][pivot]) if pivot else ''
        groups[group] = None
        # Cells that agree in all labels stay apart, each in a line of its own.
        free = (cells for other, cells in lines if other == labels and group not in cells)
        if (cells := next(free, None)) is None:
            lines.append((labels, cells := {}))
        cells[group] = row
    headings = [
        f'{group} {heading}'.strip() for group in groups for _, heading in study['measures']
    ]
    return (
        names,
        headings,
        [
            (labels, [(row, _texts(study, row, compared)) for row in map(cells.get, groups)])
            for labels, cells in lines
        ],
    )


def _texts(study: Mapping[str, Any], row: Row | None, compared: bool) -> list[tuple[str, str]]:
    """For each measure of a cell what was measured and, if compared, what was published."""
    if row is None:
        return [('-', '')] * len(study['measures'])
    texts = []
    for index, (key, _) in enumerate(study['measures']):
        value, published = value_of(row, key), row['published'].get(key)
        if value is not None:
            measured = f'{100 * value:z.1f}{"†" if row["marked"] else ""}'
        else:
            is_told = index == 0 and not row['measured']
            measured = is_told and row['note'].split(': ')[0] or '-'
        known = f'({published:.1f})' if is_number(published) else '(-)'
        nothing = not compared or (measured, known) == ('-', '(-)')
        texts.append((measured, '' if nothing else known))
    return texts


def _name_curves(study: Mapping[str, Any], rows: Iterable[Row], chosen: Iterable[Row]) -> str:
    """The curves of the chosen rows and their panels, with counts where it isn't all points."""

    def place(row):
        return join(*curve_of(study, row)), row['labels']['panel']

    totals, panels = collections.Counter(map(place, rows)), collections.defaultdict(list)
    for (curve, panel), count in collections.Counter(map(place, chosen)).items():
        total = totals[curve, panel]
        panels[curve].append(panel if count == total else f'{panel}: {count} of {total} points')
    return '; '.join(f'{curve} ({", ".join(names)})' for curve, names in panels.items())


def _any_published(rows: Iterable[Row]) -> bool:
    return any(row['published'] for row in rows)


def _escape_markdown(text: str) -> str:
    # Underscores inside words, as in names of files, are plain.
    text = re.sub(r'([\\`*<>\[\]|~]|&(?=#?\w+;)|(?<!\w)_|_(?!\w))', r'\\\1', text)
    return ' '.join(text.split())
