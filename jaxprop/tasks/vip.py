"""VIP: the parts of people, or each person's parts as instances."""

import dataclasses
import functools

import numpy as np

from jaxprop import labels
from jaxprop.data.sequences import davis_palette
from jaxprop.data.vip import CLASS_NAMES, vip_names, vip_sequence
from jaxprop.metrics import parts
from jaxprop.tasks import masks
from jaxprop.tasks.task import Measure, SequenceView, Task, check_folders, named_sequences


def open_task(measure, *, root, split='val', annotation='category', names=()):
    """Opens VIP: the videos of a split, or `names`; see `jaxprop.data.vip`."""
    check_folders(root=(root, 'Images, Annotations and lists: VIP_Fine'))
    opened = functools.partial(vip_sequence, root, annotation=annotation)

    def sequences():
        return named_sequences(names or vip_names(root, split), opened)

    return (Instances if annotation == 'instance' else Parts)(sequences, **measure)


@dataclasses.dataclass(frozen=True, eq=False)
class Parts(Task):
    """VIP's parts: mean intersection over union of classes.

    Attributes:
      count_first: count frame 0, whose labels were given. Both are reported.
    """

    count_first: bool = True
    printed = ('mIoU',)

    def take(self, path, start, index, prediction):
        # The first frame may hold 255, which is no class.
        prediction = np.where(prediction < parts.NUM_CLASSES, prediction, 0)
        masks.write(path, start.sequence, index, prediction)
        return parts.confusion_matrix(prediction, start.label(index)).tolist()

    def record(self, path, start, taken):
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
        return _view(path, sequence, iou, 'of each part', chosen)


@dataclasses.dataclass(frozen=True, eq=False)
class Instances(Task):
    """VIP's instances, one part of one person each: AP^r_vol.

    An instance has the class of its id in the first frame. Its score is the mean share of its label
    over its pixels, and 1 in the first frame, whose labels were given.

    Attributes:
      count_first: count frame 0. Both are reported.
    """

    count_first: bool = True
    printed = ('AP^r_vol',)

    def target(self, target):
        return dataclasses.replace(target, keep_soft=True)

    def take(self, path, start, index, prediction):
        sequence, (ids, soft, values) = start.sequence, prediction
        masks.write(path, sequence, index, ids)
        if soft is None:
            scores = dict.fromkeys(np.unique(ids).tolist(), 1.0)
        else:
            count = 1 + np.count_nonzero(values)  # Leave out the labels of padding.
            resizes = [
                labels.resize_matrix(*sides, 'bilinear') for sides in zip(soft.shape[:2], ids.shape)
            ]
            scores = parts.instance_scores(soft[..., :count], values[:count], ids, *resizes)
        matches = parts.match_instances(
            ids, sequence.classes[0], scores, start.label(index), sequence.classes[index]
        )
        return {name: values.tolist() for name, values in dataclasses.asdict(matches).items()}

    def record(self, path, start, taken):
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
        overlaps = np.array([_mean_overlaps(frame) for frame in _matches(record)]).T
        meaning = 'mean overlap of the instances of each part'
        return _view(path, sequence, overlaps, meaning, chosen)


def _view(path, sequence, values, meaning, chosen):
    """Describes a sequence for a report: values `[C, T]` of classes over time, and masks."""
    seen = [index for index in range(1, len(values)) if not np.isnan(values[index]).all()]
    palette = davis_palette()
    legend = tuple((CLASS_NAMES[index], tuple(palette[index].tolist())) for index in seen)
    return SequenceView(
        sequence.name,
        values.shape[1],
        legend,
        (Measure('IoU', meaning, values[seen], legend),),
        masks.pictures(path, sequence, chosen),
        chosen,
    )


def _mean_overlaps(frame):
    """`[C]`: the mean overlap of the instances of each class in a frame, NaN without any."""
    overlaps = [frame.overlaps[frame.classes == index] for index in range(parts.NUM_CLASSES)]
    return [np.nan, *(np.mean(own) if own.size else np.nan for own in overlaps[1:])]


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


def _frame_0(counted):
    return 'with frame 0' if counted else 'without frame 0'


def _number(value):
    """None in place of NaN, which JSON does not have."""
    return None if value is None or np.isnan(value) else float(value)
