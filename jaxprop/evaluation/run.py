"""Labels videos and evaluates whole benchmarks, for the commands `propagate` and `evaluate`.

`label_frames` carries a first label map through the frames of one video, in constant memory.
`evaluate` does a whole benchmark: it opens the sequences, calls `labelling` to label them, and
writes the scores and the report.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxprop import files, parallel, tasks
from jaxprop.data.sequences import DataError
from jaxprop.evaluation import labelling, results
from jaxprop.evaluation.features import FeatureSource
from jaxprop.evaluation.labeller import Labeller, open_for_labels, plan_video, start_video
from jaxprop.evaluation.sources import function_source
from jaxprop.evaluation.stream import Stream
from jaxprop.report import page, pictures
from jaxprop.tasks.task import Task, check_names


class _Streamed(NamedTuple):
    """A video of which only the size is known, from its first label map."""

    size: tuple[int, int]
    name: str = 'the video'
    num_frames: int | None = None


def label_frames(
    frames: Iterable[np.ndarray],
    first_ids: np.ndarray,
    labeller: Labeller,
    variables: Mapping[str, Any] | None = None,
    *,
    video: Any = None,
) -> Iterator[np.ndarray]:
    """Carries a label map through a video, one frame at a time.

    Args:
      frames: uint8 RGB `[h, w, 3]`; the first one is the frame of `first_ids`.
      first_ids: label map `[h, w]`, 0 background; ids need not be contiguous.
      labeller: with the features of any source.
      variables: of the network, in place of those that the source takes.
      video: the video of these frames, with name, size, num_frames and read_frame, as
        `jaxprop.data.video_files.open_video` returns it; None if it is not known. A folder of
        features needs it, and an untrained network takes its batch statistics from it.

    Yields:
      For each frame a label map `[h, w]` int32; for the first one `first_ids` itself. If a feature
      map of the source stands for several frames, they have the same label map.

    Raises:
      ValueError: frames have different sizes, or another size than `first_ids`; features of the
        first frame are not finite.
      DataError: the source has no features of the video.
    """
    source, num_read, num_labelled = labeller.source, 0, 0
    about = _Streamed(first_ids.shape) if video is None else video
    if tuple(about.size) != first_ids.shape:
        raise ValueError(f'frames are {tuple(about.size)}, the label map {first_ids.shape}')

    def counted():
        nonlocal num_read
        for frame in frames:
            num_read += 1
            yield frame

    # Prepare the video and the device.
    plan = plan_video(first_ids, about, labeller)
    opened, shown = open_for_labels(about, counted(), labeller)
    spans = itertools.repeat(1) if opened.spans is None else iter(opened.spans)
    variables = opened.variables if variables is None else variables
    started = start_video(about.name, first_ids, plan, labeller, variables)
    stream = Stream(
        source,
        labeller.propagation,
        labeller.target,
        plan.sizes,
        plan.num_labels,
        execution=labeller.execution,
    )
    # Label the frames, a batch at a time.
    failed = None
    while failed is None:
        try:
            batch = list(itertools.islice(opened.arrays, source.batch))
        except BaseException as error:
            # Earlier frames are labelled already: yield them before the error is raised.
            failed, batch = error, []
        if batch:
            seen = None if shown is None else {0: list(itertools.islice(shown, len(batch)))}
            steps = stream.push(0, {0: (started, batch)}, seen)
        else:
            steps = stream.flush(0)
        for step in steps:
            for _, ids in step.fetch():
                count = next(spans)
                if about.num_frames is None:
                    count = min(count, num_read - num_labelled)
                num_labelled += count
                yield from itertools.repeat(ids, count)
        if not batch:
            break
    if failed is not None:
        raise failed


def evaluate_config(
    config: Mapping[str, Any],
    output: str | os.PathLike,
    features: Callable[[np.ndarray], Any] | FeatureSource | None = None,
) -> dict[str, Any]:
    """Evaluates a config's network, or features of your own with the config's other settings.

    >>> from jaxprop.config_files import load_config
    >>> config = load_config('synthetic')
    >>> config.dataset.update(num_sequences=1, num_frames=4)
    >>> def colours(frames):
    ...     means = frames.reshape(len(frames), 30, 8, 40, 8, 3).mean((2, 4))
    ...     return means / 255 - 0.5
    >>> metrics = evaluate_config(config, folder, features=colours)
    >>> 0 < metrics['summary']['J&F-Mean'] < 1
    True

    Args:
      config: of an evaluation, as `jaxprop.config_files.load_config` returns it.
      output: the folder for the results, see `evaluate`.
      features: a function of frames, uint8 `[B, h, w, 3]` -> `[B, H, W, C]`, as `FunctionFeatures`
        takes it, or another source of features; None takes the config's `network`.

    Returns:
      The content of `metrics.json`.

    Raises:
      DataError, ValueError: an error of `evaluate`, or the config's settings are wrong.
    """
    settings = config.to_dict() if isinstance(config, ConfigDict) else config
    task = tasks.open_task(settings['dataset'], settings.get('measure'))
    if callable(features):
        features = function_source(features, settings)
    return evaluate(
        task,
        Labeller.from_config(settings, features),
        pathlib.Path(output),
        title=settings['title'],
        dataset=settings['dataset'],
        skip_bad=settings['skip_bad'],
        report_frames=settings['report_frames'],
        **settings['batch'],
    )


def evaluate(
    task: Task,
    labeller: Labeller,
    output: pathlib.Path,
    *,
    title: str,
    dataset: Mapping[str, Any],
    skip_bad: bool = False,
    report_frames: int = 40,
    videos_per_device: int = 1,
) -> dict[str, Any]:
    """Labels and scores every sequence of a task, and writes the results.

    A sequence is finished when `output/sequences/NAME.json` says so, see `results.Folder`; a later
    call with the same settings goes on with the others. Every file is written under another name
    and then renamed. No other process can write to the folder meanwhile.

    Sequences of one frame size and similar numbers of objects are labelled together, on all devices
    of this process, see `Stream`. Meanwhile threads read frames, and write and score predictions.
    Several processes must share `output`: each labels its part of the sequences, and the first one
    writes the results of all.

    Args:
      task: the sequences, the annotations of their first frames, and the measure.
      labeller: labels the sequences; the task may change its target.
      output: the folder for `masks/NAME/00000.png` (palette PNGs as DAVIS has them) or
        `keypoints/NAME.json`, `metrics.json`, `per_sequence.csv`, `report.html` and, if the truth
        is kept by a server, `submission.zip` for it.
      title: of the report.
      dataset: the settings by which the sequences were chosen, to be recorded.
      skip_bad: whether to go on after a DataError of a sequence, and to list it with the reason.
      report_frames: the number of frames of a sequence that the report shows.
      videos_per_device: the number of videos that a device labels at a time. Masks do not depend on
        it.

    Returns:
      The content of `metrics.json`. The time of a step is divided equally among the videos that
      advanced in it; a sequence's seconds are the sum of its parts.

    Raises:
      DataError: a sequence cannot be used, unless `skip_bad`.
      ValueError: `output` holds results of other settings, or another process writes there;
        features are not finite; `videos_per_device` or `report_frames` is below 1.
    """
    if videos_per_device < 1:
        raise ValueError(f'videos_per_device is {videos_per_device}; it must be at least 1')
    if report_frames < 1:
        raise ValueError(f'report_frames is {report_frames}; it must be at least 1')
    with writing_to(output):
        return _evaluate(
            task, labeller, output, title, dataset, skip_bad, report_frames, videos_per_device
        )


def _evaluate(task, labeller, output, title, dataset, skip_bad, report_frames, videos_per_device):
    """Does the work of `evaluate` in a folder to which no other run can write."""
    # Open each sequence once, for labelling and for the report, since opening checks every file.
    sequences = [(name, opened_once(open_sequence)) for name, open_sequence in task.sequences()]
    check_names([name for name, _ in sequences])
    folder = open_folder(task, labeller, output, dataset)
    settings = {'dataset': dict(dataset), **results.made_by(task, labeller)}

    # Label the sequences that are not finished.
    started = time.time()
    waits = labelling.label_sequences(
        parallel.own_part(sequences),
        task,
        labeller,
        output,
        skip_bad=skip_bad,
        videos_per_device=videos_per_device,
    )
    parallel.wait_for_all()

    # Read all records, also those of other processes, and draw the report's pictures.
    def read_and_draw(name, open_sequence):
        """A sequence's record, its view, and the reason where there is none; for a thread."""
        try:
            if (reason := folder.skipped(name)) is not None:
                raise DataError(reason)
            sequence = open_sequence()
            record = folder.record(name, sequence.identity())
            if record is None:
                raise DataError(f'{name}: its files have changed while it was labelled')
            if not parallel.is_writer():
                return record, None, None
            chosen = evenly(sequence.num_frames, report_frames)
            view = task.shown(folder.predictions(name), sequence, record, chosen)
            return record, pictures.draw_view(view), None
        except DataError as error:
            if not skip_bad:
                raise
            return None, None, str(error)

    records, previews, skipped = {}, [], []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = pool.map(lambda pair: read_and_draw(*pair), sequences)
        for (name, _), (record, view, reason) in zip(sequences, found):
            if record is None:
                skipped.append({'sequence': name, 'reason': reason})
            else:
                records[name] = record
                previews.append(view)

    # Sum up.
    scored = {name: record for name, record in records.items() if task.is_scored(record)}
    warnings = labeller.warnings
    if skipped:
        warnings.append(f'{len(skipped)} of {len(sequences)} sequences were skipped.')
    unscored = [name for name in records if name not in scored]
    reasons = {name: task.unscored(records[name]) for name in unscored}
    for reason in sorted(set(reasons.values())):
        names = [name for name in unscored if reasons[name] == reason]
        warnings.append(f'Not scored, {reason}: {", ".join(names)}.')
    warnings += [f'{note}.' for record in records.values() for note in record.get('notes', ())]
    metrics = {
        'title': title,
        **(task.results(scored) if scored else {'summary': {}, 'per_sequence': []}),
        'skipped': skipped,
        'unscored': unscored,
        'network': {'trained': labeller.source.trained, **labeller.source.description},
        # These two are recorded, but a run may go on with others.
        'settings': {
            **settings,
            'execution': dataclasses.asdict(labeller.execution),
            'videos_per_device': videos_per_device,
        },
        'made_from': {
            'settings': folder.settings_digest,
            'data': results.identities(sequences),
        },
        'provenance': results.provenance(),
        'timing': {
            'this run, seconds': round(time.time() - started, 1),
            'labelling, seconds': round(sum(r['seconds'] for r in records.values()), 1),
            'frames labelled': sum(r['num_frames'] - 1 for r in records.values()),
            **{f'waiting for {what}, seconds': round(waits[what], 1) for what in sorted(waits)},
        },
        'warnings': warnings,
    }
    private = *map(str, dataset.values()), labeller.source.description['name'], str(output)
    metrics = results.shown(metrics, private)
    if parallel.is_writer():
        _write_rows(output / 'per_sequence.csv', metrics)
        page.write_report(output / 'report.html', metrics, previews, task.layout)
        if task.server is not None:
            folder.write_submission(records)
        # This file comes last: if it is there, all others are.
        results.write_sealed(output / 'metrics.json', metrics)
    parallel.wait_for_all()
    return metrics


def writing_to(output: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Locks a folder, so that no other run writes to it; a run's first process holds the lock."""
    return files.locked(output) if parallel.is_writer() else contextlib.nullcontext()


def _write_rows(path, metrics):
    """Writes the rows of 'per_sequence' as CSV, each with the network's name."""
    rows = [{**row, 'network': metrics['network']['name']} for row in metrics['per_sequence']]
    columns = list(rows[0]) if rows else ['sequence']
    files.write_csv(path, [columns, *([row.get(name) for name in columns] for row in rows)])


def open_folder(
    task: Task, labeller: Labeller, output: pathlib.Path, dataset: Mapping[str, Any]
) -> results.Folder:
    """Makes `output` the folder of an evaluation, or opens it to go on, see `evaluate`.

    Raises:
      ValueError: the folder holds results of other settings, or files that are no results.
    """
    made = results.made_by(task, labeller)
    folder = results.Folder(output, task, made)
    files.claim(
        output / 'settings.json',
        {'dataset': dict(dataset), **made, 'command': results.command()},
        changeable=('command',),
        write=parallel.is_writer(),
        owned=results.OWNED,
        are_ours=folder.are_ours,
    )
    if parallel.is_writer():
        files.remove_partial(output, results.WRITTEN)
    parallel.wait_for_all()
    return folder


def opened_once(open_sequence: Callable[[], Any]) -> Callable[[], Any]:
    """Wraps a function so that it runs once: later calls return or raise the same."""
    lock, opened = threading.Lock(), []

    def once():
        with lock:
            if not opened:
                try:
                    opened.append(open_sequence())
                except DataError as error:
                    opened.append(error)
        if isinstance(opened[0], DataError):
            raise opened[0]
        return opened[0]

    return once


def evenly(num_frames: int, count: int) -> list[int]:
    """Chooses at most `count` numbers of frames, evenly, from the first to the last."""
    chosen = np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int)
    return np.unique(chosen).tolist()
