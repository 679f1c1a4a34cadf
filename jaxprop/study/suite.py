"""Runs a suite: several benchmarks on one network, and the line of their scores that papers print.

A suite's config has `network`, the names of its benchmarks in `suite`, and for each of them a
section of that name, which is an evaluation's config without a network, see configs/suite.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxprop import files, parallel, tasks
from jaxprop.evaluation import results
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.features import NetworkFeatures
from jaxprop.evaluation.sources import open_source
from jaxprop.tasks.task import Task


class Score(NamedTuple):
    """A score of a benchmark.

    Attributes:
      benchmark: its name in the suite.
      name: of the score, as papers print it: 'J&F', 'PCK@.1'.
      value: a fraction; None where nothing was scored.
    """

    benchmark: str
    name: str
    value: float | None


def run(config: ConfigDict, output: pathlib.Path) -> list[Score]:
    """Evaluates a network on each benchmark, and writes their scores in one line.

    A benchmark whose results are finished, with the same settings, weights and files, is not
    evaluated again.

    Args:
      config: of the suite.
      output: the folder for a folder of results for each benchmark, by its name, for `suite.md`,
        and for `suite.json`: the summary of each benchmark.

    Returns:
      The scores, in the order of the benchmarks.

    Raises:
      SettingsError: a benchmark's folder is not given.
      ValueError: a benchmark has a wrong setting, or none is in the suite.
      DataError, ValueError: an error of `runner.evaluate`.
    """
    settings = config.to_dict()
    names = settings['suite']
    unknown = [name for name in names if 'dataset' not in settings.get(name, ())]
    if unknown or not names:
        raise ValueError(
            f'suite is {names}; it must name sections of the config: --config={config.name}:A,B '
            'takes the benchmarks A and B'
        )
    benchmarks = {name: {**settings[name], 'network': settings['network']} for name in names}
    # Open all benchmarks first, so that a wrong setting of the last one is found at once.
    opened = {name: _open_task(name, benchmark) for name, benchmark in benchmarks.items()}
    labellers = _open_labellers(benchmarks)
    scores, summaries = [], {}
    for name, benchmark in benchmarks.items():
        summary = _evaluate(benchmark, opened[name], labellers[name], output / name)
        summaries[name] = summary
        scores += _scores(name, opened[name], summary)
    if parallel.is_writer():
        files.write_json(output / 'suite.json', summaries)
        files.write_text(output / 'suite.md', _markdown(settings, scores))
    return scores


def line(scores: list[Score]) -> tuple[str, str]:
    """Makes the two lines of scores: their names, and their values in percent.

    A name that several benchmarks have is preceded by the benchmark's. '-' stands for no value.
    """
    return ' / '.join(_names(scores)), ' / '.join(_values(scores))


def _names(scores):
    known = [score.name for score in scores]
    return [
        score.name if known.count(score.name) == 1 else f'{score.benchmark} {score.name}'
        for score in scores
    ]


def _values(scores):
    return ['-' if score.value is None else f'{100 * score.value:.1f}' for score in scores]


def _open_task(name, config):
    try:
        return tasks.open_task(config['dataset'], config.get('measure'))
    except tasks.SettingsError as error:
        # The sections of a suite are those of its benchmarks.
        raise tasks.SettingsError(str(error).replace('dataset.', f'{name}.dataset.')) from error


def _open_labellers(benchmarks):
    """The labeller of each benchmark; all have the network of the first one."""
    labellers, network = {}, None
    for name, config in benchmarks.items():
        try:
            source = open_source(config, network)
            labellers[name] = runner.Labeller.from_config(config, source)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        if isinstance(source, NetworkFeatures):
            network = source.network
    return labellers


def _evaluate(config, task, labeller, output) -> Mapping[str, Any]:
    """The summary of a benchmark, which is evaluated if its results are not finished."""
    sequences = [(name, runner.opened_once(opened)) for name, opened in task.sequences()]
    if results.is_finished(task, labeller, output, sequences):
        return results.read_sealed(output / 'metrics.json')['summary']
    metrics = runner.evaluate(
        task,
        labeller,
        output,
        title=config['title'],
        dataset=config['dataset'],
        skip_bad=config['skip_bad'],
        report_frames=config['report_frames'],
        **config['batch'],
    )
    return metrics['summary']


def _scores(name: str, task: Task, summary: Mapping[str, Any]) -> list[Score]:
    """The scores of a benchmark that a terminal shows, a mean of others before these."""
    printed = sorted(task.printed, key=lambda measure: '&' not in measure)
    return [
        Score(name, measure.removesuffix('-Mean').replace('@0.', '@.'), summary.get(measure))
        for measure in printed
    ]


def _markdown(settings, scores):
    """A table of one row, the network's."""
    network = pathlib.PurePath(settings['network']['name']).name
    cells = [
        ['', *_names(scores)],
        ['---'] * (1 + len(scores)),
        [network, *_values(scores)],
    ]
    rows = '\n'.join(f'| {" | ".join(row)} |' for row in cells)
    return f'# {settings["title"]}\n\nIn percent.\n\n{rows}\n'
