"""Reports of an evaluation and of a comparison of several: HTML files with charts and players.

A file needs nothing else: styles, scripts and pictures are inside. This module says what a page
shows; `templates/` says how.
"""

import dataclasses
import math
import os
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxprop.report import parts
from jaxprop.report.parts import AS_IT_IS, Difference, Rows, Run, Strip
from jaxprop.report.render import count, write_page
from jaxprop.tasks.task import Layout, Measure, SequenceView, Tile, distinct_colours


def write_report(
    path: str | os.PathLike,
    metrics: Mapping[str, Any],
    sequences: Sequence[SequenceView],
    layout: Layout = AS_IT_IS,
) -> None:
    """Writes the report: one HTML file with all styles, scripts and pictures inside.

    It shows the global numbers in percent, what was skipped and why, a table to sort, for each
    sequence its measures over time beside its frames, and every setting. Browsers show it without
    a network, and without scripts too, then with one frame of each.

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
    rows = metrics.get('per_sequence') or []
    network, provenance = metrics.get('network') or {}, metrics.get('provenance') or {}
    summary = metrics.get('summary') or {}
    tiles = layout.tiles or [Tile(*key.partition(', ')[::2], key) for key in summary]
    facts = [
        (name.capitalize(), list(_flatten(metrics.get(name) or {})))
        for name in ('network', 'settings', 'provenance', 'timing')
    ]
    write_page(
        path,
        'report.html',
        title=metrics.get('title') or 'Evaluation',
        subtitle=[*filter(None, (network.get('name'), provenance.get('date'))), *_counts(rows)],
        untrained=network.get('trained') is False,
        skipped=metrics.get('skipped') or [],
        warnings=metrics.get('warnings') or [],
        summary=summary,
        tiles=tiles if summary else [],
        tables=[*parts.results(rows, sequences, layout), *parts.other_tables(metrics)],
        cards=[
            parts.card(view, parts.scores_of(view, rows, layout), [Strip(parts.pictures_of(view))])
            for view in sequences
        ],
        facts=[(heading, values) for heading, values in facts if values],
    )


def write_comparison(
    path: str | os.PathLike,
    comparison: Mapping[str, Any],
    sequences: Sequence[Sequence[SequenceView]],
    layout: Layout = AS_IT_IS,
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
    names = [run['name'] for run in comparison['runs']]
    if len(names) > len(string.ascii_uppercase):
        raise ValueError(f'there are {len(names)} runs; at most {len(string.ascii_uppercase)} fit')
    for views in sequences:
        if (
            len(views) != len(names)
            or len({(view.name, view.num_frames, *view.frame_numbers) for view in views}) > 1
        ):
            raise ValueError(
                f'the views of {", ".join(view.name for view in views)} are not of the same '
                f'frames of one sequence in {len(names)} runs'
            )
    runs = list(map(Run, string.ascii_uppercase, names, distinct_colours(len(names))))
    note = f'In percent. {", ".join(f"{run.letter}: {run.name}" for run in runs)}.'
    letters = ''.join(run.letter for run in runs)
    merged = [_merged(views, letters) for views in sequences]
    tables = comparison['tables']
    overall = [{'measure': row['measure'], **_columns(row, letters)} for row in tables['summary']]
    main = [row for row in tables['per_sequence'] if row['measure'] in comparison['measures']]
    others = {key: _beside(rows, letters) for key, rows in tables.items()}
    facts = dict.fromkeys(key for run in comparison['runs'] for key in run if key != 'name')
    write_page(
        path,
        'comparison.html',
        title=f'Comparison of {len(runs)} runs',
        subtitle=_counts(comparison['per_sequence'][0]),
        warnings=comparison['warnings'],
        runs=runs,
        facts=[(key, [_text(run.get(key)) for run in comparison['runs']]) for key in facts],
        settings=[
            (row['setting'], [_text(value) for value in row['values']])
            for row in comparison['settings']
        ],
        tables=[
            *parts.table_by('measure', 'Overall', note, overall),
            *parts.results(_beside(main, letters), merged, note=note),
            *parts.other_tables(others, note),
        ],
        cards=[
            parts.card(
                view,
                [],
                [
                    Strip(parts.pictures_of(own), run, parts.scores_of(own, rows, layout))
                    for own, run, rows in zip(views, runs, comparison['per_sequence'])
                ],
            )
            for views, view in zip(sequences, merged)
        ],
    )


def _counts(rows: Rows) -> list[str]:
    """The numbers of sequences and objects in the rows, as a list of one text; [] without rows."""
    if not rows:
        return []
    counts = [count(len({row.get('sequence') for row in rows}), 'sequence')]
    if any('object' in row for row in rows):
        counts.append(count(len(rows), 'object'))
    return [', '.join(counts)]


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


def _columns(row: Mapping[str, Any], letters: str, prefix: str = '') -> dict[str, Any]:
    """The values of a row of `comparison.compare`, and their differences to the first run's."""
    differences = [math.nan if value is None else value for value in row['differences']]
    return {
        **{f'{prefix}{letter}': value for letter, value in zip(letters, row['values'])},
        **{
            f'{prefix}{letter}\xa0\N{MINUS SIGN}\xa0{letters[0]}': Difference(value)
            for letter, value in zip(letters[1:], differences)
        },
    }


def _beside(rows: Rows, letters: str) -> list[dict[str, Any]]:
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
