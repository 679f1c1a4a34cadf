"""Evaluates the network of a training run while it trains, on sequences chosen for tuning."""

import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from jaxprop import files, parallel, tasks
from jaxprop.data.sequences import NoListError
from jaxprop.evaluation import run
from jaxprop.evaluation.labeller import Labeller
from jaxprop.evaluation.networks import network_of
from jaxprop.evaluation.sources import open_source
from jaxprop.models.network import attribute_names, replace_attributes


def make_evaluate(
    base: ConfigDict,
    settings: ConfigDict,
    output: pathlib.Path,
    *,
    name: str,
    network: nn.Module,
) -> Callable[..., dict[str, Any]]:
    """Makes the function that `jaxprop.training.loop.train` calls to evaluate a network.

    Args:
      base: a config of configs/eval. Its own sequences are those on which results are reported.
      settings: a training config's `evaluation`, see configs/train/base.py: `measure`; `allow_val`;
        `network`, attributes of the network that differ from training; and sections of `base` with
        settings to change in it. A setting that is None or empty changes nothing.
      output: the folder for the latest evaluation's masks, scores and report.
      name: of the run, for reports.
      network: the network to train, to check the settings.

    Returns:
      evaluate(network, variables, color, step) -> 'mean', the measure over all sequences; 'scores',
      all measures over all sequences; 'sequences', the measure of each sequence.

    Raises:
      ValueError: the sequences are among those on which results are reported; the config, the
        network or the benchmark lacks a setting; (from evaluate) there is nothing to score.
      DataError: the sequences cannot be listed or opened.
    """
    # Check the sequences and the settings.
    config = _changed(base, settings)
    task = tasks.open_task(config.dataset, config.get('measure'))
    sequences = list(task.sequences())
    if not settings.allow_val:
        _refuse_reported(base, config, [sequence for sequence, _ in sequences])
    for _, open_sequence in sequences:
        open_sequence()  # An unreadable sequence raises its error now, not hours later.
    measure = settings.measure
    if task.printed and measure not in task.printed:
        raise ValueError(
            f'evaluation.measure is {measure!r}; it must be one of {", ".join(task.printed)}'
        )
    # The attributes that the config has for its own network do not count for this one.
    attributes = {key: value for key, value in settings.network.items() if value is not None}
    if unknown := sorted(set(attributes) - set(attribute_names(network))):
        raise ValueError(
            f'evaluation.network.{unknown[0]} is {attributes[unknown[0]]!r}, but a '
            f'{type(network).__name__} has no such attribute'
        )

    def labeller(network, variables, color, step):
        network = replace_attributes(network, **attributes)
        described = network_of(network, variables, f'{name}, step {step}', color)
        return Labeller.from_config(config, open_source(config, described))

    labeller(network, {}, 'rgb', 0)  # This raises an error for wrong settings.

    def evaluate(network, variables, color, step):
        if parallel.is_writer():
            files.remove(output)  # Remove the evaluation of an earlier step.
        parallel.wait_for_all()
        found = run.evaluate(
            task,
            labeller(network, variables, color, step),
            output,
            title=f'{config.title}: {name}, step {step}',
            dataset=config.dataset.to_dict(),
            report_frames=config.report_frames,
            **config.batch,
        )
        scores = found['summary']
        if scores.get(measure) is None:
            raise ValueError(
                f'evaluation.measure is {measure!r}, but no sequence of evaluation.dataset has it: '
                + ' '.join(found['warnings'])
            )
        columns = task.layout.means.get(measure, (measure,))
        values: dict[str, list[float]] = {}
        for row in found['per_sequence']:
            values.setdefault(row['sequence'], []).extend(row[column] for column in columns)
        return {
            'mean': scores[measure],
            'scores': {key: value for key, value in scores.items() if isinstance(value, float)},
            'sequences': {key: float(np.mean(value)) for key, value in values.items()},
        }

    return evaluate


def _changed(base: ConfigDict, settings: ConfigDict) -> ConfigDict:
    """Copies a config, and changes in it what a run's settings say."""
    config = ConfigDict(base.to_dict())
    for section, values in settings.items():
        if section == 'network' or not isinstance(values, ConfigDict):
            continue
        for key, value in values.items():
            if value is None or value in ('', ()):
                continue
            if key not in config.get(section, {}):
                raise ValueError(
                    f'evaluation.{section}.{key} is {value!r}, but the config {config.name} has no '
                    f'{section}.{key}'
                )
            config[section][key] = value
    return config


def _refuse_reported(base, config, names):
    """Raises ValueError if sequences are among those that the config itself evaluates."""
    dataset = {**base.dataset, **{k: v for k, v in config.dataset.items() if k == 'root'}}
    try:
        reported = _names(dataset, base)
    except NoListError:
        # The folder holds the other split alone, without the list of the reported one. Sequences
        # that this split lists are not reported; take all others as reported.
        reported = set(names) - _names({**config.dataset, 'names': ()}, base)
    if shared := [name for name in names if name in reported]:
        more = f' and {len(shared) - 3} more' if len(shared) > 3 else ''
        raise ValueError(
            f'evaluation: results are reported on {", ".join(shared[:3])}{more}, so nothing may be '
            'tuned on them: name sequences of another split (evaluation.dataset.split and names), '
            'or say --config.evaluation.allow_val'
        )


def _names(dataset, base):
    return {name for name, _ in tasks.open_task(dataset, base.get('measure')).sequences()}
