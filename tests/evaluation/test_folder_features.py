"""Features from a folder give the masks of computed ones; wrong files are refused."""

import dataclasses
import io
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxprop import cli, files
from jaxprop.data.inputs import InputConfig
from jaxprop.data.sequences import DataError
from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.evaluation import run as runner
from jaxprop.evaluation.export import export_video
from jaxprop.evaluation.features import frames_of
from jaxprop.evaluation.folder_features import CARD, FolderFeatures, spans_of
from jaxprop.evaluation.function_features import FunctionFeatures
from jaxprop.evaluation.sources import source_digest
from jaxprop.methods import from_settings
from jaxprop.tasks.objects import Objects

METHOD = from_settings(num_context=2, num_neighbors=3, radius=4)
SOURCE = FunctionFeatures(
    lambda frames: frames.reshape(len(frames), 16, 4, 20, 4, 3).mean((2, 4)) / 255 - 0.5
)
VIDEO = types.SimpleNamespace(name='a/dog.1', size=(64, 80), num_frames=6)
ARRAY = np.random.default_rng(0).normal(size=(3, 8, 10, 5)).astype(np.float32)


@pytest.fixture(scope='module')
def sequences():
    found = synthetic_sequences(num_sequences=3, num_frames=7, size=(64, 80), num_objects=2)
    return [dataclasses.replace(s, name=f'set/{s.name}') for s in found]


@pytest.fixture(scope='module')
def computed(sequences, tmp_path_factory):
    output = tmp_path_factory.mktemp('computed')
    return output, evaluate(sequences, SOURCE, output)


def masks(output):
    folder = output / 'masks'
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*.png')}


def evaluate(sequences, source, output, **settings):
    task = Objects(lambda: [(s.name, lambda s=s: s) for s in sequences])
    labeller = runner.Labeller(source, METHOD)
    return runner.evaluate(task, labeller, output, title='', dataset={}, **settings)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, array)
    elif path.suffix == '.npz':
        np.savez_compressed(path, anything=array)
    else:
        save_file({'anything': array}, path)


def test_masks_are_those_of_computed_features(sequences, computed, tmp_path):
    suffixes = ('.npy', '.npz', '.safetensors')
    for sequence, suffix in zip(sequences, suffixes):
        opened = SOURCE.open(sequence, frames_of(sequence))
        write(tmp_path / f'own/{sequence.name}{suffix}', np.stack(list(opened.arrays)))
    found = evaluate(sequences, FolderFeatures(tmp_path / 'own'), tmp_path / 'read')
    assert masks(tmp_path / 'read') == masks(computed[0]) and len(masks(tmp_path / 'read')) == 21
    assert found['summary'] == computed[1]['summary']
    network, settings = found['network'], found['settings']
    assert (network['name'], len(network['sha256'])) == ('features:own', 64)
    assert settings['input'] == {'frames': 'not seen'}
    assert str(tmp_path) not in (tmp_path / 'read/metrics.json').read_text()

    # Other features of the same name are other settings; one that lacks is skipped.
    lost = tmp_path / f'own/{sequences[2].name}.safetensors'
    lost.unlink()
    with pytest.raises(ValueError, match='network/sha256 is'):
        evaluate(sequences, FolderFeatures(tmp_path / 'own'), tmp_path / 'read')
    source = FolderFeatures(tmp_path / 'own')
    metrics = evaluate(sequences, source, tmp_path / 'two', skip_bad=True)
    (skipped,) = metrics['skipped']
    assert skipped['sequence'] == sequences[2].name and 'there are no features' in skipped['reason']
    rest = {k: mask for k, mask in masks(computed[0]).items() if sequences[2].name not in k}
    assert masks(tmp_path / 'two') == rest and len(rest) == 14
    with pytest.raises(DataError, match=f'no features of {sequences[2].name}: {lost.stem}.npy, '):
        evaluate(sequences, source, tmp_path / 'stops')


@pytest.mark.parametrize(
    ('suffix', 'dtype'),
    [('.npy', 'float16'), ('.npz', 'float16'), ('.safetensors', ml_dtypes.bfloat16)],
)
def test_types(suffix, dtype, tmp_path):
    write(tmp_path / f'a/dog.1{suffix}', ARRAY.astype(dtype))
    source = FolderFeatures(tmp_path)
    assert source.sizes(VIDEO) == ((64, 80), (64, 80), (8, 10), (8, 8))
    opened = source.open(VIDEO, iter(()))
    found = list(opened.arrays)
    np.testing.assert_array_equal(found, ARRAY.astype(dtype).astype(np.float32))
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    assert opened.spans == [2, 2, 2]


def test_the_frames_of_a_map():
    """Frame t has the map with the number floor(t T' / T), as a loop finds it."""
    for num_frames in (1, 2, 5, 7, 12):
        for num_maps in range(1, num_frames + 1):
            counts = [0] * num_maps
            for t in range(num_frames):
                counts[t * num_maps // num_frames] += 1
            assert (spans_of(num_maps, num_frames) or [1] * num_frames) == counts
            assert counts[0] > 0 and min(counts) > 0


def test_every_video_has_its_own_grid(sequences, tmp_path):
    sequences = sequences[:2]
    for sequence, stride in zip(sequences, (8, 16)):
        frames = np.stack(list(frames_of(sequence)))
        shape = (7, 64 // stride, stride, 80 // stride, stride, 3)
        write(tmp_path / f'own/{sequence.name}.npy', frames.reshape(shape).mean((2, 4)) - 128)
    source = FolderFeatures(tmp_path / 'own')
    with pytest.raises(DataError, match='is float64'):
        source.sizes(sequences[0])
    for path in (tmp_path / 'own').rglob('*.npy'):
        np.save(path, np.load(path).astype(np.float32))
    source = FolderFeatures(tmp_path / 'own')
    assert [source.sizes(s).grid for s in sequences] == [(8, 10), (4, 5)]
    metrics = evaluate(sequences, source, tmp_path / 'out')
    assert len({row['sequence'] for row in metrics['per_sequence']}) == 2


def damaged(suffix):
    def cut(path):
        write(path.with_suffix(suffix), ARRAY)
        data = path.with_suffix(suffix).read_bytes()
        path.with_suffix(suffix).write_bytes(data[: len(data) // 2])

    return cut


def damaged_inside(path):
    path = path.with_suffix('.npz')
    np.savez(path, x=ARRAY)
    data = bytearray(path.read_bytes())
    data[1000] ^= 255
    path.write_bytes(data)


def several(path):
    np.savez(path.with_suffix('.npz'), x=ARRAY, y=ARRAY)


def several_files(path):
    for suffix in ('.npy', '.npz'):
        write(path.with_suffix(suffix), ARRAY)


def no_array(path):
    with zipfile.ZipFile(path.with_suffix('.npz'), 'w') as archive:
        archive.writestr('notes.txt', 'none')


def huge_header(path):
    stream = io.BytesIO()
    described = {'descr': '<f4', 'fortran_order': False, 'shape': (3, 30000, 40000, 1)}
    np.lib.format.write_array_header_1_0(stream, described)
    with zipfile.ZipFile(path.with_suffix('.npz'), 'w') as archive:
        archive.writestr('x.npy', stream.getvalue() + b'1234')


def behind_a_link(path):
    """Puts the array behind a linked folder, where the folder's digest would not see it change."""
    write(path.parents[1] / 'other.npy', ARRAY)
    write(path.parents[1] / '.away/dog.1.npy', ARRAY)
    path.parent.rmdir()
    path.parent.symlink_to(path.parents[1] / '.away')


def of(array):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    ('make', 'expected'),
    [
        (of(np.zeros((7, 8, 10, 5), np.float32)), 'holds 7 feature maps for a video of 6 frames'),
        (of(ARRAY[0]), r'is float32 \[8, 10, 5\]; features are .* \[T, H, W, C\]'),
        (of(ARRAY[:, :0]), 'cannot be read as features|is float32'),
        (of(ARRAY.astype(int)), 'is int64'),
        (of(ARRAY.astype(object)), 'cannot be read as features: .*Python objects'),
        (of(ARRAY.transpose(0, 3, 1, 2).repeat(26, 1)), r'are the axes \[T, H, W, C\]'),
        (
            of(np.where(ARRAY == ARRAY[2, 1, 1, 1], np.inf, ARRAY)),
            'map 2 holds values that are not',
        ),
        (lambda path: path.write_bytes(b''), 'cannot be read as features'),
        (lambda path: path.write_bytes(b'\x80\x04N.'), 'cannot be read as features'),
        (damaged('.npy'), 'cannot be read as features'),
        (damaged('.npz'), 'cannot be read as features'),
        (damaged('.safetensors'), 'cannot be read as features'),
        (damaged_inside, 'cannot be read as features: .*CRC'),
        (several, 'holds 2 arrays; it must hold one'),
        (several_files, 'several files of features of a/dog.1: dog.1.npy, dog.1.npz'),
        (no_array, 'cannot be read as features'),
        (huge_header, r'header says float32 \[3, 30000, 40000, 1\], but it holds 4 bytes'),
        (behind_a_link, 'there are no features of a/dog.1'),
    ],
)
def test_a_wrong_file_is_named(make, expected, tmp_path):
    (tmp_path / 'a').mkdir()
    make(tmp_path / 'a/dog.1.npy')
    source = FolderFeatures(tmp_path)
    with pytest.raises(DataError, match=f'(?s){tmp_path}/a.*({expected})'):
        source.sizes(VIDEO)
        list(source.open(VIDEO, iter(())).arrays)


def test_other_numbers_of_channels_are_refused(tmp_path):
    for name, channels in (('a', 5), ('b', 4)):
        np.save(tmp_path / f'{name}.npy', ARRAY[..., :channels])
    source = FolderFeatures(tmp_path)
    source.sizes(types.SimpleNamespace(name='a', size=(64, 80), num_frames=6))
    with pytest.raises(DataError, match='b.npy: has 4 channels, but .*a.npy has 5'):
        source.sizes(types.SimpleNamespace(name='b', size=(64, 80), num_frames=6))


def test_a_wrong_folder_is_one_line(tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    for folder, expected in (('no', 'there is no such folder'), ('empty', 'holds no features')):
        name = f'--config.network.name=features:{tmp_path}/{folder}'
        assert cli.main(['evaluate', name, f'--output={tmp_path}/out']) == 1
        printed = capsys.readouterr().err
        assert expected in printed and printed.count('\n') == 1
    np.save(tmp_path / 'empty/x.npy', ARRAY)
    assert cli.main(['evaluate', name, f'--output={tmp_path}/out']) == 1
    printed = capsys.readouterr().err
    assert f'{folder}: there are no features of ' in printed and printed.count('\n') == 1
    assert cli.main(['evaluate', name, '--config.network.depth=50']) == 1
    assert 'is no network: leave out network.depth=50' in capsys.readouterr().err


def test_a_stream_of_unknown_length_needs_its_video(sequences, tmp_path):
    write(tmp_path / f'{sequences[0].name}.npy', np.zeros((7, 16, 20, 3), np.float32))
    labeller = runner.Labeller(FolderFeatures(tmp_path), METHOD)
    first = sequences[0].read_label(0)
    with pytest.raises(ValueError, match='pass the video too'):
        next(runner.label_frames(iter(()), first, labeller))
    found = list(runner.label_frames(iter(()), first, labeller, video=sequences[0]))
    assert len(found) == 7
    with pytest.raises(ValueError, match='the label map'):
        next(runner.label_frames(iter(()), first[1:], labeller, video=sequences[0]))


@pytest.mark.parametrize('suffix', ['.npy', '.safetensors'])
def test_what_is_exported_is_as_the_source_has_it(suffix, sequences, tmp_path):
    """So are facts beside the array: the frames of a map, and the size in the network."""
    size = InputConfig(size=36, resize='short_side')
    source = FunctionFeatures(
        lambda frames: frames[::4, ::7, ::7].astype(np.float32), input=size, batch=4
    )
    sequence = dataclasses.replace(sequences[0], num_frames=5)
    path = tmp_path / f'{sequence.name}{suffix}'
    made = export_video(source, sequence, frames_of(sequence), path, 'float32')
    card = {'network': {'trained': False}, 'warnings': ['beware'], 'videos': {sequence.name: made}}
    files.write_json(tmp_path / CARD, card)
    found = FolderFeatures(tmp_path)
    assert (found.trained, found.warnings) == (False, ['beware'])
    assert found.sizes(sequence) == source.sizes(sequence)
    opened, expected = (one.open(sequence, frames_of(sequence)) for one in (found, source))
    assert opened.spans == expected.spans == [4, 1] != spans_of(2, 5)
    np.testing.assert_array_equal(list(opened.arrays), list(expected.arrays))

    # Other frames than those are not labelled by these features.
    with pytest.raises(DataError, match='was made of 5 frames; the video has 6'):
        found.sizes(dataclasses.replace(sequence, num_frames=6))
    digest = source_digest(f'features:{tmp_path}')
    made['spans'] = [3, 2]
    files.write_json(tmp_path / CARD, card)
    assert source_digest(f'features:{tmp_path}') != digest
    made['spans'] = [3, 3]
    files.write_json(tmp_path / CARD, card)
    with pytest.raises(ValueError, match=f'{CARD}: is damaged'):
        FolderFeatures(tmp_path)


def test_an_export_that_fails_leaves_nothing(sequences, tmp_path):
    def fails(t):
        if t == 5:
            raise DataError('5.jpg: cut short')
        return sequences[0].read_frame(t)

    broken = dataclasses.replace(sequences[0], read_frame=fails)
    large = FunctionFeatures(lambda frames: SOURCE.function(frames) * 1e6)
    for source, sequence, dtype, error in (
        (SOURCE, broken, 'float32', 'cut short'),
        (large, sequences[0], 'float16', 'say --dtype=float32'),
    ):
        with pytest.raises((DataError, ValueError), match=error):
            export_video(source, sequence, frames_of(sequence), tmp_path / 'x.npy', dtype)
    assert not list(tmp_path.iterdir())
