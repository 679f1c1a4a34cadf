"""Damaged videos and playlists under video names, by both readers: `open_video` and training's."""

import http.server
import io
import os
import threading

import av
import numpy as np
import pytest
from PIL import Image

from jaxprop.data.clips import read_frames
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_video, write_video
from tests.fuzz.mutations import classify, count, mutate

SIZE = (48, 64)


def frames(number=8):
    """Draws a coarse pattern that moves over another."""
    generator = np.random.default_rng(0)
    back, front = (
        np.kron(generator.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        for _ in range(2)
    )
    made = []
    for index in range(number):
        frame = back.copy()
        frame[8:32, index : index + 24] = front[8:32, :24]
        frame[40:] = 10 * index
        made.append(frame)
    return made


def encoded(codec, container, number=8, pixels='yuv420p', **options):
    """Encodes a video file in memory, with a key frame every four frames."""
    file = io.BytesIO()
    with av.open(file, 'w', format=container) as output:
        stream = output.add_stream(codec, rate=24, options={'g': '4', **options})
        stream.height, stream.width, stream.pix_fmt = *SIZE, pixels
        for frame in frames(number):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        output.mux(stream.encode())
    return file.getvalue()


def whole(path):
    return np.stack(list(open_video(path).iterate()))


def two(path):
    return read_frames(path, lambda number, _: (number - 1, 0))


READERS = {'whole': whole, 'two': two}
# Codec, container as FFmpeg calls it, pixels.
KINDS = {
    'h264.mp4': ('libx264', 'mp4', 'yuv420p'),
    'mpeg4.mp4': ('mpeg4', 'mp4', 'yuv420p'),
    'mpeg4.avi': ('mpeg4', 'avi', 'yuv420p'),
    'mjpeg.avi': ('mjpeg', 'avi', 'yuvj420p'),
    'mpeg2.mpg': ('mpeg2video', 'mpeg', 'yuv420p'),
    'h264.ts': ('libx264', 'mpegts', 'yuv420p'),
    'vp9.webm': ('libvpx-vp9', 'webm', 'yuv420p'),
    'h264.mkv': ('libx264', 'matroska', 'yuv420p'),
}


def make(name, **options):
    codec, container, pixels = KINDS[name]
    if codec not in av.codecs_available:
        pytest.skip(f'{codec} is not built in')
    return encoded(codec, container, pixels=pixels, **options)


@pytest.mark.parametrize('name', KINDS)
def test_damaged_videos(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(make(name))
    assert len(whole(path)) == 8
    found = []
    for label, data in mutate(path.read_bytes(), 42):
        path.write_bytes(data)
        for reader, read in READERS.items():
            found.append((f'{reader} {label}', classify(lambda: read(path), path)))
    assert count(found)['clear'] >= 10


@pytest.mark.parametrize('name, most', [('mjpeg.avi', 12), ('mpeg4.avi', 6), ('mpeg2.mpg', 6)])
def test_decoders_report_what_they_used_to_hide(tmp_path, name, most):
    """Of 40 files with flipped bits or zeroed bytes at most `most` may decode to other frames."""
    path = tmp_path / name
    path.write_bytes(make(name))
    truth, silent = whole(path), 0
    for _, data in mutate(path.read_bytes(), 40, 0, ('flip', 'zero')):
        path.write_bytes(data)
        kind, got = classify(lambda: whole(path), path)
        silent += kind == 'ok' and (got.shape != truth.shape or bool((got != truth).any()))
    assert silent <= most


@pytest.mark.parametrize('name', [name for name in KINDS if name not in ('mpeg2.mpg', 'h264.ts')])
@pytest.mark.parametrize('b_frames', ['0', '2'])
def test_groups_of_pictures_that_refer_to_others_are_no_damage(tmp_path, name, b_frames):
    path = tmp_path / name
    options = {'x264-params': 'open-gop=1'} if 'h264' in name else {}
    if name.startswith(('mpeg', 'h264')):
        options['bf'] = b_frames
    path.write_bytes(make(name, number=24, **options))
    truth = whole(path)
    for index in range(24):
        picture = read_frames(path, lambda number, _, index=index: [index])[0]
        assert picture.shape == truth[index].shape
        if b_frames == '0':
            np.testing.assert_array_equal(picture, truth[index])


@pytest.fixture
def server():
    """Starts a server on this machine, and lists the addresses for which it is asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running.server_port, asked
        running.shutdown()
        thread.join()


def playlists(folder, port):
    """Makes texts that FFmpeg's readers of playlists take for videos."""
    part = folder / 'part.ts'
    part.write_bytes(make('h264.ts'))
    head = '#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n'
    return {
        'live': f'{head}part.ts\n',
        'other': f'{head}{part}\n#EXT-X-ENDLIST\n',
        'itself': f'{head}clip.mp4\n#EXT-X-ENDLIST\n',
        'network': f'{head}http://127.0.0.1:{port}/part.ts\n#EXT-X-ENDLIST\n',
        'concat': 'ffconcat version 1.0\n' + 'file part.ts\n' * 1000,
        'concat itself': 'ffconcat version 1.0\nfile clip.mp4\n',
        'dash': '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f'<BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
        'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
        'm=video 5004 RTP 96\na=rtpmap:96 H264/90000\n',
        'images': 'GIF89a',
        'text': 'no video',
        'nothing': '',
    }


@pytest.mark.parametrize('name', ['clip.mp4', 'clip.m3u8', 'clip.ffconcat', 'clip%03d.mp4', 'clip'])
def test_playlists_are_refused(tmp_path, name, server):
    port, asked = server
    path, found = tmp_path / name, []
    for label, text in playlists(tmp_path, port).items():
        path.write_text(text.replace('clip.mp4', name))
        for reader, read in READERS.items():
            found.append((f'{reader} {label}', classify(lambda: read(path), path)))
    assert count(found) == {'clear': len(found)} and not asked


@pytest.mark.parametrize('container', ['gif', 'flv', 'asf', 'nut'])
def test_containers_that_are_not_on_the_list(tmp_path, container):
    path = tmp_path / 'clip.mp4'
    codec = {'gif': 'gif', 'asf': 'msmpeg4', 'nut': 'mpeg4'}.get(container, 'flv')
    if codec not in av.codecs_available:
        pytest.skip(f'{codec} is not built in')
    path.write_bytes(encoded(codec, container, pixels='rgb8' if codec == 'gif' else 'yuv420p'))
    for read in READERS.values():
        with pytest.raises(DataError, match='clip.mp4: is no MP4, .*convert it to MP4'):
            read(path)


def test_names_that_look_like_addresses(tmp_path, monkeypatch, server):
    port, asked = server
    monkeypatch.chdir(tmp_path)
    for name in (
        '12:30.mp4',
        f'http:/127.0.0.1:{port}/x.mp4',
        'concat:a.mp4|b.mp4',
        'file:x.mp4',
        'pipe:0',
        '-.mp4',
        'größe 50%.mp4',
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path.with_name('made.mp4'), frames(3))
        path.with_name('made.mp4').rename(path)
        for opened in (path, name):
            assert whole(opened).shape == (3, *SIZE, 3)
            assert len(two(opened)) == 2
    assert not asked


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / 'pipe.mp4')
    (tmp_path / 'device.mp4').symlink_to('/dev/zero')
    for name in ('pipe.mp4', 'device.mp4', 'absent.mp4'):
        for read in READERS.values():
            assert classify(lambda: read(tmp_path / name), name)[0] == 'clear'


def test_frames_of_one_name(tmp_path):
    for name in ('f0.jpg', 'f0.png', 'f1.jpg'):
        Image.fromarray(frames(1)[0]).save(tmp_path / name)
    with pytest.raises(DataError, match='f0.png: has the name of f0.jpg with another suffix'):
        open_video(tmp_path)
