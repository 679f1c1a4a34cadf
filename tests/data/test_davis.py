"""DAVIS's files: tiny folders with one fault each, and the real data compared with OpenCV."""

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxprop.data.davis import davis_names, davis_sequence
from jaxprop.data.image_files import list_images, read_image, read_mask, read_palette, write_mask
from jaxprop.data.sequences import DataError, davis_palette
from jaxprop.files import replacing
from tests.support import shared

HEIGHT, WIDTH = 24, 40
IDS = np.zeros((HEIGHT, WIDTH), np.uint8)
IDS[4:12, 5:20] = 1
IDS[10:20, 22:36] = 3


def save_palette(path, ids):
    image = Image.fromarray(ids)
    image.putpalette(davis_palette().tobytes())
    image.save(path)


@pytest.fixture
def root(tmp_path):
    """A data set of one sequence 'cat': four frames, all with masks."""
    frames = tmp_path / 'JPEGImages' / '480p' / 'cat'
    masks = tmp_path / 'Annotations' / '480p' / 'cat'
    lists = tmp_path / 'ImageSets' / '2017'
    for folder in (frames, masks, lists):
        folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(4):
        pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(frames / f'{index:05d}.jpg')
        save_palette(masks / f'{index:05d}.png', np.roll(IDS, index, axis=1))
    (lists / 'val.txt').write_text('cat\n\ndog\n')
    return tmp_path


def frame(root, index):
    return root / 'JPEGImages' / '480p' / 'cat' / f'{index:05d}.jpg'


def mask(root, index):
    return root / 'Annotations' / '480p' / 'cat' / f'{index:05d}.png'


def test_sequence(root):
    sequence = davis_sequence(root, 'cat')
    assert (sequence.name, sequence.num_frames, sequence.size) == ('cat', 4, (HEIGHT, WIDTH))
    assert sequence.frame_names == ('00000', '00001', '00002', '00003')
    np.testing.assert_array_equal(sequence.palette, davis_palette())
    for index in range(4):
        expected = cv2.imread(str(frame(root, index)))[..., ::-1]
        np.testing.assert_array_equal(sequence.read_frame(index), expected)
        label = sequence.read_label(index)
        assert label.dtype == np.int32
        np.testing.assert_array_equal(label, np.roll(IDS, index, axis=1))


def test_later_masks_may_be_missing(root):
    mask(root, 1).unlink()
    mask(root, 3).unlink()
    sequence = davis_sequence(root, 'cat')
    assert [sequence.read_label(index) is None for index in range(4)] == [False, True, False, True]


def test_year_2016_has_one_object(root):
    np.testing.assert_array_equal(davis_sequence(root, 'cat', '2016').read_label(0), IDS > 0)


def test_hidden_and_other_files_do_not_count(root):
    (frame(root, 0).parent / '._00000.jpg').write_bytes(b'')
    (frame(root, 0).parent / 'Thumbs.db').write_bytes(b'')
    assert davis_sequence(root, 'cat').num_frames == 4


def test_void_alone_in_a_later_mask_of_several_objects_is_background(root):
    save_palette(mask(root, 2), np.where(IDS > 0, 255, 0).astype(np.uint8))
    assert not davis_sequence(root, 'cat').read_label(2).any()


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def fill_tail(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def break_checksum(path):
    data = bytearray(path.read_bytes())
    data[data.index(b'IDAT') + 6] ^= 0xFF
    path.write_bytes(data)


def resize(path, save):
    save(path, np.zeros((HEIGHT, WIDTH - 2), np.uint8))


@pytest.mark.parametrize(
    'spoil, faulty, message',
    [
        (lambda root: frame(root, 0).parent.rename(root / 'moved'), 'JPEGImages/480p/cat', 'no su'),
        (lambda root: mask(root, 0).parent.rename(root / 'moved'), 'Annotations/480p/cat', 'no su'),
        (
            lambda root: [frame(root, index).unlink() for index in range(4)],
            'JPEGImages/480p/cat',
            'no JPEG',
        ),
        (lambda root: frame(root, 1).unlink(), '00001.jpg', 'missing'),
        (lambda root: frame(root, 2).rename(frame(root, 2).with_name('x.jpg')), 'x.jpg', 'number'),
        (lambda root: mask(root, 0).unlink(), '00000.jpg', 'no mask'),
        (lambda root: frame(root, 3).unlink(), 'Annotations/480p/cat/00003.png', 'without its'),
        (lambda root: resize(mask(root, 0), save_palette), '00000.png', '24 x 38'),
        (lambda root: resize(mask(root, 2), save_palette), '00002.png', '24 x 38'),
        (
            lambda root: resize(frame(root, 2), lambda path, ids: Image.fromarray(ids).save(path)),
            '00002.jpg',
            '24 x 38',
        ),
        (lambda root: save_palette(mask(root, 0), 0 * IDS), '00000.png', 'no object'),
        (lambda root: cut(frame(root, 2), 0), '00002.jpg', 'cannot be read'),
        (lambda root: cut(frame(root, 2), 900), '00002.jpg', 'cut short'),
        (lambda root: cut(frame(root, 2), -2), '00002.jpg', 'cut short'),
        (lambda root: fill_tail(frame(root, 2)), '00002.jpg', 'cut short'),
        (lambda root: frame(root, 1).write_text('no image'), '00001.jpg', 'cannot be read'),
        (lambda root: cut(mask(root, 0), -30), '00000.png', 'cannot be read'),
        (lambda root: cut(mask(root, 3), -30), '00003.png', 'cannot be read'),
        (lambda root: break_checksum(mask(root, 3)), '00003.png', 'cannot be read'),
        (lambda root: mask(root, 0).write_bytes(frame(root, 0).read_bytes()), '00000.png', 'JPEG'),
    ],
)
def test_faults_are_found_on_opening_and_named(root, spoil, faulty, message):
    davis_sequence(root, 'cat')
    spoil(root)
    with pytest.raises(DataError, match=message) as error:
        davis_sequence(root, 'cat')
    assert str(error.value).split(': ')[0].endswith(faulty)


def test_names(root):
    assert davis_names(root) == ('cat', 'dog')
    (root / 'ImageSets' / '2016').mkdir()
    (root / 'ImageSets' / '2016' / 'val.txt').write_text(
        ''.join(
            f'/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png\n'
            for name in ('dog', 'cat')
            for t in range(3)
        )
    )
    assert davis_names(root, '2016') == ('dog', 'cat')


def test_names_of_a_missing_or_empty_list(root):
    with pytest.raises(DataError, match='ImageSets/2017/test-dev.txt'):
        davis_names(root, split='test-dev')
    (root / 'ImageSets' / '2017' / 'train.txt').write_text('\n')
    with pytest.raises(DataError, match='train.txt'):
        davis_names(root, split='train')


def test_natural_order(tmp_path):
    for name in ('frame10.png', 'frame2.png', 'frame1.PNG', 'frame2b.png'):
        Image.fromarray(IDS).save(tmp_path / name, format='PNG')
    names = [path.name for path in list_images(tmp_path)]
    assert names == ['frame1.PNG', 'frame2.png', 'frame2b.png', 'frame10.png']


BINARY = np.where(IDS > 0, 255, 0).astype(np.uint8)
# The colours of ids 0, 3 and 9 in the benchmark's own files.
DAVIS_COLOURS = np.zeros((10, 3), np.uint8)
DAVIS_COLOURS[[3, 9]] = (128, 128, 0), (191, 0, 0)
WITH_VOID = np.where(IDS == 3, 255, IDS).astype(np.uint8)


@pytest.mark.parametrize(
    'save, expected',
    [
        (lambda path: save_palette(path, IDS), IDS),
        (lambda path: Image.fromarray(IDS).save(path), IDS),
        (lambda path: Image.fromarray(IDS.astype(np.uint16) * 80).save(path), IDS * np.int32(80)),
        (lambda path: Image.fromarray(BINARY).save(path), IDS > 0),
        (lambda path: Image.fromarray(BINARY).convert('LA').save(path), IDS > 0),
        (lambda path: Image.fromarray(BINARY.astype(np.uint16) * 257).save(path), IDS > 0),
        (lambda path: Image.fromarray(IDS > 0).save(path), IDS > 0),
        (lambda path: save_palette(path, BINARY), IDS > 0),
        (lambda path: Image.fromarray(WITH_VOID).save(path), IDS == 1),
        (lambda path: save_palette(path, WITH_VOID), IDS == 1),
        (lambda path: Image.fromarray(davis_palette()[IDS]).save(path), IDS),
        (lambda path: Image.fromarray(davis_palette()[IDS]).convert('RGBA').save(path), IDS),
        (lambda path: Image.fromarray(BINARY).convert('RGB').save(path), IDS > 0),
        (lambda path: Image.fromarray(DAVIS_COLOURS[3 * IDS]).save(path), 3 * IDS),
        (lambda path: Image.fromarray(0 * IDS).save(path), 0 * IDS),
    ],
)
def test_read_mask(tmp_path, save, expected):
    save(tmp_path / 'mask.png')
    ids = read_mask(tmp_path / 'mask.png')
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, expected)


def test_read_mask_refuses_what_has_no_ids(tmp_path):
    path = tmp_path / 'mask.png'
    colours = davis_palette()[IDS].copy()
    colours[3, 4] = 12, 3, 4
    Image.fromarray(colours).save(path)
    with pytest.raises(DataError, match=r'mask.png: .*\(12, 3, 4\).*palette'):
        read_mask(path)
    Image.fromarray(BINARY).save(tmp_path / 'mask.jpg')
    with pytest.raises(DataError, match='mask.jpg: a JPEG'):
        read_mask(tmp_path / 'mask.jpg')
    with pytest.raises(DataError, match='absent.png'):
        read_mask(tmp_path / 'absent.png')


def test_write_mask_is_a_palette_png_of_8_bits(tmp_path):
    path = tmp_path / 'cat' / '00000.png'
    write_mask(path, IDS.astype(np.int32))
    width, height, depth, kind = np.frombuffer(path.read_bytes()[16:26], '>u4,>u4,u1,u1')[0]
    assert (width, height, depth, kind) == (WIDTH, HEIGHT, 8, 3)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.array(image), IDS)
        np.testing.assert_array_equal(np.array(image.convert('RGB')), davis_palette()[IDS])
    # OpenCV, another decoder, sees the same colours.
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], davis_palette()[IDS])


def test_palette_is_kept(tmp_path):
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    write_mask(tmp_path / 'mask.png', IDS, palette)
    np.testing.assert_array_equal(read_palette(tmp_path / 'mask.png'), palette)
    Image.fromarray(IDS).save(tmp_path / 'grey.png')
    assert read_palette(tmp_path / 'grey.png') is None


@pytest.mark.parametrize(
    'ids, palette, message',
    [
        (IDS.astype(float), None, 'float64'),
        (IDS[None], None, '1, 24, 40'),
        (IDS.astype(int) * 100, None, '300'),
        (IDS.astype(int) - 1, None, '-1'),
        (IDS, np.zeros((7, 3), np.uint8), '7, 3'),
    ],
)
def test_write_mask_refuses(tmp_path, ids, palette, message):
    with pytest.raises(ValueError, match=message):
        write_mask(tmp_path / 'mask.png', ids, palette)
    assert not list(tmp_path.iterdir())


def test_replacing_leaves_the_old_file_after_a_failure(tmp_path):
    path = tmp_path / 'file.txt'
    path.write_text('old')
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text('half')
        raise KeyError
    assert [entry.name for entry in tmp_path.iterdir()] == ['file.txt']
    assert path.read_text() == 'old'
    with replacing(path) as temporary:
        temporary.write_text('new')
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ['new']


def test_read_image_refuses_16_bits(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / 'deep.png')
    with pytest.raises(DataError, match='deep.png: has more than 8 bits'):
        read_image(tmp_path / 'deep.png')


@pytest.mark.parametrize('year', ['2016', '2017'])
def test_real_davis(year):
    root = shared('data', 'DAVIS')
    counts = {}
    for split in ('train', 'val'):
        for name in davis_names(root, year, split):
            sequence = davis_sequence(root, name, year)
            assert sequence.size == (480, 854) and sequence.palette is None
            counts[name] = sequence.num_frames
    assert sum(counts.values()) == 713 and len(counts) == 12
    # The one mask of the set that is stored with an alpha channel.
    bear = root / 'Annotations' / '480p' / 'bear' / '00077.png'
    truth = cv2.imread(str(bear), cv2.IMREAD_GRAYSCALE) // 255
    np.testing.assert_array_equal(davis_sequence(root, 'bear', year).read_label(77), truth)


def test_real_sequence_of_several_objects(tmp_path):
    root = shared('data', 'DAVIS-multi')
    assert davis_names(root) == ('schoolgirls',)
    sequence = davis_sequence(root, 'schoolgirls')
    assert (sequence.num_frames, sequence.size) == (80, (240, 432))
    # The palette inside DAVIS' files differs a little from `davis_palette`; results keep it.
    assert sequence.palette[9].tolist() == [191, 0, 0]
    label = sequence.read_label(0)
    assert np.unique(label).tolist() == list(range(8))
    # Writing what was read gives the official file's pixels, palette and form.
    write_mask(tmp_path / 'mask.png', label, sequence.palette)
    official = root / 'Annotations' / '480p' / 'schoolgirls' / '00000.png'
    with Image.open(tmp_path / 'mask.png') as written, Image.open(official) as expected:
        assert (written.mode, written.size) == (expected.mode, expected.size)
        np.testing.assert_array_equal(np.array(written), np.array(expected))
        assert written.getpalette() == expected.getpalette()
