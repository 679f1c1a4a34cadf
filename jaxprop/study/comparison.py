"""Compares finished runs of one benchmark: their settings, scores and predictions.

It reads the folders that `runner.evaluate` has written, and labels nothing again.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util

from jaxprop import files, tasks
from jaxprop.data.sequences import DataError
from jaxprop.evaluation import results
from jaxprop.evaluation import run as runner
from jaxprop.report import page, parts, pictures
from jaxprop.tasks.task import Record

# Settings of a dataset that say where it is and which of its sequences are taken. Runs may differ
# in these. If another setting of the dataset differs, sequences of one name are not the same.
_CHOICES = ('root', 'folder', 'names', 'split', 'list', 'num_sequences')


@dataclasses.dataclass(frozen=True)
class _Run:
    """A finished run, as it is read from its folder.

    Attributes:
      name: of the run in the comparison.
      output: the run's folder.
      metrics: the content of its metrics.json.
      records: the record of each sequence, by the sequence's name.
      dataset: the settings by which its sequences are opened.
    """

    name: str
    output: pathlib.Path
    metrics: Mapping[str, Any]
    records: Mapping[str, Record]
    dataset: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.metrics['settings']


def compare(
    folders: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    report_frames: int = 40,
) -> dict[str, Any]:
    """Compares runs on the sequences that all of them have, and writes how they differ.

    All runs are scored by the measure of the first one, from the records of their sequences.

    Args:
      folders: of two runs or more, as `runner.evaluate` has written them.
      output: the folder for `comparison.html` and `comparison.csv`. A row of the latter is one
        measure of one subject (an object, a class, the whole): its value in each run, and the
        differences to the first run.
      report_frames: how many frames of a sequence are shown. Sequences that raise DataError are
        compared without pictures.

    Returns:
      'runs': a dict for each run, with its 'name', network, date and times; 'settings': a row for
      each setting that differs, with 'setting' and 'values', '' where a run has none; 'tables': by
      name, those of `Task.results` and 'summary', lists of rows with the subject, 'measure',
      'values' and 'differences' (None where a value is missing); 'measures': the names of those
      that matter most; 'per_sequence': that table of each run; 'warnings'.

    Raises:
      ValueError: there are fewer than two folders, more than 26, or one twice; a folder holds no
        finished run; the runs are of different benchmarks, have no sequence in common, or have
        sequences of one name with different frames.
    """
    if report_frames < 1:
        raise ValueError(f'report_frames is {report_frames}; it must be at least 1')
    # Read the runs, and check that they can be compared.
    runs = [_read_run(folder, name) for folder, name in _named(folders).items()]
    settings = _differing(runs)
    _check_same_benchmark(runs, settings)
    names = [name for name in runs[0].records if all(name in run.records for run in runs)]
    warnings = _left_out(runs, names)
    for name in names:
        _check_same_sequence(runs, name)
        if len({run.records[name]['made_from']['data'] for run in runs}) > 1:
            warnings.append(f'{name}: its frames or annotations are not the same in all runs.')
    if any(row['setting'].startswith('measure.') for row in settings):
        warnings.append(f'Measures are set differently: all runs are scored as {runs[0].name} is.')
    warnings += [
        f'The network is untrained in {run.name}: its weights are random.'
        for run in runs
        if not run.metrics['network']['trained']
    ]

    # Score all of them alike.
    task = tasks.open_task(runs[0].dataset, runs[0].settings.get('measure'))
    scored = [name for name in names if all(task.is_scored(run.records[name]) for run in runs)]
    tables = [
        task.results({name: run.records[name] for name in scored})
        if scored
        else {'summary': {}, 'per_sequence': []}
        for run in runs
    ]
    # Draw what they predicted, and write the comparison.
    try:
        views, missing = _views(runs, names, dict(task.sequences()), task, report_frames)
    except DataError as error:
        views, missing = [], [f'No pictures: {error}']
    comparison = {
        'runs': [_described(run) for run in runs],
        'settings': settings,
        'tables': _tables(tables, task.layout),
        'measures': task.printed,
        'per_sequence': [table['per_sequence'] for table in tables],
        'warnings': warnings + missing,
    }
    private = [str(value) for run in runs for value in (run.output, *run.dataset.values())]
    comparison = results.shown(comparison, private)
    output = pathlib.Path(output)
    page.write_comparison(output / 'comparison.html', comparison, views, task.layout)
    _write_csv(output / 'comparison.csv', comparison)
    return comparison


def _named(folders):
    """Names each folder by the end of its path that tells it from the others."""
    paths = [pathlib.Path(folder).resolve() for folder in folders]
    if len(set(paths)) < max(2, len(paths)):
        raise ValueError(
            f'the folders are {", ".join(map(str, folders))}; two different runs or more can be '
            'compared'
        )
    common = os.path.commonpath([path.parent for path in paths])
    return {path: str(path.relative_to(common)) for path in paths}


def _read_run(folder, name):
    path = folder / 'metrics.json'
    if not path.is_file():
        raise ValueError(f'{folder} holds no metrics.json; it must be the output of a finished run')
    try:
        metrics = results.read_sealed(path)
        names = dict.fromkeys(row['sequence'] for row in metrics['per_sequence'])
        records = {
            name: results.read_sealed(results.record_path(folder, name))
            for name in (*names, *metrics['unscored'])
        }
        dataset = dict(files.read_json(folder / 'settings.json')['dataset'])
    except OSError as error:
        raise ValueError(
            f'{error.filename} is missing: {folder} is not the whole output of a finished run'
        ) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} or the settings.json beside it is damaged; evaluate again, which makes it anew'
        ) from error
    return _Run(name, folder, metrics, records, dataset)


def _check_same_benchmark(runs, differing):
    for row in differing:
        part, _, name = row['setting'].partition('.')
        if part == 'dataset' and name not in _CHOICES:
            raise ValueError(
                f'{" and ".join(run.name for run in runs)} are runs of different benchmarks: '
                f'dataset.{name} is {" and ".join(map(repr, row["values"]))}'
            )


def _check_same_sequence(runs, name):
    first, *others = [(run.records[name]['num_frames'], run.records[name]['size']) for run in runs]
    for run, other in zip(runs[1:], others):
        if other != first:
            raise ValueError(
                f'{name} has {first[0]} frames of {first[1]} in {runs[0].name}, {other[0]} of '
                f'{other[1]} in {run.name}; it must be the same sequence'
            )


def _left_out(runs, names):
    """Makes the warning about sequences that only some runs have."""
    if not names:
        raise ValueError(f'{" and ".join(run.name for run in runs)} have no sequence in common')
    own = {run.name: [name for name in run.records if name not in names] for run in runs}
    if not any(own.values()):
        return []
    counts = '; '.join(
        f'{run} has {len(others)} more: {", ".join(others)}'
        for run, others in own.items()
        if others
    )
    shared = '1 sequence' if len(names) == 1 else f'{len(names)} sequences'
    return [f'Compared on the {shared} that all runs have. {counts}.']


def _differing(runs):
    """Makes a row for each setting that is not the same in all runs."""
    flat = [traverse_util.flatten_dict(run.settings, sep='.') for run in runs]
    rows = [
        {'setting': name, 'values': [settings.get(name, '') for settings in flat]}
        for name in dict.fromkeys(name for settings in flat for name in settings)
    ]
    return [row for row in rows if any(value != row['values'][0] for value in row['values'])]


def _described(run):
    provenance, timing = run.metrics['provenance'], run.metrics['timing']
    return {
        'name': run.name,
        'title': run.metrics['title'],
        'network': run.settings['network']['name'],
        'sequences': len(run.records),
        **{name: provenance[name] for name in ('date', 'git commit', 'device')},
        **{name: timing[name] for name in ('frames labelled', 'labelling, seconds')},
    }


def _tables(results, layout):
    """Turns the runs' tables into rows of one measure each."""
    tables = {'summary': _rows([[result['summary']] for result in results], ())}
    for table in results[0]:
        if table.startswith('per_'):
            of_runs = [
                [parts.with_means(row, layout) for row in result.get(table, [])]
                for result in results
            ]
            tables[table] = _rows(of_runs, _subject(table, results))
    return tables


def _subject(table, results):
    """The columns that name the subject of a row: in most tables the first column."""
    if table == 'per_sequence':
        return 'sequence', 'object'
    return tuple(next(iter(row)) for result in results for row in result.get(table, [])[:1])[:1]


def _rows(of_runs, subject):
    by_subject = [
        {tuple((name, row[name]) for name in subject if name in row): row for row in rows}
        for rows in of_runs
    ]
    rows = []
    for key in dict.fromkeys(key for run in by_subject for key in run):
        found = [run.get(key, {}) for run in by_subject]
        for measure in dict.fromkeys(name for row in found for name in row if name not in subject):
            values = [row.get(measure) for row in found]
            rows.append(
                {
                    **dict(key),
                    'measure': measure,
                    'values': values,
                    'differences': [
                        None if None in (value, values[0]) else value - values[0]
                        for value in values[1:]
                    ],
                }
            )
    return rows


def _views(runs, names, sequences, task, report_frames):
    """Draws the views of each sequence in all runs; returns warnings about unreadable ones too."""
    views, missing = [], []
    for name in names:
        chosen = runner.evenly(runs[0].records[name]['num_frames'], report_frames)
        try:
            if name not in sequences:
                raise DataError('it is no longer in the dataset')
            sequence = sequences[name]()
            shown = [
                task.shown(
                    results.prediction_path(run.output, task, name),
                    sequence,
                    run.records[name],
                    chosen,
                )
                for run in runs
            ]
            views.append([pictures.draw_view(view) for view in shown])
        except DataError as error:
            missing.append(f'No pictures of {name}: {error}')
    return views, missing


def _write_csv(path, comparison):
    names = [run['name'] for run in comparison['runs']]
    known = ('measure', 'values', 'differences')
    tables = comparison['tables']
    subjects = list(dict.fromkeys(name for rows in tables.values() for row in rows for name in row))
    subjects = [name for name in subjects if name not in known]
    head = ['table', *subjects, 'measure', *names, *(f'{n} - {names[0]}' for n in names[1:])]
    body = (
        [
            table,
            *(row.get(name, '') for name in subjects),
            *(row['measure'], *row['values'], *row['differences']),
        ]
        for table, rows in tables.items()
        for row in rows
    )
    files.write_csv(path, [head, *body])
