"""The report of a study: measured numbers beside published ones, as a table or as curves."""

import base64
import collections
import csv
import html
import io
import itertools
import pathlib
import re
import typing
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxprop.files import replacing, write_text
from jaxprop.report.page import document, is_number

if typing.TYPE_CHECKING:  # Who writes only tables need not load it.
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

# Okabe and Ito's colours, told apart by the colour-blind; without their yellow, pale on white.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_MARKERS = 'os^DvPX*'
_LINE_STYLES = {'': '-', 'overall': '-', 'per-frame': '--'}


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
    _check_labels(study, rows)
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
    drawn = [row for row in rows if _value(row, study['measures'][0][0]) is not None]
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


def draw_figure(study: Mapping[str, Any], rows: Sequence[Row]) -> 'Figure':
    """Draws the first measure of a study, in percent, as curves: panels side by side.

    A curve's first label gives it colour and marker, the others its line: per-frame dashed, overall
    solid. A method's colour is the same whether or not others were run. The lines' labels are the
    curves' names.

    Args:
      study: 'columns', 'pivot' and 'measures' as for `write_table`; 'curves', the names of the
        labels that tell curves apart; 'panels', each with 'label', 'title', 'x', what is on its
        axis, and optionally 'log', whether that axis is logarithmic.
      rows: as for `write_table`, with the labels 'panel', a panel's 'label', and 'x', a number.

    Raises:
      ValueError: a row lacks a label that the study names, its panel is none of the study's, or
        its x is no number.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = {panel['label']: panel for panel in study['panels']}
    _check_labels(study, rows, ('panel', 'x', *study['curves']))
    for row in rows:
        panel, x = row['labels']['panel'], row['labels']['x']
        if panel not in panels:
            raise ValueError(f'the panel of a row is {panel!r}; the study has {list(panels)}')
        if not is_number(x):
            raise ValueError(f'x of a row in panel {panel} is {x!r}; it must be a number')

    methods = dict.fromkeys(_curve(study, row)[0] for row in rows)
    looks = {
        method: {'color': colour, 'marker': marker, 'markersize': 5}
        for method, colour, marker in zip(
            methods, itertools.cycle(_COLOURS), itertools.cycle(_MARKERS)
        )
    }
    kinds = dict.fromkeys(_curve(study, row)[1] for row in rows)
    others = [kind for kind in kinds if kind not in _LINE_STYLES]
    styles = {**_LINE_STYLES, **dict(zip(others, itertools.cycle((':', '-.'))))}

    key, heading = study['measures'][0]
    figure = Figure(figsize=(0.8 + 4 * len(panels), 4.4), layout='constrained')
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shown = set()
    for axes, (label, panel) in zip(all_axes, panels.items()):
        members = [row for row in rows if row['labels']['panel'] == label]
        curves = collections.defaultdict(list)
        for row in members:
            if (value := _value(row, key)) is not None:
                curves[_curve(study, row)].append((row['labels']['x'], 100 * value))
        for (method, kind), points in curves.items():
            axes.plot(
                *zip(*sorted(points)),
                **looks[method],
                linestyle=styles[kind],
                linewidth=1.5,
                label=_join(method, kind),
            )
            shown |= {method, kind}
        if panel.get('log'):
            axes.set_xscale('log')
        ticks = sorted({row['labels']['x'] for row in members})
        axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(labelsize='small')
        axes.set(title=_plain(f'({label}) {panel["title"]}'), xlabel=_plain(panel['x']))
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    all_axes[0].set_ylabel(_plain(f'{heading} (%)'))

    entries = [
        Line2D([], [], **looks[method], label=_plain(method))
        for method in methods
        if method in shown
    ]
    entries += [
        Line2D([], [], color='0.35', linestyle=styles[kind], label=_plain(kind))
        for kind in kinds
        if kind and kind in shown
    ]
    if entries:
        figure.legend(
            handles=entries,
            loc='outside lower center',
            frameon=False,
            ncols=min(4 * len(panels), len(entries)),
        )
    return figure


def _write(output, study, rows, title, notes, caption=''):
    marks = any(
        row['marked'] and _value(row, key) is not None
        for row in rows
        for key, _ in study['measures']
    )
    compared = ', and in parentheses as published' if _any_published(rows) else ''
    notes = [
        f'In percent: measured{compared}; -: none.',
        *(['† settings were chosen on the split that is reported here.'] if marks else []),
        *notes,
    ]
    for suffix, text in (
        ('md', _markdown(study, rows, title, notes, caption)),
        ('csv', _csv(study, rows)),
        (
            'html',
            _page(
                study,
                rows,
                title,
                notes,
                caption,
                (output / 'figure.svg').read_bytes() if caption else b'',
            ),
        ),
    ):
        write_text(output / f'table.{suffix}', text)


def _csv(study: Mapping[str, Any], rows: Sequence[Row]) -> str:
    names = dict.fromkeys([*study['columns'], *(name for row in rows for name in row['labels'])])
    keys = [key for key, _ in study['measures']]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(
        [
            *names,
            *(f'{key} {kind}' for key in keys for kind in ('measured', 'published')),
            'marked',
            'note',
            'sequences',
            'frames',
        ]
    )
    for row in rows:
        numbers = []
        for key in keys:
            value = _value(row, key)
            # One digit short of a double's: 0.55 is 55 percent, not 55.00000000000001.
            numbers += [
                '' if value is None else f'{100 * value:.15g}',
                row['published'].get(key, ''),
            ]
        writer.writerow(
            [
                *(row['labels'].get(name, '') for name in names),
                *numbers,
                bool(row['marked']),
                row['note'],
                row['sequences'],
                row['frames'],
            ]
        )
    return stream.getvalue()


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


def _page(study, rows, title, notes, caption, picture) -> str:
    names, headings, lines = _grid(study, rows)
    head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    head += ''.join(f'<th scope="col" class="value">{html.escape(name)}</th>' for name in headings)
    body, previous = '', None
    for labels, cells in lines:
        # A stronger rule where the first label changes.
        body += '<tr>' if labels[:1] == previous else '<tr class="first">'
        previous = labels[:1]
        body += ''.join(f'<td>{html.escape(label)}</td>' for label in labels)
        body += ''.join(_html_cells(study, *cell) for cell in cells) + '</tr>\n'
    if any(row['report'] for row in rows):
        notes = [*notes, 'Measured numbers lead to the reports of their cells.']
    figure = (
        (
            f'<figure><img src="data:image/svg+xml;base64,{base64.b64encode(picture).decode()}" '
            f'alt="{html.escape(title)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        )
        if caption
        else ''
    )
    return document(
        title,
        f"""<h1>{html.escape(title)}</h1>
{figure}
<div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody>
</table></div>
<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in notes)}</ul>
""",
        _STYLE,
    )


def _html_cells(study: Mapping[str, Any], row: Row | None, texts: Sequence[tuple[str, str]]) -> str:
    cells = ''
    for (key, _), (measured, published) in zip(study['measures'], texts):
        text = html.escape(measured)
        if row and row['report'] and _value(row, key) is not None:
            # Names of folders may hold what means something in an address.
            address = urllib.parse.quote(row['report'], errors='surrogateescape')
            text = f'<a href="{address}">{text}</a>'
        elif measured != '-':
            text = f'<span class="note">{text}</span>'
        if published:
            text += f' <span class="published">{published}</span>'
        cells += f'<td class="value">{text}</td>'
    return cells


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
        value, published = _value(row, key), row['published'].get(key)
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
        return _join(*_curve(study, row)), row['labels']['panel']

    totals, panels = collections.Counter(map(place, rows)), collections.defaultdict(list)
    for (curve, panel), count in collections.Counter(map(place, chosen)).items():
        total = totals[curve, panel]
        panels[curve].append(panel if count == total else f'{panel}: {count} of {total} points')
    return '; '.join(f'{curve} ({", ".join(names)})' for curve, names in panels.items())


def _curve(study: Mapping[str, Any], row: Row) -> tuple[str, str]:
    """A curve's first label, and its others as one text."""
    first, *others = (str(row['labels'][name]) for name in study['curves'])
    return first, _join(*others)


def _join(*parts: str) -> str:
    return ', '.join(part for part in parts if part)


def _check_labels(
    study: Mapping[str, Any], rows: Iterable[Row], others: Sequence[str] = ()
) -> None:
    names = (*study['columns'], *filter(None, [study.get('pivot')]), *others)
    for row in rows:
        if missing := [name for name in names if name not in row['labels']]:
            raise ValueError(f'a row has the labels {row["labels"]}; it must have {missing} too')


def _value(row: Row, key: str) -> float | None:
    """What was measured, None where it is no number."""
    value = (row['measured'] or {}).get(key)
    return value if is_number(value) else None


def _any_published(rows: Iterable[Row]) -> bool:
    return any(row['published'] for row in rows)


def _plain(text: str) -> str:
    """The text for matplotlib, which would read formulas in it, and write only UTF-8."""
    return text.replace('$', r'\$').encode(errors='replace').decode()


def _escape_markdown(text: str) -> str:
    # Underscores inside words, as in names of files, are plain.
    text = re.sub(r'([\\`*<>\[\]|~]|&(?=#?\w+;)|(?<!\w)_|_(?!\w))', r'\\\1', text)
    return ' '.join(text.split())


_STYLE = """
:root {
  color-scheme: light dark; --text: #1b1f27; --page: #fff; --muted: #636b79; --rule: #dcdfe5;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e5e8ee; --page: #12151b; --muted: #98a1b1; --rule: #2d333f; }
}
body {
  max-width: 1280px; margin: 0 auto; padding: 36px 20px 64px; background: var(--page);
  color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { margin: 0 0 20px; font-size: 24px; line-height: 1.25; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; border-bottom: 2px solid var(--text); }
thead { border-top: 2px solid var(--text); }
th, td { padding: 4px 10px; text-align: left; vertical-align: top; }
th { font-weight: 600; }
tr { break-inside: avoid; }
tbody tr { border-top: 1px solid var(--rule); }
tbody tr.first { border-top-color: var(--muted); }
.value { text-align: right; font-variant-numeric: tabular-nums; }
td.value { white-space: nowrap; }
.note, .published, figcaption, ul { color: var(--muted); }
.note { display: inline-block; width: max-content; max-width: 16em; white-space: normal; }
.published { display: inline-block; min-width: 3.2em; }
a { color: inherit; text-decoration: underline dotted var(--muted); text-underline-offset: 3px; }
ul { margin: 14px 0; padding-left: 18px; font-size: 14px; }
figure { margin: 0 0 28px; }
img { display: block; max-width: 100%; background: #fff; }
figcaption { margin-top: 8px; }
@media print {
  body { padding: 0; font-size: 8pt; }
  ul { font-size: 8pt; }
  th, td { padding: 2px 4px; }
  .scroll { overflow: visible; }
  .note { width: auto; }
  a { text-decoration: none; }
}
"""
