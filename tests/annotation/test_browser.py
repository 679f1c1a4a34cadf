"""The page in a real browser: what the pointer and the keys draw is what is saved."""

import numpy as np
import pytest

from jaxprop.annotation.session import Session
from jaxprop.data.image_files import read_mask
from jaxprop.data.video_files import open_video
from tests.annotation.browser import Browser
from tests.annotation.standin import Shift, gated, write_clip
from tests.annotation.test_server import serving

SIZE = 90, 120
SIDE = 14  # Of the brush.


@pytest.fixture(scope='module')
def browser():
    with Browser() as browser:
        yield browser


class Page:
    """The page of a session, with positions in pixels of the frame."""

    def __init__(self, browser, session, server):
        self.browser, self.session, self.server = browser, session, server
        browser.open('about:blank')
        browser.open(server.address)
        browser.wait('typeof shown === "number" && shown === 0 && revision > 0')
        browser.run(f'setSize({SIDE})')

    def at(self, point):
        """Converts (x, y) of the frame to a place of the window."""
        x, y = point[0] / SIZE[1], point[1] / SIZE[0]
        self.browser.run(
            f"$('stage').scrollTo({x} * overlay.clientWidth - $('stage').clientWidth / 2,"
            f"{y} * overlay.clientHeight - $('stage').clientHeight / 2)"
        )
        left, top, wide, high = self.browser.run(
            '(b => [b.x, b.y, b.width, b.height])(overlay.getBoundingClientRect())'
        )
        return left + x * wide, top + y * high

    def drag(self, *points, button='left'):
        self.browser.drag([self.at(point) for point in points], button)
        self.settle()

    def keys(self, *keys, **modifiers):
        for key in keys:
            self.browser.key(key, **modifiers)
        self.settle()

    def settle(self):
        """Waits until everything is saved and shown."""
        self.browser.wait('unsaved.size === 0 && shown === wanted && !isLoading')

    def shown(self):
        """The mask that the page shows."""
        return np.array(self.browser.run('[...mask]'), np.uint8).reshape(SIZE)


@pytest.fixture
def page(browser, tmp_path, request):
    label = getattr(request, 'param', None) or Shift()
    session = Session(open_video(write_clip(tmp_path / 'clip', size=SIZE)), tmp_path / 'out', label)
    browser.errors.clear()
    with serving(session) as server:
        yield Page(browser, session, server)
        assert not browser.errors
        assert browser.run("$('problem').hidden || $('problem').textContent") is True
        browser.open('about:blank')


def centres():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return x, y


def line(a, b):
    """The pixels whose centres are within half a brush of the line from a to b, bool `[H, W]`."""
    x, y = centres()
    steps = np.linspace(0, 1, 400)
    distances = [
        np.hypot(x - a[0] - t * (b[0] - a[0]), y - a[1] - t * (b[1] - a[1])) for t in steps
    ]
    return np.min(distances, axis=0) <= SIDE / 2


def inside(points):
    """The pixels whose centres are inside a polygon, by rays to the right, bool `[H, W]`."""
    x, y = centres()
    result = np.zeros(SIZE, bool)
    for a, b in zip(points, points[1:] + points[:1]):
        crosses = (a[1] <= y) != (b[1] <= y)
        slope = (b[0] - a[0]) / (b[1] - a[1] or 1)
        result ^= crosses & (x < a[0] + (y - a[1]) * slope)
    return result


def test_the_pointer_paints_and_erases(page):
    a, b, c = (20.3, 20.3), (80.7, 30.1), (40.2, 70.6)
    page.drag(a, b, c)
    expected = (line(a, b) | line(b, c)).astype(np.uint8)
    drawn = page.session.mask(0)
    # Positions go through the window's coordinates, so a pixel on the very edge may differ.
    assert 200 < expected.sum() and (drawn != expected).sum() <= 4
    np.testing.assert_array_equal(page.shown(), drawn)

    page.keys('n')
    page.drag((75.1, 28.2), (90.4, 28.2))
    second = page.session.mask(0)
    assert set(np.unique(second)) == {0, 1, 2}
    np.testing.assert_array_equal(second == 2, page.shown() == 2)
    # The right button erases, and of the chosen object alone.
    page.drag((60.1, 25.2), (110.4, 28.2), button='right')
    erased = page.session.mask(0)
    assert (erased == 2).sum() < (second == 2).sum()
    np.testing.assert_array_equal(erased == 1, second == 1)
    # The whole object on this frame.
    page.keys('x')
    np.testing.assert_array_equal(page.session.mask(0), second * (second == 1))
    page.keys('z', ctrl=True)
    # Other objects can be kept.
    page.browser.click('#protect')
    page.drag(b, c)
    np.testing.assert_array_equal(page.session.mask(0) == 1, second == 1)


def test_polygons_and_zoom(page):
    points = [(10.2, 10.2), (100.7, 15.1), (30.4, 80.3), (90.6, 70.7)]
    page.keys('p', '+', '+', '-')
    for point in points[:3]:
        page.drag(point)
    page.drag((119.5, 1.5))
    page.keys('Backspace')
    page.drag(points[3])
    page.keys('Enter')
    drawn, expected = page.session.mask(0), inside(points)
    assert 500 < expected.sum() and (drawn != expected).sum() <= 4
    # A click on the first point closes it too; it erases where that is chosen.
    page.keys('e', '0')
    for point in [(20.2, 5.2), (60.2, 5.2), (60.2, 60.2), (20.2, 5.2)]:
        page.drag(point)
    cut = inside([(20.2, 5.2), (60.2, 5.2), (60.2, 60.2)])
    assert (page.session.mask(0) != (drawn * ~cut)).sum() <= 4
    page.drag((50.5, 50.5))
    page.keys('Escape', 'Enter')
    assert not page.browser.run('polygon.length')


def test_undo_and_redo_go_through_frames(page):
    page.drag((20.3, 20.3), (40.3, 20.3))
    one = page.session.mask(0)
    page.keys('ArrowRight')
    page.drag((60.3, 60.3))
    two = page.session.mask(1)
    page.keys('Delete', 'End')
    assert page.session.mask(1) is None
    page.keys('z', ctrl=True)
    np.testing.assert_array_equal(page.session.mask(1), two)
    assert page.browser.run('shown') == 1
    page.keys('z', 'z', ctrl=True)
    assert page.session.mask(0) is None and page.session.mask(1) is None
    assert not page.shown().any() and page.browser.run("$('undo').disabled")
    page.keys('y', ctrl=True)
    np.testing.assert_array_equal(page.session.mask(0), one)
    page.keys('z', ctrl=True, shift=True)
    np.testing.assert_array_equal(page.session.mask(1), two)
    # A new stroke ends what could be done again.
    page.drag((90.3, 20.3))
    assert page.browser.run("$('redo').disabled")


def test_a_mask_can_be_drawn_where_one_was_removed(page):
    page.drag((30.3, 30.3))
    page.keys('Delete')
    assert page.session.mask(0) is None
    page.drag((60.3, 60.3))
    drawn = page.session.mask(0)
    assert drawn[60, 60] and not drawn[30, 30]
    page.keys('z', 'z', ctrl=True)
    assert page.session.mask(0)[30, 30]


def test_keys_move_in_time(page):
    where = []
    for key in ('ArrowRight', 'ArrowRight', 'ArrowLeft', 'End', 'ArrowRight', 'Home', 'ArrowLeft'):
        page.keys(key)
        where.append(page.browser.run('shown'))
    assert where == [1, 2, 1, 5, 5, 0, 0]
    page.keys('ArrowRight', shift=True)
    assert page.browser.run('shown') == 5
    page.keys('Home', ' ')
    page.browser.wait('timer === null && shown === 5')
    assert page.browser.run("$('scrubber').getAttribute('aria-valuetext')").startswith(
        'frame 5 of 5'
    )
    # Also after a click on a control that has a use for arrows itself.
    for number, control in enumerate(('#size', '[name=tool][value=polygon]', '#objects label'), 1):
        page.keys('Home')
        page.browser.click(control)
        page.keys(*['ArrowRight'] * number)
        assert page.browser.run('shown') == number
    page.browser.click('[name=tool][value=brush]')
    page.keys('End')
    # From one drawn mask to the next.
    page.drag((60.3, 60.3))
    page.keys('Home')
    page.drag((60.3, 60.3))
    page.keys('PageDown')
    assert page.browser.run('shown') == 5


def test_one_can_draw_without_a_pointer(page):
    page.browser.run('overlay.focus()')
    page.keys(' ', 'ArrowRight', 'ArrowRight', 'ArrowDown', ' ')
    middle = np.array(SIZE[::-1]) / 2
    expected = line(middle, middle + [20, 0]) | line(middle + [20, 0], middle + [20, 10])
    np.testing.assert_array_equal(page.session.mask(0) > 0, expected)
    assert page.browser.run('shown') == 0
    page.keys('p')
    for key in ('ArrowLeft', 'ArrowUp'):
        page.keys(' ', *[key] * 4)
    page.keys(' ', 'Enter')
    assert (page.session.mask(0) > 0).sum() > expected.sum()


def test_every_control_has_a_name(page):
    page.drag((60.3, 60.3))
    page.keys('Enter')
    page.browser.wait('job && !job.is_running')
    nodes = page.browser.call('Accessibility.getFullAXTree')['nodes']
    controls = [
        (node['role']['value'], node.get('name', {}).get('value', ''))
        for node in nodes
        if node.get('role', {}).get('value')
        in ('application', 'button', 'checkbox', 'image', 'radio', 'radiogroup', 'slider')
        and not node['ignored']
    ]
    assert len(controls) > 20
    assert [control for control in controls if not control[1].strip()] == []
    assert ('image', 'Confidence in object 1: mean 0.70, least 0.50 at frame 5') in controls


@pytest.mark.parametrize('page', [gated()[0]], indirect=True)
def test_a_propagation_is_shown_as_it_goes_and_can_be_cancelled(page):
    steps = page.session._label.steps
    page.drag((30.3, 30.3))
    page.keys('Enter')
    page.browser.wait("!$('job').hidden")
    assert page.browser.run("$('export').disabled")
    for _ in range(2):
        steps.put(None)
    page.browser.wait('shown === 2')
    np.testing.assert_array_equal(page.shown(), np.roll(page.session.mask(0), 2, axis=1))
    assert page.browser.run("$('progress').value") == 2
    # Who looks at another frame stays there.
    page.keys('Home')
    page.browser.key('Escape')
    page.browser.wait('job.is_cancelled')
    steps.put(None)
    page.browser.wait('!job.is_running')
    assert page.browser.run('[shown, job.done]') == [0, 2]
    assert 'Cancelled after 2 frames' in page.browser.run("$('job-text').textContent")


def test_corrections_are_kept_and_everything_is_exported(page, tmp_path):
    page.drag((30.3, 30.3))
    page.keys('Enter')
    page.browser.wait('job && !job.is_running && shown === 5')
    # A correction on frame 3 begins with the mask that was found there.
    page.keys('ArrowLeft', 'ArrowLeft')
    page.drag((90.3, 60.3))
    corrected = page.session.mask(3)
    assert (corrected > np.roll(page.session.mask(0), 3, axis=1)).any()
    assert page.browser.run('frames.map(f => f.is_outdated)') == [
        n in (1, 2, 4, 5) for n in range(6)
    ]
    page.keys('Enter')
    page.browser.wait('!isRunning() && frames.every(f => !f.is_outdated)')
    page.keys('s')
    page.browser.wait("$('exported').open")
    folder = tmp_path / 'out/masks'
    text = page.browser.run("$('exported-text').textContent")
    assert text == f'6 masks (palette PNGs) were written to {folder}.'
    for number, shift in ((3, 0), (4, 1), (5, 2)):
        mask = read_mask(folder / f'f{number}.png')
        np.testing.assert_array_equal(mask, np.roll(corrected, shift, axis=1))
    # The page, opened again, goes on.
    page.keys('Escape')
    Page(page.browser, page.session, page.server)
    assert page.browser.run('frames.map(f => f.kind[0]).join("")') == 'dffdff'


def test_what_cannot_be_saved_is_told_and_saved_later(page):
    page.drag((90.3, 60.3))
    page.browser.run(
        """const real = fetch; let tries = 0; fetch = (path, options) => {
        if (!path.startsWith('masks/')) return real(path, options);
        tries += 1; return Promise.reject(new TypeError()); }"""
    )
    page.browser.drag([page.at((30.3, 30.3))])
    page.browser.wait("$('problem').textContent.includes('does not answer')")
    # Nothing is exported without it, and it is tried again and again.
    page.browser.run('exportMasks()')
    page.browser.wait('tries > 3')
    assert not page.session.mask(0)[30, 30]
    assert not page.browser.run("$('exported').open || $('problem').hidden")
    page.browser.run('fetch = real')
    page.settle()
    assert page.session.mask(0)[30, 30]
    page.browser.wait("$('problem').hidden")
