"""Folders of frames and video files, written with known pictures, and a real clip."""

import concurrent.futures
import struct

import av
import numpy as np
import pytest
from PIL import Image

from jaxprop.data import video_files
from jaxprop.data.davis import davis_sequence
from jaxprop.data.image_files import write_mask
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_video, read_range, video_sequence, write_video
from tests.support import shared

SIZE = (48, 64)
LEVELS = [20, 60, 100, 140, 180, 220, 40, 80, 120, 160, 200, 240]


def flat_frames(size=SIZE):
    """Makes frames of one grey each, which tells a frame from others after compression, too."""
    return [np.full((*size, 3), level, np.uint8) for level in LEVELS]


def levels(frames):
    return [LEVELS[int(np.abs(np.array(LEVELS) - frame.mean()).argmin())] for frame in frames]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / 'clip.mp4'
    write_video(path, flat_frames(), 12.5)
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'frames'
    path.mkdir()
    for index, frame in enumerate(flat_frames()):
        Image.fromarray(frame).save(path / f'f{index + 1}.png')
    return path


def test_threads_read_a_file(clip):
    video, numbers = open_video(clip), [*range(12)] * 5
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(video.read_frame, numbers))
    assert levels(frames) == [LEVELS[number] for number in numbers]


def test_file(clip):
    video = open_video(clip)
    assert (video.name, video.num_frames, video.size) == ('clip', 12, SIZE)
    assert video.frames_per_second == 12.5
    assert video.frame_names[:2] == ('00000', '00001') and len(video.frame_names) == 12
    frames = list(video.iterate())
    assert frames[0].dtype == np.uint8 and frames[0].shape == (*SIZE, 3)
    assert levels(frames) == LEVELS
    assert levels(video.iterate()) == LEVELS


def test_file_frames_in_any_order(clip):
    video = open_video(clip)
    frames = list(video.iterate())
    for index in (0, 0, 3, 4, 2, 11, 11, 10, 2, 0, 7, 4):
        np.testing.assert_array_equal(video.read_frame(index), frames[index])
    for index in (-1, 12):
        with pytest.raises(IndexError):
            video.read_frame(index)


@pytest.mark.parametrize('group', ['keyint=5:open-gop=1:bframes=3', 'keyint=1', 'keyint=250'])
@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'avi'])
def test_a_file_is_read_from_any_frame_on(tmp_path, monkeypatch, group, suffix):
    """Also where frames before a key frame need it. The file is not decoded from its start."""
    if 'libx264' not in av.codecs_available:
        pytest.skip('FFmpeg is built without H.264')
    path, rng = tmp_path / f'clip.{suffix}', np.random.default_rng(0)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25, options={'x264-params': group})
        stream.height, stream.width, stream.pix_fmt = 32, 48, 'yuv420p'
        for shift in range(24):
            picture = np.roll(rng.integers(0, 255, (32, 48, 3), np.uint8), shift, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())
    video = open_video(path)
    frames = list(video.iterate())
    assert len(frames) == 24
    if suffix != 'avi':  # Its time stamps are not those of the frames as they are shown.
        monkeypatch.setattr(video_files, '_decode', None)
    for start in range(1, 24):
        np.testing.assert_array_equal(list(video.iterate_from(start)), frames[start:])
    for numbers in (range(20, 2, -1), range(3, 9), range(0)):
        found = list(read_range(video, numbers))
        assert len(found) == len(numbers)
        for number, frame in zip(numbers, found):
            np.testing.assert_array_equal(frame, frames[number])


def test_frames_are_read_backwards_a_few_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(video_files, '_BACKWARDS', 1)  # Eight at least.
    assert levels(read_range(open_video(folder), range(11, -1, -1))) == LEVELS[::-1]
    with pytest.raises(ValueError, match='steps of 1 or -1'):
        next(read_range(open_video(folder), range(0, 11, 2)))


def test_folder_in_natural_order(folder):
    video = open_video(folder)
    assert (video.name, video.num_frames, video.size) == ('frames', 12, SIZE)
    assert video.frame_names[8:11] == ('f9', 'f10', 'f11')
    assert video.frames_per_second is None
    for index, frame in enumerate(video.iterate()):
        np.testing.assert_array_equal(frame, flat_frames()[index])
        np.testing.assert_array_equal(video.read_frame(index), frame)


def test_folder_with_a_frame_of_another_size(folder):
    Image.new('RGB', (10, 20)).save(folder / 'f5.png')
    video = open_video(folder)
    with pytest.raises(DataError, match='f5.png: is 20 x 10 .*48 x 64'):
        list(video.iterate())


@pytest.mark.parametrize('size', [(47, 64), (48, 63), (33, 35)])
def test_odd_sizes_grow_by_their_last_row_or_column(tmp_path, size):
    frame = np.full((*size, 3), 60, np.uint8)
    frame[-2:] = 200
    frame[:, -2:] = 200
    write_video(tmp_path / 'odd.mp4', [frame] * 3)
    video = open_video(tmp_path / 'odd.mp4')
    assert video.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    decoded = video.read_frame(2).astype(int)
    assert np.abs(decoded[: size[0] - 4, : size[1] - 4] - 60).max() < 20
    assert np.abs(decoded[-1] - 200).max() < 20 and np.abs(decoded[:, -1] - 200).max() < 20


def test_colours_keep_their_channels(tmp_path):
    frame = np.zeros((*SIZE, 3), np.uint8)
    frame[:, :32] = 200, 40, 40
    frame[:, 32:] = 40, 40, 200
    write_video(tmp_path / 'colours.mp4', [frame] * 4)
    decoded = open_video(tmp_path / 'colours.mp4').read_frame(3).astype(int)
    assert np.abs(decoded[:, 4:28] - frame[:, 4:28]).max() < 16
    assert np.abs(decoded[:, 36:60] - frame[:, 36:60]).max() < 16


def test_mpeg4_where_h264_is_not_built_in(tmp_path, monkeypatch):
    monkeypatch.setattr(av, 'codecs_available', av.codecs_available - {'libx264'})
    write_video(tmp_path / 'clip.mp4', flat_frames())
    with av.open(str(tmp_path / 'clip.mp4')) as container:
        assert container.streams.video[0].codec_context.name == 'mpeg4'
    assert levels(open_video(tmp_path / 'clip.mp4').iterate()) == LEVELS


@pytest.mark.parametrize(
    'frames, message',
    [
        ([], 'no frame'),
        ([np.zeros((*SIZE, 3), np.float32)], 'float32'),
        ([np.zeros(SIZE, np.uint8)], '48, 64'),
        ([np.zeros((*SIZE, 3), np.uint8), np.zeros((48, 66, 3), np.uint8)], '48, 66'),
    ],
)
def test_write_video_refuses_and_keeps_the_old_file(clip, frames, message):
    before = clip.read_bytes()
    with pytest.raises(ValueError, match=message):
        write_video(clip, frames)
    assert clip.read_bytes() == before
    assert [entry.name for entry in clip.parent.iterdir()] == ['clip.mp4']


def test_write_video_refuses_an_unknown_container(tmp_path):
    with pytest.raises(ValueError, match='clip.xyz'):
        write_video(tmp_path / 'clip.xyz', flat_frames())


# The 3 x 3 matrix of a track in the MP4 header that turns the picture by so many quarters of a
# turn clockwise: (x, y) of the stored picture is shown at (a x + c y, b x + d y).
MATRICES = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}


@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_rotation_of_telephones_is_applied(tmp_path, quarters):
    frame = np.full((*SIZE, 3), 40, np.uint8)
    frame[:24, :32] = 220  # the top left quadrant
    path = tmp_path / 'turned.mp4'
    write_video(path, [frame] * 3)
    data = bytearray(path.read_bytes())
    a, b, c, d = MATRICES[quarters]
    matrix = struct.pack('>9i', *(np.array([a, b, 0, c, d, 0, 0, 0]) << 16).tolist(), 1 << 30)
    start = data.index(b'tkhd') + 4 + 40
    assert data[start : start + 4] == struct.pack('>i', 1 << 16)
    data[start : start + 36] = matrix
    path.write_bytes(data)

    video = open_video(path)
    expected = np.rot90(frame, -quarters)
    assert video.size == expected.shape[:2]
    for decoded in (video.read_frame(1), next(video.iterate())):
        assert ((decoded[..., 0] > 130) == (expected[..., 0] > 130)).mean() > 0.97


def test_faulty_files(tmp_path, clip):
    with pytest.raises(DataError, match='absent'):
        open_video(tmp_path / 'absent')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='empty'):
        open_video(tmp_path / 'empty')
    path = tmp_path / 'text.mp4'
    path.write_text('no video')
    with pytest.raises(DataError, match='text.mp4'):
        open_video(path)
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(DataError, match='text.mp4'):
        open_video(path)


def noisy_frames():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(12)]


def test_damage_in_the_middle_is_found_on_opening(tmp_path):
    path = tmp_path / 'clip.mp4'
    write_video(path, noisy_frames())
    assert open_video(path).num_frames == 12
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[6]
    data[position + size // 2 : position + size] = bytes(size - size // 2)
    path.write_bytes(data)
    with pytest.raises(DataError, match='clip.mp4'):
        open_video(path)


def test_a_file_cut_between_two_frames_is_found_on_opening(tmp_path):
    path = tmp_path / 'clip.mp4'
    # With the index in front, as files for the web have it, the rest still decodes.
    with av.open(str(path), 'w', options={'movflags': 'faststart'}) as container:
        stream = container.add_stream('mpeg4', rate=24)
        stream.height, stream.width = SIZE
        for frame in noisy_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    assert open_video(path).num_frames == 12
    with av.open(str(path)) as container:
        start = [packet.pos for packet in container.demux(video=0) if packet.size][8]
    path.write_bytes(path.read_bytes()[:start])
    with pytest.raises(DataError, match='8 of 12'):
        open_video(path)


@pytest.mark.parametrize('kind', ['clip', 'folder'])
def test_sequence_of_a_video_and_a_mask(tmp_path, kind, request):
    path = request.getfixturevalue(kind)
    ids = np.zeros(SIZE, np.int32)
    ids[5:20, 7:30] = 2
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    write_mask(tmp_path / 'mask.png', ids, palette)
    sequence = video_sequence(path, tmp_path / 'mask.png')
    assert (sequence.num_frames, sequence.size) == (12, SIZE)
    assert sequence.name == path.stem
    assert video_sequence(path, tmp_path / 'mask.png', name='cat').name == 'cat'
    np.testing.assert_array_equal(sequence.read_label(0), ids)
    assert sequence.read_label(1) is None
    np.testing.assert_array_equal(sequence.palette, palette)
    assert levels(sequence.read_frame(index) for index in range(12)) == LEVELS


@pytest.mark.parametrize(
    'ids, message',
    [
        (np.ones((48, 60), int), '48 x 60.*48 x 64.*another shape'),
        (np.zeros(SIZE, int), 'no object'),
    ],
)
def test_sequence_refuses_a_mask(tmp_path, clip, ids, message):
    write_mask(tmp_path / 'mask.png', ids)
    with pytest.raises(DataError, match=f'mask.png: .*{message}'):
        video_sequence(clip, tmp_path / 'mask.png')


def test_real_clip():
    folder = shared('data', 'DAVIS-multi')
    first_mask = folder / 'Annotations' / '480p' / 'schoolgirls' / '00000.png'
    sequence = video_sequence(shared('data', 'clips', 'schoolgirls.mp4'), first_mask)
    assert (sequence.name, sequence.num_frames) == ('schoolgirls', 80)
    assert sequence.size == (240, 432)
    assert np.unique(sequence.read_label(0)).tolist() == list(range(8))
    # The same pictures as the folder's frames, but for the compression: every frame is nearest
    # to the frame of its own number.
    frames = davis_sequence(folder, 'schoolgirls').read_frame
    for index in (0, 1, 40, 79):
        picture = sequence.read_frame(index).astype(int)
        distances = {
            other: np.abs(picture - frames(other)).mean()
            for other in range(max(index - 2, 0), min(index + 3, 80))
        }
        assert min(distances, key=distances.get) == index
        assert distances[index] < 6


def test_a_file_that_is_damaged_after_it_was_opened(clip):
    video = open_video(clip)
    clip.write_bytes(clip.read_bytes()[:-200])
    for _ in range(2):
        with pytest.raises(DataError, match='clip.mp4'):
            video.read_frame(11)
