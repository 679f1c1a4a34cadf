"""Joints, as JHMDB and BADJA score them: PCK within 0.1 and 0.2 of the subject's size."""

import dataclasses
import json

import numpy as np

from jaxprop.files import write_json
from jaxprop.metrics import pck
from jaxprop.tasks.task import (
    ACCENT,
    JointPicture,
    Measure,
    SequenceView,
    Start,
    Task,
    distinct_colours,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Joints(Task):
    """PCK of joints. Predictions are one JSON file for each sequence.

    Attributes:
      lost: how lost joints count: 'skip', not at all, or 'wrong'. Reports show the other one, too.
      count_first: score frame 0, whose joints were given.
      average: over 'joints' (JHMDB) or 'sequences' (BADJA), see `pck.summarize`.
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

    def start(self, sequence):
        return Start(sequence, sequence.positions[0])

    def take(self, path, start, index, prediction):
        return prediction.tolist()

    def record(self, path, start, taken):
        sequence, positions = start.sequence, np.array(taken, np.float64)
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
        record = {
            'joint_names': sequence.joint_names,
            'distances': {
                lost: pck.normalized_distances(
                    positions, sequence.positions, sequence.scales, lost, count_first=True
                ).tolist()
                for lost in pck.LOST
            },
        }
        if reason := self.unscored(record):
            record['unscored'] = reason
        return record

    def unscored(self, record):
        if not np.isnan(self._distances(record, self.lost)).all():
            return ''
        if len(record['distances'][self.lost]) < 2 and not self.count_first:
            return 'with fewer than 2 frames'
        if not np.isnan(self._distances(record, 'wrong')).all():
            return 'with all joints lost'
        return 'for lack of annotations'

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
                    f'{name}, {meaning}': None if np.isnan(value) else value
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
        colours = distinct_colours(len(sequence.joint_names))
        frames = (
            JointPicture(sequence.read_frame(t), np.array(found[t]), sequence.positions[t], colours)
            for t in chosen
        )
        distances = self._distances(record, self.lost)
        measures = tuple(
            Measure(
                f'PCK@{threshold:g}',
                f'joints within {threshold:g}',
                _joined([_share(frame, threshold) for frame in distances])[None],
                (('all joints', ACCENT),),
            )
            for threshold in pck.THRESHOLDS
        )
        there = ~np.isnan(sequence.positions[0]).any(axis=1)
        legend = tuple(
            (name, colour)
            for name, colour, seen in zip(sequence.joint_names, colours, there)
            if seen
        )
        return SequenceView(sequence.name, sequence.num_frames, legend, measures, frames, chosen)

    def _distances(self, record, lost):
        distances = np.array(record['distances'][lost], np.float64)
        if not self.count_first:
            distances[0] = np.nan
        return distances


def _share(distances, threshold):
    """The share of a frame's scored joints that lie within the threshold."""
    return float(pck.pck(distances[:, None], threshold)[0])


def _joined(values):
    """Fills frames that are not scored by straight lines between those that are."""
    values = np.array(values)
    scored = np.flatnonzero(~np.isnan(values))
    if not scored.size:
        return values
    return np.interp(np.arange(values.size), scored, values[scored], left=np.nan, right=np.nan)
