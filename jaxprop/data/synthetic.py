"""Labelled sequences drawn by code: textured objects whose masks are known exactly.

A scene is a stack of layers. A layer is an outline and a periodic texture in coordinates of its
own. A smooth motion (position, size, rotation) and a smooth deformation carry it into the frame.
The background is a layer without an outline. The id of a pixel is that of the topmost layer whose
outline holds the pixel's centre, so no drawing or rounding enters the labels.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from jaxprop.data.scenes import OUTLINES, Layer, Scene, draw_texture, seeded_generator
from jaxprop.data.sequences import LabelledSequence, davis_palette

_SMALLEST_SIDE = 64


def synthetic_sequences(
    num_sequences: int = 6,
    num_frames: int = 24,
    size: tuple[int, int] = (240, 320),
    num_objects: int | None = None,
    seed: int = 0,
) -> list[LabelledSequence]:
    """Makes a small benchmark with exact ground truth, drawn frame by frame when it is read.

    The scenarios follow each other, and start again after the last with other pictures:

        crossing         paths cross; a small object passes behind a large one
        spin-and-grow    rotation and change of size; a growing object covers another
        wobble           jelly: outline and texture deform
        hide-and-return  one object leaves the frame, one goes behind a post
        camouflage       objects with the background's pattern and colours; the camera zooms
        shoal            lookalikes swim past each other and below a lily pad

    Objects are textured, deform, and overlap in a fixed order: the higher id is in front. In each
    sequence at least one object vanishes completely or almost, and comes back. The background
    moves, the light changes a little, and there is sensor noise. All objects are seen in frame 0.

    Args:
      num_sequences: the number of sequences. Sequence i is the same whatever their number.
      num_frames: T. The same motion is spread over all frames: with 24, an object moves by about
        3 % of the frame's width from one to the next.
      size: (height, width) in pixels.
      num_objects: 2 to 4 in each sequence; None for each scenario's own number.
      seed: of everything random, 0 or more. The same seed gives the same pictures.

    Returns:
      Sequences with a label for every frame; each frame can be read alone, in any order.

    Raises:
      ValueError: an argument outside these ranges.
    """
    if num_sequences < 1 or num_frames < 1:
        raise ValueError(
            f'num_sequences is {num_sequences} and num_frames {num_frames}; both must be 1 or more'
        )
    if min(size) < _SMALLEST_SIDE:
        raise ValueError(f'size is {size}; both sides must be {_SMALLEST_SIDE} pixels or more')
    if num_objects not in (None, 2, 3, 4):
        raise ValueError(f'num_objects is {num_objects}; it must be 2, 3, 4 or None')
    if seed < 0:
        raise ValueError(f'seed is {seed}; it must be 0 or more')

    sequences = []
    for index in range(num_sequences):
        scenario, turn = list(_SCENARIOS)[index % len(_SCENARIOS)], index // len(_SCENARIOS)
        scene = functools.partial(_build_scene, index, num_frames, tuple(size), num_objects, seed)
        sequences.append(
            LabelledSequence(
                name=f'{scenario}-{turn + 1}' if turn else scenario,
                num_frames=num_frames,
                size=tuple(size),
                read_frame=functools.partial(_read_frame, scene),
                read_label=functools.partial(_read_label, scene),
                frame_names=tuple(f'{frame:05d}' for frame in range(num_frames)),
                palette=davis_palette(),
            )
        )
    return sequences


def _read_frame(scene: Callable[[], Scene], index: int) -> np.ndarray:
    return scene().frame(index)


def _read_label(scene: Callable[[], Scene], index: int) -> np.ndarray:
    return scene().label(index)


# Sceneries: the pattern of a background, and its colours from dark to light.
_SCENERIES = {
    'meadow': ('terrain', ((34, 60, 34), (70, 104, 46), (122, 146, 68), (182, 184, 108))),
    'sand': ('terrain', ((118, 88, 62), (172, 138, 98), (208, 180, 136), (234, 216, 182))),
    'pebbles': ('cells', ((40, 42, 50), (98, 100, 106), (144, 140, 134), (192, 186, 174))),
    'clay': ('cells', ((66, 34, 30), (138, 74, 56), (172, 104, 78), (206, 156, 124))),
    'dusk': ('waves', ((40, 32, 66), (92, 58, 104), (156, 92, 116), (212, 146, 126))),
    'pond': ('waves', ((10, 40, 48), (18, 70, 76), (34, 100, 98), (84, 146, 132))),
}
_COATS = {
    'coral': ((168, 36, 52), (238, 108, 92), (255, 216, 186)),
    'ocean': ((18, 48, 112), (44, 120, 192), (182, 226, 246)),
    'lemon': ((152, 104, 12), (240, 196, 48), (255, 244, 190)),
    'plum': ((66, 22, 84), (150, 74, 164), (234, 194, 236)),
    'mint': ((8, 88, 74), (66, 176, 142), (212, 248, 224)),
    'zebra': ((28, 28, 34), (236, 234, 226)),
    'cocoa': ((62, 36, 26), (150, 96, 62), (230, 196, 152)),
    'lily': ((30, 84, 44), (76, 138, 62), (138, 182, 92)),
    'koi': ((196, 58, 20), (240, 118, 44), (242, 236, 224), (246, 242, 234)),
}
_COATS_AT_RANDOM = ('coral', 'ocean', 'lemon', 'plum', 'mint', 'zebra', 'cocoa')
_PATTERNS_AT_RANDOM = ('stripes', 'checks', 'dots', 'blotches', 'cells')


@dataclasses.dataclass(frozen=True)
class _Actor:
    """An object of a scenario.

    `path` and `wobble` are those of `Layer`, with two differences: the phase of the wobble is
    random, and an angle is added to the rotation. For an actor that `heads` along its path this is
    the path's direction, else a random angle. A pattern or coat of None is drawn at random;
    'scenery' is the background's pattern, or its colours.
    """

    outline: str
    path: tuple[tuple[float, float, float, float], ...]
    wobble: tuple[float, float, float, float] = (0.04, 0.04, 2.5, 1.0)
    pattern: str | None = None
    coat: str | None = None
    heads: bool = False


@dataclasses.dataclass(frozen=True)
class _Scenario:
    """Four actors from back to front; the first two do what the scenario's name says.

    `screen` is something that is no object and stands on the background in front of the first
    actor: its outline, pattern, coat, and one row of a path, its place halfway through the video.
    With a screen, the camera only pans.
    """

    camera: tuple[tuple[float, float, float, float], ...]
    actors: tuple[_Actor, _Actor, _Actor, _Actor]
    num_objects: int = 3
    screen: tuple[str, str, str, tuple[float, float, float, float]] | None = None


_SCENARIOS = {
    'crossing': _Scenario(
        camera=((0.0, 0.0, 0.27, 0.0), (-0.06, 0.03, 0.27, 0.0), (-0.16, 0.04, 0.27, 0.0)),
        actors=(
            _Actor(
                'blob',
                (
                    (0.12, 0.62, 0.13, 0.0),
                    (0.34, 0.44, 0.13, 0.04),
                    (0.50, 0.50, 0.13, 0.08),
                    (0.66, 0.58, 0.13, 0.12),
                    (0.88, 0.45, 0.13, 0.16),
                ),
            ),
            _Actor(
                'flower',
                (
                    (0.80, 0.36, 0.27, 0.0),
                    (0.58, 0.45, 0.27, 0.05),
                    (0.50, 0.50, 0.27, 0.08),
                    (0.42, 0.54, 0.27, 0.11),
                    (0.22, 0.34, 0.27, 0.18),
                ),
            ),
            _Actor(
                'leaf',
                (
                    (0.45, 0.14, 0.17, 0.0),
                    (0.62, 0.28, 0.17, 0.05),
                    (0.72, 0.52, 0.17, 0.12),
                    (0.60, 0.78, 0.17, 0.2),
                    (0.46, 0.86, 0.17, 0.24),
                ),
                coat='scenery',
            ),
            _Actor(
                'star',
                (
                    (0.34, 0.86, 0.14, 0.0),
                    (0.44, 0.74, 0.14, -0.1),
                    (0.32, 0.62, 0.14, -0.2),
                    (0.18, 0.70, 0.14, -0.3),
                    (0.16, 0.82, 0.14, -0.4),
                ),
            ),
        ),
    ),
    'spin-and-grow': _Scenario(
        camera=((0.0, 0.0, 0.25, 0.0), (0.05, 0.04, 0.26, 0.02), (0.03, 0.12, 0.27, 0.05)),
        actors=(
            _Actor(
                'tile',
                (
                    (0.76, 0.72, 0.13, 0.0),
                    (0.66, 0.63, 0.13, 0.12),
                    (0.54, 0.52, 0.13, 0.25),
                    (0.62, 0.40, 0.13, 0.38),
                    (0.78, 0.27, 0.13, 0.5),
                ),
            ),
            _Actor(
                'gear',
                (
                    (0.33, 0.38, 0.15, 0.0),
                    (0.42, 0.46, 0.23, 0.25),
                    (0.50, 0.50, 0.33, 0.5),
                    (0.46, 0.50, 0.24, 0.75),
                    (0.34, 0.52, 0.15, 1.0),
                ),
            ),
            _Actor(
                'star',
                (
                    (0.16, 0.82, 0.12, 0.0),
                    (0.28, 0.78, 0.15, -0.2),
                    (0.36, 0.74, 0.19, -0.5),
                    (0.26, 0.76, 0.20, -0.8),
                    (0.16, 0.82, 0.15, -1.0),
                ),
                coat='scenery',
            ),
            _Actor(
                'ring',
                (
                    (0.86, 0.22, 0.13, 0.0),
                    (0.76, 0.34, 0.17, 0.1),
                    (0.74, 0.55, 0.19, 0.2),
                    (0.84, 0.72, 0.16, 0.3),
                    (0.87, 0.80, 0.13, 0.4),
                ),
            ),
        ),
    ),
    'wobble': _Scenario(
        camera=((0.0, 0.0, 0.26, 0.0), (0.03, -0.05, 0.26, 0.0), (0.08, -0.04, 0.26, 0.0)),
        actors=(
            _Actor(
                'flower',
                (
                    (0.14, 0.28, 0.13, 0.0),
                    (0.35, 0.42, 0.13, 0.06),
                    (0.51, 0.51, 0.13, 0.12),
                    (0.68, 0.64, 0.13, 0.18),
                    (0.86, 0.72, 0.13, 0.24),
                ),
                coat='scenery',
            ),
            _Actor(
                'blob',
                (
                    (0.62, 0.44, 0.28, 0.0),
                    (0.56, 0.52, 0.28, 0.03),
                    (0.51, 0.50, 0.29, 0.0),
                    (0.48, 0.44, 0.28, -0.03),
                    (0.42, 0.40, 0.28, 0.0),
                ),
                wobble=(0.13, 0.13, 3.0, 2.0),
            ),
            _Actor(
                'ring',
                (
                    (0.28, 0.80, 0.18, 0.0),
                    (0.40, 0.72, 0.18, 0.05),
                    (0.56, 0.77, 0.18, 0.1),
                    (0.48, 0.84, 0.18, 0.15),
                    (0.32, 0.80, 0.18, 0.2),
                ),
                wobble=(0.12, 0.12, 2.5, 2.5),
            ),
            _Actor(
                'leaf',
                (
                    (0.87, 0.22, 0.16, 0.0),
                    (0.79, 0.34, 0.16, 0.05),
                    (0.85, 0.42, 0.16, 0.1),
                    (0.77, 0.30, 0.16, 0.05),
                    (0.85, 0.20, 0.16, 0.0),
                ),
                wobble=(0.0, 0.18, 3.0, 2.0),
            ),
        ),
    ),
    'hide-and-return': _Scenario(
        camera=((0.0, 0.0, 0.27, 0.0), (0.04, 0.01, 0.27, 0.0), (-0.02, 0.02, 0.27, 0.0)),
        actors=(
            _Actor(
                'flower',
                (
                    (0.22, 0.52, 0.12, 0.0),
                    (0.46, 0.42, 0.12, 0.1),
                    (0.60, 0.46, 0.12, 0.15),
                    (0.72, 0.58, 0.12, 0.2),
                    (0.87, 0.46, 0.12, 0.3),
                ),
            ),
            _Actor(
                'star',
                (
                    (0.30, 0.80, 0.17, 0.0),
                    (0.06, 0.78, 0.17, -0.2),
                    (-0.24, 0.55, 0.17, -0.3),
                    (0.02, 0.30, 0.17, -0.4),
                    (0.24, 0.24, 0.17, -0.6),
                ),
            ),
            _Actor(
                'tile',
                (
                    (0.78, 0.20, 0.14, 0.0),
                    (0.62, 0.24, 0.15, 0.05),
                    (0.48, 0.26, 0.16, 0.1),
                    (0.64, 0.20, 0.15, 0.15),
                    (0.72, 0.17, 0.14, 0.2),
                ),
                coat='scenery',
            ),
            _Actor(
                'leaf',
                (
                    (0.76, 0.86, 0.15, 0.0),
                    (0.62, 0.78, 0.15, -0.1),
                    (0.46, 0.84, 0.15, -0.2),
                    (0.60, 0.80, 0.15, -0.1),
                    (0.78, 0.84, 0.15, 0.0),
                ),
            ),
        ),
        screen=('post', 'stripes', 'cocoa', (0.60, 0.50, 0.9, 0.0)),
    ),
    'camouflage': _Scenario(
        camera=((0.0, 0.0, 0.23, 0.0), (0.06, 0.02, 0.27, 0.02), (0.10, 0.08, 0.33, 0.03)),
        actors=(
            _Actor(
                'blob',
                (
                    (0.20, 0.32, 0.16, 0.0),
                    (0.36, 0.50, 0.17, 0.05),
                    (0.50, 0.51, 0.17, 0.1),
                    (0.62, 0.46, 0.18, 0.15),
                    (0.80, 0.64, 0.19, 0.2),
                ),
                pattern='scenery',
                coat='scenery',
            ),
            _Actor(
                'gear',
                (
                    (0.76, 0.32, 0.25, 0.0),
                    (0.60, 0.46, 0.27, 0.1),
                    (0.50, 0.51, 0.29, 0.15),
                    (0.39, 0.53, 0.29, 0.2),
                    (0.24, 0.60, 0.27, 0.3),
                ),
            ),
            _Actor(
                'tile',
                (
                    (0.22, 0.80, 0.14, 0.0),
                    (0.40, 0.86, 0.15, 0.05),
                    (0.58, 0.78, 0.16, 0.1),
                    (0.50, 0.70, 0.16, 0.1),
                    (0.50, 0.84, 0.17, 0.1),
                ),
                pattern='scenery',
                coat='scenery',
            ),
            _Actor(
                'star',
                (
                    (0.50, 0.84, 0.14, 0.0),
                    (0.70, 0.72, 0.15, 0.2),
                    (0.84, 0.50, 0.16, 0.4),
                    (0.76, 0.28, 0.16, 0.6),
                    (0.60, 0.18, 0.15, 0.8),
                ),
            ),
        ),
    ),
    'shoal': _Scenario(
        camera=((0.0, 0.0, 0.27, 0.0), (-0.03, 0.02, 0.27, 0.0), (-0.02, 0.05, 0.27, 0.0)),
        actors=tuple(
            _Actor('koi', path, (0.0, 0.14, 2.2, 3.0), 'blotches', 'koi', heads=True)
            for path in (
                (
                    (0.18, 0.26, 0.19, 0.0),
                    (0.35, 0.38, 0.19, 0.0),
                    (0.55, 0.44, 0.19, 0.0),
                    (0.72, 0.37, 0.19, 0.0),
                    (0.83, 0.24, 0.19, 0.0),
                ),
                (
                    (0.82, 0.62, 0.21, 0.0),
                    (0.64, 0.75, 0.21, 0.0),
                    (0.45, 0.70, 0.21, 0.0),
                    (0.30, 0.58, 0.21, 0.0),
                    (0.18, 0.60, 0.21, 0.0),
                ),
                (
                    (0.18, 0.68, 0.22, 0.0),
                    (0.34, 0.80, 0.22, 0.0),
                    (0.54, 0.71, 0.22, 0.0),
                    (0.68, 0.77, 0.22, 0.0),
                    (0.80, 0.80, 0.22, 0.0),
                ),
                (
                    (0.56, 0.17, 0.20, 0.0),
                    (0.80, 0.08, 0.20, 0.0),
                    (1.12, -0.26, 0.20, 0.0),
                    (0.80, -0.24, 0.20, 0.0),
                    (0.44, 0.16, 0.20, 0.0),
                ),
            )
        ),
        num_objects=4,
        screen=('pad', 'cells', 'lily', (0.54, 0.45, 0.29, 0.1)),
    ),
}


@functools.lru_cache(maxsize=32)
def _build_scene(
    index: int, num_frames: int, size: tuple[int, int], num_objects: int | None, seed: int
) -> Scene:
    """Makes the scene of sequence `index`: its scenario, with random colours, places and flips."""
    scenario = list(_SCENARIOS.values())[index % len(_SCENARIOS)]
    draw = seeded_generator('scene', seed, index)
    pattern, colours = _SCENERIES[_scenery(index, seed)]
    coats = draw.permutation(_COATS_AT_RANDOM)
    patterns = draw.permutation(_PATTERNS_AT_RANDOM)
    flips = tuple(bool(flip) for flip in draw.integers(2, size=2))
    step = -1 if draw.integers(2) else 1  # The whole video may run backwards.
    camera = np.array(scenario.camera[::step])
    camera[:, :2] += draw.random(2)

    layers = [Layer(0, None, draw_texture(pattern, colours, draw, 512), camera)]
    actors = scenario.actors[: num_objects or scenario.num_objects]
    for label, actor in enumerate(actors, 1):
        draw = seeded_generator('layer', seed, index, label)
        path = np.array(actor.path[::step])
        path[:, :2] += draw.uniform(-0.01, 0.01, (len(path), 2))
        path[:, 3] += _headings(path, size) if actor.heads else draw.random()
        coat = actor.coat or coats[label]
        kind = pattern if actor.pattern == 'scenery' else actor.pattern or patterns[label]
        texture = draw_texture(kind, colours if coat == 'scenery' else _COATS[coat], draw, 256)
        wobble = (*actor.wobble, draw.random())
        layers.append(Layer(label, OUTLINES[actor.outline], texture, path, wobble))
        if label == 1 and scenario.screen:
            outline, kind, coat, place = scenario.screen
            texture = draw_texture(kind, _COATS[coat], draw, 256)
            path = place + (camera - camera[1]) * [1, 1, 0, 0]
            # The texture is as fine as the background's, whatever the size of the screen.
            density = 64 * place[2] / camera[0, 2]
            layers.append(Layer(0, OUTLINES[outline], texture, path, density=density))
    return Scene(tuple(layers), num_frames, size, flips, 0.08, 2.5, (seed, index))


def _scenery(index: int, seed: int) -> str:
    """Chooses the key of _SCENERIES for sequence `index`.

    The shoal has the pond. Within one turn of the scenarios no two are alike.
    """
    turn, place = divmod(index, len(_SCENARIOS))
    names = [name for name in _SCENERIES if name != 'pond']
    return [*seeded_generator('scenery', seed, turn).permutation(names), 'pond'][place]


def _headings(path: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Computes a path's direction at each point, in turns, in a frame of `size`: `[K]`."""
    ends = np.concatenate([2 * path[:1] - path[1:2], path, 2 * path[-1:] - path[-2:-1]])
    along = (ends[2:] - ends[:-2])[:, :2] * [size[1], size[0]]
    return np.unwrap(np.arctan2(along[:, 1], along[:, 0])) / (2 * np.pi)
