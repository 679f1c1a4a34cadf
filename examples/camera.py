"""Follows objects through the frames of a camera or a video file, one frame at a time.

    python examples/camera.py
    python examples/camera.py --source=clip.mp4 --mask=first.png --output=overlay.mp4

The objects are those of the mask, an image as `jaxprop propagate` reads it. Without a mask, draw a
box around one object in the first frame with the mouse, and press Enter. The masks are shown over
the frames in a window until you press q, or written to a video. Memory does not grow.

Windows need another OpenCV: `pip uninstall opencv-python-headless`, `pip install opencv-python`.
"""

import argparse
import functools
import itertools

import cv2
import jax
import numpy as np

import jaxprop
from jaxprop.checkpoints.native import DEFAULT_NETWORK
from jaxprop.color import network_input
from jaxprop.data.drawn_masks import read_drawn_mask
from jaxprop.data.inputs import InputConfig, input_size, resize_frame
from jaxprop.data.sequences import DataError, davis_palette
from jaxprop.data.video_files import write_video
from jaxprop.evaluation.networks import load_network
from jaxprop.refine import enlarge_guided
from jaxprop.report.pictures import overlay


def read_frames(source):
    """Yields frames, uint8 RGB [h, w, 3], of a camera by its number, or of a file."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    while capture.isOpened():
        is_there, frame = capture.read()
        if not is_there:
            break
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    capture.release()


def follow(frames, first_ids, features_of, method):
    """Yields each frame with its label map [h, w]; that of the first frame is given."""
    values, context = jaxprop.label_values(first_ids), None
    for frame in frames:
        features = features_of(frame)  # [H, W, C]
        if context is None:
            first_label = jaxprop.encode(first_ids, values, features.shape[:2])  # [H, W, L]
            context, ids = jaxprop.init_context(features, first_label, method), first_ids
        else:
            context, ids = label_frame(context, features, values, frame, method)
        yield frame, np.asarray(ids)


@functools.partial(jax.jit, static_argnames='method', donate_argnames='context')
def label_frame(context, features, values, frame, method):
    """Labels one frame from the context: the new context, and the ids of the frame's pixels."""
    context, soft_label = jaxprop.propagate_step(context, features, method)
    at_edges = functools.partial(enlarge_guided, frame=frame)
    return context, jaxprop.decode(soft_label, values, frame.shape[:2], enlarge=at_edges)


@functools.partial(jax.jit, static_argnames=('model', 'color'))
def compute_features(model, variables, frame, color):
    """A frame, uint8 RGB [h, w, 3], to features [H, W, C]: put your own network here."""
    return model.apply(variables, network_input(frame[None], color))[0]


def draw_box(frame):
    """Lets the user draw a box; returns a label map [h, w] with 1 in it."""
    x, y, width, height = cv2.selectROI('jaxprop', frame[..., ::-1])
    cv2.destroyAllWindows()
    ids = np.zeros(frame.shape[:2], np.int32)
    ids[y : y + height, x : x + width] = 1
    return ids


def show(pictures):
    """Shows pictures in a window until the user presses q."""
    for picture in pictures:
        cv2.imshow('jaxprop', picture[..., ::-1])
        if cv2.waitKey(1) == ord('q'):
            break
    cv2.destroyAllWindows()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--source', default='0', help='the number of a camera, or a video file')
    parser.add_argument('--mask', help='of the first frame; without it draw a box')
    parser.add_argument('--output', help='a video file, in place of the window')
    parser.add_argument('--size', type=int, default=240, help='short side that the network sees')
    arguments = parser.parse_args()

    frames = read_frames(arguments.source)
    first = next(frames, None)
    if first is None:
        parser.error(f'{arguments.source} is no camera or video that can be read')
    network, size = load_network(DEFAULT_NETWORK), first.shape[:2]
    seen = input_size(*size, InputConfig(size=arguments.size, resize='short_side'))

    def features_of(frame):
        small = resize_frame(frame, seen)
        return compute_features(network.model, network.variables, small, network.color)

    method = jaxprop.methods.crw(num_frames=7, radius=12 * arguments.size / 480)
    try:
        ids = read_drawn_mask(arguments.mask, size).ids if arguments.mask else draw_box(first)
        if not ids.any():
            parser.error('there is no object to follow')
        found = follow(itertools.chain([first], frames), ids, features_of, method)
        palette = davis_palette()
        pictures = (overlay(frame, ids, palette) for frame, ids in found)
        if arguments.output:
            write_video(arguments.output, pictures)
        else:
            show(pictures)
    except (cv2.error, DataError, ValueError) as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
