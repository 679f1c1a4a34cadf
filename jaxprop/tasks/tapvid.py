"""TAP-Vid: any points in videos, scored by their places and by whether they are seen.

A video is evaluated in passes. A pass begins at a frame in which points are given, follows these
points forwards to the video's end or backwards to its beginning, and is a sequence of its own,
called VIDEO/00012 or VIDEO/00012-back.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxprop.data.sequences import DataError
from jaxprop.data.tapvid import PointVideo, tapvid_videos
from jaxprop.files import write_json
from jaxprop.metrics import points
from jaxprop.tasks.task import (
    ACCENT,
    JointPicture,
    Layout,
    Measure,
    SequenceView,
    Start,
    Task,
    Tile,
    check_folders,
    distinct_colours,
    named_sequences,
)

_SIZE = 256  # Pixels of a frame's side, in which distances are measured.
# The names of the three scores that papers print, and of the metric's values.
SCORES = {
    'AJ': 'average_jaccard',
    'delta avg': 'average_pts_within_thresh',
    'OA': 'occlusion_accuracy',
}


def open_task(measure, *, root, query_mode='first', names=()):
    """Opens TAP-Vid: the videos of a file or folder, or `names`; see `jaxprop.data.tapvid`."""
    check_folders(root=(root, 'NAME.pkl, or the file itself'))
    if query_mode not in points.QUERY_MODES:
        raise ValueError(
            f'dataset.query_mode is {query_mode!r}; it must be one of {points.QUERY_MODES}'
        )

    def sequences():
        videos = tapvid_videos(root, (_SIZE, _SIZE))
        for name in names:
            if name not in videos:
                raise DataError(f'{root}: has no video {name!r}')
        passes: dict[str, Callable[[], PointPass]] = {}
        for name in names or videos:
            passes.update(_passes(name, videos[name], query_mode))
        return named_sequences(passes, lambda name: passes[name]())

    return Points(sequences, query_mode=query_mode, **measure)


@dataclasses.dataclass(frozen=True, eq=False)
class PointPass:
    """A pass over a video, as a sequence: its frame 0 is the frame in which the points are given.

    Attributes:
      name, num_frames, size, read_frame, frame_names, identity: as of a
        `jaxprop.data.sequences.KeypointSequence`.
      video: the whole video.
      frames: the number of each frame in the video.
      numbers: of the J points among those of the video.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    read_frame: Callable[[int], np.ndarray]
    frame_names: tuple[str, ...]
    identity: Callable[[], str]
    video: PointVideo
    frames: range
    numbers: np.ndarray

    @property
    def tracks(self) -> np.ndarray:
        """The true places in the frames of the pass, `[J, T, 2]`, as the metric takes them."""
        return self.video.points[self.numbers][:, list(self.frames)]

    @property
    def occluded(self) -> np.ndarray:
        """The true occlusion in the frames of the pass, `[J, T]`."""
        return self.video.occluded[self.numbers][:, list(self.frames)]


def _passes(name, open_video, query_mode):
    """The passes of a video by their names, each with a function that opens it."""
    try:
        video = open_video()
    except DataError:
        return {name: open_video}  # It raises again where sequences are opened and may be skipped.
    passes = {}
    queries = video.queries(query_mode)
    for start in np.unique(queries[:, 1]).astype(int).tolist():
        numbers = queries[queries[:, 1] == start, 0].astype(int)
        ways = {f'{start:05d}': range(start, video.num_frames)}
        if query_mode == 'strided':
            ways[f'{start:05d}-back'] = range(start, -1, -1)
        for way, frames in ways.items():
            if len(frames) > 1:
                made = _make_pass(f'{name}/{way}', video, frames, numbers)
                passes[made.name] = lambda made=made: made
    return passes


def _make_pass(name, video, frames, numbers):
    return PointPass(
        name=name,
        num_frames=len(frames),
        size=video.size,
        read_frame=lambda index: video.read_frame(frames[index]),
        frame_names=tuple(f'{frame:05d}' for frame in frames),
        identity=video.identity,
        video=video,
        frames=frames,
        numbers=numbers,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Points(Task):
    """Average Jaccard (AJ), position accuracy (delta avg) and occlusion accuracy (OA) of points.

    A point counts as occluded where it is lost, or where the place that looks like it in the frame
    in which it was given lies too far from where it was given. A lost point stays where it was.

    Attributes:
      query_mode: 'first': each point is given where it is first seen, and followed from there;
        'strided': it is given in every fifth frame, and followed forwards and backwards.
      seen_within: the largest distance of a point that counts as seen, in pixels of 256.
    """

    query_mode: str = 'first'
    seen_within: float = 32.0

    folder, suffix = 'keypoints', '.json'
    printed = tuple(SCORES)
    layout = Layout(
        tiles=(
            Tile('AJ', 'average Jaccard', 'AJ'),
            Tile('delta avg', 'points within 1, 2, 4, 8 and 16 pixels', 'delta avg'),
            Tile('OA', 'occlusion accuracy', 'OA'),
        ),
        title=('AJ', 'AJ'),
    )

    def __post_init__(self):
        if not self.seen_within > 0:
            raise ValueError(f'seen_within is {self.seen_within}; it must be above 0')

    def target(self, target):
        return dataclasses.replace(target, track_back=True)

    def start(self, sequence):
        return Start(sequence, sequence.tracks[:, 0] - 0.5)  # From corners to centres of pixels.

    def take(self, path, start, index, prediction):
        places, back = (np.asarray(part)[: len(start.first)] for part in prediction)
        # A distance that is NaN is that of a lost point.
        return (places + 0.5).tolist(), (~(back <= self.seen_within)).tolist()

    def record(self, path, start, taken):
        sequence = start.sequence
        places = np.array([found for found, _ in taken], np.float64)
        for index in range(1, len(places)):
            places[index] = np.where(np.isnan(places[index]), places[index - 1], places[index])
        record = {
            'video': sequence.video.name,
            'frames': list(sequence.frames),
            'points': sequence.numbers.tolist(),
            'tracks': places.swapaxes(0, 1).tolist(),
            'occluded': np.array([lost for _, lost in taken]).T.tolist(),
        }
        write_json(path, record)
        truth = {
            'true tracks': sequence.tracks.tolist(),
            'true occluded': sequence.occluded.tolist(),
        }
        return {**record, **truth}

    def results(self, records):
        by_video = {}
        for record in records.values():
            by_video.setdefault(record['video'], []).append(record)
        scores = {
            name: self._scores(self._whole(own), self.query_mode) for name, own in by_video.items()
        }
        means = {
            name: _mean([values[name] for values in scores.values()])
            for name in next(iter(scores.values()))
        }
        return {
            'summary': _named(means),
            # A pass is scored as a video of its own, after its first frame.
            'per_sequence': [
                {'sequence': name, 'points': len(record['points'])}
                | _named(self._scores(self._whole([record], own_frames=True), 'first'))
                for name, record in records.items()
            ],
            'per_video': [
                {'video': name, 'queries': sum(len(one['points']) for one in by_video[name])}
                | _named(values)
                for name, values in scores.items()
            ],
            'per_distance': [
                {
                    'distance': f'{threshold} px',
                    'Jaccard': means[f'jaccard_{threshold}'],
                    'within': means[f'pts_within_{threshold}'],
                }
                for threshold in points.THRESHOLDS
            ],
        }

    def _whole(self, records, own_frames=False):
        """Joins passes to the arguments of the metric: queries `[Q, 3]`, then truth and prediction.

        Passes from one frame, forwards and backwards, follow the same points. Frames that no pass
        reaches are those that the metric leaves out.
        """
        by_start = {}
        for record in records:
            by_start.setdefault(record['frames'][0], []).append(record)
        length = 1 + max(max(record['frames']) for record in records)
        if own_frames:
            length = len(records[0]['frames'])
        queries, parts = [], []
        for start, own in sorted(by_start.items()):
            count = len(own[0]['points'])
            arrays = {
                'true occluded': np.ones((count, length), bool),
                'true tracks': np.zeros((count, length, 2)),
                'occluded': np.ones((count, length), bool),
                'tracks': np.zeros((count, length, 2)),
            }
            for record in own:
                frames = range(length) if own_frames else record['frames']
                for name, array in arrays.items():
                    array[:, list(frames)] = np.array(record[name], array.dtype)
            first = np.array(own[0]['true tracks'], np.float64)[:, 0]
            times = np.full(count, 0 if own_frames else start)
            queries.append(np.stack([times, first[:, 1], first[:, 0]], axis=-1))
            parts.append(list(arrays.values()))
        return [np.concatenate(queries), *map(np.concatenate, zip(*parts))]

    @staticmethod
    def _scores(arrays, query_mode):
        found = points.tapvid(*(array[None] for array in arrays), query_mode=query_mode)
        return {name: float(values[0]) for name, values in found.items()}

    def shown(self, path, sequence, record, chosen):
        found = np.array(record['tracks'], np.float64) - 0.5
        is_seen, truth = ~sequence.occluded, sequence.tracks - 0.5
        shown = np.where(np.array(record['occluded'])[..., None], np.nan, found)
        true = np.where(is_seen[..., None], truth, np.nan)
        colours = distinct_colours(len(found))
        frames = (
            JointPicture(sequence.read_frame(t), shown[:, t], true[:, t], colours) for t in chosen
        )
        distances = np.where(is_seen, np.linalg.norm(found - truth, axis=-1), np.nan)
        near = np.mean([distances < threshold for threshold in points.THRESHOLDS], axis=0)
        counts = is_seen.sum(axis=0)
        share = np.where(counts > 0, near.sum(axis=0) / np.maximum(counts, 1), np.nan)
        measure = Measure(
            'delta avg',
            'seen points within 1, 2, 4, 8 and 16 pixels',
            share[None],
            (('all points', ACCENT),),
        )
        legend = tuple(
            (f'point {number}', colour) for number, colour in zip(sequence.numbers, colours)
        )
        return SequenceView(sequence.name, sequence.num_frames, legend, (measure,), frames, chosen)


def _named(scores):
    """The scores that papers print; None for NaN."""
    values = {name: scores[key] for name, key in SCORES.items()}
    return {n: None if v is None or np.isnan(v) else v for n, v in values.items()}


def _mean(values):
    """The mean of those that are not NaN; None without any."""
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else None
