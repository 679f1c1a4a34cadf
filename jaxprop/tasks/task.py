"""The interface of benchmarks, `Task`, and the plain data by which a task describes its report.

A task opens its sequences, gives the labels of their first frames, writes and scores each frame,
and describes what a report shows. It knows no network and draws nothing: `jaxprop.report` draws
the views that it describes.
"""

import colorsys
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from jaxprop.data.sequences import DataError, check_name, compact

Record = dict[str, Any]
Colour = tuple[int, int, int]
NamedSequences = Sequence[tuple[str, Callable[[], Any]]]

# The colour of a line that stands for no object: the accent of the report's pages.
ACCENT = (42, 98, 201)


class SettingsError(ValueError):
    """Raised where a config asks for a task that can't exist; the message says what to write."""


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """A panel of a chart: lines over time.

    Attributes:
      name, meaning: 'J', 'region similarity'.
      values: `[O, T]` from 0 to 1, NaN where not scored.
      lines: the O names and RGB colours.
    """

    name: str
    meaning: str
    values: np.ndarray
    lines: tuple[tuple[str, Colour], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class MaskPicture:
    """A frame, uint8 RGB `[H, W, 3]`, and the ids of its pixels.

    Attributes:
      ids: predicted, `[H, W]`.
      palette: the colours of ids, uint8 `[256, 3]`.
      truth: the true ids, `[H, W]`; None where the frame is not annotated.
    """

    frame: np.ndarray
    ids: np.ndarray
    palette: np.ndarray
    truth: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class JointPicture:
    """A frame, uint8 RGB `[H, W, 3]`, and J joints on it.

    Attributes:
      found, truth: positions `[J, 2]` (x, y) in pixels, NaN: not drawn.
      colours: of the joints.
    """

    frame: np.ndarray
    found: np.ndarray
    truth: np.ndarray
    colours: tuple[Colour, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceView:
    """The part of a report about one sequence: measures over time, and frames to play.

    Attributes:
      name: of the sequence, as in the rows of the results.
      num_frames: T.
      legend: names and RGB colours of what the pictures show.
      measures: one panel each.
      frames: a picture for each of `frame_numbers`. A task gives an iterable of `MaskPicture` or
        `JointPicture`, made one at a time when asked for; `jaxprop.report.pictures.draw_view`
        makes a list of WebP, JPEG or PNG files of it, which the pages take.
      frame_numbers: for each picture which frame it is, from 0 to T - 1, ascending.
      frames_per_second: how fast the pictures are played.
      heading: what the legend's names are, if they don't say it.
      outlines: of the true objects in each picture, SVG paths by colour, in units of 1/500 of
        the picture's width and height; None where a frame is not annotated. `draw_view` makes
        them; () without a truth to outline.

    Raises:
      ValueError: the attributes don't fit each other.
    """

    name: str
    num_frames: int
    legend: tuple[tuple[str, Colour], ...]
    measures: tuple[Measure, ...]
    frames: Iterable[MaskPicture | JointPicture] | list[bytes]
    frame_numbers: list[int]
    frames_per_second: float = 12
    heading: str = ''
    outlines: Sequence[Mapping[Colour, str] | None] = ()

    def __post_init__(self) -> None:
        for measure in self.measures:
            expected = [len(measure.lines), self.num_frames]
            if list(np.shape(measure.values)) != expected:
                raise ValueError(
                    f'{self.name}: the values of {measure.name} have the shape '
                    f'{list(np.shape(measure.values))}; it must be {expected}'
                )
        numbers = list(self.frame_numbers)
        if isinstance(self.frames, Sequence) and len(numbers) != len(self.frames):
            raise ValueError(
                f'{self.name}: there are {len(numbers)} frame_numbers for {len(self.frames)} frames'
            )
        if self.outlines and len(numbers) != len(self.outlines):
            raise ValueError(
                f'{self.name}: there are {len(numbers)} frame_numbers for {len(self.outlines)} '
                'outlines'
            )
        if numbers != sorted(set(numbers)) or any(not 0 <= t < self.num_frames for t in numbers):
            raise ValueError(
                f'{self.name}: frame_numbers is {numbers}; they must ascend, from 0 to '
                f'{self.num_frames - 1} at most'
            )
        if not 0 < self.frames_per_second < math.inf:
            raise ValueError(
                f'{self.name}: frames_per_second is {self.frames_per_second}; it must be above 0'
            )


@dataclasses.dataclass(frozen=True)
class Tile:
    """A number at the head of a report.

    Attributes:
      name, meaning: 'J', 'region similarity'.
      measure: its name in the summary.
      more: further numbers beneath it: pairs of a name and the number's name in the summary.
    """

    name: str
    meaning: str
    measure: str
    more: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """Says how a report shows the results of a task, where it does not show them as they are.

    Attributes:
      tiles: at the head of the report; without any, each number of the summary has one.
      means: new columns in front of each row of 'per_sequence', by name; each is the mean of the
        columns that are listed.
      title: a name and a column. The column's mean over a sequence's rows is shown beside the
        sequence's name. None: all fractions of its row are shown.
      plain: columns without a bar.
      notes: a text about a column, for each column that needs one.
    """

    tiles: tuple[Tile, ...] = ()
    means: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    title: tuple[str, str] | None = None
    plain: tuple[str, ...] = ()
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A sequence about to be labelled, with the label of its first frame.

    Attributes:
      sequence: as the task's reader gives it: name, num_frames, size, read_frame and more. Threads
        call read_frame, several at a time.
      first: the given label of the first frame: ids `[H, W]` of the smallest integer type that
        holds them, or joints `[J, 2]`.
      objects: the ids to score, if objects are scored one by one.
      later: by the number of a later frame, the given ids `[H, W]` of objects that are not there
        before; 0 elsewhere.
    """

    sequence: Any
    first: np.ndarray
    objects: tuple[int, ...] = ()
    later: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def label(self, index: int) -> np.ndarray | None:
        """Reads the true ids of a frame; None where it is not annotated. Raises DataError."""
        return self.first if index == 0 else self.sequence.read_label(index)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A benchmark. A subclass is a frozen dataclass; its other fields are settings of its scores.

    `jaxprop.files.write_json` writes the record that `record` returns. `unscored`, `results` and
    `shown` get it as it is read again: None for NaN, 'Infinity' for infinity.

    Attributes:
      sequences: lists the names of the sequences, each with a function that opens it. Both raise
        DataError.
      folder, suffix: a sequence's predictions are at FOLDER/NAME + SUFFIX in the output.
      printed: the measures of a row that a terminal shows.
      layout: how a report shows the results.
      server: where the truth is kept by a server: the folder in which it wants the predictions of
        the sequences, in a ZIP file; '' for no folder around them. None: no ZIP file is made.
    """

    sequences: Callable[[], NamedSequences]

    server: ClassVar[str | None] = None
    folder, suffix = 'masks', ''
    printed = ()
    layout = Layout()

    def settings(self) -> dict[str, Any]:
        """The settings of the scores under 'measure', to be recorded; {} without any."""
        names = [field.name for field in dataclasses.fields(self) if field.name != 'sequences']
        return {'measure': {name: getattr(self, name) for name in names}} if names else {}

    def target(self, target: Any) -> Any:
        """Chooses the meaning of labels: the target of the config, or a variant of it."""
        return target

    def start(self, sequence: Any) -> Start:
        """Reads the given label of the first frame. Raises DataError."""
        return Start(sequence, compact(sequence.read_label(0)))

    def take(self, path: pathlib.Path, start: Start, index: int, prediction: Any) -> Any:
        """Writes the prediction of a frame, if it has a file, and scores it. Raises DataError.

        Called in threads, and not in the order of frames.

        Args:
          path: of the sequence's predictions while they are not complete.
          start: of the sequence.
          index: of the frame, from 0.
          prediction: the target's decoding of soft labels; for frame 0 the given label.
        """
        raise NotImplementedError

    def record(self, path: pathlib.Path, start: Start, taken: list[Any]) -> Record:
        """Combines the results of `take` for all frames to the sequence's record.

        It writes the files that need all frames. The names 'name', 'num_frames', 'size', 'seconds'
        and 'made_from' are added to the record afterwards.
        """
        raise NotImplementedError

    def unscored(self, record: Record) -> str:
        """Says why a sequence is not scored ('for lack of annotations'); '' where it is scored."""
        return ''

    def is_scored(self, record: Record) -> bool:
        """Whether the sequence is scored, see `unscored`."""
        return not self.unscored(record)

    def results(self, records: Mapping[str, Record]) -> dict[str, Any]:
        """Computes 'summary', the benchmark's numbers, and tables: 'per_sequence' and others.

        A table is a list of rows. A row of 'per_sequence' names its sequence as 'sequence'. In
        another table, such as 'per_joint', the first column names the subject of the row.

        Args:
          records: by the sequences' names, one or more.
        """
        raise NotImplementedError

    def shown(
        self, path: pathlib.Path, sequence: Any, record: Record, chosen: list[int]
    ) -> SequenceView:
        """Describes what a report shows of a sequence, with pictures of the chosen frames.

        Args:
          path: of the sequence's predictions.
          sequence: opened.
          record: of it.
          chosen: numbers of frames, ascending.
        """
        raise NotImplementedError


def check_folders(**folders: tuple[str, str]) -> None:
    """Checks that folders are given.

    Args:
      **folders: by the name of the setting: its value, and what the folder holds.

    Raises:
      SettingsError: one is empty; the message says how to give it.
    """
    for name, (folder, holds) in folders.items():
        if not folder:
            raise SettingsError(
                f'dataset.{name} is empty: say --config.dataset.{name}=FOLDER, the folder that '
                f'holds {holds}'
            )


def check_names(names: Sequence[str]) -> None:
    """Checks that results of different sequences do not lie in each other's folders.

    Raises:
      DataError: a name is there twice, or leads to a place below another one.
    """
    known = set(names)
    for name in known:
        if names.count(name) > 1:
            raise DataError(f'dataset.names: the sequence {name!r} is there twice')
        for parent in map(str, pathlib.PurePosixPath(name).parents):
            if parent in known:
                raise DataError(
                    f'dataset.names: {parent!r} and {name!r} cannot be evaluated together: the '
                    "results of one would lie in the other's folder"
                )


def named_sequences(
    names: Iterable[str], open_sequence: Callable[[str], Any]
) -> list[tuple[str, Callable[[], Any]]]:
    """Sequences by their names, each with a call of `open_sequence`, for a task's `sequences`.

    Raises:
      DataError: `jaxprop.data.sequences.check_name` refuses a name, or `check_names` refuses them.
    """
    names = [check_name(name, 'dataset.names', parts=None) for name in names]
    check_names(names)
    return [(name, functools.partial(open_sequence, name)) for name in names]


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Makes RGB colours of different hues; neighbours in the list differ much."""
    return tuple(
        tuple(
            round(255 * channel)
            for channel in colorsys.hsv_to_rgb(index * 0.618034 % 1, (0.9, 0.6)[index % 2], 1)
        )
        for index in range(count)
    )
