"""Chooses settings of propagation on one split, and reports them on another.

It takes one factor after the other, as the study's Figure 4 does: all values of a factor are tried
on the tuning split, with the best values so far of the other factors, and the best one is kept.
"""

import pathlib
import string
from typing import Any

from ml_collections import ConfigDict

from jaxprop import parallel, tasks
from jaxprop.evaluation import run as runner
from jaxprop.files import claim, write_json
from jaxprop.report import tables
from jaxprop.study import study
from jaxprop.study.study import Cell


def run(config: ConfigDict, output: pathlib.Path) -> dict[str, Any]:
    """Chooses settings of propagation, and writes their scores on both splits.

    Args:
      config: of an evaluation, with `tuning`, see configs/study/tune.py.
      output: `table.*`, the scores of both splits; `search/`, every value tried; `chosen.json`;
        `cells/`. A later call goes on with the evaluations that are not finished.

    Returns:
      The content of `chosen.json`: 'chosen' and 'start', the factors' values; 'flags', the chosen
      ones for a command line; 'scores' of both, by split.

    Raises:
      ValueError: the two splits share sequences, or a factor has no values.
    """
    with runner.writing_to(output):
        return _run(config, output)


def _run(config, output):
    # Check the two splits, and take the folder.
    tuning = config.tuning.to_dict()
    base = {name: value for name, value in config.to_dict().items() if name != 'tuning'}
    splits = {
        name: study.with_changes(
            base, {f'dataset.{key}': value for key, value in tuning[name].items()}
        )
        for name in ('on', 'report')
    }
    _check(tuning, splits)
    claim(
        output / 'settings.json',
        {'base': base, 'tuning': tuning},
        changeable=[f'base/{name}' for name in study.CHANGEABLE],
        write=parallel.is_writer(),
    )
    measure, start = (
        tuning['measure'],
        {name: base['propagation'][name] for name in tuning['order']},
    )

    def cell(split, factors, labels, chosen_on):
        changes = {f'propagation.{name}': value for name, value in factors.items()}
        return Cell(labels, study.with_changes(splits[split], changes), {}, chosen_on)

    def row(one):
        return study.report_row(one, output)

    # Choose one factor after the other on the tuning split.
    chosen, tried = dict(start), []
    panels = dict(zip(tuning['order'], string.ascii_lowercase))
    tuned_on = study.split_name(splits['on']['dataset'])
    for number in range(1, tuning['rounds'] + 1):
        for name in tuning['order']:
            # The best value so far comes first, so that it stays where another has the same score.
            values = list(dict.fromkeys((chosen[name], *tuning['candidates'][name])))
            cells = [
                cell(
                    'on',
                    {**chosen, name: value},
                    {'round': number, 'factor': name, 'panel': panels[name], 'x': value},
                    tuned_on,
                )
                for value in values
            ]
            study.run_cells(cells, output)
            rows = [row(one) for one in cells]
            scores = [one['measured'][measure] for one in rows]
            chosen[name] = values[scores.index(max(scores))]
            tried += sorted(rows, key=lambda one: one['labels']['x'])

    # Evaluate the settings before and after on both splits.
    final = [
        cell(
            split,
            factors,
            {'split': study.split_name(splits[split]['dataset']), 'settings': name, **factors},
            origin,
        )
        for split in ('on', 'report')
        for name, factors, origin in (
            ('before', start, tuning['start_chosen_on']),
            ('chosen', chosen, tuned_on),
        )
    ]
    study.run_cells(final, output)
    rows = [row(one) for one in final]
    result = {
        'chosen': chosen,
        'start': start,
        'flags': ' '.join(f'--config.propagation.{name}={value}' for name, value in chosen.items()),
        'measure': measure,
        'scores': {
            split: {
                one['labels']['settings']: one['measured'][measure]
                for one in rows
                if one['labels']['split'] == split
            }
            for split in dict.fromkeys(one['labels']['split'] for one in rows)
        },
    }
    if parallel.is_writer():
        write_json(output / 'chosen.json', result)
        _write_reports(config, output, panels, tried, rows, result)
    return result


def _check(tuning, splits):
    for name in tuning['order']:
        if not tuning['candidates'].get(name):
            raise ValueError(f'tuning.candidates.{name} is empty: name values to choose from')
    names = [
        {name for name, _ in tasks.open_task(split['dataset'], split.get('measure')).sequences()}
        for split in splits.values()
    ]
    if shared := set.intersection(*names):
        raise ValueError(
            f'tuning.on and tuning.report share sequences: {", ".join(sorted(shared))}. What is '
            'reported must not be what was chosen on'
        )


def _write_reports(config, output, panels, tried, rows, result):
    measures = ((result['measure'], result['measure'].removesuffix('-Mean')),)
    sizes = study.input_note(config)
    symbols = {'temperature': 'T', 'num_neighbors': 'k', 'num_context': 'n'}
    panels = tuple(
        {'label': label, 'x': symbols.get(name, name), 'title': name, 'log': name == 'temperature'}
        for name, label in panels.items()
    )
    tables.write_figure(
        output / 'search',
        {
            'kind': 'figure',
            'measures': measures,
            'columns': ('round', 'factor', 'x'),
            'pivot': '',
            'curves': ('round',),
            'panels': panels,
        },
        [{**row, 'report': f'../{row["report"]}'} for row in tried],  # All of them were run.
        title=f'{config.title}: values tried',
        notes=(sizes, 'Factor by factor, from left to right, each with the best so far.'),
    )
    tables.write_table(
        output,
        {
            'kind': 'table',
            'measures': tuple(config.tuning.reported),
            'columns': ('split', 'settings', *config.tuning.order),
            'pivot': '',
        },
        rows,
        title=config.title,
        notes=(
            sizes,
            f'Chosen by {result["measure"]}; every value tried is in search/table.html.',
            f'The chosen settings: {result["flags"]}',
        ),
    )
