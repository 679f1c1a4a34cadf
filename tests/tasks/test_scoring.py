"""Scores of folders of masks against the official evaluation's numbers, and what is refused."""

import json

import numpy as np
import pytest

from jaxprop import cli
from jaxprop.data.image_files import read_mask, write_mask
from jaxprop.data.sequences import DataError
from jaxprop.tasks.scoring import score_folders
from tests.support import shared


def test_official_numbers_of_one_object():
    reference = json.loads(shared('reference', 'davis_metrics_osvos.json').read_text())
    truth = shared('data', 'DAVIS') / 'Annotations' / '480p'
    found = score_folders(shared('reference', 'osvos'), truth, one_object=True)
    rows = {row['sequence']: row for row in found.per_object}
    assert set(rows) == set(reference['sequences'])
    for name, expected in reference['sequences'].items():
        for measure in 'JF':
            values = [rows[name][f'{measure}-{key}'] for key in ('Mean', 'Recall', 'Decay')]
            np.testing.assert_allclose(values, expected[f'{measure}_mean_recall_decay'], atol=1e-9)
    assert 'have no predictions and are not scored' in found.notes[0]


def test_official_numbers_of_seven_objects(tmp_path):
    reference = json.loads(shared('reference', 'davis_metrics_schoolgirls.json').read_text())
    truth = shared('data', 'DAVIS-multi') / 'Annotations' / '480p' / 'schoolgirls'
    for index, path in enumerate(sorted(truth.iterdir())):
        ids = np.roll(read_mask(path), (-2, 3), axis=(0, 1))
        ids[(ids == 3) & (index >= 30)] = 2
        write_mask(tmp_path / path.name, ids)
    found = score_folders(tmp_path, truth)
    mean = (reference['J_mean'] + reference['F_mean']) / 2
    assert found.summary['J&F-Mean'] == pytest.approx(mean, abs=1e-9)
    assert found.notes == []


@pytest.fixture
def folders(tmp_path):
    """Two sequences of five frames with two objects; predictions are the truth, a pixel off."""
    for name in ('cat', 'dog'):
        for index in range(5):
            ids = np.zeros((24, 32), np.int32)
            ids[4:12, 3 + index : 12 + index], ids[14:20, 5:20] = 1, 3
            write_mask(tmp_path / 'truth' / name / f'{index:05d}.png', ids)
            write_mask(tmp_path / 'made' / name / f'{index:05d}.png', np.roll(ids, 1, axis=1))
    return tmp_path / 'made', tmp_path / 'truth'


def score(*arguments):
    return cli.main(['score', *map(str, arguments)])


def test_command(folders, capsys):
    assert score(*folders) == 0
    out = capsys.readouterr().out
    # 8 of 10 columns of object 1 are in both masks, 14 of 16 of object 3.
    assert f'{"cat_1":28}{8 / 10:10.3f}' in out and f'{"dog_3":28}{14 / 16:10.3f}' in out
    assert score(folders[0] / 'cat', folders[1] / 'cat', '--json') == 0
    found = json.loads(capsys.readouterr().out)
    assert found['summary']['J-Mean'] == pytest.approx((8 / 10 + 14 / 16) / 2)
    assert [row['object'] for row in found['per_object']] == [1, 3]


def test_sparse_truth_and_further_frames(folders):
    """Frames between annotated ones are passed over; order is by number, not by file."""
    made, truth = folders
    for index in (1, 3):
        (truth / 'cat' / f'{index:05d}.png').unlink()
    write_mask(made / 'cat' / '00009.png', np.ones((24, 32), np.int32))
    rows = {(row['sequence'], row['object']): row for row in score_folders(made, truth).per_object}
    assert rows['cat', 1]['J-Mean'] == pytest.approx(8 / 10)


def test_other_ids_and_sequences_are_noted(folders):
    made, truth = folders
    ids = read_mask(made / 'cat' / '00002.png')
    ids[ids == 3] = 7
    write_mask(made / 'cat' / '00002.png', ids)
    for path in (made / 'dog').iterdir():
        path.unlink()
    (made / 'dog').rmdir()
    found = score_folders(made, truth)
    assert found.per_object[1]['J-Mean'] == pytest.approx(2 / 3 * 14 / 16)
    assert 'the ids 7 are no objects' in found.notes[0]
    assert found.notes[1].startswith('1 sequences of')


def test_refuses(folders, capsys):
    made, truth = folders
    write_mask(made / 'cat' / '00002.png', np.ones((24, 30), np.int32))
    with pytest.raises(DataError, match='cat/00002.png: is 24 x 30 .*24 x 32'):
        score_folders(made, truth)
    (made / 'cat' / '00002.png').unlink()
    with pytest.raises(DataError, match='cat/00002.png: missing'):
        score_folders(made, truth)
    with pytest.raises(DataError, match='cat: holds no folders'):
        score_folders(made, truth / 'cat')
    (made / 'cat').rename(made / 'horse')
    assert score(made, truth) == 1
    assert 'horse: ' in (error := capsys.readouterr().err) and error.count('\n') == 1
    assert score(made) == 2
