"""Draws scenes of textured shapes that move along smooth paths, and their exact label maps."""

import dataclasses
import functools
import zlib
from collections.abc import Callable

import cv2
import numpy as np

_REACH = 1.3  # units from the origin within which every outline lies


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One textured shape of a scene, or its background.

    Attributes:
      label: its id; 0 for the background and for things that are not objects.
      outline: a function of (u, v), below 0 inside, above 0 outside, smooth across 0. The shape
        lies within 1.3 units of the origin. None for the background, which is everywhere.
      texture: uint8 RGB `[S, S, 3]`, periodic.
      path: `[K, 4]`: x and y of the centre as fractions of the frame's width and height, the length
        of one unit as a fraction of the frame's short side, and the rotation in turns (clockwise),
        at K times that are spread evenly over the sequence. A cubic spline interpolates them.
      wobble: (amplitude along u, amplitude along v, wave number, periods in the sequence, phase in
        turns) of the waves that deform outline and texture.
      density: texture pixels to a unit of u and v.
    """

    label: int
    outline: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    texture: np.ndarray
    path: np.ndarray
    wobble: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    density: float = 64.0

    def place(self, time: float, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Computes (column, row, pixels to a unit, radians) at `time` in [0, 1].

        Args:
          time: from 0 to 1 in the sequence.
          size: (height, width) of the frame.
        """
        x, y, unit, turns = _spline(self.path, time)
        return x * size[1], y * size[0], unit * min(size), 2 * np.pi * turns

    def coordinates(
        self, time: float, size: tuple[int, int], rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes (u, v), `[R, C]` each, at the centres of pixels `rows [R]` x `columns [C]`."""
        column, row, unit, angle = self.place(time, size)
        right = (columns[None, :] + 0.5 - column) / unit
        down = (rows[:, None] + 0.5 - row) / unit
        u = np.cos(angle) * right + np.sin(angle) * down
        v = np.cos(angle) * down - np.sin(angle) * right
        along, across, wave_number, periods, phase = self.wobble
        swing = 2 * np.pi * (periods * time + phase)
        if along:
            u = u + along * np.sin(wave_number * v + swing)
        if across:
            v = v + across * np.sin(wave_number * u - swing)
        return u, v


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A sequence of pictures: layers from back to front, with light, noise and flips.

    Attributes:
      layers: the background first.
      num_frames: T.
      size: (height, width) in pixels.
      flips: whether the picture is turned upside down, and whether left to right.
      light: how far brightness swings, as a fraction.
      noise: standard deviation of the sensor's noise, in levels of 255.
      seed: of the noise.
    """

    layers: tuple[Layer, ...]
    num_frames: int
    size: tuple[int, int]
    flips: tuple[bool, bool] = (False, False)
    light: float = 0.0
    noise: float = 0.0
    seed: tuple[int, ...] = (0,)

    def frame(self, index: int) -> np.ndarray:
        """Draws a frame: uint8 RGB `[H, W, 3]`, outlines antialiased."""
        time = self._time(index)
        canvas = np.zeros((*self.size, 3), np.float32)
        for layer in self.layers:
            self._draw(canvas, layer, time)

        # A lamp moves from left to right, and its colour goes from warm to cold.
        glow = np.cos(np.pi * (np.linspace(0, 1, self.size[1]) - time))
        warmth = np.sin(2 * np.pi * time) * np.array([0.6, 0.2, -0.2])
        canvas *= (1 + self.light * (glow[:, None] + warmth)).astype(np.float32)
        generator = seeded_generator('noise', *self.seed, index)
        canvas += self.noise * generator.standard_normal(canvas.shape, np.float32)
        return self._flip(np.rint(canvas.clip(0, 255)).astype(np.uint8))

    def label(self, index: int) -> np.ndarray:
        """Draws the ids of a frame: int32 `[H, W]`."""
        time = self._time(index)
        ids = np.zeros(self.size, np.int32)
        for layer in self.layers:
            if layer.outline is not None:
                window = self._window(layer, time)
                inside = layer.outline(*layer.coordinates(time, self.size, *window)) < 0
                ids[np.ix_(*window)] = np.where(inside, layer.label, ids[np.ix_(*window)])
        return self._flip(ids)

    def _time(self, index: int) -> float:
        if not 0 <= index < self.num_frames:
            raise IndexError(f'frame {index} of a sequence of {self.num_frames}')
        return index / max(self.num_frames - 1, 1)

    def _flip(self, picture: np.ndarray) -> np.ndarray:
        vertical, horizontal = (-1 if flip else 1 for flip in self.flips)
        return np.ascontiguousarray(picture[::vertical, ::horizontal])

    def _window(
        self, layer: Layer, time: float, margin: float = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the rows and the columns within `margin` pixels of the area a layer may cover."""
        column, row, unit, _ = layer.place(time, self.size)
        reach = (_REACH + np.hypot(*layer.wobble[:2])) * unit + margin

        def within(centre: float, length: int) -> np.ndarray:
            low, high = np.clip([np.floor(centre - reach), np.ceil(centre + reach)], 0, length)
            return np.arange(int(low), int(high))

        return within(row, self.size[0]), within(column, self.size[1])

    def _draw(self, canvas: np.ndarray, layer: Layer, time: float) -> None:
        if layer.outline is None:
            where = layer.coordinates(time, self.size, *map(np.arange, self.size))
            canvas[:] = _sample(layer, *where)
            return
        fall = 0.02 * min(self.size)  # of the shadow, in pixels to the right and down
        rows, columns = self._window(layer, time, 2.5 * fall)
        if not (rows.size and columns.size):
            return
        # Central differences need one more pixel on each side.
        padded = (np.arange(pixels[0] - 1, pixels[-1] + 2) for pixels in (rows, columns))
        u, v = layer.coordinates(time, self.size, *padded)
        level = layer.outline(u, v)
        right = (level[1:-1, 2:] - level[1:-1, :-2]) / 2
        down = (level[2:, 1:-1] - level[:-2, 1:-1]) / 2
        slope = np.hypot(right, down) + 1e-9
        distance = level[1:-1, 1:-1] / slope  # pixels to the outline, to first order
        facing = (right + down) / slope  # above 0 where the outline faces the lower right

        # Shade as if the edge were rounded and lit from the upper left.
        edge = np.exp(np.minimum(level[1:-1, 1:-1], 0) / 0.12)
        shade = 1 - edge * (0.12 + 0.2 * facing)
        shadow = np.clip(0.5 - (distance - fall * facing) / (3 * fall), 0, 1)
        shadow = 1 - 0.35 * shadow * shadow * (3 - 2 * shadow)
        coverage = np.clip(0.5 - distance, 0, 1)

        colour = _sample(layer, u[1:-1, 1:-1], v[1:-1, 1:-1])
        picture = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        picture *= ((1 - coverage) * shadow)[..., None].astype(np.float32)
        picture += colour * (coverage * shade)[..., None].astype(np.float32)


def seeded_generator(purpose: str, *seed: int) -> np.random.Generator:
    # Without the purpose in front, (1, 2) and (1, 2, 0) would seed the same numbers.
    return np.random.Generator(np.random.PCG64([zlib.crc32(purpose.encode()), *seed]))


def _spline(points: np.ndarray, time: float) -> np.ndarray:
    """Interpolates `points [K, D]` by a Catmull-Rom spline at `time` in [0, 1]: `[D]`."""
    points = np.asarray(points, np.float64)
    if len(points) == 1:
        return points[0]
    before = 2 * points[:1] - points[1:2]
    after = 2 * points[-1:] - points[-2:-1]
    start = min(int(time * (len(points) - 1)), len(points) - 2)
    t = time * (len(points) - 1) - start
    a, b, c, d = np.concatenate([before, points, after])[start : start + 4]
    return b + t * ((c - a) + t * ((2 * a - 5 * b + 4 * c - d) + t * (3 * (b - c) + d - a))) / 2


def _sample(layer: Layer, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Reads the texture's colours at (u, v) `[R, C]`: float32 `[R, C, 3]`."""
    columns, rows = ((layer.density * x).astype(np.float32) for x in (u, v))
    linear, wrap = cv2.INTER_LINEAR, cv2.BORDER_WRAP
    return cv2.remap(layer.texture, columns, rows, linear, borderMode=wrap).astype(np.float32)


# Outlines. Each is negative inside and changes by about 1 in a unit across its edge.


def _polar(*harmonics: tuple[int, float, float]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Makes the outline of a radius that depends on the angle.

    The radius is 0.9 + the sum of amplitude * cos(n * angle + phase) over (n, amplitude, phase).
    """

    def outline(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        angle = np.arctan2(v, u)
        radius = 0.9 + sum(size * np.cos(n * angle + phase) for n, size, phase in harmonics)
        return np.hypot(u, v) - radius

    return outline


def _ellipse(
    u: np.ndarray, v: np.ndarray, x: float, y: float, length: float, width: float, turns: float = 0
) -> np.ndarray:
    cosine, sine = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    along, across = cosine * (u - x) + sine * (v - y), cosine * (v - y) - sine * (u - x)
    return (np.hypot(along / length, across / width) - 1) * min(length, width)


def _tile(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u**4 + v**4) ** 0.25 - 0.85


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.72) - 0.3


def _leaf(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # The overlap of two discs of radius 1.4.
    return np.maximum(np.hypot(u, v - 0.85), np.hypot(u, v + 0.85)) - 1.4


def _post(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u) - 0.17 - 0.02 * np.sin(7 * v), np.abs(v) - 1.28)


def _pad(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # A disc with a notch.
    return np.maximum(np.hypot(u, v) - 1, 0.25 * u - np.abs(v) - 0.05)


def _koi(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    mirrored = np.abs(v)
    return functools.reduce(
        np.minimum,
        [
            _ellipse(u, v, 0.35, 0, 0.75, 0.32),
            _ellipse(u, v, -0.25, 0, 0.75, 0.22),
            _ellipse(u, mirrored, -0.95, 0.14, 0.32, 0.13, -0.08),
            _ellipse(u, mirrored, 0.35, 0.38, 0.28, 0.13, 0.4),
        ],
    )


OUTLINES = {
    'blob': _polar((2, 0.12, 0.4), (3, 0.1, 1.9), (5, 0.04, 0.0)),
    'flower': _polar((6, 0.14, 0.0)),
    'gear': _polar((9, 0.09, 0.0), (27, -0.02, 0.0)),
    'star': _polar((5, 0.26, 0.0), (10, 0.05, 0.0)),
    'tile': _tile,
    'ring': _ring,
    'leaf': _leaf,
    'koi': _koi,
    'post': _post,
    'pad': _pad,
}


# Textures: a pattern in [0, 1] of a few dozen pixels a period, whose values become colours.


def _noise(generator: np.random.Generator, size: int, low: float, high: float) -> np.ndarray:
    """Draws periodic noise `[size, size]` of variance 1 with `low` to `high` waves a side."""
    spectrum = np.fft.rfft2(generator.standard_normal((size, size)))
    frequency = np.hypot(
        np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None]
    )
    band = (frequency >= low) & (frequency <= high)
    noise = np.fft.irfft2(np.where(band, spectrum / np.maximum(frequency, 1), 0), (size, size))
    return noise / noise.std()


def _cells(generator: np.random.Generator, size: int, across: int) -> np.ndarray:
    """Draws stones of different grey with dark joints: Voronoi cells of a grid of shaken points."""
    points = generator.random((across, across, 3))
    position = np.arange(size) * across / size
    cell = position.astype(int)
    nearest, second, grey = np.full((3, size, size), np.inf)
    for down, right in np.ndindex(5, 5):
        rows, columns = cell[:, None] + down - 2, cell[None, :] + right - 2
        y, x, value = np.moveaxis(points[rows % across, columns % across], -1, 0)
        distance = (rows + y - position[:, None]) ** 2 + (columns + x - position[None, :]) ** 2
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        grey = np.where(closer, value, grey)
        nearest = np.where(closer, distance, nearest)
    return np.clip(3 * (np.sqrt(second) - np.sqrt(nearest)), 0, 1) * (0.35 + 0.65 * grey)


def _pattern(kind: str, generator: np.random.Generator, size: int) -> np.ndarray:
    cycles = size // 25
    y, x = 2 * np.pi * np.mgrid[:size, :size] / size
    if kind == 'terrain':
        return 0.5 + 0.22 * _noise(generator, size, 2, size / 6)
    if kind == 'stripes':
        bend = 0.8 * _noise(generator, size, 1, 6)
        return 0.5 + 0.5 * np.tanh(2 * np.sin(cycles * x + bend))
    if kind == 'checks':
        half = cycles // 2
        return 0.5 + 0.5 * np.tanh(6 * np.sin(half * x) * np.sin(half * y))
    if kind == 'dots':
        half = cycles // 2
        return 0.5 + 0.5 * np.tanh(3 * (np.cos(half * (x + y)) + np.cos(half * (x - y)) - 0.7))
    if kind == 'blotches':
        return 0.5 + 0.5 * np.tanh(2.5 * _noise(generator, size, cycles / 4, cycles))
    if kind == 'cells':
        return _cells(generator, size, size // 30)
    if kind == 'waves':
        bend = 1.5 * _noise(generator, size, 1, 12)
        return 0.5 + 0.25 * np.sin(cycles * y + bend) + 0.1 * _noise(generator, size, 4, size / 8)
    raise ValueError(f'kind is {kind!r}; there is no such pattern')


def draw_texture(
    kind: str, colours: tuple[tuple[int, int, int], ...], generator: np.random.Generator, size: int
) -> np.ndarray:
    """Draws a periodic texture, uint8 RGB `[size, size, 3]`; no two places are quite alike."""
    value = np.clip(_pattern(kind, generator, size), 0, 1) * (len(colours) - 1)
    channels = [np.interp(value, np.arange(len(colours)), channel) for channel in zip(*colours)]
    grain = 1 + 0.09 * _noise(generator, size, size / 32, size / 5)
    grain = grain * (1 + 0.06 * _noise(generator, size, 1, 8))
    return np.rint(np.clip(np.stack(channels, -1) * grain[..., None], 0, 255)).astype(np.uint8)
