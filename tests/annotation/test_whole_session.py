"""A whole session with the command and a browser: draw, propagate, correct, save, score."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from jaxprop import cli
from jaxprop.data.image_files import read_mask
from tests.annotation.browser import Browser
from tests.support import shared
from tests.test_scripts import ROOT

SEQUENCE = 'car-shadow'
NUMBERS = range(0, 40, 4)  # A fast clip of ten frames.
SMALL = [
    '--config.input.resize=short_side',
    '--config.input.size=160',
    '--config.propagation.radius=6.0',
]


@pytest.fixture
def clip(tmp_path):
    """Makes folders of frames and of true masks."""
    root = shared('data', 'DAVIS')
    for kind, suffix in (('JPEGImages', 'jpg'), ('Annotations', 'png')):
        (tmp_path / kind).mkdir()
        for number in NUMBERS:
            name = f'{number:05d}.{suffix}'
            shutil.copy(root / kind / '480p' / SEQUENCE / name, tmp_path / kind / name)
    return tmp_path


def corners(path):
    """The outline of a true mask as a person clicks it: `[N, 2]` (x, y), two pixels off at most."""
    mask = (read_mask(path) > 0).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.approxPolyDP(max(outlines, key=cv2.contourArea), 2.0, True)[:, 0] + 0.5


def draw(browser, path):
    """Draws an object by clicks on its corners."""
    left, top, scale = browser.run(
        '(b => [b.x, b.y, b.width / width])(overlay.getBoundingClientRect())'
    )
    browser.key('p')
    for x, y in corners(path).tolist():
        browser.drag([(left + scale * x, top + scale * y)])
    browser.key('Enter')
    browser.wait('unsaved.size === 0')


def save_and_score(browser, clip, capsys):
    """Saves the masks with the page, and returns the command's J&F of them."""
    browser.key('s')
    browser.wait("$('exported').open")
    browser.key('Escape')
    capsys.readouterr()
    folders = clip / 'out/masks', clip / 'Annotations'
    assert cli.main(['score', *map(str, folders), '--one_object', '--json']) == 0
    return json.loads(capsys.readouterr().out)['summary']['J&F-Mean']


@pytest.mark.slow
@pytest.mark.usefixtures('all_optimizations')
def test_a_correction_makes_the_masks_of_a_real_video_better(clip, capsys):
    with Browser((1400, 900)) as browser:
        process = subprocess.Popen(
            [
                *(sys.executable, '-m', 'jaxprop', 'annotate', clip / 'JPEGImages'),
                *(f'--output={clip / "out"}', '--no-browser', *SMALL),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
        )
        address = next(filter(None, (re.search('http.*', line) for line in process.stdout)))[0]
        browser.open(address)
        browser.wait('shown === 0')
        draw(browser, clip / 'Annotations/00000.png')
        browser.key('Enter')
        browser.wait('job && !job.is_running && shown === 9', seconds=200)
        one = save_and_score(browser, clip, capsys)

        # The last frame is wrong. It is drawn anew, and does not count in the score.
        browser.key('x')
        draw(browser, clip / 'Annotations/00036.png')
        browser.key('Enter')
        browser.wait('!isRunning() && frames.every(f => !f.is_outdated)', seconds=200)
        two = save_and_score(browser, clip, capsys)
        assert not browser.errors and browser.run("$('problem').hidden")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    print(f'J&F {one:.3f} with one mask, {two:.3f} with two')
    assert two > one + 0.05 and two > 0.6
