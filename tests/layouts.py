"""JHMDB and VIP in their layouts on disk, with rendered scenes whose truth is known exactly.

And a small DAVIS, for annotations of its frames.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image
from scipy import io as scipy_io

from jaxprop.data.image_files import write_mask
from jaxprop.data.scenes import Layer, Scene
from jaxprop.data.sequences import LabelledSequence

NUM_JOINTS = 15
DAVIS_KINDS = ('JPEGImages', 'Annotations')


def _texture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))


def moving_disc(size: tuple[int, int], num_frames: int) -> tuple[Scene, np.ndarray]:
    """A turning disc that crosses the picture, and 15 points on it.

    Returns:
      The scene, and the points in each frame, `[T, 15, 2]` (x, y), pixel centres at whole numbers.
    """
    path = np.array([[0.35, 0.4, 0.28, 0.0], [0.5, 0.5, 0.3, 0.05], [0.65, 0.55, 0.32, 0.1]])
    disc = Layer(1, lambda u, v: np.hypot(u, v) - 1, _texture(1), path)
    background = Layer(0, None, _texture(2), np.array([[0.5, 0.5, 0.25, 0.0]]))
    scene = Scene((background, disc), num_frames, size)
    turn = 2 * np.pi * np.arange(NUM_JOINTS) / NUM_JOINTS
    u, v = 0.8 * np.cos(turn), 0.7 * np.sin(turn)
    points = []
    for index in range(num_frames):
        column, row, unit, angle = disc.place(index / max(num_frames - 1, 1), size)
        # The inverse of Layer.coordinates, where a pixel's centre is half a pixel from its corner.
        points.append(
            np.stack(
                [
                    column + unit * (np.cos(angle) * u - np.sin(angle) * v) - 0.5,
                    row + unit * (np.sin(angle) * u + np.cos(angle) * v) - 0.5,
                ],
                axis=-1,
            )
        )
    return scene, np.stack(points)


def write_davis(root: pathlib.Path, num_frames: int) -> None:
    """A sequence 'cat' of 24 x 40 pixels: 9 x 4 of them are the object, frames are flat but there.

    The grey of frame t is 10 t.
    """
    for kind, suffix in (('JPEGImages', 'jpg'), ('Annotations', 'png')):
        folder = root / kind / '480p' / 'cat'
        folder.mkdir(parents=True)
        for index in range(num_frames):
            picture = np.full((24, 40), 0 if kind == 'Annotations' else 10 * index, np.uint8)
            picture[4:13, 5:9] = 255
            Image.fromarray(picture).save(folder / f'{index:05d}.{suffix}')


def write_davis_sequences(
    root: pathlib.Path, sequences: Iterable[LabelledSequence], splits: Mapping[str, Iterable[str]]
) -> None:
    """Labelled sequences in DAVIS's layout, with the names in each split's lists of both years."""
    for sequence in sequences:
        frames, masks = (root / kind / '480p' / sequence.name for kind in DAVIS_KINDS)
        frames.mkdir(parents=True)
        for index, name in enumerate(sequence.frame_names):
            Image.fromarray(sequence.read_frame(index)).save(frames / f'{name}.jpg', quality=95)
            write_mask(masks / f'{name}.png', sequence.read_label(index))
    for year in ('2016', '2017'):
        (root / 'ImageSets' / year).mkdir(parents=True)
        for split, names in splits.items():
            text = ''.join(f'{name}\n' for name in names)
            (root / 'ImageSets' / year / f'{split}.txt').write_text(text)


def write_youtube_vos(
    root: pathlib.Path,
    sequences: Iterable[LabelledSequence],
    starts: Mapping[int, int],
    categories: Mapping[int, str],
    with_truth: bool = True,
) -> None:
    """Labelled sequences in the layout of YouTube-VOS, MOSE and LVOS; frames are 00000, 00005, ...

    Args:
      starts: by id, the frame in which an object appears; 0 for the others.
      categories: by id; 'person' for the others.
      with_truth: write the masks of all frames, each with the objects that have appeared; else only
        those in which objects appear, with these objects alone.
    """
    meta = {}
    for sequence in sequences:
        objects = np.unique(sequence.read_label(0))[1:].tolist()
        stems = [f'{5 * index:05d}' for index in range(sequence.num_frames)]
        begin = {value: starts.get(value, 0) for value in objects}
        meta[sequence.name] = {
            'objects': {
                str(value): {
                    'category': categories.get(value, 'person'),
                    'frames': stems[begin[value] :],
                    'frame_range': {'start': stems[begin[value]], 'end': stems[-1]},  # LVOS's.
                }
                for value in objects
            }
        }
        frames, masks = (root / kind / sequence.name for kind in DAVIS_KINDS)
        frames.mkdir(parents=True)
        for index, stem in enumerate(stems):
            Image.fromarray(sequence.read_frame(index)).save(frames / f'{stem}.jpg', quality=95)
            here = [v for v in objects if begin[v] == index or (with_truth and begin[v] < index)]
            ids = sequence.read_label(index)
            if here:
                write_mask(masks / f'{stem}.png', np.where(np.isin(ids, here), ids, 0))
    (root / 'meta.json').write_text(json.dumps({'videos': meta}))


def tapvid_video(num_frames: int, size: tuple[int, int] = (128, 128)) -> dict[str, np.ndarray]:
    """A video as TAP-Vid's files hold it: 15 points on a disc, of which two are hidden at times."""
    scene, points = moving_disc(size, num_frames)
    occluded = np.zeros((NUM_JOINTS, num_frames), bool)
    occluded[3, :2] = occluded[7, 1::2] = True
    return {
        'video': np.stack([scene.frame(index) for index in range(num_frames)]),
        'points': ((points.swapaxes(0, 1) + 0.5) / np.array(size[::-1])).astype(np.float32),
        'occluded': occluded,
    }


def write_jhmdb(
    root: pathlib.Path, name: str = 'wave/clip_wave_u_nm_np1_fr_goo_0', num_frames: int = 4
) -> np.ndarray:
    """One test clip of split 1, and a training clip that is listed alone.

    Returns:
      The joints, `[T, 15, 2]` from 0.
    """
    action, clip = name.split('/')
    scene, points = moving_disc((240, 320), num_frames)
    frames = root / 'Rename_Images' / name
    joints = root / 'joint_positions' / name
    for folder in (frames, joints, root / 'splits'):
        folder.mkdir(parents=True)
    for index in range(num_frames):
        Image.fromarray(scene.frame(index)).save(frames / f'{index + 1:05d}.png')
    positions = points.transpose(2, 1, 0) + 1
    scipy_io.savemat(
        joints / 'joint_positions.mat',
        {
            'pos_img': positions,
            'pos_world': positions / 100,
            'scale': np.ones((1, num_frames)),
            'viewpoint': 'S',
        },
    )
    (root / 'splits' / f'{action}_test_split1.txt').write_text(
        f'training_{clip}.avi 1 \n{clip}.avi 2 \n'
    )
    return points


def write_vip(
    root: pathlib.Path,
    name: str = 'videos7',
    num_frames: int = 3,
    size: tuple[int, int] = (96, 128),
) -> tuple[np.ndarray, np.ndarray]:
    """One validation video: a disc whose halves are the parts 13 and 4, and beside it a part 4.

    Returns:
      The classes and the instances, `[T, H, W]` each: 1 and 2 are the halves, 3 is the other.
    """
    scene, points = moving_disc(size, num_frames)
    folders = [root / 'Images' / name]
    folders += [root / 'Annotations' / kind / name for kind in ('Category_ids', 'Instance_ids')]
    for folder in (*folders, root / 'lists'):
        folder.mkdir(parents=True)
    classes, instances = [], []
    for index in range(num_frames):
        ids = scene.label(index)
        middle = points[index].mean(axis=0)
        ids[(ids == 1) & (np.arange(size[1]) > middle[0])] = 2
        ids[5:20, 5:15] = 3
        instances.append(ids)
        classes.append(np.array([0, 13, 4, 4])[ids])
        stem = f'{25 * index + 1:012d}'
        Image.fromarray(scene.frame(index)).save(folders[0] / f'{stem}.jpg')
        for folder, values in zip(folders[1:], (classes[-1], ids)):
            Image.fromarray(values.astype(np.uint8)).save(folder / f'{stem}.png')
        (folders[2] / f'{stem}.txt').write_text('1 13 1\n2 4 1\n3 4 2\n')
    (root / 'lists' / 'val_videos.txt').write_text(f'{name}\n')
    return np.stack(classes), np.stack(instances)
