import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import math
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from jaxprop.data.image_files import read_image, read_mask
from jaxprop.data.sequences import davis_palette
from jaxprop.metrics import davis
from jaxprop.report import page as pages
from jaxprop.report import render
from jaxprop.report.pictures import draw_joints, draw_view, encode_picture, overlay
from jaxprop.tasks import objects
from jaxprop.tasks.task import (
    JointPicture,
    Layout,
    MaskPicture,
    Measure,
    SequenceView,
    Tile,
    distinct_colours,
)
from tests.support import shared

HOSTILE = '</script><script>alert(1)</script>"\'&<img src=x>'


class Page(html.parser.HTMLParser):
    """Parses a page as a browser does: elements with attributes, and the text inside each tag."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append((self.elements[-1][0] if self.elements else '', data))

    def find(self, tag, name=None):
        return [
            attributes
            for found, attributes in self.elements
            if found == tag and (name is None or attributes.get('class') == name)
        ]

    def text(self):
        return ' '.join(data for tag, data in self.texts if tag not in ('style', 'script'))


def make_frame(seed=0, size=(6, 8)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def make_report(name='two', **changes):
    generator = np.random.default_rng(1)
    region, boundary = generator.random((2, 2, 5))
    region[:, [0, -1]] = boundary[:, [0, -1]] = np.nan
    values = {
        'name': name,
        'region_similarity': region,
        'boundary_accuracy': boundary,
        'object_ids': (1, 3),
        'palette': davis_palette(),
        'frames': [encode_picture(make_frame(seed)) for seed in range(3)],
        'frame_numbers': [0, 2, 4],
    }
    rate = changes.pop('frames_per_second', 12)
    view = objects.view(**{**values, **changes})
    return dataclasses.replace(view, frames_per_second=rate)


def write_report(path, metrics, views):
    """The report of a task with objects."""
    pages.write_report(path, metrics, views, objects.LAYOUT)


def make_metrics(reports):
    results = {}
    for report in reports:
        values = [measure.values for measure in report.measures]
        results[report.name] = davis.SequenceResult(
            tuple(int(name) for name, _ in report.legend),
            *values,
            *(tuple(davis.sequence_statistics(line[1:-1]) for line in lines) for lines in values),
        )
    return {
        'title': 'A title',
        'summary': davis.summarize(results),
        'per_sequence': davis.sequence_table(results),
    }


def test_page_is_one_file_without_external_references(tmp_path):
    path = tmp_path / 'new' / 'report.html'
    report = make_report()
    write_report(path, make_metrics([report]), [report])

    assert [file.name for file in path.parent.iterdir()] == ['report.html']
    page = Page(path)
    for tag, attributes in page.elements:
        for name in ('src', 'href', 'srcset', 'data', 'action', 'poster', 'xlink:href'):
            reference = attributes.get(name)
            assert reference is None or reference.startswith(('data:', '#')), (tag, reference)
    source = path.read_text()
    assert not re.search(
        r'https?://|//\w|url\(|@import|fetch\(|XMLHttpRequest',
        re.sub('data:image/[^"]*', '', source),
    )
    (policy,) = [meta['content'] for meta in page.find('meta') if 'http-equiv' in meta]
    assert policy.startswith("default-src 'none'")


def test_no_script_but_the_pages_own_runs(tmp_path):
    """The browser runs a script only if its hash is the one that the page's policy names."""
    write_report(tmp_path / 'report.html', {}, [make_report()])
    page = Page(tmp_path / 'report.html')
    (policy,) = [meta['content'] for meta in page.find('meta') if 'http-equiv' in meta]
    (digest,) = re.findall("script-src 'sha256-([^']*)'$", policy)
    (script,) = [
        text for tag, text in page.texts if tag == 'script' and text.startswith("'use strict'")
    ]
    assert base64.urlsafe_b64decode(digest) == hashlib.sha256(script.encode()).digest()


def test_every_frame_is_inside_and_one_in_the_middle_needs_no_script(tmp_path):
    report = make_report()
    write_report(tmp_path / 'report.html', {}, [report])
    page = Page(tmp_path / 'report.html')

    def decode(uri):
        assert uri.startswith('data:image/webp;base64,')
        return base64.b64decode(uri.split(',')[1])

    assert [decode(image['src']) for image in page.find('img')] == report.frames[1:2]
    (uris,) = [json.loads(data) for tag, data in page.texts if tag == 'script' and data[0] == '[']
    # Each is there once: the list of the others leaves out the one that the page opens with.
    assert uris[1] is None
    assert [decode(uri or page.find('img')[0]['src']) for uri in uris] == report.frames
    (player,) = page.find('div', 'player')
    assert json.loads(player['data-numbers']) == report.frame_numbers
    # Slider, number and the line in the chart are at this frame too.
    assert page.find('input')[0]['value'] == '1' and 'frame 2' in page.text()
    (chart,), (cursor,) = page.find('svg', 'chart'), page.find('path', 'cursor')
    place = float(chart['data-left']) + 2 * float(chart['data-step'])
    assert cursor['transform'] == f'translate({place:.2f})'


def test_names_are_escaped(tmp_path):
    report = make_report(name=HOSTILE)
    metrics = make_metrics([report]) | {
        'title': HOSTILE,
        'skipped': [{'sequence': HOSTILE, 'reason': HOSTILE}],
        'warnings': [HOSTILE],
        'network': {HOSTILE: HOSTILE, 'name': HOSTILE, 'trained': False},
        'settings': {HOSTILE: {HOSTILE: [HOSTILE]}},
        'provenance': {'date': HOSTILE, 'command': HOSTILE},
        'timing': {HOSTILE: HOSTILE},
    }
    metrics['per_sequence'].append({'sequence': HOSTILE, 'object': HOSTILE, 'J-Mean': HOSTILE})
    write_report(tmp_path / 'hostile.html', metrics, [report])
    page = Page(tmp_path / 'hostile.html')

    assert len(page.find('img')) == 1 and page.find('img')[0]['src'].startswith('data:')
    # The page's own and the player's pictures.
    assert len(page.find('script')) == 2
    assert all('alert' not in data for tag, data in page.texts if tag == 'script')
    assert page.text().count(HOSTILE) >= 10


def with_texts(value, make):
    """Copies a value with another text in place of each: keys, names, headings, cells."""
    if isinstance(value, str):
        return make(value)
    if isinstance(value, dict):
        return {with_texts(key, make): with_texts(inner, make) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(with_texts(inner, make) for inner in value)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **with_texts_of(fields, make))
    return value


def with_texts_of(mapping, make):
    """Does the same for a mapping whose keys are a fixed part of its form."""
    return {key: with_texts(inner, make) for key, inner in mapping.items()}


def elements(path):
    """Lists the form of a page: its elements with the names of their attributes."""
    return [(tag, sorted(attributes)) for tag, attributes in Page(path).elements]


def test_nothing_from_any_field_is_markup(tmp_path):
    """A page of hostile texts has the same elements as one of plain texts."""
    view = dataclasses.replace(make_report(), heading='objects')
    metrics = {
        'title': 'title',
        'summary': {'J': 0.5, 'own': 0.25},
        'per_sequence': [{'sequence': 'two', 'object': '1', 'J': 0.5, 'own': 'text'}],
        'per_joint': [{'joint': 'knee', 'PCK': 0.5}],
        'skipped': [{'sequence': 'lost', 'reason': 'cut'}],
        'warnings': ['warning'],
        'network': {'name': 'net', 'trained': True, 'own': {'inner': 'value'}},
        'settings': {'propagation': {'k': 1, 'names': ['a', 'b']}},
        'provenance': {'date': 'today', 'own': 'value'},
        'timing': {'labelling': 'long'},
    }
    run = {'name': 'run', 'date': 'today', 'own': 'value'}
    row = {'measure': 'J', 'values': [0.5, 0.25], 'differences': [-0.25]}
    comparison = {
        'runs': [run, {**run, 'name': 'other'}],
        'settings': [{'setting': 'k', 'values': ['a', 'b']}],
        'tables': {
            'summary': [row],
            'per_sequence': [{'sequence': 'two', 'object': '1', **row}],
            'per_joint': [{'joint': 'knee', **row}],
        },
        'measures': ['J'],
        'per_sequence': [metrics['per_sequence']] * 2,
        'warnings': ['warning'],
    }
    layout = Layout(
        tiles=(Tile('J', 'similarity', 'J', (('own', 'own'),)),),
        means={'mean': ('J', 'own')},
        title=('J', 'J'),
        notes={'J': 'note'},
    )

    def write(folder, make):
        # The measures' names and the columns of tables are the keys that a page looks for.
        known = ('J', 'own', 'sequence', 'object', 'joint', 'measure', 'values', 'differences')

        def change(text):
            return text if text in known else make(text)

        def rows(found):
            return [with_texts(row, change) for row in found]

        tables = {name: rows(found) for name, found in comparison['tables'].items()}
        pages.write_report(
            folder / 'report.html',
            with_texts_of(metrics, lambda text: text if text in _FORM else change(text)),
            [with_texts(view, change)],
            with_texts(layout, change),
        )
        pages.write_comparison(
            folder / 'comparison.html',
            {
                **with_texts_of(comparison, lambda text: text if text in _FORM else change(text)),
                'tables': tables,
            },
            [[with_texts(view, change)] * 2],
            with_texts(layout, change),
        )
        return [elements(folder / name) for name in ('report.html', 'comparison.html')]

    plain = write(tmp_path / 'plain', lambda text: f'plain {text}')
    hostile = write(tmp_path / 'hostile', lambda text: HOSTILE + text)
    assert hostile == plain
    for name in ('report.html', 'comparison.html'):
        page = Page(tmp_path / 'hostile' / name)
        assert page.text().count(HOSTILE) >= 15
        assert all('alert' not in data for tag, data in page.texts if tag == 'script')


# Keys that a page looks for in what it is given.
_FORM = ('name', 'trained', 'date', 'reason', 'setting')


def test_templates_mark_nothing_as_safe_but_texts_of_their_own():
    templates = list(pathlib.Path(render.__file__).parent.glob('templates/*.html'))
    assert {template.name for template in templates} >= {'report.html', 'parts.html'}
    for template in templates:
        text = template.read_text()
        marked = re.findall(r"('[^']*')? \| safe\b", text)
        assert all(marked) and len(marked) == len(re.findall(r'\bsafe\b', text)), template
        assert 'autoescape' not in text, template
    for module in pathlib.Path(render.__file__).parent.glob('*.py'):
        assert not re.search(r'html\.escape|Markup|[\'">]</', module.read_text()), module


def test_name_that_is_no_text(tmp_path):
    report = make_report(name=b'caf\xe9'.decode('utf-8', 'surrogateescape'))
    write_report(tmp_path / 'report.html', make_metrics([report]), [report])
    assert 'caf?' in Page(tmp_path / 'report.html').text()


def test_numbers_equal_the_input(tmp_path):
    reports = [make_report('one'), make_report('two', object_ids=(2, 7))]
    metrics = make_metrics(reports)
    metrics['per_sequence'][1]['J-Decay'] = float('nan')
    del metrics['per_sequence'][2]['F-Recall']
    write_report(tmp_path / 'report.html', metrics, reports)
    source = (tmp_path / 'report.html').read_text()

    columns = ('J-Mean', 'J-Recall', 'J-Decay', 'F-Mean', 'F-Recall', 'F-Decay')
    body = source.split('<tbody>')[1].split('</tbody>')[0]
    lines = body.split('</tr>')[:-1]
    assert len(lines) == len(metrics['per_sequence']) == 4
    for line, row in zip(lines, metrics['per_sequence']):
        name, object_id, both, *exact = re.findall('data-value="([^"]*)"', line)
        assert (name, int(object_id)) == (row['sequence'], row['object'])
        assert float(both) == (row['J-Mean'] + row['F-Mean']) / 2
        shown = re.findall(r'data-value="[^"]*">([^<]*)<', line)[-6:]
        for column, value, text in zip(columns, exact, shown, strict=True):
            if not math.isfinite(row.get(column, np.nan)):
                assert (value, text) == ('', '&ndash;')
            else:
                assert float(value) == row[column]
                assert abs(float(text.replace('&minus;', '-')) - 100 * row[column]) <= 0.05 + 1e-9

    headline = [float(text) for text in re.findall('class="number">([0-9.]+)', source)]
    expected = [100 * metrics['summary'][f'{name}-Mean'] for name in ('J&F', 'J', 'F')]
    np.testing.assert_allclose(headline, expected, atol=0.05 + 1e-9)


def test_chart_draws_the_values_and_no_others(tmp_path):
    region = np.array([[np.nan, 0, 1, np.nan, 0.5], [0.25] * 5])
    report = make_report(region_similarity=region, object_ids=(1, 4))
    write_report(tmp_path / 'report.html', {}, [report])
    page = Page(tmp_path / 'report.html')

    lines = page.find('path', 'line')
    assert [line['style'] for line in lines] == ['--colour:#800000', '--colour:#000080'] * 2
    points = re.findall(r'([ML])([\d.]+) ([\d.]+)', lines[0]['d'])
    assert [command for command, _, _ in points] == ['M', 'L', 'M']  # A gap at the NaN.
    x, y = np.array([[float(x), float(y)] for _, x, y in points]).T
    step = float(page.find('svg', 'chart')[0]['data-step'])
    left = float(page.find('svg', 'chart')[0]['data-left'])
    np.testing.assert_allclose(x, left + step * np.array([1, 2, 4]), atol=0.06)
    assert y[1] < y[2] < y[0]  # Down the page from 1 over 0.5 to 0.
    assert y[2] == pytest.approx((y[0] + y[1]) / 2)


def test_what_a_reader_must_not_miss(tmp_path):
    def text(metrics):
        write_report(tmp_path / 'report.html', metrics, [])
        return Page(tmp_path / 'report.html').text()

    assert 'untrained' in text({'network': {'name': 'random', 'trained': False}})
    for metrics in ({}, {'network': {'trained': True}}, {'network': {'name': 'unknown'}}):
        assert 'untrained' not in text(metrics)
    shown = text(
        {
            'skipped': [{'sequence': 'bear', 'reason': '00003.jpg is cut short'}],
            'warnings': ['one object is empty'],
            'settings': {'propagation': {'radius': 12.0}, 'strides': (1, 2), 'crop': None},
            'provenance': {'seed': 3},
        }
    )
    for part in ('1 sequence skipped', 'bear', '00003.jpg is cut short', 'one object is empty'):
        assert part in shown
    for fact in ('propagation.radius 12', 'strides 1, 2', 'crop None', 'seed 3'):
        assert fact in shown


def test_report_without_frames_or_time(tmp_path):
    single = make_report(
        region_similarity=np.full((2, 1), 0.5),
        boundary_accuracy=np.full((2, 1), np.nan),
        frames=[],
        frame_numbers=[],
    )
    write_report(tmp_path / 'report.html', {'per_sequence': [{'sequence': 'two'}]}, [single])
    page = Page(tmp_path / 'report.html')
    assert not page.find('img') and not page.find('path', 'cursor')
    assert len(page.find('path', 'line')) == 4


def test_each_table_scrolls_in_a_box_that_the_keyboard_reaches(tmp_path):
    metrics = make_metrics([make_report()]) | {'per_joint': [{'joint': 'knee', 'PCK': 0.5}]}
    write_report(tmp_path / 'report.html', metrics, [])
    page = Page(tmp_path / 'report.html')
    boxes = [attributes for attributes in page.find('div') if attributes.get('role') == 'region']
    assert [box['aria-label'] for box in boxes] == ['By sequence and object', 'By joint']
    assert all(box['tabindex'] == '0' for box in boxes) and len(page.find('table')) == 2


def test_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / 'report.html'
    write_report(path, {'title': 'old'}, [])
    old = path.read_bytes()

    def half_written(self, text, **options):
        self.write_bytes(text.encode()[:100])
        raise OSError('no space left on device')

    monkeypatch.setattr(type(path), 'write_text', half_written)
    with pytest.raises(OSError, match='no space'):
        write_report(path, {'title': 'new'}, [])
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_overlay_changes_only_objects():
    size, opacity = (40, 60), 0.3
    frame, palette = make_frame(size=size), davis_palette()
    ids = np.zeros(size, np.int32)
    ids[5:25, 8:30] = 1
    ids[15:40, 30:60] = 4  # Touches the other, and two edges of the image.
    original = frame.copy()
    result = overlay(frame, ids, palette, opacity)

    np.testing.assert_array_equal(frame, original)
    np.testing.assert_array_equal(result[ids == 0], frame[ids == 0])
    # Slowly: a pixel is on the contour where one of its neighbours has another id.
    for row, column in np.argwhere(ids > 0):
        window = ids[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        colour = palette[ids[row, column]].astype(float)
        if (window != ids[row, column]).any():
            expected = (colour + 255) / 2
        else:
            expected = (1 - opacity) * frame[row, column] + opacity * colour
        assert np.abs(result[row, column] - expected).max() <= 0.5 + 1e-3


def test_overlay_of_a_real_frame():
    folder = shared('data', 'DAVIS')
    frame = read_image(folder / 'JPEGImages' / '480p' / 'blackswan' / '00000.jpg')
    ids = read_mask(folder / 'Annotations' / '480p' / 'blackswan' / '00000.png')
    result = overlay(frame, ids, davis_palette())
    np.testing.assert_array_equal((result != frame).any(-1) & (ids == 0), False)
    assert (result != frame).any(-1)[ids > 0].mean() > 0.95


@pytest.mark.parametrize('size, expected', [((48, 64), (64, 48)), ((200, 400), (100, 50))])
def test_encode_picture(size, expected):
    ramp = np.linspace(0, 255, size[1]).astype(np.uint8)
    image = np.broadcast_to(ramp[None, :, None], (*size, 3))
    with Image.open(io.BytesIO(encode_picture(image, max_width=100))) as picture:
        assert (picture.format, picture.size) == ('WEBP', expected)
        values = np.asarray(picture.convert('RGB'), float)
    np.testing.assert_allclose(values.mean((0, 2)), np.linspace(0, 255, expected[0]), atol=6)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'boundary_accuracy': np.zeros((2, 4))}, r'\[2, 4\]'),
        ({'object_ids': (1, 2, 3)}, r'\[2, 5\]; it must be \[3, 5\]'),
        ({'frame_numbers': [0, 1]}, '2 frame_numbers for 3'),
        ({'frame_numbers': [0, 1, 5]}, r'\[0, 1, 5\]'),
        ({'frame_numbers': [0, 2, 1]}, 'ascend'),
        ({'frames_per_second': 0}, 'frames_per_second is 0'),
    ],
)
def test_bad_sequence_report(changes, message):
    with pytest.raises(ValueError, match=message):
        make_report(**changes)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'frame': make_frame().astype(np.float32)}, 'frame is float32'),
        ({'ids': np.zeros((6, 7), int)}, r'\[6, 7\]'),
        ({'ids': np.full((6, 8), 256)}, '256'),
        ({'palette': davis_palette()[:22]}, r'\[22, 3\]'),
        ({'opacity': 1.5}, '1.5'),
    ],
)
def test_bad_overlay(changes, message):
    arguments = {'frame': make_frame(), 'ids': np.zeros((6, 8), int), 'palette': davis_palette()}
    with pytest.raises(ValueError, match=message):
        overlay(**{**arguments, **changes})


def test_bad_pictures(tmp_path):
    with pytest.raises(ValueError, match='max_width is 0'):
        encode_picture(make_frame(), max_width=0)
    with pytest.raises(ValueError, match=r'\[6, 8\]'):
        encode_picture(make_frame()[..., 0])
    with pytest.raises(ValueError, match="two: a frame begins with b'GIF89a'"):
        report = make_report(frames=[b'GIF89a'], frame_numbers=[0])
        write_report(tmp_path / 'report.html', {}, [report])
    assert not list(tmp_path.iterdir())


def test_view_of_joints_with_other_tables(tmp_path):
    colours = distinct_colours(3)
    assert len(set(colours)) == 3
    view = SequenceView(
        'wave/a',
        4,
        tuple(zip(('neck', 'face', HOSTILE), colours)),
        (
            Measure(
                'PCK@0.1',
                'joints within 0.1',
                np.array([[np.nan, 1, 0.5, 0]]),
                (('all joints', colours[0]),),
            ),
        ),
        [encode_picture(make_frame())],
        [2],
    )
    pages.write_report(
        tmp_path / 'report.html',
        {
            'summary': {'PCK@0.1': 0.25, 'PCK@0.1, lost joints wrong': 0.125, 'PCK@0.2': None},
            'per_sequence': [{'sequence': 'wave/a', 'points': 42, 'PCK@0.1': 0.25}],
            'per_joint': [{'joint': 'neck', 'PCK@0.1': 0.75}, {'joint': HOSTILE, 'PCK@0.1': None}],
        },
        [view],
    )
    page = Page(tmp_path / 'report.html')
    text = ' '.join(page.text().split())
    for shown in (
        '1 sequence',
        'PCK@0.1 lost joints wrong 12.5',
        'wave/a 42 25.0',
        'neck 75.0',
        'neck face',
        f'{HOSTILE} –',
        'joints within 0.1',
    ):
        assert shown in text, shown
    assert 'object' not in text and 'Recall' not in text
    (line,) = page.find('path', 'line')
    assert len(re.findall('[ML]', line['d'])) == 3
    assert float(page.find('svg', 'chart')[0]['viewbox'].split()[3]) < 200  # One panel.


def test_a_view_is_drawn_one_frame_at_a_time():
    """No two of the pictures that a task describes are held in memory at once."""
    frames = [make_frame(seed) for seed in range(3)]
    ids, palette = np.eye(6, 8, dtype=np.int32), davis_palette()
    joints = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), distinct_colours(1)
    alive = []

    def describe():
        for index, frame in enumerate(frames):
            alive.append(index)
            if index == 2:
                yield JointPicture(frame, *joints)
            else:
                yield MaskPicture(frame, ids, palette)

    view = SequenceView('a', 3, (), (), describe(), [0, 1, 2])
    assert alive == []
    drawn = draw_view(view)
    expected = [overlay(frame, ids, palette) for frame in frames[:2]]
    expected.append(draw_joints(frames[2], *joints))
    assert drawn.frames == [encode_picture(picture) for picture in expected]
    assert drawn.frame_numbers == view.frame_numbers


def test_tables_are_those_that_the_results_have(tmp_path):
    """A report knows no task: each result 'per_...' becomes a table with its own columns."""
    metrics = {
        'summary': {'IoU': 0.5},
        'per_sequence': [{'sequence': 'a', 'IoU': 0.5}],
        'per_weather': [{'weather': 'rain', 'IoU': 0.25}],
    }
    pages.write_report(tmp_path / 'report.html', metrics, [])
    text = ' '.join(Page(tmp_path / 'report.html').text().split())
    assert 'By weather' in text and 'Weather IoU rain 25.0' in text


def test_joints_are_dots_and_their_truth_rings():
    """The changed pixels are a disc at each position, and a ring around each true one."""
    frame = np.full((120, 240, 3), 128, np.uint8)
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    positions = np.array([[30.0, 40.0], [np.nan, np.nan], [500.0, 500.0]])
    truth = np.array([[100.0, 60.0], [180.0, 80.0], [np.nan, np.nan]])
    drawn = draw_joints(frame, positions, truth, colours)
    assert (frame == 128).all()
    np.testing.assert_array_equal(drawn[40, 30], colours[0])
    for (x, y), colour in zip(truth[:2].astype(int), colours):
        np.testing.assert_array_equal(drawn[y, x], 128)  # Nothing inside a ring.
        assert (drawn[y, x + 4] > 180).tolist() == [value > 0 for value in colour]
    rows, columns = np.nonzero((drawn != 128).any(axis=-1))
    places = np.array([[30, 40], [100, 60], [180, 80]])
    distances = np.linalg.norm(np.stack([columns, rows], axis=-1)[:, None] - places, axis=-1).min(
        axis=1
    )
    assert distances.max() < 8 and not (drawn == (0, 0, 255)).all(axis=-1).any()


@pytest.mark.parametrize(
    'make, message',
    [
        (
            lambda: SequenceView(
                'a', 3, (), (Measure('J', '', np.zeros((1, 2)), (('x', (0, 0, 0)),)),), [], []
            ),
            r'\[1, 2\]; it must be \[1, 3\]',
        ),
        (lambda: SequenceView('a', 3, (), (), [b''], [3]), r'\[3\]'),
        (
            lambda: draw_joints(make_frame(), np.zeros((2, 2)), np.zeros((3, 2)), ((0, 0, 0),) * 2),
            r'truth has the shape \[3, 2\]',
        ),
    ],
)
def test_bad_views(make, message):
    with pytest.raises(ValueError, match=message):
        make()
