"""The masks of one video while a person draws them: what is drawn, what is found, what is saved.

A folder holds everything, as it is made:

    drawn/NAME.png       masks that were drawn or corrected, as they were given
    found/NAME.png       masks that the propagation found
    found.json           the confidence in them, and whether a mask was drawn since
    annotation.json      the video, and the settings
    masks/NAME.png       the result: a mask for each frame, written by `Session.export`
    exported.json        a digest of the result

So a session that ends, however it ends, goes on from the folder.
"""

import contextlib
import dataclasses
import io
import pathlib
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from jaxprop import files
from jaxprop.data.image_files import check_size, read_mask, write_mask
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import Video

# 255 is void in the masks of DAVIS.
MAX_OBJECT = 254
_SECONDS = 5  # So often the confidence is written while frames are labelled.
OWNED = ('drawn', 'found', 'found.json', 'masks', 'exported.json')


class FoundFrame(Protocol):
    """A frame as the propagation labels it.

    Attributes:
      number: of the frame, from 0 on.
      ids: uint8 `[H, W]`, 0 for background.
      confidence: of each object, from 0 to 1.
    """

    number: int
    ids: np.ndarray
    confidence: Mapping[int, float]


# From the masks of some frames to the frames from `first` to `last`, in order: video, masks, first,
# last. The masks may lie outside of these frames.
Label = Callable[[Video, Mapping[int, np.ndarray], int, int], Iterator[FoundFrame]]


class Refused(Exception):
    """Raised for a request that cannot be met now; the message says why, to the person drawing."""


class _Cancelled(Exception):
    """Raised where a propagation that is cancelled reads its next frame."""


@dataclasses.dataclass
class _Frame:
    """The state of a frame.

    Attributes:
      drawn: the ids in its drawn mask; None without one.
      found: the confidence in each object of its found mask; None without one.
      is_outdated: a mask next to it, before or after, was drawn or removed since it was found.
      revision: grows with each change of its mask.
    """

    drawn: list[int] | None = None
    found: dict[int, float] | None = None
    is_outdated: bool = False
    revision: int = 0


@dataclasses.dataclass
class _Job:
    """A propagation that runs, or the last one that did.

    Attributes:
      total: the number of frames that it finds masks for.
      left: those whose masks it has not found yet.
      done: how many it has found.
      number: the latest frame that it has labelled; -1 before.
      edited: the frames near a mask that was drawn or removed since it began.
      is_running: until its thread ends.
      is_cancelled: whether it is to stop, or was stopped.
      error: the reason why it failed.
    """

    total: int
    left: set[int]
    done: int = 0
    number: int = -1
    edited: set[int] = dataclasses.field(default_factory=set)
    is_running: bool = True
    is_cancelled: bool = False
    error: str = ''


class Session:
    """The masks of a video, in memory as little as possible, on disk all of them.

    All methods may be called from several threads.
    """

    def __init__(
        self,
        video: Video,
        folder: pathlib.Path,
        label: Label,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the session of a folder, or begins one.

        Args:
          video: the video.
          folder: for the masks; made where missing. The caller holds its lock, `files.locked`.
          label: labels frames of the video.
          settings: 'video' says which video it is; others may change from one start to the next.

        Raises:
          ValueError: the folder holds the masks of another video, or files of somebody else.
          DataError: a mask in it can't be read, or has another size than the frames.
        """
        self.video, self.folder, self.notes = video, folder, []
        self._label, self._lock = label, threading.RLock()
        self._frames = [_Frame() for _ in range(video.num_frames)]
        self._revision, self._job, self._thread, self._saved = 1, None, None, 0.0
        settings = {'video': {'name': video.path.name}, **(settings or {})}
        changeable = [name for name in settings if name != 'video']
        files.claim(folder / 'annotation.json', settings, changeable, owned=OWNED)
        files.remove_partial(folder, ('drawn', 'found'))
        self._restore()

    def _restore(self):
        """Takes the masks that are in the folder."""
        numbers = {name: number for number, name in enumerate(self.video.frame_names)}
        state = _read_state(self.folder / 'found.json')
        for kind in ('drawn', 'found'):
            for path in sorted((self.folder / kind).glob('[!.]*')):
                if path.suffix != '.png' or path.stem not in numbers:
                    self.notes.append(f'{path}: no frame has this name; the file is left alone')
                    continue
                frame = self._frames[numbers[path.stem]]
                if kind == 'drawn':
                    frame.drawn = _ids_in(self._read(path))
                elif path.stem in state:
                    frame.found, frame.is_outdated = state[path.stem]
                else:  # The program was killed before it wrote the confidence.
                    frame.found = dict.fromkeys(_ids_in(self._read(path)), 0.0)
                    frame.is_outdated = True
                frame.revision = self._revision

    def mask(self, number: int) -> np.ndarray | None:
        """Reads the mask of a frame, uint8 `[H, W]`: the drawn one, else the found one, else None.

        Raises DataError where its file can no longer be read.
        """
        with self._lock:
            frame = self._frames[number]
            if frame.drawn is None and frame.found is None:
                return None
            return self._read(self._path('found' if frame.drawn is None else 'drawn', number))

    def draw(self, number: int, ids: np.ndarray) -> None:
        """Keeps a mask that a person has drawn on a frame, in place of one drawn before.

        Args:
          number: of the frame.
          ids: uint8 `[H, W]`.

        Raises:
          ValueError: the mask has another size than the frames, or an id above 254.
        """
        if ids.shape != tuple(self.video.size) or ids.max() > MAX_OBJECT:
            raise ValueError(
                f'the mask is {list(ids.shape)} with ids up to {ids.max()}; it must be '
                f'{list(self.video.size)} with ids up to {MAX_OBJECT}'
            )
        with self._lock:
            self._edited(number)
            write_mask(self._path('drawn', number), ids)
            self._frames[number].drawn = _ids_in(ids)

    def undraw(self, number: int) -> None:
        """Removes the drawn mask of a frame; where one was found before, that stands again."""
        with self._lock:
            self._edited(number)
            files.remove(self._path('drawn', number))
            self._frames[number].drawn = None

    def _edited(self, number):
        """Marks the masks found between the drawn masks around `number` as outdated.

        This comes before the mask itself is changed: if the program is killed in between, no found
        mask looks newer than it is.
        """
        self._touch(self._frames[number])
        drawn = self._drawn()
        before = max((n for n in drawn if n < number), default=-1)
        after = min((n for n in drawn if n > number), default=len(self._frames))
        near = range(before + 1, after)
        if self._job:
            self._job.edited.update(near)
        around = self._frames[before + 1 : after]
        changed = [f for f in around if f.found is not None and not f.is_outdated]
        for frame in changed:
            frame.is_outdated = True
            self._touch(frame)
        if changed:
            self._save_state()

    def propagate(self, number: int, until: str = 'end') -> None:
        """Begins to label frames from the drawn masks, in a thread.

        Drawn masks on the way stay as they are.

        Args:
          number: of the first frame to label.
          until: the last one: 'end', that of the video; 'next', the one before the next drawn mask.
            'all' labels, from the first frame of the video on, all frames between two drawn masks
            if one of them has no mask or an outdated one.

        Raises:
          Refused: one is running; no object is drawn; no frame is left to label.
          ValueError: `until` is something else.
          OSError: the state can't be written.
        """
        if until not in ('end', 'next', 'all'):
            raise ValueError(f'until is {until!r}; it must be end, next or all')
        with self._lock:
            self._check_idle()
            drawn, last = self._drawn(), self.video.num_frames - 1
            if not any(self._frames[n].drawn for n in drawn):
                raise Refused('Draw an object first.')
            if until == 'end':
                ranges = [(number, last)]
            elif until == 'next':
                ranges = [(number, min([n - 1 for n in drawn if n > number], default=last))]
            else:
                ends = zip([-1, *drawn], [*drawn, last + 1])
                ranges = [(before + 1, after - 1) for before, after in ends]
                ranges = [span for span in ranges if self._has_open(*span)]
            left = {n for start, end in ranges for n in range(start, end + 1)} - set(drawn)
            if not left:
                raise Refused('There is no frame to label: all masks are there, and up to date.')
            masks = {n: self._read(self._path('drawn', n)) for n in drawn}
            earlier, self._job = self._job, _Job(len(left), left)
            thread = threading.Thread(
                target=self._work, args=(self._job, masks, ranges), name='propagation', daemon=True
            )
            try:
                self._save_state()
                thread.start()
            except (OSError, RuntimeError):
                self._job = earlier  # Else it would be taken for one that runs.
                raise
            self._thread = thread

    def _has_open(self, first, last):
        """Whether a frame from `first` to `last` has no mask, or an outdated one."""
        frames = self._frames[first : last + 1]
        return any(f.drawn is None and (f.found is None or f.is_outdated) for f in frames)

    def _work(self, job, masks, ranges):
        video = _watched(self.video, job)
        try:
            for first, last in ranges:
                labelled = _as_generator(self._label(video, masks, first, last))
                with contextlib.closing(labelled):
                    for found in labelled:
                        with self._lock:
                            if job.is_cancelled:
                                return
                            if found.number not in masks:
                                self._take(job, found)
        except _Cancelled:
            pass
        except (DataError, ValueError, OSError) as error:
            job.error = str(error)
        except Exception as error:
            traceback.print_exc()
            job.error = f'The program failed: {type(error).__name__}: {error}'
        finally:
            with self._lock:
                job.is_running = False
                try:
                    self._save_state()
                except OSError as error:
                    job.error = job.error or str(error)

    def _take(self, job, found):
        """Keeps the mask that was found for a frame, also where one was drawn meanwhile."""
        job.number, job.done = found.number, job.done + 1
        job.left.discard(found.number)
        frame = self._frames[found.number]
        write_mask(self._path('found', found.number), found.ids)
        frame.found = {int(id_): _finite(value) for id_, value in found.confidence.items()}
        frame.is_outdated = found.number in job.edited
        self._touch(frame)
        if time.monotonic() > self._saved + _SECONDS:
            self._save_state()

    def cancel(self) -> None:
        """Stops a propagation that runs; what it has found so far stays."""
        with self._lock:
            if self._job and self._job.is_running:
                self._job.is_cancelled = True

    def close(self) -> None:
        """Stops a propagation that runs, and waits until its thread has ended."""
        self.cancel()
        if self._thread:
            self._thread.join()

    def changes(self, since: int = 0) -> dict[str, Any]:
        """Describes the propagation, and the frames whose masks have changed.

        Args:
          since: the `revision` that an earlier call returned.

        Returns:
          For JSON: 'revision'; 'job', the latest propagation or None; 'frames', for each frame
          that has changed, by its number: 'kind' ('drawn', 'found' or ''), 'revision', 'ids',
          'confidence' by object, 'is_outdated'.
        """
        with self._lock:
            changed = {n: f for n, f in enumerate(self._frames) if f.revision > since}
            job = dataclasses.asdict(self._job) if self._job else None
            if job:
                del job['edited'], job['left']
            return {
                'revision': self._revision,
                'job': job,
                'frames': {number: _described(frame) for number, frame in changed.items()},
            }

    def export(self) -> dict[str, Any]:
        """Writes a mask for each frame to the folder `masks`, all of them or none.

        A frame without a mask gets an empty one.

        Returns:
          For JSON: 'folder', and the numbers of 'frames', of those 'without' a mask, and of
          'outdated' ones.

        Raises:
          Refused: a propagation is running; nothing is drawn; somebody has changed the files that
            an earlier call wrote.
        """
        with self._lock:
            self._check_idle()
            if not self._drawn():
                raise Refused('There is no mask yet. Draw one first.')
            masks, record = self.folder / 'masks', self.folder / 'exported.json'
            if masks.exists() and not _is_digest(record, masks):
                raise Refused(
                    f'Files in {masks} are not as they were written, and may hold your work. Move '
                    'that folder away first.'
                )
            partial = files.partial_path(masks)
            try:
                empty = np.zeros(self.video.size, np.uint8)
                for number, name in enumerate(self.video.frame_names):
                    ids = self.mask(number)
                    write_mask(partial / f'{name}.png', empty if ids is None else ids)
                files.move(partial, masks)
            finally:
                files.remove(partial)
            files.write_json(record, {'results': files.digest([masks])})
            shown = [_described(frame) for frame in self._frames]
            return {
                'folder': str(masks.absolute()),
                'frames': len(shown),
                'without': sum(not frame['kind'] for frame in shown),
                'outdated': sum(frame['is_outdated'] for frame in shown),
            }

    def zipped(self) -> bytes:
        """Packs the masks that `export` has written. Raises Refused where there are none."""
        with self._lock:
            paths = sorted((self.folder / 'masks').glob('*.png'))
            if not paths:
                raise Refused('Save the masks first.')
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, 'w') as archive:
                for path in paths:
                    archive.write(path, path.name)
            return stream.getvalue()

    def _check_idle(self):
        if self._job and self._job.is_running:
            raise Refused('A propagation is running. Wait for it, or cancel it.')

    def _drawn(self):
        """The numbers of the frames with drawn masks, in order."""
        return [n for n, frame in enumerate(self._frames) if frame.drawn is not None]

    def _touch(self, frame):
        self._revision += 1
        frame.revision = self._revision

    def _path(self, kind, number):
        return self.folder / kind / f'{self.video.frame_names[number]}.png'

    def _read(self, path):
        ids = read_mask(path)
        check_size(path, ids.shape, self.video.size, self.video.path)
        return ids.astype(np.uint8)

    def _save_state(self):
        """Writes what is known of the found masks, but for those that a propagation may replace.

        If the program is killed, they must not have the confidence of those before.
        """
        left = self._job.left if self._job and self._job.is_running else ()
        state = {
            name: {'confidence': frame.found, 'is_outdated': frame.is_outdated}
            for number, (name, frame) in enumerate(zip(self.video.frame_names, self._frames))
            if frame.found is not None and number not in left
        }
        files.write_json(self.folder / 'found.json', state)
        self._saved = time.monotonic()


def _described(frame):
    kind = 'drawn' if frame.drawn is not None else 'found' if frame.found is not None else ''
    is_found = kind == 'found'
    return {
        'kind': kind,
        'revision': frame.revision,
        'ids': frame.drawn if kind == 'drawn' else sorted(frame.found or ()),
        'confidence': frame.found if is_found else {},
        'is_outdated': is_found and frame.is_outdated,
    }


def _watched(video, job):
    """A video whose reader stops when the job is cancelled.

    Many frames may be read before the first one is labelled, as between two masks.
    """

    def iterate_from(start):
        for frame in video.iterate_from(start):
            if job.is_cancelled:
                raise _Cancelled
            yield frame

    return dataclasses.replace(video, iterate_from=iterate_from)


def _read_state(path):
    """Reads what `Session._save_state` wrote: confidence and whether it is outdated, by name."""
    if not path.exists():
        return {}
    try:
        return {
            name: (
                {int(id_): _finite(value) for id_, value in known['confidence'].items()},
                bool(known['is_outdated']),
            )
            for name, known in files.read_json(path).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'{path}: is damaged ({error}). Remove it; the masks that were found then count as '
            'outdated'
        ) from error


def _finite(value):
    """A confidence as JSON can hold it."""
    return float(np.clip(np.nan_to_num(float(value)), 0, 1))


def _ids_in(ids):
    return [int(value) for value in np.unique(ids) if value]


def _is_digest(record, masks):
    """Whether the masks are as `export` has recorded them."""
    try:
        return files.read_json(record)['results'] == files.digest([masks])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _as_generator(frames):
    yield from frames
