"""The outline of the truth in players: where it runs, and that it is there only with a truth."""

import dataclasses
import json
import re

import cv2
import numpy as np
import pytest

from jaxprop.data.image_files import write_mask
from jaxprop.data.sequences import davis_palette
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.report import page as pages
from jaxprop.report.pictures import draw_view, outline
from jaxprop.tasks import masks
from jaxprop.tasks.task import MaskPicture, SequenceView
from tests.report.test_page import Page

PALETTE = davis_palette()


def filled(path, size):
    """The pixels inside a path: of its closed lines and steps, by OpenCV."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    lines = re.findall(r'M(\d+) (\d+)(?:l([-\d ]*))?z', path)
    assert ''.join(f'M{x} {y}' + (f'l{steps}' if steps else '') + 'z' for x, y, steps in lines) == (
        path
    )
    for x, y, steps in lines:
        moves = np.array(re.findall(r'-?\d+', steps), int).reshape(-1, 2)
        points = np.cumsum([[int(x), int(y)], *moves], axis=0)
        pixels = np.rint(points * (width / 500, height / 500) - 0.5).astype(np.int32)
        inside = cv2.fillPoly(np.zeros(size, np.uint8), [pixels], 1)
        mask ^= inside  # A line inside another one is a hole.
    return mask.astype(bool)


def make_truth(size=(120, 200)):
    truth = np.zeros(size, np.uint8)
    cv2.circle(truth, (60, 60), 40, 1, cv2.FILLED)
    cv2.circle(truth, (60, 60), 15, 0, cv2.FILLED)  # A hole.
    truth[10:110, 120:190] = 4
    truth[10:40, 120:150] = 0
    truth[115, 5] = 4  # One pixel, apart.
    return truth


def make_view(truths):
    frame, ids = np.full((120, 200, 3), 90, np.uint8), np.zeros((120, 200), np.uint8)
    pictures = (MaskPicture(frame, ids, PALETTE, truth) for truth in truths)
    return draw_view(SequenceView('a', len(truths), (), (), pictures, list(range(len(truths)))))


def truth_of(path):
    """The outlines in a page's players, and the colours of their lines."""
    page = Page(path)
    found = [
        json.loads(text)['paths']
        for tag, text in page.texts
        if tag == 'script' and text.startswith('{"paths"')
    ]
    lines = [path for path in page.find('path') if 'data-colour' in path and 'style' in path]
    return found, [(line['data-colour'], line['style']) for line in lines]


def test_outlines_enclose_the_objects():
    truth = make_truth()
    paths = outline(truth, PALETTE)
    assert set(paths) == {tuple(PALETTE[value].tolist()) for value in (1, 4)}
    for value in (1, 4):
        inside = filled(paths[tuple(PALETTE[value].tolist())], truth.shape)
        overlap = (inside & (truth == value)).sum() / (inside | (truth == value)).sum()
        assert overlap > 0.95
    assert outline(np.zeros((4, 5), np.uint8), PALETTE) == {}


def test_objects_of_one_colour_share_a_path():
    palette = PALETTE.copy()
    palette[4] = palette[1]
    truth = make_truth()
    (path,) = outline(truth, palette).values()
    assert (filled(path, truth.shape) == (truth > 0)).mean() > 0.97


def test_players_have_the_truth_of_each_frame(tmp_path):
    truth = make_truth()
    other = np.where(truth == 4, truth, 0)
    view = make_view([truth, None, other, np.zeros_like(truth)])
    pages.write_report(tmp_path / 'report.html', {}, [view])
    ((first, unknown, second, empty),), lines = truth_of(tmp_path / 'report.html')
    colours = [tuple(PALETTE[value].tolist()) for value in (1, 4)]
    assert first == [outline(truth, PALETTE)[colour] for colour in colours]
    assert unknown is None and empty == ['', '']
    assert second == ['', outline(other, PALETTE)[colours[1]]]
    assert lines == [('0', '--colour:#800000'), ('1', '--colour:#000080')]
    (button,) = Page(tmp_path / 'report.html').find('button', 'toggle')
    assert button['aria-pressed'] == 'false'


def test_without_a_truth_there_is_nothing_to_toggle(tmp_path):
    views = [make_view([None, None]), make_view([np.zeros((120, 200), np.uint8)])]
    pages.write_report(tmp_path / 'report.html', {}, views)
    page = Page(tmp_path / 'report.html')
    assert truth_of(tmp_path / 'report.html') == ([], [])
    assert not page.find('button', 'toggle') and not page.find('svg', 'truth')
    assert len(page.find('div', 'player')) == 2 and 'Truth' not in page.text()


def test_runs_that_are_compared_share_one_truth(tmp_path):
    view = make_view([make_truth()] * 2)
    rows = [{'sequence': 'a', 'J': 0.5}]
    comparison = {
        'runs': [{'name': 'one'}, {'name': 'two'}],
        'settings': [],
        'tables': {'summary': [], 'per_sequence': []},
        'measures': (),
        'per_sequence': [rows, rows],
        'warnings': [],
    }
    pages.write_comparison(tmp_path / 'comparison.html', comparison, [[view, view]])
    found, lines = truth_of(tmp_path / 'comparison.html')
    assert len(found) == 1 and len(lines) == 2 * 2
    assert len(Page(tmp_path / 'comparison.html').find('svg', 'truth')) == 2


def test_tasks_show_what_is_annotated(tmp_path):
    """The outlines of a task's pictures are those of the sequence's own labels."""
    (sequence,) = synthetic_sequences(1, 3, (64, 80))
    sequence = dataclasses.replace(
        sequence, read_label=lambda t, read=sequence.read_label: read(t) if t < 2 else None
    )
    given = sequence.read_label(0)
    for t, name in enumerate(sequence.frame_names):
        write_mask(tmp_path / f'{name}.png', np.zeros_like(given) if t else given, PALETTE)
    pictures = masks.pictures(tmp_path, sequence, [0, 1, 2])
    view = draw_view(SequenceView('a', 3, (), (), pictures, [0, 1, 2]))
    expected = [outline(sequence.read_label(t), PALETTE) for t in (0, 1)]
    assert list(view.outlines) == [*expected, None] and all(expected)


def test_outlines_are_of_all_pictures():
    with pytest.raises(ValueError, match='2 frame_numbers for 1 outlines'):
        SequenceView('a', 2, (), (), [b'', b''], [0, 1], outlines=[{}])
