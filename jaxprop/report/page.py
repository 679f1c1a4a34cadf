"""Reports of an evaluation and of a comparison of several: HTML files with charts and players.

A file needs nothing else: styles, scripts and pictures are inside.
"""

import base64
import dataclasses
import html
import json
import math
import os
import pathlib
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxprop.files import write_text
from jaxprop.tasks.task import Colour, Layout, Measure, SequenceView, Tile, distinct_colours

_AS_IT_IS = Layout()
_TEMPLATES = pathlib.Path(__file__).parent / 'templates'
_STYLE = (_TEMPLATES / 'style.css').read_text(encoding='utf-8')
_SCRIPT = (_TEMPLATES / 'script.js').read_text(encoding='utf-8')

# The chart, in units of its SVG: a panel for each measure, under one another.
_CHART_WIDTH = 520
_PANEL_LEFT, _PANEL_RIGHT = 34, 510
_PANEL_TOP, _PANEL_HEIGHT, _PANEL_SPACING = 26, 104, 142


def write_report(
    path: str | os.PathLike,
    metrics: Mapping[str, Any],
    sequences: Sequence[SequenceView],
    layout: Layout = _AS_IT_IS,
) -> None:
    """Writes the report: one HTML file with all styles, scripts and pictures inside.

    It shows the global numbers in percent, what was skipped and why, a table to sort, for each
    sequence its measures over time beside its frames, and every setting. Browsers show it without
    a network, and without scripts too, then with the first frames.

    Args:
      path: of the HTML file; its folder is made where missing.
      metrics: any of 'title'; 'summary', fractions by their names; 'per_sequence', rows with
        'sequence', for each of its objects with 'object', and fractions or whole numbers by their
        names; others whose names begin with 'per_', rows of further tables, each with what it is
        about in its first column; 'skipped', rows of 'sequence' and 'reason'; 'warnings', strings;
        'network', with 'name', 'trained' and more; 'settings', 'provenance', 'timing', nested as
        they like. What is absent is left out.
      sequences: to show over time, in this order, with frames as `pictures.draw_view` makes them.
      layout: how the results are shown, as the task says.

    Raises:
      ValueError: a picture is no WebP, JPEG or PNG file.
    """
    write_text(path, _page(metrics, sequences, layout))


def write_comparison(
    path: str | os.PathLike,
    comparison: Mapping[str, Any],
    sequences: Sequence[Sequence[SequenceView]],
    layout: Layout = _AS_IT_IS,
) -> None:
    """Writes the report of several runs beside each other: one HTML file, as `write_report` does.

    Runs are called A, B, ... there. It shows what they are, which settings differ, tables with
    differences to the first run, and for each sequence each run's measures over time in one chart,
    below the same frames with each run's predictions.

    Args:
      path: of the HTML file; its folder is made where missing.
      comparison: what `jaxprop.study.comparison.compare` returns.
      sequences: for each the views of the runs, with the same frames, in the runs' order.
      layout: how the results are shown, as the task says.

    Raises:
      ValueError: views of a sequence that don't fit each other; more runs than letters; a picture
        that is no WebP, JPEG or PNG file.
    """
    runs = comparison['runs']
    if len(runs) > len(string.ascii_uppercase):
        raise ValueError(f'there are {len(runs)} runs; at most {len(string.ascii_uppercase)} fit')
    for views in sequences:
        if (
            len(views) != len(runs)
            or len({(view.name, view.num_frames, *view.frame_numbers) for view in views}) > 1
        ):
            raise ValueError(
                f'the views of {", ".join(view.name for view in views)} are not of the same '
                f'frames of one sequence in {len(runs)} runs'
            )
    write_text(path, _comparison_page(comparison, sequences, layout))


def _page(metrics: Mapping[str, Any], sequences: Sequence[SequenceView], layout: Layout) -> str:
    rows = metrics.get('per_sequence') or []
    return _document(
        metrics.get('title') or 'Evaluation',
        _subtitle(metrics, rows),
        [
            _notices(metrics),
            _headline(metrics.get('summary') or {}, layout),
            _results(rows, sequences, layout),
            _other_tables(metrics),
            _sequences(rows, sequences, layout),
            _details(metrics),
        ],
    )


def _document(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """A page of a title, a subtitle and sections, the latter two as HTML."""
    parts = '\n'.join(parts)
    return document(
        title,
        f"""<main>
<header>
<h1>{_escape(title)}</h1>
<p class="muted">{subtitle}</p>
</header>
{parts}
</main>
""",
        _STYLE,
        _SCRIPT,
    )


def document(title: str, body: str, style: str, script: str = '') -> str:
    """An HTML file that needs nothing else.

    Args:
      title: a text.
      body: HTML, its title's heading too.
      style, script: CSS, and JavaScript that runs after the body.
    """
    allowed = "img-src data:; style-src 'unsafe-inline'"
    if script:
        allowed += "; script-src 'unsafe-inline'"
        script = f'<script>{script}</script>\n'
    # The security policy makes browsers refuse whatever would come from outside the file.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; {allowed}">
<link rel="icon" href="data:,">
<title>{_escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}{script}</body>
</html>
"""


def _subtitle(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    network, provenance = metrics.get('network') or {}, metrics.get('provenance') or {}
    parts = [_escape(part) for part in (network.get('name'), provenance.get('date')) if part]
    if rows:
        num_sequences = len({row.get('sequence') for row in rows})
        counts = [_count(num_sequences, 'sequence')]
        if any('object' in row for row in rows):
            counts.append(_count(len(rows), 'object'))
        parts.append(', '.join(counts))
    return ' &middot; '.join(parts)


def _notices(metrics: Mapping[str, Any]) -> str:
    notices = []
    if (metrics.get('network') or {}).get('trained') is False:
        notices.append(
            '<div class="notice strong" role="note"><strong>The network is untrained.</strong> Its '
            'weights are random: these numbers say how far propagation gets without learning, and '
            'nothing about a trained network.</div>'
        )
    skipped = [
        f'<li><b>{_escape(row.get("sequence", "?"))}</b>: '
        f'{_escape(row.get("reason", "no reason given"))}</li>'
        for row in metrics.get('skipped') or []
    ]
    warnings = [f'<li>{_escape(warning)}</li>' for warning in metrics.get('warnings') or []]
    for items, heading in (
        (skipped, f'{_count(len(skipped), "sequence")} skipped, and in none of the numbers'),
        (warnings, _count(len(warnings), 'warning')),
    ):
        if items:
            notices.append(
                f'<div class="notice" role="note"><strong>{heading}</strong>'
                f'<ul>{"".join(items)}</ul></div>'
            )
    return '\n'.join(notices)


def _headline(summary: Mapping[str, float], layout: Layout) -> str:
    if not summary:
        return ''
    shown = layout.tiles or [Tile(*key.partition(', ')[::2], key) for key in summary]
    tiles = []
    for tile in shown:
        more = ''.join(
            f'<span>{_escape(name)} <b>{_percent(summary.get(key))}</b></span>'
            for name, key in tile.more
        )
        tiles.append((_escape(tile.name), _escape(tile.meaning), summary.get(tile.measure), more))
    if any(more for *_, more in tiles):  # A line of the same height in all of them.
        tiles = [(*tile, f'<div class="more">{more}</div>') for *tile, more in tiles]
    return (
        '<section class="tiles" aria-label="Global result, in percent">'
        + ''.join(
            f'<div class="card tile"><div class="label"><b>{name}</b> {meaning}</div>'
            f'<div class="number">{_percent(value)}<small>%</small></div>{_bar(value)}'
            f'{more}</div>'
            for name, meaning, value, more in tiles
        )
        + '</section>'
    )


def _results(
    rows: Sequence[Mapping[str, Any]],
    sequences: Sequence[SequenceView],
    layout: Layout,
    note: str = 'In percent.',
) -> str:
    """The table of sequences, and of their objects where they have any."""
    if not rows:
        return ''
    anchors = {view.name: index for index, view in enumerate(sequences)}

    def text(row):
        name, object_id = row.get('sequence', '?'), row.get('object', '')
        cell, swatch = _escape(name), ''
        if name in anchors:
            cell = f'<a href="#sequence-{anchors[name]}">{cell}</a>'
            colour = dict(sequences[anchors[name]].legend).get(str(object_id))
            swatch = '' if colour is None else _swatch(colour)
        cells = f'<th scope="row" data-value="{_escape(name)}">{cell}</th>'
        if has_objects:
            cells += f'<td data-value="{_escape(object_id)}">{swatch}{_escape(object_id)}</td>'
        return cells

    has_objects = any('object' in row for row in rows)
    heading, names = 'By sequence', ['Sequence']
    if has_objects:
        heading, names = f'{heading} and object', [*names, 'Object']
    said = (_escape(said) for column, said in layout.notes.items() if column in rows[0])
    note = ' '.join([note, *said, 'Click a heading to sort.'])
    rows = [with_means(row, layout) for row in rows]
    return _table(heading, note, names, rows, text, 'sortable', layout.plain)


def _other_tables(metrics: Mapping[str, Any], note: str = 'In percent.') -> str:
    tables = []
    for key, rows in metrics.items():
        if key.startswith('per_') and key != 'per_sequence' and rows:
            name = next(iter(rows[0]))
            tables.append(
                _table(
                    f'By {name}',
                    f'{note} Over all sequences.',
                    [name.capitalize()],
                    rows,
                    lambda row, name=name: f'<th scope="row">{_escape(row.get(name, "?"))}</th>',
                )
            )
    return ''.join(tables)


def _table(heading, note, names, rows, text, kind='', plain=()):
    """A table of rows: the cells that `text` makes of one, then its values.

    Shares have a bar, but for those in the `plain` columns.
    """
    written = {'sequence', 'object', *map(str.lower, names)}
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in written))
    body = []
    for row in rows:
        cells = [text(row)]
        for column in columns:
            value = row.get(column)
            shown = str(value) if isinstance(value, int) else _percent(value)
            is_share = not isinstance(value, (int, _Difference)) and column not in plain
            exact = repr(float(value)) if is_number(value) else ''
            cells.append(
                f'<td class="value" data-value="{exact}">{shown}'
                f'{_bar(value) if is_share else ""}</td>'
            )
        body.append(f'<tr>{"".join(cells)}</tr>')
    head = ''.join(
        f'<th scope="col" class="{style}"><button type="button">{_escape(title)}</button></th>'
        if kind
        else f'<th scope="col" class="{style}">{_escape(title)}</th>'
        for title, style in (
            *((name, 'text') for name in names),
            *((column.replace('-', ' '), 'value') for column in columns),
        )
    )
    return (
        f'<section><h2>{_escape(heading)}</h2><p class="muted">{note}</p>'
        f'<div class="card scroll"><table class="results {kind}"><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div></section>'
    )


def _sequences(
    rows: Sequence[Mapping[str, Any]], sequences: Sequence[SequenceView], layout: Layout
) -> str:
    if not sequences:
        return ''
    cards = ''.join(
        _card(index, view, _numbers_of(view, rows, layout), {'': view})
        for index, view in enumerate(sequences)
    )
    return f'<section><h2>Over time</h2>{cards}</section>'


def _card(index: int, view: SequenceView, numbers: str, players: Mapping[str, SequenceView]) -> str:
    """A sequence: numbers (as HTML), legend and chart of the view, and frames as `_player` has."""
    legend = ''.join(
        f'<span>{_swatch(colour)}{_escape(name)}</span>' for name, colour in view.legend
    )
    return (
        f'<article class="card sequence" id="sequence-{index}"><header>'
        f'<h3>{_escape(view.name)}</h3><span class="muted">{numbers}</span>'
        f'<span class="legend"><span class="muted">{_escape(view.heading)}</span>{legend}</span>'
        f'</header><div class="columns">{_player(players)}{_chart(view)}</div></article>'
    )


def _numbers_of(view: SequenceView, rows: Sequence[Mapping[str, Any]], layout: Layout) -> str:
    own = [with_means(row, layout) for row in rows if row.get('sequence') == view.name]
    if layout.title:
        name, column = layout.title
        values = [row[column] for row in own if is_number(row.get(column))]
        return f'{_escape(name)} <b>{_percent(np.mean(values))}</b>' if values else ''
    return ' '.join(
        f'{_escape(name)} <b>{_percent(value)}</b>'
        for row in own
        for name, value in row.items()
        if isinstance(value, float)
    )


def _player(views: Mapping[str, SequenceView]) -> str:
    """Frames to play: of one view, or the same ones of several beside each other.

    Args:
      views: by their captions, which are HTML.
    """
    view = next(iter(views.values()))
    if not view.frames:
        return ''
    uris = [_data_uri(frame, view.name) for view in views.values() for frame in view.frames]
    numbers = [int(number) for number in view.frame_numbers]
    pictures = ''.join(
        f'<figure><img src="{uri}" alt="Labels of {_escape(view.name)} over a frame">'
        f'<figcaption>{caption}</figcaption></figure>'
        for caption, uri in zip(views, uris[:: len(numbers)])
    )
    return (
        f'<div class="player" data-rate="{float(view.frames_per_second)}" '
        f'data-numbers="{json.dumps(numbers)}"><div class="pictures">{pictures}</div>'
        '<div class="controls" hidden>'
        '<button type="button" aria-label="Play">&#9654;</button><input type="range" min="0" '
        f'max="{len(numbers) - 1}" value="0" aria-label="Frame of {_escape(view.name)}">'
        f'<output>frame {numbers[0]}</output></div>'
        f'<script type="application/json">{json.dumps(uris)}</script></div>'
    )


def _chart(view: SequenceView) -> str:
    """The measures over time as SVG, whose colours follow the page's.

    Drawn by hand since a plotting library fixes colours when it draws, and a light and a dark page
    need different ones.
    """
    step = (_PANEL_RIGHT - _PANEL_LEFT) / max(view.num_frames - 1, 1)
    parts = []
    for index, measure in enumerate(view.measures):
        top = _PANEL_TOP + index * _PANEL_SPACING
        parts.append(
            f'<text class="title" x="{_PANEL_LEFT}" y="{top - 9}">{_escape(measure.name)}'
            f'<tspan class="tick" dx="6">{_escape(measure.meaning)}, %</tspan></text>'
        )
        for level in (0, 0.5, 1):
            y = top + (1 - level) * _PANEL_HEIGHT
            parts.append(
                f'<path class="grid" d="M{_PANEL_LEFT} {y:g}H{_PANEL_RIGHT}"/>'
                f'<text class="tick" x="{_PANEL_LEFT - 6}" y="{y + 4:g}" text-anchor="end">'
                f'{100 * level:g}</text>'
            )
        for (name, colour), line in zip(measure.lines, measure.values):
            parts.append(
                f'<path class="line" style="{_colour(colour)}" '
                f'd="{_line(line, step, top)}"><title>{_escape(name)}</title></path>'
            )
    bottom = _PANEL_TOP + (len(view.measures) - 1) * _PANEL_SPACING + _PANEL_HEIGHT
    spacing = next(
        (size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500) if view.num_frames / size <= 10),
        1000,
    )
    for number in range(0, view.num_frames, spacing):
        parts.append(
            f'<text class="tick" x="{_PANEL_LEFT + number * step:.1f}" y="{bottom + 16}" '
            f'text-anchor="middle">{number}</text>'
        )
    parts.append(
        f'<text class="tick" x="{(_PANEL_LEFT + _PANEL_RIGHT) / 2:g}" y="{bottom + 31}" '
        'text-anchor="middle">frame</text>'
    )
    if view.frames:
        x = _PANEL_LEFT + view.frame_numbers[0] * step
        parts.append(
            f'<path class="cursor" transform="translate({x:.2f})" '
            f'd="M0 {_PANEL_TOP - 4}V{bottom}"/>'
        )
    names = ' and '.join(measure.name for measure in view.measures)
    return (
        f'<svg class="chart" viewBox="0 0 {_CHART_WIDTH} {bottom + 34}" role="img" '
        f'aria-label="{_escape(names)} of {_escape(view.name)} over time" '
        f'data-left="{_PANEL_LEFT}" data-step="{step}">{"".join(parts)}</svg>'
    )


def _line(values: np.ndarray, step: float, top: float) -> str:
    """An SVG path through the values, with a gap wherever one is not finite."""
    commands, drawing = [], False
    for number, value in enumerate(values):
        if math.isfinite(value):
            x, y = _PANEL_LEFT + number * step, top + (1 - value) * _PANEL_HEIGHT
            # Of no length, but with round ends: it makes a value between two gaps a dot.
            commands.append(f'L{x:.1f} {y:.1f}' if drawing else f'M{x:.1f} {y:.1f}h0')
        drawing = math.isfinite(value)
    return ''.join(commands)


def _details(metrics: Mapping[str, Any]) -> str:
    blocks = []
    for key, heading in (
        ('network', 'Network'),
        ('settings', 'Settings'),
        ('provenance', 'Provenance'),
        ('timing', 'Timing'),
    ):
        rows = ''.join(
            f'<tr><th scope="row">{_escape(name)}</th><td>{_escape(value)}</td></tr>'
            for name, value in _flatten(metrics.get(key) or {})
        )
        if rows:
            blocks.append(f'<div class="facts"><h3>{heading}</h3><table>{rows}</table></div>')
    if not blocks:
        return ''
    return (
        '<details class="card"><summary>Settings and provenance</summary>'
        f'<div class="blocks">{"".join(blocks)}</div></details>'
    )


def _flatten(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
    """Each value of a nested mapping as text, under its dotted name."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', _text(value)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ', '.join(map(str, value))
    return f'{value:.6g}' if isinstance(value, float) else str(value)


class _Difference(float):
    """What is shown with its sign; NaN where there is none."""


def _comparison_page(
    comparison: Mapping[str, Any], sequences: Sequence[Sequence[SequenceView]], layout: Layout
) -> str:
    runs, tables = comparison['runs'], comparison['tables']
    letters = string.ascii_uppercase[: len(runs)]
    names = [_escape(run['name']) for run in runs]
    swatches = [_swatch(colour) for colour in distinct_colours(len(runs))]
    captions = [
        f'{swatch}<b>{letter}</b> {name}' for swatch, letter, name in zip(swatches, letters, names)
    ]
    note = (
        'In percent. '
        + ', '.join(f'{letter}: {name}' for letter, name in zip(letters, names))
        + '.'
    )
    merged = [_merged(views, letters) for views in sequences]
    facts = list(dict.fromkeys(key for run in runs for key in run if key != 'name'))
    described = [(fact, [run.get(fact) for run in runs]) for fact in facts]
    differing = [(row['setting'], row['values']) for row in comparison['settings']]
    overall = [{'measure': row['measure'], **_columns(row, letters)} for row in tables['summary']]
    by_sequence = _beside(
        [row for row in tables['per_sequence'] if row['measure'] in comparison['measures']], letters
    )
    cards = []
    for index, (views, view) in enumerate(zip(sequences, merged)):
        players = {
            f'{caption} <span class="muted">{_numbers_of(view, rows, layout)}</span>': view
            for caption, view, rows in zip(captions, views, comparison['per_sequence'])
        }
        cards.append(_card(index, view, '', players))
    subtitle = _subtitle({}, comparison['per_sequence'][0])
    return _document(
        f'Comparison of {len(runs)} runs',
        subtitle,
        [
            _notices({'warnings': comparison['warnings']}),
            _facts('Runs', captions, described, ''),
            _facts('Settings that differ', captions, differing, 'None.'),
            _table(
                'Overall',
                note,
                ['Measure'],
                overall,
                lambda row: f'<th scope="row">{_escape(row["measure"])}</th>',
            )
            if overall
            else '',
            _results(by_sequence, merged, _AS_IT_IS, note),
            _other_tables({key: _beside(rows, letters) for key, rows in tables.items()}, note),
            f'<section class="compared"><h2>Over time</h2>{"".join(cards)}</section>'
            if cards
            else '',
        ],
    )


def _columns(row: Mapping[str, Any], letters: str, prefix: str = '') -> dict[str, Any]:
    """What a row of `comparison.compare` has of each run, and the differences to the first."""
    differences = [math.nan if value is None else value for value in row['differences']]
    return {
        **{f'{prefix}{letter}': value for letter, value in zip(letters, row['values'])},
        **{
            f'{prefix}{letter}\xa0\N{MINUS SIGN}\xa0{letters[0]}': _Difference(value)
            for letter, value in zip(letters[1:], differences)
        },
    }


def _beside(rows: Sequence[Mapping[str, Any]], letters: str) -> list[dict[str, Any]]:
    """Rows of one measure each as rows that have all measures, those of the runs side by side."""
    subjects = {}
    for row in rows:
        subject = {
            key: value
            for key, value in row.items()
            if key not in ('measure', 'values', 'differences')
        }
        subjects.setdefault(tuple(subject.items()), subject).update(
            _columns(row, letters, f'{row["measure"]}, ')
        )
    return list(subjects.values())


def _merged(views: Sequence[SequenceView], letters: str) -> SequenceView:
    """One view for several runs: each measure has a line for each run, the mean of its lines."""
    first = views[0]
    lines = tuple(zip(letters, distinct_colours(len(views))))
    measures = []
    for measures_of_runs in zip(*(view.measures for view in views)):
        measure = measures_of_runs[0]
        values = [_mean_line(other.values) for other in measures_of_runs]
        meaning = measure.meaning + (', mean' if len(measure.lines) > 1 else '')
        measures.append(Measure(measure.name, meaning, np.stack(values), lines))
    legend = dict(entry for view in views for entry in view.legend)
    return dataclasses.replace(first, measures=tuple(measures), legend=tuple(legend.items()))


def _mean_line(values: np.ndarray) -> np.ndarray:
    """`[O, T]` -> `[T]`, the mean of what is not NaN."""
    count = np.count_nonzero(~np.isnan(values), axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _facts(
    heading: str, captions: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], none: str
) -> str:
    """A table of text: a row's name, and what each run has there; `none` where there is no row."""
    head = ''.join(f'<th scope="col">{caption}</th>' for caption in captions)
    body = ''.join(
        f'<tr><th scope="row">{_escape(name)}</th>'
        + ''.join(f'<td>{_escape(_text(value))}</td>' for value in values)
        + '</tr>'
        for name, values in rows
    )
    table = (
        f'<div class="card scroll"><table class="results beside"><thead><tr><th></th>{head}</tr>'
        f'</thead><tbody>{body}</tbody></table></div>'
    )
    return f'<section><h2>{heading}</h2>{table if rows else f"<p>{none}</p>"}</section>'


def with_means(row: Mapping[str, Any], layout: Layout) -> Mapping[str, Any]:
    """A row with the layout's means in front, None where a number is missing; without their columns
    it stays as it is."""
    means = {}
    for name, columns in layout.means.items():
        if columns[0] in row:
            values = [row.get(column) for column in columns]
            means[name] = sum(values) / len(values) if all(map(is_number, values)) else None
    return {**means, **row}


def is_number(value: Any) -> bool:
    """Whether there is something to show: a number that is finite."""
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def _percent(value: Any) -> str:
    sign = '+' if isinstance(value, _Difference) else ''
    shown = f'{100 * value:{sign}z.1f}' if is_number(value) else '&ndash;'
    return shown.replace('-', '&minus;')


def _bar(value: Any) -> str:
    filled = min(max(100 * value, 0), 100) if is_number(value) else 0
    return f'<span class="bar"><i style="width:{filled:.1f}%"></i></span>'


def _swatch(colour: Colour) -> str:
    return f'<i class="swatch" style="{_colour(colour)}"></i>'


def _colour(colour: Colour) -> str:
    red, green, blue = colour
    return f'--colour:#{red:02x}{green:02x}{blue:02x}'


def _data_uri(picture: bytes, name: str) -> str:
    for kind, start in (('webp', b'RIFF'), ('jpeg', b'\xff\xd8'), ('png', b'\x89PNG')):
        if picture.startswith(start):
            return f'data:image/{kind};base64,{base64.b64encode(picture).decode()}'
    raise ValueError(
        f'{name}: a frame begins with {picture[:8]!r}; frames must be WebP, JPEG or PNG files'
    )


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def _escape(value: Any) -> str:
    return html.escape(str(value))
