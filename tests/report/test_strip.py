"""The strip of curves: pixels are where the values are."""

import numpy as np

from jaxprop.report.strip import draw_strip, with_cursor

RED, GREEN = (255, 0, 0), (0, 255, 0)


def rows_of(strip, colour, column):
    """The rows where a column tends to a colour, which is drawn half way to white."""
    pixels, channel = strip[:, column].astype(int), np.argmax(colour)
    return np.flatnonzero(pixels[:, channel] - np.delete(pixels, channel, 1).max(axis=1) > 20)


def test_curves_are_where_their_values_are():
    values = np.array([[1.0] * 21, [0.5] * 8 + [np.nan] * 5 + [0.0] * 8])
    strip = draw_strip(values, (RED, GREEN), [0, 10], 401)
    height = len(strip)
    assert strip.shape == (50, 401, 3) and strip.dtype == np.uint8
    for column in (50, 200, 350):
        assert abs(rows_of(strip, RED, column).mean() - 0.1 * (height - 1)) < 1
    assert abs(rows_of(strip, GREEN, 70).mean() - 0.5 * (height - 1)) < 1
    assert not rows_of(strip, GREEN, 200).size
    assert abs(rows_of(strip, GREEN, 330).mean() - 0.9 * (height - 1)) < 1
    # A white mark at the top of frame 10, and none at frame 11.
    assert (strip[0, 200] == 255).all() and (strip[0, 220] < 255).all()


def test_the_cursor_moves_over_a_copy():
    strip = draw_strip(np.full((1, 5), 0.5), [RED], [], 101)
    before = strip.copy()
    for number, column in ((0, 0), (2, 50), (4, 100)):
        shown = with_cursor(strip, number, 5)
        assert (shown[:, column] == 255).all()
        assert (np.delete(shown, column, 1) == np.delete(strip, column, 1)).all()
    np.testing.assert_array_equal(strip, before)


def test_one_frame_and_no_object():
    assert draw_strip(np.full((1, 1), 0.3), [RED], [0], 32).shape == (16, 32, 3)
    assert draw_strip(np.zeros((0, 3)), [], [0], 64).shape == (16, 64, 3)
