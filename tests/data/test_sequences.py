"""Bad names from lists, annotations and flags are refused before anything is opened or written."""

import pathlib

import pytest

from jaxprop import tasks
from jaxprop.data.badja import badja_names, badja_sequence
from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.data.jhmdb import jhmdb_names, jhmdb_sequence
from jaxprop.data.lvos import lvos_sequence
from jaxprop.data.mose import mose_sequence
from jaxprop.data.sequences import DataError, check_name
from jaxprop.data.vip import vip_names, vip_sequence
from jaxprop.data.youtube_vos import youtube_vos_sequence
from jaxprop.evaluation import results

HOSTILE = [
    '..',
    '.',
    '../precious',
    'x/../../../precious',
    '/precious',
    'x//y',
    'x/',
    './x',
    '.x.partial',
    'x\\..\\y',
    'x\0',
    'x\x1b[2Jy',
    'x\x9by',
    'x' * 201,
    '',
]


@pytest.mark.parametrize(
    'name', ['dog', 'dog-agility', 'a b', 'größe', '犬', '12:30', 'x..y', 'a.b']
)
def test_names_as_people_give_them(name):
    assert check_name(name, 'list.txt') == name
    assert check_name(f'videos1/{name}', 'list.txt', parts=2) == f'videos1/{name}'
    assert check_name(f'{name}/b/c', 'list.txt', parts=None) == f'{name}/b/c'


@pytest.mark.parametrize('name', HOSTILE)
def test_refused_names(name):
    for parts in (1, 2, None):
        with pytest.raises(DataError, match='list.txt: the name '):
            check_name(name, 'list.txt', parts=parts)


@pytest.mark.parametrize('name', ['a/b', '\ud800', 5])
def test_refused_where_a_name_has_one_part(name):
    with pytest.raises(DataError, match='list.txt: the name '):
        check_name(name, 'list.txt')


class _Opened(Exception):
    pass


@pytest.mark.parametrize('name', HOSTILE)
def test_readers_open_nothing_for_them(tmp_path, name, monkeypatch):
    def opened(*_):
        raise _Opened

    monkeypatch.setattr(pathlib.Path, 'is_dir', opened)
    monkeypatch.setattr(pathlib.Path, 'read_bytes', opened)
    monkeypatch.setattr(pathlib.Path, 'is_file', opened)
    for read in (
        lambda: davis_sequence(tmp_path, name),
        lambda: vip_sequence(tmp_path, name),
        lambda: vip_sequence(tmp_path, name, 'instance'),
        lambda: jhmdb_sequence(tmp_path, name),
        lambda: jhmdb_sequence(tmp_path, f'wave/{name}'),
        lambda: badja_sequence(tmp_path, tmp_path, name),
        lambda: youtube_vos_sequence(tmp_path, name),
        lambda: mose_sequence(tmp_path, name),
        lambda: lvos_sequence(tmp_path, name),
    ):
        with pytest.raises(DataError, match='the name '):
            read()
    with pytest.raises(_Opened):  # The trap works.
        davis_sequence(tmp_path, 'dog')


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    return path


@pytest.mark.parametrize('name', ['..', 'x/../../../precious', '/precious', 'x\0y', '.x', 'x\\y'])
def test_lists_that_hold_them(tmp_path, name):
    write(tmp_path / 'lists' / 'val_videos.txt', f'videos1\n{name}\n')
    write(tmp_path / 'ImageSets' / '2017' / 'val.txt', f'cat\n/x/{name.lstrip("/")}/0.jpg y\n..\n')
    write(tmp_path / 'splits' / 'wave_test_split1.txt', f'{name}.avi 2\n')
    pairs = write(tmp_path / 'pairs.txt', f'/x/../{name.strip("/")} joints.mat\n')
    for read, named in (
        (lambda: vip_names(tmp_path), 'val_videos.txt'),
        (lambda: davis_names(tmp_path), 'val.txt'),
        (lambda: jhmdb_names(tmp_path), 'wave_test_split1.txt'),
        (lambda: jhmdb_names(tmp_path, list_path=pairs), 'pairs.txt'),
    ):
        with pytest.raises(DataError, match=f'{named}: the name '):
            read()


def test_hidden_annotations_are_left_out(tmp_path):
    write(tmp_path / 'bear.json', '[]')
    write(tmp_path / '._bear.json', '')
    assert badja_names(tmp_path) == ('bear',)


@pytest.mark.parametrize('kind', ['davis', 'vip', 'jhmdb', 'badja', 'youtube_vos', 'mose', 'lvos'])
def test_names_of_the_command_line(tmp_path, kind):
    settings = {'kind': kind, 'root': str(tmp_path), 'names': ('x/../../precious',)}
    if kind == 'badja':
        settings['folder'] = str(tmp_path)
    with pytest.raises(DataError, match="dataset.names: the name 'x/../../precious'"):
        tasks.open_task(settings).sequences()


@pytest.mark.parametrize('name', HOSTILE)
def test_results_stay_inside_their_folder(tmp_path, name):
    task = tasks.open_task({'kind': 'synthetic'})
    for path in (
        lambda name: results.prediction_path(tmp_path, task, name),
        lambda name: results.record_path(tmp_path, name),
        lambda name: results.skipped_path(tmp_path, name),
    ):
        assert path('videos1/a').resolve().is_relative_to(tmp_path.resolve())
        with pytest.raises(DataError, match='the name '):
            path(name)
