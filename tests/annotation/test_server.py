"""The server of the page: what it gives, and that nobody else gets anything from it."""

import contextlib
import gzip
import http.client
import json
import re
import threading

import numpy as np
import pytest

from jaxprop.annotation.pictures import Pictures
from jaxprop.annotation.server import AnnotationServer
from jaxprop.data import image_files
from jaxprop.data.sequences import DataError
from jaxprop.data.video_files import open_video, write_video
from tests.annotation.standin import NUM_FRAMES, SIZE, open_session, square


@contextlib.contextmanager
def serving(session):
    """Serves a session in a thread."""
    with AnnotationServer(session) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(tmp_path):
    with serving(open_session(tmp_path)) as server:
        yield server


def ask(server, path, method='GET', body=None, headers=None, token=None):
    """Sends one request below the token; returns the answer and its body."""
    connection = http.client.HTTPConnection('127.0.0.1', server.server_address[1], timeout=20)
    token = server.token if token is None else token
    connection.putrequest(method, f'/{token}/{path}' if token else path, skip_host=True)
    headers = {'Host': server.hosts[0], **(headers or {})}
    if body is not None:
        headers = {'Content-Length': str(len(body)), **headers}
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_the_page_needs_nothing_else(server):
    answer, content = ask(server, '')
    page = content.decode()
    assert answer.status == 200 and server.address.endswith(f'/{server.token}/')
    policy = answer.headers['Content-Security-Policy']
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert 'unsafe-inline' not in policy.split('script-src')[1]
    assert not re.search(r'(?:src|href)="(?!data:|masks\.zip)', page)
    assert answer.headers['Referrer-Policy'] == 'no-referrer'
    assert '&#34;numFrames&#34;: 6' in page


def test_a_mask_is_drawn_propagated_and_saved(server):
    url = 'masks/0?since=0'
    answer, content = ask(server, url, 'PUT', square().tobytes())
    assert answer.status == 200 and json.loads(content)['frames']['0']['kind'] == 'drawn'
    wanted = json.dumps({'frame': 0, 'until': 'end'}).encode()
    answer, content = ask(server, 'propagate?since=0', 'POST', wanted)
    assert json.loads(content)['job']['total'] == 5
    server.session._thread.join(20)
    answer, content = ask(server, 'masks/5')
    ids = np.frombuffer(gzip.decompress(content), np.uint8).reshape(SIZE)
    np.testing.assert_array_equal(ids, square(left=7))
    frames = json.loads(ask(server, 'changes?since=0')[1])['frames']
    assert len(frames) == NUM_FRAMES and frames['5']['confidence'] == {'1': 0.5}
    assert json.loads(ask(server, 'export', 'POST', b'')[1])['frames'] == NUM_FRAMES
    answer, content = ask(server, 'masks.zip')
    assert answer.headers['Content-Type'] == 'application/zip' and content[:2] == b'PK'
    assert ask(server, url, 'DELETE')[0].status == 200
    assert ask(server, 'masks/0')[0].status == 404
    assert ask(server, 'cancel', 'POST', b'')[0].status == 200


def test_frames_come_in_any_order(server):
    for number in (4, 0, 5):
        answer, content = ask(server, f'frames/{number}')
        assert answer.headers['Content-Type'] == 'image/jpeg'
        frame = image_files.decode_jpeg(content)
        assert frame.shape == (*SIZE, 3) and abs(frame.mean() - (20 + 30 * number)) < 3


def test_frames_of_a_file_come_in_any_order(tmp_path):
    path = tmp_path / 'clip.mp4'
    wanted = [np.full((32, 48, 3), 10 + 3 * n, np.uint8) for n in range(80)]
    write_video(path, wanted)
    video = open_video(path)
    with contextlib.closing(Pictures(video)) as pictures:
        for number in (0, 79, 78, 40, 41, 79, 3):
            frame = image_files.decode_jpeg(pictures.jpeg(number))
            assert abs(frame.mean() - video.read_frame(number).mean()) < 1.5
    path.write_bytes(b'')
    with contextlib.closing(Pictures(video)) as pictures:
        with pytest.raises(DataError, match='clip.mp4'):
            pictures.jpeg(20)


def test_nothing_is_given_without_the_token(server):
    paths = ['', 'changes', 'frames/0', 'masks.zip']
    for token in ('', '/', 'x' * 32, server.token[:-1], server.token.upper(), '%C3%A9' * 4):
        for path in paths:
            answer, content = ask(server, f'/{token}/{path}', token='')
            assert answer.status == 404 and json.loads(content) == {
                'error': 'there is no such page'
            }
    for method in ('PUT', 'POST', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH'):
        assert ask(server, '/masks/0', method, square().tobytes(), token='')[0].status == 404
    assert server.session.mask(0) is None


def test_a_browser_is_started_with_an_address_that_works_once(server):
    address = server.address_for_once()
    assert server.token not in address and address != server.address_for_once()
    path = '/' + address.rpartition('/')[2]
    assert ask(server, path, headers={'Host': 'example.com'}, token='')[0].status == 403
    for method in ('POST', 'HEAD'):
        assert ask(server, path, method, b'', token='')[0].status == 404
    answer, content = ask(server, path, token='')
    assert answer.status == 303 and answer.headers['Location'] == f'/{server.token}/'
    assert ask(server, path, token='')[0].status == 404
    assert ask(server, f'{path}/changes', token='')[0].status == 404


def test_another_host_gets_nothing(server):
    port = server.server_address[1]
    evil = ('example.com', f'example.com:{port}', f'127.0.0.1:{port + 1}', '127.0.0.1', '', None)
    for host in evil:
        assert ask(server, '', headers={'Host': host})[0].status == 403
    assert ask(server, '', headers={'Host': f'localhost:{port}'})[0].status == 200
    body = square().tobytes()
    for origin in ('http://example.com', 'null', f'http://127.0.0.1:{port + 1}'):
        answer, _ = ask(server, 'masks/0', 'PUT', body, headers={'Origin': origin})
        assert answer.status == 403
    assert server.session.mask(0) is None
    origin = {'Origin': f'http://127.0.0.1:{port}'}
    assert ask(server, 'masks/0', 'PUT', body, headers=origin)[0].status == 200


@pytest.mark.parametrize(
    'path',
    [
        '../annotation.json', 'frames/../../out/annotation.json', 'frames/%2e%2e%2fannotation.json',
        '..%2f..%2fetc/passwd', '/etc/passwd', 'frames//etc/passwd', 'masks/f0.png',
        'frames/0.jpg', 'frames/-1', 'frames/6', 'frames/999999999', 'frames/9999999999',
        'frames/0/', 'masks/0x1',
        'frames/%D9%A0', 'frames/0%00', 'masks.zip/', 'masks.zip/../annotation.json',
        'annotation.json', 'drawn/f0.png', 'masks', 'frames', '.', '..',
    ],
)  # fmt: skip
def test_no_request_names_a_file(server, path):
    assert ask(server, path)[0].status == 404
    assert ask(server, path, 'DELETE')[0].status == 404


def test_bodies_are_checked(server):
    whole = square().tobytes()
    assert ask(server, 'masks/0', 'PUT', whole[1:])[0].status == 413
    assert ask(server, 'masks/0', 'PUT', whole + b'\0')[0].status == 413
    assert ask(server, 'masks/9', 'PUT', whole)[0].status == 404
    answer, content = ask(server, 'masks/0', 'PUT', b'\xff' * len(whole))
    assert answer.status == 400 and 'ids up to 254' in json.loads(content)['error']
    for headers in (
        {'Content-Length': None},
        {'Content-Length': '-1'},
        {'Content-Length': '2e1'},
        {'Transfer-Encoding': 'chunked'},
    ):
        assert ask(server, 'masks/0', 'PUT', whole, headers)[0].status == 411
    for body in (
        b'', b'{', b'[]', b'3', b'null', b'{"frame": 0}', b'{"frame": "0", "until": "end"}',
        b'{"frame": -1, "until": "end"}', b'{"frame": true, "until": "end"}',
        b'{"frame": 0, "until": "now"}', b'{"frame": 0, "until": ["end"]}', b'[' * 900,
    ):  # fmt: skip
        assert ask(server, 'propagate', 'POST', body)[0].status == 400
    assert ask(server, 'propagate', 'POST', b' ' * 2000)[0].status == 413
    answer, content = ask(server, 'propagate', 'POST', b'{"frame": 3, "until": "end"}')
    assert answer.status == 409 and 'Draw an object' in json.loads(content)['error']
    assert server.session.mask(0) is None


def test_a_damaged_file_is_named(server, tmp_path):
    (tmp_path / 'clip/f2.jpg').write_bytes(b'nothing')
    answer, content = ask(server, 'frames/2')
    assert answer.status == 500 and 'f2.jpg' in json.loads(content)['error']


def test_a_port_that_is_taken_is_named(server):
    port = server.server_address[1]
    with pytest.raises(ValueError, match=f'port {port} cannot be used'):
        AnnotationServer(server.session, port)
    with pytest.raises(ValueError, match='port 70000'):
        AnnotationServer(server.session, 70000)


def test_only_this_machine_can_connect(server):
    assert server.server_address[0] == '127.0.0.1'
