"""The benchmarks: what is labelled, how predictions are written and scored, what a report shows.

A `Benchmark` is all that `runner.evaluate` knows of one. What it returns for a sequence is written
by `jaxprop.files.write_json`, and its methods work on what was read from there again: None for NaN,
'Infinity' for infinity.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxprop import labels
from jaxprop.data import image_files
from jaxprop.data.sequences import davis_palette
from jaxprop.data.vip import CLASS_NAMES
from jaxprop.evaluation.targets import KeypointCodec, MaskCodec
from jaxprop.files import write_json
from jaxprop.metrics import davis, parts, pck
from jaxprop.report import page, pictures

Record = dict[str, Any]


class Benchmark:
    """What the benchmarks have in common, and what each has to say.

    Attributes:
      folder, suffix: a sequence's predictions are at FOLDER/NAME + SUFFIX in the output.
      printed: the measures of a row that a terminal shows.
    """

    folder, suffix = 'masks', ''
    printed: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """How it is scored, to be recorded: its attributes."""
        return {'measure': dataclasses.asdict(self)}

    def codec(self, codec: MaskCodec | KeypointCodec) -> MaskCodec | KeypointCodec:
        """What labels stand for here: the labeller's codec, or a variant of it."""
        return codec

    def first(self, sequence: Any) -> np.ndarray:
        """What the first frame is labelled with, as the codec has it. Raises DataError."""
        return sequence.read_label(0)

    def objects(self, first: np.ndarray) -> list[int]:
        """What is followed by its id, if that is scored."""
        return []

    def take(
        self, path: pathlib.Path, sequence: Any, objects: list[int], index: int, prediction: Any
    ) -> Any:
        """Writes the prediction of a frame, if it has a file, and scores it. Raises DataError.

        Called in threads, and not in the order of frames.
        """
        raise NotImplementedError

    def record(
        self, path: pathlib.Path, sequence: Any, objects: list[int], taken: list[Any]
    ) -> Record:
        """What is kept of a sequence, from what `take` gave for each frame; writes what is left."""
        raise NotImplementedError

    def is_scored(self, record: Record) -> bool:
        """False: for lack of annotations the sequence counts in no number."""
        return True

    def results(self, records: Mapping[str, Record]) -> dict[str, Any]:
        """'summary', the benchmark's numbers; 'per_sequence' and further tables, lists of rows.

        Args:
          records: by the sequences' names, one or more.
        """
        raise NotImplementedError

    def shown(
        self, path: pathlib.Path, sequence: Any, record: Record, chosen: list[int]
    ) -> page.SequenceReport | page.SequenceView:
        """What the report shows of a sequence, with pictures of the chosen frames."""
        raise NotImplementedError


class Objects(Benchmark):
    """DAVIS: region similarity J and boundary accuracy F of objects."""

    printed = ('J-Mean', 'F-Mean', 'J&F-Mean')

    def settings(self):
        return {}

    def objects(self, first):
        return [int(value) for value in labels.label_values(first)[1:]]

    def take(self, path, sequence, objects, index, prediction):
        _write_mask(path, sequence, index, prediction)
        truth = sequence.read_label(index)
        if truth is None:
            return None
        masks = [(prediction == value, truth == value) for value in objects]
        return (
            [float(davis.region_similarity(*pair)) for pair in masks],
            [float(davis.boundary_accuracy(*pair)) for pair in masks],
        )

    def record(self, path, sequence, objects, taken):
        record = {'objects': objects, 'J': None, 'F': None}
        if None not in taken and sequence.num_frames > 2:
            region, boundary = (np.transpose(scores).tolist() for scores in zip(*taken))
            record.update(J=region, F=boundary)
        return record

    def is_scored(self, record):
        return record['J'] is not None

    def results(self, records):
        results = {name: _davis_result(record) for name, record in records.items()}
        return {
            'summary': davis.summarize(results),
            'per_sequence': davis.sequence_table(results),
        }

    def shown(self, path, sequence, record, chosen):
        shape = (len(record['objects']), record['num_frames'])
        scores = [
            np.full(shape, np.nan) if record[m] is None else np.array(record[m]) for m in 'JF'
        ]
        return page.SequenceReport(
            sequence.name,
            *scores,
            tuple(record['objects']),
            _overlays(path, sequence, chosen),
            chosen,
            palette=sequence.palette,
        )


@dataclasses.dataclass(frozen=True)
class Parts(Benchmark):
    """VIP's parts: mean intersection over union of classes.

    Attributes:
      count_first: count frame 0, whose labels were given. Both are reported.
    """

    count_first: bool = True
    printed = ('mIoU',)

    def take(self, path, sequence, objects, index, prediction):
        # Values that are no class, 255, may be in the first frame.
        prediction = np.where(prediction < parts.NUM_CLASSES, prediction, 0)
        _write_mask(path, sequence, index, prediction)
        return parts.confusion_matrix(prediction, sequence.read_label(index)).tolist()

    def record(self, path, sequence, objects, taken):
        return {'confusion': taken}

    def results(self, records):
        results = {name: np.array(record['confusion']) for name, record in records.items()}
        summary = parts.summarize_parts(results, self.count_first)
        other = parts.summarize_parts(results, not self.count_first)
        return {
            'summary': {
                'mIoU': _number(summary['mIoU']),
                f'mIoU, {_frame_0(not self.count_first)}': _number(other['mIoU']),
            },
            'per_sequence': [
                {'sequence': row['video'], 'mIoU': _number(row['mIoU'])}
                for row in parts.part_table(results, self.count_first)
            ],
            'per_class': [
                {'class': name, 'IoU': iou}
                for name, iou in zip(CLASS_NAMES, summary['IoU'])
                if not np.isnan(iou)
            ],
        }

    def shown(self, path, sequence, record, chosen):
        iou = np.array([parts.class_iou(np.array(frame)) for frame in record['confusion']]).T
        return _view_of_classes(path, sequence, iou, 'of each part', chosen)


@dataclasses.dataclass(frozen=True)
class Instances(Benchmark):
    """VIP's instances, one part of one person each: AP^r_vol.

    Each has the class of its id in the first frame, and for its score the mean share of its label
    over its pixels; 1 in the first frame, where it was given.

    Attributes:
      count_first: count frame 0. Both are reported.
    """

    count_first: bool = True
    printed = ('AP^r_vol',)

    def codec(self, codec):
        return dataclasses.replace(codec, keep_soft=True)

    def take(self, path, sequence, objects, index, prediction):
        ids, soft, values = prediction
        _write_mask(path, sequence, index, ids)
        if soft is None:
            scores = dict.fromkeys(np.unique(ids).tolist(), 1.0)
        else:
            count = 1 + np.count_nonzero(values)  # Without the labels that fill up.
            scores = parts.instance_scores(soft[..., :count], values[:count], ids)
        matches = parts.match_instances(
            ids, sequence.classes[0], scores, sequence.read_label(index), sequence.classes[index]
        )
        return {name: values.tolist() for name, values in dataclasses.asdict(matches).items()}

    def record(self, path, sequence, objects, taken):
        return {'matches': taken}

    def results(self, records):
        matches = {name: _matches(record) for name, record in records.items()}

        def summary(names, count_first):
            frames = [frame for name in names for frame in matches[name][not count_first :]]
            return parts.summarize_instances(frames) if frames else {'AP^r_vol': None}

        whole = summary(matches, self.count_first)
        other = summary(matches, not self.count_first)
        return {
            'summary': {
                'AP^r_vol': _number(whole['AP^r_vol']),
                f'AP^r_vol, {_frame_0(not self.count_first)}': _number(other['AP^r_vol']),
            },
            'per_sequence': [
                {
                    'sequence': name,
                    'AP^r_vol': _number(summary([name], self.count_first)['AP^r_vol']),
                }
                for name in matches
            ],
            'per_class': [
                {'class': name, 'AP^r_vol': precision}
                for name, precision in zip(CLASS_NAMES[1:], whole['AP^r_vol by class'])
                if not np.isnan(precision)
            ],
            'per_threshold': [
                {'overlap': f'{threshold:g}', 'AP^r': _number(precision)}
                for threshold, precision in zip(parts.THRESHOLDS, whole['AP^r'])
            ],
        }

    def shown(self, path, sequence, record, chosen):
        matches = _matches(record)
        overlap = np.array(
            [
                [
                    np.nan,
                    *(
                        np.mean(frame.overlaps[frame.classes == index])
                        if index in frame.classes
                        else np.nan
                        for index in range(1, parts.NUM_CLASSES)
                    ),
                ]
                for frame in matches
            ]
        ).T
        return _view_of_classes(
            path, sequence, overlap, 'mean overlap of the instances of each part', chosen
        )


@dataclasses.dataclass(frozen=True)
class Keypoints(Benchmark):
    """JHMDB and BADJA: PCK of joints, within 0.1 and 0.2 of the subject's size.

    Attributes:
      lost: 'skip' or 'wrong': what becomes of joints that are lost. Both are reported.
      count_first: score frame 0, whose joints were given.
      average: over 'joints' (JHMDB) or 'sequences' (BADJA), see `jhmdb.summarize`.
    """

    lost: str = 'skip'
    count_first: bool = False
    average: str = 'joints'
    folder, suffix = 'keypoints', '.json'
    printed = ('PCK@0.1', 'PCK@0.2')

    def __post_init__(self):
        for name, known in (('lost', pck.LOST), ('average', pck.AVERAGES)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is {getattr(self, name)!r}; it must be one of {known}')

    def first(self, sequence):
        return sequence.positions[0]

    def take(self, path, sequence, objects, index, prediction):
        return prediction.tolist()

    def record(self, path, sequence, objects, taken):
        positions = np.array(taken, np.float64)
        write_json(
            path,
            {
                'joint_names': sequence.joint_names,
                'frame_names': sequence.frame_names,
                'positions': [
                    [None if np.isnan(joint).any() else joint.tolist() for joint in frame]
                    for frame in positions
                ],
            },
        )
        return {
            'joint_names': sequence.joint_names,
            'distances': {
                lost: pck.normalized_distances(
                    positions, sequence.positions, sequence.scales, lost, count_first=True
                ).tolist()
                for lost in pck.LOST
            },
        }

    def is_scored(self, record):
        return not np.isnan(self._distances(record, self.lost)).all()

    def results(self, records):
        results = {name: self._distances(record, self.lost) for name, record in records.items()}
        other = next(lost for lost in pck.LOST if lost != self.lost)
        others = {name: self._distances(record, other) for name, record in records.items()}
        meaning = {'skip': 'lost joints left out', 'wrong': 'lost joints wrong'}[other]
        joint_names = next(iter(records.values()))['joint_names']
        return {
            'summary': {
                **pck.summarize(results, average=self.average),
                **{
                    f'{name}, {meaning}': _number(value)
                    for name, value in pck.summarize(others, average=self.average).items()
                },
            },
            'per_sequence': pck.sequence_table(results),
            'per_joint': pck.joint_table(results, joint_names),
        }

    def shown(self, path, sequence, record, chosen):
        found = [
            [(np.nan, np.nan) if joint is None else joint for joint in frame]
            for frame in json.loads(path.read_text())['positions']
        ]
        colours = pictures.distinct_colours(len(sequence.joint_names))
        drawn = [
            pictures.encode_picture(
                pictures.draw_joints(
                    sequence.read_frame(t), np.array(found[t]), sequence.positions[t], colours
                )
            )
            for t in chosen
        ]
        distances = self._distances(record, self.lost)
        measures = tuple(
            page.Measure(
                f'PCK@{threshold:g}',
                f'joints within {threshold:g}',
                _joined([_share(frame, threshold) for frame in distances])[None],
                (('all joints', page.ACCENT),),
            )
            for threshold in pck.THRESHOLDS
        )
        there = ~np.isnan(sequence.positions[0]).any(axis=1)
        legend = tuple(
            (name, colour)
            for name, colour, seen in zip(sequence.joint_names, colours, there)
            if seen
        )
        return page.SequenceView(
            sequence.name, sequence.num_frames, legend, measures, drawn, chosen
        )

    def _distances(self, record, lost):
        distances = np.array(record['distances'][lost], np.float64)
        if not self.count_first:
            distances[0] = np.nan
        return distances


def _write_mask(path, sequence, index, ids):
    image_files.write_mask(path / f'{sequence.frame_names[index]}.png', ids, sequence.palette)


def _overlays(path, sequence, chosen):
    palette = davis_palette() if sequence.palette is None else sequence.palette
    return [
        pictures.encode_picture(
            pictures.overlay(
                sequence.read_frame(t),
                image_files.read_mask(path / f'{sequence.frame_names[t]}.png'),
                palette,
            )
        )
        for t in chosen
    ]


def _view_of_classes(path, sequence, values, meaning, chosen):
    """Values `[C, T]` of VIP's classes over time, beside the masks."""
    seen = [index for index in range(1, len(values)) if not np.isnan(values[index]).all()]
    palette = davis_palette()
    legend = tuple((CLASS_NAMES[index], tuple(palette[index].tolist())) for index in seen)
    return page.SequenceView(
        sequence.name,
        values.shape[1],
        legend,
        (page.Measure('IoU', meaning, values[seen], legend),),
        _overlays(path, sequence, chosen),
        chosen,
    )


def _davis_result(record):
    """A `SequenceResult` from what was written of it."""
    region, boundary = np.array(record['J']), np.array(record['F'])

    def statistics(values):
        return tuple(davis.sequence_statistics(row[1:-1]) for row in values)

    return davis.SequenceResult(
        tuple(record['objects']), region, boundary, statistics(region), statistics(boundary)
    )


def _matches(record):
    return [
        parts.Matches(
            **{
                name: np.array(values, float if name in ('scores', 'overlaps') else int)
                for name, values in frame.items()
            }
        )
        for frame in record['matches']
    ]


def _share(distances, threshold):
    """Of a frame: the share of its scored joints that lie within the threshold."""
    return float(pck.pck(distances[:, None], threshold)[0])


def _joined(values):
    """One value a frame, with straight lines between those frames that are scored."""
    values = np.array(values)
    scored = np.flatnonzero(~np.isnan(values))
    if not scored.size:
        return values
    return np.interp(np.arange(values.size), scored, values[scored], left=np.nan, right=np.nan)


def _frame_0(counted):
    return 'with frame 0' if counted else 'without frame 0'


def _number(value):
    """None in place of NaN, which JSON does not have."""
    return None if value is None or np.isnan(value) else float(value)
