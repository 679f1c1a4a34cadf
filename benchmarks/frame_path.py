r"""Which files of jaxprop one frame of DAVIS passes, from its reading to its written mask.

    python benchmarks/frame_path.py
    python benchmarks/frame_path.py --config=configs/eval/davis_crw.py --config.dataset.root=DAVIS

A video in DAVIS's layout is evaluated. Before one frame in its middle is read, the reading waits
until all work on the frames before is done; from then on every function that any thread enters is
noted, until the frame's mask is written. Printed are the distinct files, in the order in which they
were first entered, and their number. By then all programs are compiled.
"""

import dataclasses
import pathlib
import sys
import tempfile
import threading
import time

import checkout  # noqa: F401
from absl import app, flags

import jaxprop
from jaxprop import config_files, tasks
from jaxprop.data import image_files
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import run as runner

PACKAGE = pathlib.Path(jaxprop.__file__).parent
SECONDS = flags.DEFINE_float('seconds', 2.0, 'How long the work before the frame may take.')


class Path:
    """The files entered while it is recording, in order."""

    def __init__(self):
        self.files, self.recording, self.done = [], False, False

    def note(self, frame, event, _):
        if self.recording and event == 'call':
            path = pathlib.Path(frame.f_code.co_filename)
            if path.is_relative_to(PACKAGE) and path not in self.files:
                self.files.append(path)


def render(root, num_frames):
    """A rendered video as DAVIS has them."""
    (video,) = synthetic_sequences(num_sequences=1, num_frames=num_frames, size=(120, 160))
    (root / 'JPEGImages/480p/rendered').mkdir(parents=True)
    for t in range(num_frames):
        frame = root / f'JPEGImages/480p/rendered/{t:05d}.jpg'
        frame.write_bytes(image_files.encode_jpeg(video.read_frame(t)))
        mask = root / f'Annotations/480p/rendered/{t:05d}.png'
        image_files.write_mask(mask, video.read_label(t), video.palette)
    return 'rendered'


def watched(task, path, batch):
    """The task with its first sequence alone, of which one frame is watched."""
    name, open_sequence = task.sequences()[0]
    sequence = open_sequence()
    # The first frame of a batch, so that all frames before have been pushed when it is read.
    middle = batch * max(sequence.num_frames // (2 * batch), 1)

    def read_frame(index):
        if index == middle and not path.done:
            time.sleep(SECONDS.value)
            path.recording = True
        return sequence.read_frame(index)

    watched_sequence = dataclasses.replace(sequence, read_frame=read_frame)

    class Watched(type(task)):
        def take(self, folder, start, index, prediction):
            taken = super().take(folder, start, index, prediction)
            if index == middle:
                path.recording, path.done = False, True
            return taken

    settings = {
        field.name: getattr(task, field.name)
        for field in dataclasses.fields(task)
        if field.name != 'sequences'
    }
    return Watched(lambda: [(name, lambda: watched_sequence)], **settings), name, middle


def main(_):
    config, path = flags.FLAGS.config, Path()
    labeller = runner.Labeller.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        dataset = config.dataset.to_dict()
        if not dataset['root']:
            dataset.update(root=str(folder), names=(render(folder, 6 * labeller.source.batch),))
        task = tasks.open_task(dataset, config.get('measure'))
        task, name, index = watched(task, path, labeller.source.batch)
        threading.setprofile(path.note)
        sys.setprofile(path.note)
        try:
            runner.evaluate(task, labeller, folder / 'out', title='', dataset=dataset)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    print(f'frame {index} of {name}:')
    for file in path.files:
        print(f'  jaxprop/{file.relative_to(PACKAGE)}')
    print(f'{len(path.files)} files')


if __name__ == '__main__':
    app.run(main, config_files.define_flags(sys.argv, 'davis_crw', ('eval',)))
