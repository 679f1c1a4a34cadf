"""From a labelled sequence to label maps and scores: what `evaluate.py` and `propagate.py` do.

`Labeller` holds every factor between a video's frames and its label maps; `label_frames` carries a
first label map through frames as they come, in constant memory; `evaluate` does a whole benchmark.
"""

import csv
import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxprop import color, labels
from jaxprop.data import davis as davis_data
from jaxprop.data.inputs import InputConfig, input_size, resize_frame
from jaxprop.data.sequences import DataError, LabelledSequence, davis_palette
from jaxprop.evaluation import davis, report
from jaxprop.files import claim, replacing, write_json
from jaxprop.models import ResNet, estimate_batch_statistics, load_pretrained
from jaxprop.propagation import PropagationConfig, init_context, propagate_step

# Frames from which an untrained network's batch statistics are taken, evenly over the video.
_STATISTICS_FRAMES = 8


@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its variables, and what is known of them.

    `description` goes into every output; `trained` is False for random weights, whose batch
    statistics are estimated on each video itself.
    """

    model: ResNet
    variables: Mapping[str, Any]
    trained: bool
    description: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Labeller:
    """Every factor between frames and label maps.

    Attributes:
      network: the features.
      propagation: the factors of propagation.
      input: the frames' size in the network.
      color: what the network sees, see `jaxprop.color.network_input`.
      encode: how the first label map comes to the feature grid: 'area', 'nearest', 'bilinear'.
      min_max: scale each class to [0, 1] before the largest one is taken.
      decode_at: 'frame': labels are upsampled to the frame, then the largest class is taken;
        'input': they are upsampled to the network's input, and the label map is resized by nearest.
      feature_batch: frames in one call of the network.
    """

    network: Network
    propagation: PropagationConfig
    input: InputConfig = InputConfig()
    color: str = 'rgb'
    encode: str = 'bilinear'
    min_max: bool = False
    decode_at: str = 'frame'
    feature_batch: int = 4

    def __post_init__(self):
        if self.decode_at not in ('frame', 'input'):
            raise ValueError(f"decode_at is {self.decode_at!r}; it must be 'frame' or 'input'")
        if self.feature_batch < 1:
            raise ValueError(f'feature_batch is {self.feature_batch}; it must be at least 1')

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> 'Labeller':
        """From the parts `network`, `input`, `propagation`, `labels` of a config in configs/eval."""
        size = dict(config['input'])
        seen = size.pop('color')
        return cls(
            load_network(**config['network']), PropagationConfig(**config['propagation']),
            InputConfig(**size), seen, **config['labels'], feature_batch=config['feature_batch'])

    def settings(self) -> dict[str, Any]:
        """Every factor by name, as plain values for JSON."""
        return {
            'propagation': dataclasses.asdict(self.propagation),
            'input': {**dataclasses.asdict(self.input), 'color': self.color},
            'labels': {
                'encode': self.encode, 'min_max': self.min_max, 'decode_at': self.decode_at,
            },
            'feature_batch': self.feature_batch,
        }


def load_network(name: str, *, seed: int = 0, **attributes: Any) -> Network:
    """A shipped network or a saved one by its path; 'untrained' for one with random weights.

    Args:
      name: as `load_pretrained` takes it, or 'untrained'.
      seed: of the random weights.
      **attributes: of the `ResNet`, in place of the saved ones.
    """
    if name == 'untrained':
        model = ResNet(**attributes)
        variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 64, 64, 3)))
        return Network(model, variables, False, {'name': name, 'seed': seed, **_attributes(model)})
    model, variables = load_pretrained(name, **attributes)
    return Network(model, variables, True, {'name': str(name), **_attributes(model)})


@functools.partial(jax.jit, static_argnames=('model', 'color_space'))
def extract_features(model, variables, frames, *, color_space):
    """Features `[B, H, W, C]` of uint8 RGB frames `[B, h, w, 3]`."""
    return model.apply(variables, color.network_input(frames, color_space))


_estimate_statistics = jax.jit(
    lambda model, variables, frames, color_space: estimate_batch_statistics(
        model, variables, color.network_input(frames, color_space)
    ),
    static_argnums=(0, 3),
)
# The context is donated: a step writes one frame of it in place.
_propagate_step = jax.jit(propagate_step, static_argnames='config', donate_argnums=0)
_decode = jax.jit(labels.decode, static_argnames=('size', 'min_max', 'decode_size'))


def label_frames(
    frames: Iterable[np.ndarray],
    first_ids: np.ndarray,
    labeller: Labeller,
    variables: Mapping[str, Any] | None = None,
) -> Iterator[np.ndarray]:
    """Carries a label map through a video, one frame at a time.

    Args:
      frames: uint8 RGB `[h, w, 3]`, the first one being that of `first_ids`.
      first_ids: label map `[h, w]`, 0 background; ids need not be contiguous.
      labeller: the factors.
      variables: in place of the network's own.

    Yields:
      For each frame a label map `[h, w]` int32; for the first one `first_ids` itself.

    Raises:
      ValueError: frames of different sizes; features of the first frame that are not finite.
    """
    config, model = labeller.propagation, labeller.network.model
    variables = labeller.network.variables if variables is None else variables
    frame_size = first_ids.shape
    size = input_size(*frame_size, labeller.input)
    values = labels.label_values(first_ids)
    context = None
    for batch in _batches(frames, labeller.feature_batch):
        for frame in batch:
            if frame.shape[:2] != frame_size:
                raise ValueError(f'a frame is {frame.shape[:2]}, the label map {frame_size}')
        inputs = np.stack([resize_frame(frame, size) for frame in batch])
        # A short last batch is filled up, so that one compiled program serves all.
        inputs = np.pad(inputs, [(0, labeller.feature_batch - len(batch))] + [(0, 0)] * 3, 'edge')
        features = extract_features(model, variables, inputs, color_space=labeller.color)
        for feature in features[:len(batch)]:
            if context is None:
                label = labels.encode(first_ids, values, feature.shape[:2], labeller.encode)
                # Not compiled: so it sees features that are not finite, and refuses them.
                context = init_context(feature, label, config=config)
                yield np.asarray(first_ids, np.int32)
                continue
            context, label = _propagate_step(context, feature, config=config)
            decode_size = size if labeller.decode_at == 'input' else None
            yield np.asarray(_decode(
                label, values, size=frame_size, min_max=labeller.min_max, decode_size=decode_size))


def video_variables(
    read_frame: Callable[[int], np.ndarray], num_frames: int, labeller: Labeller
) -> Mapping[str, Any]:
    """The network's variables; if it is untrained, with the batch statistics of this video."""
    network = labeller.network
    if network.trained:
        return network.variables
    chosen = np.unique(np.linspace(0, num_frames - 1, _STATISTICS_FRAMES).round().astype(int))
    frames = [read_frame(int(t)) for t in chosen]
    size = input_size(*frames[0].shape[:2], labeller.input)
    inputs = np.stack([resize_frame(frame, size) for frame in frames])
    return _estimate_statistics(network.model, network.variables, inputs, labeller.color)


def evaluate(
    sequences: Iterable[tuple[str, Callable[[], LabelledSequence]]],
    labeller: Labeller,
    output: pathlib.Path,
    *,
    title: str,
    dataset: Mapping[str, Any],
    skip_bad: bool = False,
    report_frames: int = 40,
) -> dict[str, Any]:
    """Labels and scores every sequence, DAVIS's way, and writes the results.

    A sequence is finished when `output/sequences/NAME.json` exists; a later call with the same
    settings goes on with the others. Everything is written under another name and then renamed.

    Args:
      sequences: names, and functions that open them (raising DataError).
      labeller: the factors.
      output: the folder: `masks/NAME/00000.png` (palette PNGs as DAVIS has them),
        `metrics.json`, `per_sequence.csv`, `report.html`.
      title: of the report.
      dataset: how the sequences were chosen, to be recorded.
      skip_bad: list a sequence that raises DataError with its reason, and go on.
      report_frames: how many frames of a sequence the report shows.

    Returns:
      What `metrics.json` holds.

    Raises:
      DataError: a sequence that cannot be used, unless `skip_bad`.
      ValueError: `output` holds results of other settings.
    """
    sequences = list(sequences)
    settings = {
        'dataset': dict(dataset), 'network': labeller.network.description, **labeller.settings()}
    claim(output / 'settings.json', settings)
    started, skipped, records, previews = time.time(), [], {}, []
    for number, (name, open_sequence) in enumerate(sequences):
        progress = f'{name} ({number + 1}/{len(sequences)})'
        record_path = output / 'sequences' / f'{name}.json'
        try:
            sequence = open_sequence()
            if not record_path.exists():
                _finish_sequence(sequence, labeller, output, record_path, progress)
            records[name] = json.loads(record_path.read_text())
            previews.append(
                _preview(sequence, records[name], output / 'masks' / name, report_frames))
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append({'sequence': name, 'reason': str(error)})
    results = {
        name: _result(record) for name, record in records.items() if record['J'] is not None
    }
    warnings = []
    if skipped:
        warnings.append(f'{len(skipped)} of {len(sequences)} sequences were skipped.')
    unscored = [name for name in records if name not in results]
    if unscored:
        warnings.append(f'Not scored, for lack of annotations: {", ".join(unscored)}.')
    metrics = {
        'title': title,
        'summary': davis.summarize(results) if results else {},
        'per_sequence': davis.sequence_table(results),
        'skipped': skipped,
        'unscored': unscored,
        'network': {'trained': labeller.network.trained, **labeller.network.description},
        'settings': settings,
        'provenance': provenance(),
        'timing': {
            'this run, seconds': round(time.time() - started, 1),
            'labelling, seconds': round(sum(r['seconds'] for r in records.values()), 1),
            'frames labelled': sum(r['num_frames'] - 1 for r in records.values()),
        },
        'warnings': warnings,
    }
    write_json(output / 'metrics.json', metrics)
    network = labeller.network.description['name']
    _write_csv(
        output / 'per_sequence.csv',
        [{**row, 'network': network} for row in metrics['per_sequence']])
    report.write_report(output / 'report.html', metrics, previews)
    return metrics


def provenance() -> dict[str, Any]:
    """Where a number comes from: command, commit, versions, device, date."""
    folder = pathlib.Path(__file__).parent

    def git(*arguments):
        try:
            done = subprocess.run(
                ['git', *arguments], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git('rev-parse', 'HEAD')
    if commit and git('status', '--porcelain', '--untracked-files=no', '--', str(folder)):
        commit += ' with uncommitted changes'
    packages = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow')
    return {
        'command': ' '.join(sys.argv),
        'git commit': commit,
        'date': time.strftime('%Y-%m-%d %H:%M:%S %z'),
        'python': platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }


def _finish_sequence(sequence, labeller, output, record_path, progress):
    """Labels a sequence, then writes its masks and, last, its record."""
    first_ids = sequence.read_label(0)
    palette = davis_palette() if sequence.palette is None else sequence.palette
    partial = output / 'masks' / f'.{sequence.name}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    predictions = []
    started = time.time()
    variables = video_variables(sequence.read_frame, sequence.num_frames, labeller)
    frames = (sequence.read_frame(t) for t in range(sequence.num_frames))
    bar = tqdm(
        label_frames(frames, first_ids, labeller, variables), desc=progress, unit='frame',
        total=sequence.num_frames, dynamic_ncols=True, mininterval=0.5)
    for ids, name in zip(bar, sequence.frame_names):
        predictions.append(ids)
        davis_data.write_mask(partial / f'{name}.png', ids, palette)
    seconds = time.time() - started
    truth = [sequence.read_label(t) for t in range(sequence.num_frames)]
    record = {
        'name': sequence.name, 'num_frames': sequence.num_frames, 'size': sequence.size,
        'seconds': seconds, 'objects': [int(v) for v in labels.label_values(first_ids)[1:]],
        'J': None, 'F': None,
    }
    if all(ids is not None for ids in truth) and sequence.num_frames > 2:
        result = davis.evaluate_sequence(np.stack(predictions), np.stack(truth))
        record.update(J=result.region.tolist(), F=result.boundary.tolist())
    masks = output / 'masks' / sequence.name
    shutil.rmtree(masks, ignore_errors=True)
    partial.rename(masks)
    write_json(record_path, record)


def _result(record):
    """A `SequenceResult` from what was written of it."""
    region, boundary = np.array(record['J']), np.array(record['F'])

    def statistics(values):
        return tuple(davis.sequence_statistics(row[1:-1]) for row in values)

    return davis.SequenceResult(
        tuple(record['objects']), region, boundary, statistics(region), statistics(boundary))


def _preview(sequence, record, masks, num_frames):
    chosen = np.unique(
        np.linspace(0, sequence.num_frames - 1, min(num_frames, sequence.num_frames))
        .round().astype(int)).tolist()
    palette = davis_palette() if sequence.palette is None else sequence.palette
    pictures = [
        report.encode_picture(report.overlay(
            sequence.read_frame(t),
            davis_data.read_mask(masks / f'{sequence.frame_names[t]}.png'), palette))
        for t in chosen
    ]
    shape = (len(record['objects']), record['num_frames'])
    scores = [np.full(shape, np.nan) if record[m] is None else np.array(record[m]) for m in 'JF']
    return report.SequenceReport(
        sequence.name, *scores, tuple(record['objects']), pictures, chosen, palette=palette)


def _write_csv(path, rows):
    with replacing(path) as temporary, temporary.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ['sequence'])
        writer.writeheader()
        writer.writerows(rows)


def _batches(items, size):
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _attributes(model):
    return {
        field.name: getattr(model, field.name) for field in dataclasses.fields(model)
        if field.name not in ('parent', 'name', 'dtype', 'norm_momentum', 'norm_axis_name')
    }
