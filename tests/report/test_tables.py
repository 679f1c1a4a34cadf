import csv
import html.parser
import re

import pytest

from jaxprop.report.tables import draw_figure, write_figure, write_table

HOSTILE = '</td><script>alert(1)</script>"\'&amp;|`x` *y* $a_$'
NOTE = 'no checkpoint: say --config.networks.moco=FILE'
TABLE = {
    'columns': ('method', 'localization', 'aggregation'),
    'measures': (('J-Mean', 'JM'), ('F-Mean', 'FM')),
    'pivot': '',
}
FIGURE = {
    'columns': ('method', 'aggregation'),
    'measures': (('J&F-Mean', 'J&F'),),
    'pivot': '',
    'curves': ('method', 'aggregation'),
    'panels': (
        {'label': 'a', 'x': '1/T', 'title': 'Temperature', 'log': True},
        {'label': 'b', 'x': 'n', 'title': 'Context', 'log': False},
    ),
}


class Page(html.parser.HTMLParser):
    """Parses a page as a browser does: elements with attributes, and the texts of table cells."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.rows, self.text, self.in_cell = [], [], '', False
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == 'tr':
            self.rows.append([])
        if tag in ('th', 'td'):
            self.in_cell = True
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        if tag in ('th', 'td'):
            self.in_cell = False

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] not in ('style', 'title'):
            self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def find(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


def markdown_table(path):
    """Reads the cells of a Markdown file's table: headings, the line between, and rows."""
    lines = [line for line in path.read_text().splitlines() if line.startswith('|')]
    assert len({len(line) for line in lines}) == 1
    table = [
        [re.sub(r'\\(.)', r'\1', cell.strip()) for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        for line in lines
    ]
    return [table[0], *table[2:]], table[1]


def make_row(labels, measured, published, **others):
    return {
        'labels': labels,
        'measured': measured,
        'published': published,
        'note': '',
        'marked': False,
        'report': '',
        'frames': 999,
        'sequences': 30,
        **others,
    }


def table_rows():
    def labels(*values):
        return dict(zip(TABLE['columns'], values))

    return [
        make_row(
            labels('CRW', 'none', 'per-frame'),
            {'J-Mean': 0.55, 'F-Mean': 0.567890123},
            {'J-Mean': 56.4, 'F-Mean': 55},
            report='cells/1/T=20 #1/report.html',
        ),
        make_row(
            labels('CRW', 'none', 'overall'),
            {'J-Mean': 0.6123, 'F-Mean': float('nan')},
            {'J-Mean': 62.1},
            marked=True,
            report='cells/2/report.html',
        ),
        make_row(
            labels('CRW', 'track', 'per-frame'), {'J-Mean': 0.6, 'F-Mean': 0.6}, {'J-Mean': 60}
        ),
        make_row(
            labels('MoCo', 'none', 'per-frame'),
            None,
            {'J-Mean': 55.6, 'F-Mean': 57.0},
            note=NOTE,
            marked=True,
            frames=0,
            sequences=0,
        ),
    ]


def figure_rows():
    values = {
        ('a', 'CRW', 'overall'): {20: 0.62, 1: 0.5, 50: 0.6},
        ('a', 'CRW', 'per-frame'): {1: 0.48, 20: 0.55, 50: None},
        ('a', 'MoCo', 'overall'): {1: None, 20: None, 50: None},
        ('b', 'CRW', 'overall'): {1: 0.56, 7: 0.58},
        ('b', 'UVC', 'overall'): {1: 0.45, 7: 0.49},
    }
    return [
        make_row(
            {'panel': panel, 'x': x, 'method': method, 'aggregation': aggregation},
            None if value is None else {'J&F-Mean': value},
            {},
            note=NOTE if value is None else '',
        )
        for (panel, method, aggregation), points in values.items()
        for x, value in points.items()
    ]


def test_table_shows_measured_beside_published(tmp_path):
    write_table(tmp_path / 'new', TABLE, table_rows(), title='A table', notes=['30 sequences'])
    names = {file.name for file in (tmp_path / 'new').iterdir()}
    assert names == {'table.md', 'table.csv', 'table.html'}
    expected = [
        ['method', 'localization', 'aggregation', 'JM', 'FM'],
        ['CRW', 'none', 'per-frame', '55.0 (56.4)', '56.8 (55.0)'],
        ['CRW', 'none', 'overall', '61.2† (62.1)', '-'],
        ['CRW', 'track', 'per-frame', '60.0 (60.0)', '60.0 (-)'],
        ['MoCo', 'none', 'per-frame', 'no checkpoint (55.6)', '- (57.0)'],
    ]
    cells, rule = markdown_table(tmp_path / 'new' / 'table.md')
    page = Page(tmp_path / 'new' / 'table.html')
    assert cells == page.rows == expected
    assert [text.endswith('-:') for text in rule] == [False] * 3 + [True] * 2
    for text in ((tmp_path / 'new' / 'table.md').read_text(), page.text):
        assert f'Not run: {NOTE}' in text
        assert '30 sequences' in text and 'in parentheses as published' in text
        assert 'settings were chosen on the split that is reported here' in text


def test_csv_has_a_line_for_each_cell_and_does_not_round(tmp_path):
    rows = table_rows()
    write_table(tmp_path, {**TABLE, 'pivot': 'aggregation'}, rows, title='A table')
    with open(tmp_path / 'table.csv', newline='') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows):
        assert {name: line[name] for name in TABLE['columns']} == row['labels']
        for key, _ in TABLE['measures']:
            value = (row['measured'] or {}).get(key)
            if value is None or value != value:
                assert line[f'{key} measured'] == ''
            else:
                assert float(line[f'{key} measured']) == pytest.approx(100 * value, rel=1e-14)
            assert line[f'{key} published'] == str(row['published'].get(key, ''))
        for name in ('marked', 'note', 'sequences', 'frames'):
            assert line[name] == str(row[name])
    assert lines[0]['J-Mean measured'] == '55'


def test_pivot_makes_columns(tmp_path):
    rows = table_rows()
    write_table(tmp_path, {**TABLE, 'pivot': 'aggregation'}, rows, title='A table')
    expected = [
        ['method', 'localization', 'per-frame JM', 'per-frame FM', 'overall JM', 'overall FM'],
        ['CRW', 'none', '55.0 (56.4)', '56.8 (55.0)', '61.2† (62.1)', '-'],
        ['CRW', 'track', '60.0 (60.0)', '60.0 (-)', '-', '-'],
        ['MoCo', 'none', 'no checkpoint (55.6)', '- (57.0)', '-', '-'],
    ]
    assert markdown_table(tmp_path / 'table.md')[0] == expected
    assert Page(tmp_path / 'table.html').rows == expected
    # No cell hides another of the same labels.
    write_table(tmp_path, {**TABLE, 'pivot': 'aggregation'}, [*rows, rows[0]], title='A table')
    assert markdown_table(tmp_path / 'table.md')[0] == [
        *expected,
        ['CRW', 'none', '55.0 (56.4)', '56.8 (55.0)', '-', '-'],
    ]


def test_footnote_only_where_a_number_is_marked(tmp_path):
    rows = [row for row in table_rows() if row['labels']['aggregation'] == 'per-frame']
    write_table(tmp_path, TABLE, rows, title='A table')
    assert '†' not in (tmp_path / 'table.md').read_text() + (tmp_path / 'table.html').read_text()


def test_measured_numbers_lead_to_reports_and_the_page_needs_nothing_else(tmp_path):
    write_table(tmp_path, TABLE, table_rows(), title='A table')
    page = Page(tmp_path / 'table.html')
    # Both measures of the first cell; the second's F is no number.
    assert [link['href'] for link in page.find('a')] == [
        'cells/1/T%3D20%20%231/report.html'
    ] * 2 + ['cells/2/report.html']
    assert not page.find('script') and not page.find('img')
    (policy,) = [meta['content'] for meta in page.find('meta') if 'http-equiv' in meta]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r'https?://|url\(|@import', (tmp_path / 'table.html').read_text())


@pytest.mark.parametrize('write', [write_table, write_figure])
def test_texts_are_escaped(tmp_path, write):
    labels = {'panel': HOSTILE, 'x': 1, 'method': HOSTILE, 'aggregation': HOSTILE}
    rows = [
        make_row(labels, {'J-Mean': 0.5}, {}, report=HOSTILE),
        make_row({**labels, 'x': 2}, None, {}, note=HOSTILE),
    ]
    study = {
        'columns': ('panel', 'x', 'method', 'aggregation'),
        'pivot': '',
        'measures': (('J-Mean', HOSTILE),),
        'curves': ('method', 'aggregation'),
        'panels': ({'label': HOSTILE, 'x': HOSTILE, 'title': HOSTILE, 'log': False},),
    }
    write(tmp_path, study, rows, title=HOSTILE, notes=[HOSTILE])
    page = Page(tmp_path / 'table.html')
    cells, _ = markdown_table(tmp_path / 'table.md')
    expected = [
        ['panel', 'x', 'method', 'aggregation', HOSTILE],
        [HOSTILE, '1', HOSTILE, HOSTILE, '50.0'],
        [HOSTILE, '2', HOSTILE, HOSTILE, HOSTILE],
    ]
    assert cells == page.rows == expected
    assert not page.find('script') and len(page.find('img')) == (write is write_figure)
    text = (tmp_path / 'table.md').read_text()
    assert not re.search(r'(?<!\\)[<>|`*]', re.sub(r'^\| | \|$| \| ', '', text, flags=re.M))


def test_names_that_are_no_text(tmp_path):
    rows = figure_rows()
    for row in rows:
        row['labels']['method'] = row['report'] = b'caf\xe9'.decode('utf-8', 'surrogateescape')
    write_figure(tmp_path, FIGURE, rows, title='A figure')
    assert 'caf?' in (tmp_path / 'table.csv').read_text()
    page = Page(tmp_path / 'table.html')
    assert page.rows[1][2] == 'caf?' and page.find('a')[0]['href'] == 'caf%E9'


def test_rows_must_have_the_labels(tmp_path):
    rows = table_rows()
    with pytest.raises(ValueError, match='data'):
        write_table(tmp_path, {**TABLE, 'pivot': 'data'}, rows, title='A table')
    with pytest.raises(ValueError, match='panel'):
        draw_figure({**FIGURE, 'columns': ()}, rows)
    for change, message in (({'panel': 'c'}, "'c'"), ({'x': '1'}, "'1'")):
        row = make_row({**figure_rows()[0]['labels'], **change}, {'J&F-Mean': 0.5}, {})
        with pytest.raises(ValueError, match=message):
            draw_figure(FIGURE, [row])
    assert not list(tmp_path.iterdir())


def test_figure_draws_the_measured_cells():
    figure = draw_figure(FIGURE, figure_rows())
    left, right = figure.axes
    drawn = [
        {
            line.get_label(): (line.get_xdata().tolist(), line.get_ydata().round(9).tolist())
            for line in axes.get_lines()
        }
        for axes in (left, right)
    ]
    assert drawn == [
        {'CRW, overall': ([1, 20, 50], [50, 62, 60]), 'CRW, per-frame': ([1, 20], [48, 55])},
        {'CRW, overall': ([1, 7], [56, 58]), 'UVC, overall': ([1, 7], [45, 49])},
    ]
    assert (left.get_xscale(), right.get_xscale()) == ('log', 'linear')
    assert (left.get_xlabel(), right.get_xlabel()) == ('1/T', 'n')
    assert [text.get_text() for text in left.get_xticklabels()] == ['1', '20', '50']
    assert (left.get_title(), left.get_ylabel()) == ('(a) Temperature', 'J&F (%)')
    # Colour and marker are the method's, in both panels; the line is the aggregation's.
    crw, per_frame, right_crw, uvc = [*left.get_lines(), *right.get_lines()]
    assert crw.get_color() == per_frame.get_color() == right_crw.get_color() != uvc.get_color()
    assert crw.get_marker() == per_frame.get_marker() != uvc.get_marker()
    assert [line.get_linestyle() for line in (crw, per_frame, uvc)] == ['-', '--', '-']
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        'CRW',
        'UVC',
        'overall',
        'per-frame',
    ]


def test_colours_do_not_depend_on_what_was_run():
    rows = figure_rows()
    colour = draw_figure(FIGURE, rows).axes[1].get_lines()[1].get_color()
    for row in rows:
        if row['labels']['method'] == 'MoCo':
            row['measured'] = {'J&F-Mean': 0.5}
    assert draw_figure(FIGURE, rows).axes[1].get_lines()[1].get_color() == colour


def test_figure_with_its_numbers(tmp_path):
    rows = figure_rows()
    write_figure(tmp_path, FIGURE, rows, title='A figure', notes=['30 sequences'])
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {'figure.png', 'figure.svg', 'table.md', 'table.csv', 'table.html'}
    page = Page(tmp_path / 'table.html')
    (image,) = page.find('img')
    assert image['src'].startswith('data:image/svg+xml;base64,')
    assert len(page.rows) == 1 + len(rows)
    assert page.rows[:2] == [
        ['panel', 'x', 'method', 'aggregation', 'J&F'],
        ['a', '20', 'CRW', 'overall', '62.0'],
    ]
    for text in ((tmp_path / 'table.md').read_text(), page.text):
        assert 'No settings were chosen on the split' in text and 'published' not in text
        assert f'Not run, CRW, per-frame (a: 1 of 3 points); MoCo, overall (a): {NOTE}' in text

    for row in rows:
        row['marked'] = row['labels']['method'] == 'CRW' and row['labels']['x'] == 1
    write_figure(tmp_path, FIGURE, rows, title='A figure')
    for text in ((tmp_path / 'table.md').read_text(), Page(tmp_path / 'table.html').text):
        assert (
            'Settings were chosen on the split that is reported here for CRW, overall (a: 1 of 3 '
            'points, b: 1 of 2 points); CRW, per-frame (a: 1 of 3 points).'
        ) in text
        assert '50.0†' in text

    write_figure(
        tmp_path, FIGURE, [row for row in rows if row['measured'] is None], title='A figure'
    )
    assert 'Nothing was measured.' in Page(tmp_path / 'table.html').text


@pytest.mark.parametrize(
    'write, study, labels',
    [
        (write_table, TABLE, {'method': 'a', 'localization': 'none', 'aggregation': 'overall'}),
        (write_figure, FIGURE, {'method': 'a', 'aggregation': 'overall', 'panel': 'a', 'x': 1}),
    ],
)
def test_a_warning_of_a_measured_cell_is_no_reason(tmp_path, write, study, labels):
    """The warning stands beneath the table, and not in the place of a number or a missing one."""
    warning = '1 of 3 sequences were skipped.'
    last = study['measures'][-1][0]
    write(tmp_path, study, [make_row(labels, {last: 0.5}, {}, note=warning)], title='')
    text = (tmp_path / 'table.md').read_text()
    assert text.count(warning) == 1 and 'Not run' not in text
    assert '50.0' in text and f'| {warning}' not in text
