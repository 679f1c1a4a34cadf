"""Comparisons of runs on tiny rendered videos: numbers, settings, pictures, wrong folders."""

import base64
import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from jaxprop import tasks
from jaxprop.data.image_files import read_mask
from jaxprop.data.inputs import InputConfig
from jaxprop.data.jhmdb import jhmdb_names, jhmdb_sequence
from jaxprop.data.sequences import DataError
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.data.vip import CLASS_NAMES, vip_names, vip_sequence
from jaxprop.evaluation import features as sources
from jaxprop.evaluation import networks
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.targets import KeypointTarget
from jaxprop.methods import from_settings
from jaxprop.metrics import davis
from jaxprop.report import pictures
from jaxprop.study.comparison import compare
from jaxprop.tasks.joints import Joints
from jaxprop.tasks.objects import Objects
from jaxprop.tasks.vip import Parts
from tests.layouts import write_jhmdb, write_vip
from tests.report.test_page import Page

CONFIG = from_settings(num_context=2, num_neighbors=3, radius=4)
SECOND = 'a <i>"b"</i> & c'


@pytest.fixture(scope='module')
def sequences():
    return synthetic_sequences(num_sequences=3, num_frames=6, size=(64, 80), num_objects=2)


@pytest.fixture(scope='module')
def labeller():
    network = networks.load_network('untrained', output='res1', strides=(1, 1, 1, 1), seed=3)
    # No statistics of each video.
    source = sources.NetworkFeatures(dataclasses.replace(network, trained=True))
    return runner.Labeller(source, CONFIG)


@pytest.fixture(scope='module')
def runs(sequences, labeller, tmp_path_factory):
    """Two runs that share the second and third sequence and differ in k; not all are trained."""
    root = tmp_path_factory.mktemp('runs')
    run(sequences, labeller, root / 'one')
    untrained = dataclasses.replace(labeller.source.network, trained=False)
    other = runner.Labeller(
        dataclasses.replace(labeller.source, network=untrained),
        dataclasses.replace(CONFIG, rule=dataclasses.replace(CONFIG.rule, k=1)),
    )
    run(sequences[1:], other, root / SECOND)
    return [root / 'one', root / SECOND]


def run(sequences, labeller, output, task=Objects, measure=None, **dataset):
    dataset = {'kind': 'rendered', 'num_sequences': len(sequences), **dataset}
    task = task(lambda: opened(sequences), **(measure or {}))
    return runner.evaluate(task, labeller, output, title='test', dataset=dataset)


def opened(sequences):
    return [(s.name, lambda s=s: s) for s in sequences]


@pytest.fixture
def compared_on(monkeypatch):
    """A function like `compare`, in which a given task and sequences replace the recorded ones."""

    def call(folders, output, sequences, task=Objects, **settings):
        def open_task(dataset, measure):
            named = sequences if callable(sequences) else lambda: opened(sequences)
            return task(named, **(measure or {}))

        monkeypatch.setattr(tasks, 'open_task', open_task)
        return compare(folders, output, **settings)

    return call


def rows_of(path):
    with (path / 'comparison.csv').open() as file:
        return list(csv.DictReader(file))


def pictures_of(path):
    """Lists the pictures of each sequence, one run after another.

    The picture that the page opens with is not in the players' lists.
    """
    page = Page(path / 'comparison.html')
    opening = (image['src'] for image in page.find('img'))
    return [
        [base64.b64decode((uri or next(opening)).split(',')[1]) for uri in json.loads(data)]
        for tag, data in page.texts
        if tag == 'script' and data[0] == '['
    ]


def test_scores_are_those_of_the_masks_of_shared_sequences(sequences, runs, compared_on, tmp_path):
    compared = compared_on(runs, tmp_path, sequences)
    results = []
    for output in runs:
        predictions = {
            s.name: np.stack(
                [read_mask(output / 'masks' / s.name / f'{name}.png') for name in s.frame_names]
            )
            for s in sequences[1:]
        }
        results.append(
            {
                s.name: davis.evaluate_sequence(
                    predictions[s.name], np.stack([s.read_label(t) for t in range(s.num_frames)])
                )
                for s in sequences[1:]
            }
        )
    summaries = [davis.summarize(result) for result in results]
    tables = [davis.sequence_table(result) for result in results]
    assert summaries[0]['J-Mean'] != summaries[1]['J-Mean']

    expected = [
        ('summary', '', '', measure, *(summary[measure] for summary in summaries))
        for measure in summaries[0]
    ]
    for pair in zip(*tables, strict=True):
        means = [(row['J-Mean'] + row['F-Mean']) / 2 for row in pair]
        names = {name: pair[0][name] for name in ('sequence', 'object')}
        expected += [('per_sequence', *names.values(), 'J&F-Mean', *means)] + [
            ('per_sequence', *names.values(), measure, *(row[measure] for row in pair))
            for measure in pair[0]
            if measure not in names
        ]
    rows = rows_of(tmp_path)
    assert len(rows) == len(expected) == 7 + 4 * 7
    for row, (table, sequence, number, measure, *values) in zip(rows, expected):
        assert [row[name] for name in ('table', 'sequence', 'object', 'measure')] == [
            table,
            sequence,
            str(number),
            measure,
        ]
        found = [float(row[name]) for name in ('one', SECOND, f'{SECOND} - one')]
        assert found == pytest.approx([*values, values[1] - values[0]], abs=1e-12)
    assert [row['values'] for row in compared['tables']['summary']] == [
        [float(row['one']), float(row[SECOND])] for row in rows[:7]
    ]


def test_page_says_what_differs(sequences, runs, compared_on, tmp_path):
    compared = compared_on(runs, tmp_path, sequences)
    assert {row['setting']: row['values'] for row in compared['settings']} == {
        'dataset.num_sequences': [3, 2],
        'propagation.num_neighbors': [3, 1],
    }
    page = Page(tmp_path / 'comparison.html')
    text = ' '.join(page.text().split()).replace('\xa0', ' ')
    (change,) = [
        row['differences'][0] for row in compared['tables']['summary'] if row['measure'] == 'J-Mean'
    ]
    for shown in (
        f'Compared on the 2 sequences that all runs have. one has 1 more: {sequences[0].name}.',
        f'untrained in {SECOND}',
        f'A: one, B: {SECOND}',
        'propagation.num_neighbors 3 1',
        'J&F Mean, A J&F Mean, B J&F Mean, B − A J Mean, A',
        f'{100 * change:+.1f}'.replace('-', '−'),
    ):
        assert shown in text, shown
    assert 'propagation.radius' not in text
    assert all(page.find('i'))  # The one in the name, without attributes, is text.
    # A line of each run in each panel of each sequence.
    assert len(page.find('path', 'line')) == 2 * 2 * 2


def test_same_frames_with_the_masks_of_each_run(sequences, runs, compared_on, tmp_path):
    compared_on(runs, tmp_path, sequences, report_frames=3)
    page = Page(tmp_path / 'comparison.html')
    assert [json.loads(player['data-numbers']) for player in page.find('div', 'player')] == [
        [0, 2, 5]
    ] * 2
    assert len(page.find('img')) == 2 * 2  # A frame of each, without a script.
    for sequence, shown in zip(sequences[1:], pictures_of(tmp_path), strict=True):
        assert shown == [
            pictures.encode_picture(
                pictures.overlay(
                    sequence.read_frame(t),
                    read_mask(output / 'masks' / sequence.name / f'{t:05d}.png'),
                    sequence.palette,
                )
            )
            for output in runs
            for t in (0, 2, 5)
        ]


def test_sequences_without_their_data_are_compared_without_pictures(
    sequences, runs, compared_on, tmp_path
):
    def gone():
        raise DataError('00003.jpg: there is no such file')

    compared = compared_on(runs, tmp_path, lambda: [(sequences[2].name, gone)])
    assert compared['warnings'][2:] == [
        f'No pictures of {sequences[1].name}: it is no longer in the dataset',
        f'No pictures of {sequences[2].name}: 00003.jpg: there is no such file',
    ]
    compared = compared_on(runs, tmp_path, gone)
    assert compared['warnings'][2:] == ['No pictures: 00003.jpg: there is no such file']
    assert len(rows_of(tmp_path)) == 35 and not pictures_of(tmp_path)


def test_joints_are_scored_as_in_the_first_run(labeller, compared_on, tmp_path):
    """Lost joints count in one run and not in the other; both are scored as the first."""
    write_jhmdb(tmp_path / 'data', num_frames=3)
    (name,) = jhmdb_names(tmp_path / 'data')
    clip = jhmdb_sequence(tmp_path / 'data', name)
    positions = clip.positions.copy()
    positions[0, 4] = -100
    clip = dataclasses.replace(clip, positions=positions)
    small = dataclasses.replace(labeller.source, input=InputConfig(size=48, resize='short_side'))
    follower = runner.Labeller(small, CONFIG, KeypointTarget())
    folders = [tmp_path / lost for lost in ('wrong', 'skip')]
    own = [
        run([clip], follower, folder, Joints, {'lost': folder.name})['summary']['PCK@0.2']
        for folder in folders
    ]
    assert own[0] != own[1]
    for first in (0, 1):
        output = tmp_path / f'compared{first}'
        order = [folders[first], folders[1 - first]]
        compared = compared_on(order, output, [clip], Joints)
        assert f'scored as {order[0].name} is' in ''.join(compared['warnings'])
        (row,) = [row for row in compared['tables']['summary'] if row['measure'] == 'PCK@0.2']
        assert row == {'measure': 'PCK@0.2', 'values': [own[first]] * 2, 'differences': [0]}
        joints = [row['joint'] for row in compared['tables']['per_joint']]
        assert len(set(joints)) == 15 - first and len(joints) == 2 * (15 - first)
        (shown,) = pictures_of(output)
        assert shown[:3] == shown[3:] and len(set(shown)) == 3
        text = ' '.join(Page(output / 'comparison.html').text().split())
        assert 'By joint' in text and 'measure.lost' in text


def test_classes_of_runs_that_are_the_same(labeller, compared_on, tmp_path):
    write_vip(tmp_path / 'data', size=(64, 80))
    (name,) = vip_names(tmp_path / 'data')
    video = vip_sequence(tmp_path / 'data', name)
    run([video], labeller, tmp_path / 'one', Parts)
    shutil.copytree(tmp_path / 'one', tmp_path / 'two')
    compared = compared_on([tmp_path / 'one', tmp_path / 'two'], tmp_path, [video], Parts)
    assert compared['settings'] == compared['warnings'] == []
    rows = compared['tables']['per_class']
    assert [row['class'] for row in rows] == [CLASS_NAMES[index] for index in (0, 4, 13)]
    assert all(row['differences'] == [0] for row in rows)


def test_what_can_not_be_compared(sequences, labeller, runs, compared_on, tmp_path):
    def refused(folders):
        with pytest.raises(ValueError) as caught:
            compared_on(folders, tmp_path / 'no', sequences)
        assert not (tmp_path / 'no').exists()
        return str(caught.value)

    assert 'two different runs' in refused(runs[:1])
    assert 'two different runs' in refused([runs[0], runs[0]])
    (tmp_path / 'unfinished').mkdir()
    assert 'unfinished holds no metrics.json' in refused([runs[0], tmp_path / 'unfinished'])
    run(sequences[:1], labeller, tmp_path / 'other', kind='davis')
    assert "different benchmarks: dataset.kind is 'rendered' and 'davis'" in refused(
        [runs[0], tmp_path / 'other']
    )
    run(sequences[:1], labeller, tmp_path / 'first')
    assert 'no sequence in common' in refused([runs[1], tmp_path / 'first'])
    shorter = dataclasses.replace(
        sequences[1], num_frames=5, frame_names=sequences[1].frame_names[:5]
    )
    run([shorter], labeller, tmp_path / 'shorter')
    assert 'has 6 frames of [64, 80] in' in refused([runs[0], tmp_path / 'shorter'])
