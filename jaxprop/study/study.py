"""Runs a study: a grid of evaluations, and one table or figure of their scores.

A cell is an evaluation's config with some changes, see configs/study. Cells with the same settings
are one run. Cells that use the same features share them: the features of a sequence are computed
once, and the cells are spread over the devices.
"""

import concurrent.futures
import copy
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxprop import methods, parallel, tasks
from jaxprop.evaluation import labelling, results
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.features import KeptFeatures
from jaxprop.evaluation.sources import short_name, source_digest
from jaxprop.report import tables
from jaxprop.tasks.task import Task

# Features depend on these settings of an evaluation alone.
_FEATURES = ('dataset', 'network', 'input', 'feature_batch')
_FACTORS = (*_FEATURES, 'propagation', 'labels', 'keypoints', 'measure')

# Settings of an evaluation that change none of its numbers.
CHANGEABLE = (
    *(f'propagation/{name}' for name in methods.EXECUTION),
    'batch/videos_per_device',
    'report_frames',
    'skip_bad',
    'title',
)

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One evaluation of a study.

    Attributes:
      labels: the cell's place in the table: a value for each column.
      config: of the evaluation, as configs/eval has them, in dicts.
      published: published scores in percent, by their names in the evaluation's summary.
      chosen_on: the dataset and split on which its settings were chosen, 'davis/val'; '' if none.
      missing: why the cell can't be run; '' if it can.
    """

    labels: Mapping[str, Any]
    config: Mapping[str, Any]
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chosen_on: str = ''
    missing: str = ''

    @functools.cached_property
    def folder(self) -> str:
        """The folder of its results: one for all cells of the same settings and weights."""
        factors = {name: self.config[name] for name in _FACTORS if name in self.config}
        # Settings that the method does not use must not change the folder.
        factors['propagation'] = methods.settings(methods.from_settings(**factors['propagation']))
        factors['weights'] = source_digest(self.config['network']['name'])
        digest = hashlib.sha256(json.dumps(factors, sort_keys=True).encode()).hexdigest()
        return f'cells/{short_name(self.config["network"]["name"])}-{digest[:12]}'

    @property
    def is_marked(self) -> bool:
        """Whether its settings were chosen on the split that it reports."""
        dataset = self.config['dataset']
        return bool(self.chosen_on) and self.chosen_on == split_name(dataset)


def run(config: ConfigDict, output: pathlib.Path) -> list[Row]:
    """Runs a study's cells, and writes its table or figure.

    Each cell has a folder of its own for its results. A later call with the same output goes on
    with the cells that are not finished.

    Args:
      config: of the study, see configs/study.
      output: the folder for `table.md`, `table.csv`, `table.html`, `figure.png` if the study is a
        figure, and `cells/`.

    Returns:
      A row for each cell, see `report_row`.
    """
    cells = resolve(config)
    with runner.writing_to(output):
        run_cells([cell for cell in cells if not cell.missing], output)
        rows = [report_row(cell, output) for cell in cells]
        if parallel.is_writer():
            write = {'table': tables.write_table, 'figure': tables.write_figure}
            write[config.study.kind](
                output, config.study.to_dict(), rows, title=config.title, notes=notes(config)
            )
    return rows


def resolve(config: ConfigDict) -> list[Cell]:
    """Lists the cells of a study: the published ones, then those of the user's own networks.

    Raises:
      ValueError: changes of settings that the config does not have.
    """
    study = config.study
    base = {
        name: value
        for name, value in config.to_dict().items()
        if name not in ('study', 'networks', 'own', 'own_factors')
    }
    cells = []
    for cell in study.cells:
        name = cell['network']
        path = config.networks[name]
        cells.append(
            Cell(
                cell['labels'],
                with_changes(base, cell['changes'], path),
                cell['published'],
                cell['chosen_on'],
                '' if path else f'no checkpoint: say --config.networks.{name}=FILE',
            )
        )
    for path in config.own:
        for cell in study.own_cells:
            if cell['factors'] == config.own_factors:
                cells.append(
                    Cell(
                        {'method': short_name(path), **cell['labels']},
                        with_changes(base, cell['changes'], path),
                        {},
                        cell['chosen_on'],
                    )
                )
    return cells


def with_changes(
    base: Mapping[str, Any], changes: Mapping[str, Any], network: str | None = None
) -> dict[str, Any]:
    """Copies a config in dicts, and changes some of its settings.

    Args:
      base: the config.
      changes: new values by 'section.name'; a dict replaces a whole section.
      network: the name of a network to take; None keeps the config's own.

    Raises:
      ValueError: the config has no setting of such a name.
    """
    changed = copy.deepcopy(dict(base))
    for name, value in changes.items():
        *sections, last = name.split('.')
        place = changed
        for section in sections:
            place = place.get(section, {})
        if last not in place:
            raise ValueError(f'a cell changes {name!r}, which the config does not have')
        place[last] = copy.deepcopy(value)
    if network is not None:
        changed['network']['name'] = network
    return changed


def run_cells(cells: Iterable[Cell], output: pathlib.Path) -> None:
    """Evaluates the cells that are not finished, each into its folder in `output`."""
    # Group the cells that use the same features: they are labelled together.
    groups = {}
    for cell in {cell.folder: cell for cell in cells}.values():
        key = json.dumps({name: cell.config[name] for name in _FEATURES}, sort_keys=True)
        groups.setdefault(key, []).append(cell)
    datasets, total = {}, sum(map(len, groups.values()))
    with tqdm(total=total, unit='cell', dynamic_ncols=True, disable=not groups) as bar:
        for group in groups.values():
            dataset = group[0].config['dataset']
            runs = _runs(group, output)
            if str(dataset) not in datasets:
                # Open sequences once for all cells, since opening checks every file.
                datasets[str(dataset)] = [
                    (name, runner.opened_once(open_sequence))
                    for name, open_sequence in runs[0].task.sequences()
                ]
            sequences = datasets[str(dataset)]
            # Label each sequence by all cells that are not finished, then score and report each.
            unfinished = [
                one
                for one in runs
                if not results.is_finished(one.task, one.labeller, one.output, sequences)
            ]
            bar.update(len(runs) - len(unfinished))
            if not unfinished:
                continue
            for one in unfinished:
                runner.open_folder(one.task, one.labeller, one.output, dataset)
            for name, open_sequence in parallel.own_part(sequences):
                bar.set_description(name)
                _label_by_all(unfinished, name, open_sequence)
            for one in unfinished:
                runner.evaluate(
                    dataclasses.replace(one.task, sequences=lambda opened=sequences: opened),
                    one.labeller,
                    one.output,
                    title=one.title,
                    dataset=dataset,
                    skip_bad=one.skip_bad,
                    report_frames=one.report_frames,
                )
                bar.update()


def report_row(cell: Cell, output: pathlib.Path) -> Row:
    """Makes a cell's row of the study's table; without numbers if the cell is not finished."""
    row = {
        'labels': dict(cell.labels),
        'published': dict(cell.published),
        'measured': None,
        'note': cell.missing,
        'marked': False,
        'report': '',
        'sequences': 0,
        'frames': 0,
    }
    path = _metrics_path(cell, output)
    if cell.missing or not path.exists():
        return row
    metrics = results.read_sealed(path)
    return {
        **row,
        'measured': metrics['summary'],
        'marked': cell.is_marked,
        'note': ' '.join(metrics['warnings']),
        'report': f'{cell.folder}/report.html',
        'sequences': len({line['sequence'] for line in metrics['per_sequence']}),
        'frames': metrics['timing']['frames labelled'],
    }


def split_name(dataset: Mapping[str, Any]) -> str:
    """Names a dataset and its split, 'davis/val', or the dataset alone if it has no split."""
    return '/'.join(filter(None, (dataset['kind'], str(dataset.get('split', '')))))


def notes(config: ConfigDict) -> list[str]:
    """Makes the notes of a report that hold for all cells: which data, and how large the frames."""
    dataset = config.dataset
    names = ', '.join(dataset.get('names', ())) or 'all sequences'
    return [f'Reported on {split_name(dataset)} ({names}); {input_note(config)}']


def input_note(config: ConfigDict) -> str:
    """Makes the note of a report about the frames' size."""
    size = config.input
    shown = {'native': 'their own size', 'short_side': f'short side {size.size}'}.get(
        size.resize, f'{size.resize} {size.size}'
    )
    return f'frames: {shown}, unless a row says otherwise.'


@dataclasses.dataclass(frozen=True)
class _Run:
    """A cell and everything that evaluates it."""

    labeller: runner.Labeller
    task: Task
    output: pathlib.Path
    title: str
    skip_bad: bool
    report_frames: int


def _runs(group, output):
    """Makes the runs of cells that use the same features; opens their source once."""
    runs, source = [], None
    for cell in group:
        labeller = runner.Labeller.from_config(cell.config, source)
        source = labeller.source
        runs.append(
            _Run(
                labeller,
                tasks.open_task(cell.config['dataset'], cell.config.get('measure')),
                output / cell.folder,
                cell.config['title'],
                cell.config['skip_bad'],
                cell.config['report_frames'],
            )
        )
    return runs


def _label_by_all(runs, name, open_sequence):
    """Labels a sequence by each run, on all devices; computes its features once."""
    features = KeptFeatures(runs[0].labeller.source)

    def label(device):
        # A run always takes the same device, since each device compiles its own programs.
        for one in runs[device :: jax.local_device_count()]:
            labelling.label_sequences(
                [(name, open_sequence)],
                one.task,
                dataclasses.replace(one.labeller, source=features),
                one.output,
                skip_bad=one.skip_bad,
                device=device,
            )

    devices = range(min(jax.local_device_count(), len(runs)))
    with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
        list(pool.map(label, devices))


def _metrics_path(cell, output):
    return output / cell.folder / 'metrics.json'
