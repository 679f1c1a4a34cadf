"""Label propagation on a folder in DAVIS's layout, in one file: copy it and change what you like.

    python examples/davis.py DAVIS OUTPUT
    python examples/davis.py DAVIS OUTPUT --year=2016 --names car-shadow dog --network=crw.pth

It writes OUTPUT/SEQUENCE/00000.png and so on, palette PNGs as DAVIS's official evaluation reads
them. Frames are read, labelled and written one after another, so memory does not grow with a
video's length. `jaxprop evaluate --config=davis_crw` writes the same masks; it adds scores, a
report, resuming, and several devices.
"""

import argparse
import functools
import pathlib

import jax
import numpy as np

import jaxprop
from jaxprop.color import network_input
from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.data.image_files import write_mask
from jaxprop.evaluation.networks import load_network


@functools.partial(jax.jit, static_argnames=('model', 'color'))
def compute_features(model, variables, frame, color):
    """A frame, uint8 RGB [h, w, 3], to features [H, W, C]: put your own network here."""
    return model.apply(variables, network_input(frame[None], color))[0]


@functools.partial(jax.jit, static_argnames=('size', 'method'))
def label_frame(context, features, values, size, method):
    """Labels one frame from the context: the new context, and the ids of the frame's pixels."""
    context, soft_label = jaxprop.propagate_step(context, features, method)
    return context, jaxprop.decode(soft_label, values, size)


def label_sequence(sequence, features_of, method):
    """Yields the label map [h, w] of each frame; that of the first frame is given."""
    first_ids = sequence.read_label(0)
    values = jaxprop.label_values(first_ids)  # The ids that the L labels stand for, [L].

    # The first frame, with its given label, is the first context.
    features = features_of(sequence.read_frame(0))
    first_label = jaxprop.encode(first_ids, values, features.shape[:2])  # [H, W, L]
    context = jaxprop.init_context(features, first_label, method)
    yield first_ids

    # Each further frame takes its label from the context, and then joins the context.
    for index in range(1, sequence.num_frames):
        features = features_of(sequence.read_frame(index))
        context, ids = label_frame(context, features, values, sequence.size, method)
        yield np.asarray(ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('root', help='the folder with JPEGImages, Annotations and ImageSets')
    parser.add_argument('output', type=pathlib.Path, help='the folder for the masks')
    parser.add_argument('--year', default='2017', help='2016: one object; 2017: several')
    parser.add_argument('--names', nargs='*', help='some sequences instead of the val split')
    parser.add_argument('--network', default='uvc_plus_davis_long', help='a file of weights')
    arguments = parser.parse_args()

    network = load_network(arguments.network)

    def features_of(frame):
        return compute_features(network.model, network.variables, frame, network.color)

    # What is remembered and how labels are copied: every factor can be changed here.
    method = jaxprop.methods.crw(k=10, num_frames=20, radius=12.0, temperature=0.05)
    for name in arguments.names or davis_names(arguments.root, arguments.year):
        sequence = davis_sequence(arguments.root, name, arguments.year)
        label_maps = label_sequence(sequence, features_of, method)
        for frame_name, ids in zip(sequence.frame_names, label_maps):
            write_mask(arguments.output / name / f'{frame_name}.png', ids, sequence.palette)
        print(f'{name}: {sequence.num_frames} masks in {arguments.output / name}')


if __name__ == '__main__':
    main()
