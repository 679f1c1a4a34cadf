"""An evaluation's folder: which sequences count as finished, private paths, the git commit."""

import os
import subprocess

import numpy as np
import pytest

from jaxprop.data.image_files import write_mask
from jaxprop.evaluation import results
from jaxprop.tasks.objects import Objects


@pytest.fixture
def folder(tmp_path):
    return results.Folder(tmp_path, Objects(lambda: []), {'k': 10})


def finish(folder, data='d'):
    partial = folder.output / 'masks' / '.one'
    for t in range(3):
        write_mask(partial / f'{t:05d}.png', np.full((4, 5), t))
    folder.finish(partial, {'name': 'one', 'J': [0.5]}, data)


def test_a_record_is_for_the_settings_the_data_and_the_predictions_it_was_made_from(folder):
    assert folder.record('one', 'd') is None
    finish(folder)
    assert folder.record('one', 'd')['J'] == [0.5]
    assert folder.record('one', 'other data') is None
    other = results.Folder(folder.output, folder.task, {'k': 5})
    assert other.record('one', 'd') is None
    finish(folder, 'new data')  # In place of what is there.
    assert folder.record('one', 'd') is None
    assert folder.record('one', 'new data')['J'] == [0.5]


@pytest.mark.parametrize(
    'damage',
    [
        lambda masks, record: record.write_bytes(b''),
        lambda masks, record: record.write_bytes(record.read_bytes()[:20]),
        lambda masks, record: record.write_text('[' * 10**5),
        lambda masks, record: record.write_text('[]'),
        lambda masks, record: record.write_text('{"made_from": 1}'),
        lambda masks, record: record.write_text(record.read_text().replace('0.5', '0.6')),
        lambda masks, record: (masks / '00001.png').unlink(),
        lambda masks, record: (masks / '00001.png').write_bytes(b''),
        lambda masks, record: write_mask(masks / '00003.png', np.zeros((4, 5), int)),
    ],
)
def test_damage_makes_a_sequence_unfinished(folder, damage):
    finish(folder)
    damage(folder.predictions('one'), results.record_path(folder.output, 'one'))
    assert folder.record('one', 'd') is None
    finish(folder)
    assert folder.record('one', 'd')['name'] == 'one'


def test_paths_are_not_shown():
    private = ['/data/my videos', '../relative']
    value = {
        'root': '/home/alice/secret/DAVIS',
        'relative': '../shared/DAVIS',
        'reason': '/data/my videos/JPEGImages/dog/00001.jpg: is cut short',
        'other': "no file '/mnt/x/y.png' or ~/notes/a.txt, J/F is 1/2, see https://a.org/b",
        'numbers': [1, None, 0.5],
    }
    assert results.shown(value, private) == {
        'root': 'DAVIS',
        'relative': '../shared/DAVIS',
        'reason': 'JPEGImages/dog/00001.jpg: is cut short',
        'other': "no file 'y.png' or a.txt, J/F is 1/2, see https://a.org/b",
        'numbers': [1, None, 0.5],
    }


def git(folder, *arguments):
    names = '-c', 'user.name=a', '-c', 'user.email=a@example.org'
    done = subprocess.run(
        ['git', *names, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_read_without_running_what_a_repository_names(tmp_path, monkeypatch):
    checkout, ran = tmp_path / 'checkout', tmp_path / 'ran'
    module = checkout / 'jaxprop' / 'a.py'
    module.parent.mkdir(parents=True)
    module.write_text('a = 1\n')
    (checkout / 'notes').write_text('one')
    git(checkout, 'init', '-q')
    git(checkout, 'add', '.')
    git(checkout, 'commit', '-qm', 'first')
    program = tmp_path / 'program'
    program.write_text(f'#!/bin/sh\necho "$@" >> {ran}\ncat\n')
    program.chmod(0o755)
    for hook in ('post-index-change', 'reference-transaction', 'post-checkout'):
        (checkout / '.git/hooks' / hook).write_text(program.read_text())
        (checkout / '.git/hooks' / hook).chmod(0o755)
    (checkout / '.gitattributes').write_text('*.py filter=f diff=f\n')
    for name in ('core.fsmonitor', 'filter.f.clean', 'filter.f.process', 'diff.f.textconv'):
        git(checkout, 'config', name, str(program))
    module.touch()
    subprocess.run(['git', 'status'], cwd=checkout, capture_output=True)
    assert ran.exists()  # What would run programs does so.
    ran.unlink()
    monkeypatch.setenv('GIT_DIR', str(tmp_path / 'elsewhere'))
    (branch,) = (checkout / '.git/refs/heads').iterdir()
    head = branch.read_text().strip()
    assert results.git_commit(checkout) == head
    (checkout / 'notes').write_text('two')
    assert results.git_commit(checkout) == head
    module.write_text('a = 2\n')
    assert results.git_commit(checkout) == f'{head} with uncommitted changes'
    module.unlink()
    assert results.git_commit(checkout) == f'{head} with uncommitted changes'
    assert not ran.exists()
    # An installed package inside somebody else's repository.
    (checkout / 'site-packages' / 'jaxprop').mkdir(parents=True)
    assert results.git_commit(checkout / 'site-packages') is None
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', os.fspath(tmp_path))
    assert results.git_commit(tmp_path) is None
