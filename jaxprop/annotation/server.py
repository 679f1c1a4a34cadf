"""The web page for drawing masks, served to browsers of this machine alone.

The server listens on 127.0.0.1. The address holds a random token, and a request without it gets
404, so that other users of the machine and pages of other sites reach nothing. A request whose Host
header is another one gets 403: a page of another site could give its own name the address
127.0.0.1. No request names a file: frames and masks are asked for by number.
"""

import gzip
import hmac
import http.server
import json
import re
import secrets
import traceback

import numpy as np

from jaxprop.annotation.pictures import Pictures
from jaxprop.annotation.session import MAX_OBJECT, Refused, Session
from jaxprop.data.sequences import DataError, davis_palette
from jaxprop.report import render

_SECONDS = 30  # A connection on which nothing is said for so long is closed.
_MAX_JSON = 1000
_NUMBER = r'([0-9]{1,9})'


class AnnotationServer(http.server.ThreadingHTTPServer):
    """Serves the page of one session.

    Attributes:
      address: of the page, with the token.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        """Binds the server; `serve_forever` answers requests.

        Args:
          session: of the video.
          port: 0 takes a free one.

        Raises:
          ValueError: the port is not free, or is none.
        """
        self.session, self.pictures = session, Pictures(session.video)
        try:
            super().__init__(('127.0.0.1', port), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(
                f'port {port} cannot be used: {error}. Name another one, or none for a free one'
            ) from error
        port = self.server_address[1]
        self.hosts = f'127.0.0.1:{port}', f'localhost:{port}'
        self.token = secrets.token_urlsafe(24)
        self.address = f'http://{self.hosts[0]}/{self.token}/'
        self._once = set()

    def address_for_once(self) -> str:
        """Makes an address that leads to the page the first time that it is asked for.

        A browser is started with this one: all users of a machine can see the arguments with which
        its programs were started.
        """
        key = secrets.token_urlsafe(24)
        self._once.add(key)
        return f'http://{self.hosts[0]}/{key}'

    def use_up(self, path: str) -> bool:
        """Tells whether a path is that of an `address_for_once`, which is none from then on."""
        try:
            self._once.remove(path[1:])
        except KeyError:
            return False
        return True

    def server_close(self) -> None:
        """Stops listening, and a propagation that runs."""
        super().server_close()
        self.session.close()
        self.pictures.close()


class _Problem(Exception):
    """An answer that is an error: its status, and its text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'jaxprop', ''
    timeout = _SECONDS
    server: AnnotationServer

    def _answer(self):
        try:
            self._check_sender()
            if self.command == 'GET' and self.server.use_up(self.path):
                page = {'Location': f'/{self.server.token}/'}
                return self._send(b'', 'text/plain', page, status=303)
            self._check_token()
            path = self.path.partition('?')[0].removeprefix(f'/{self.server.token}/')
            for method, pattern, answer in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == self.command:
                    return answer(self, *map(int, match.groups()))
            raise _Problem(404, 'there is no such page')
        except _Problem as problem:
            self._fail(problem.status, problem)
        except Refused as refused:
            self._fail(409, refused)
        except (DataError, ValueError, OSError) as error:
            if isinstance(error, (ConnectionError, TimeoutError)):
                raise
            self._fail(500, error)
        except Exception:
            traceback.print_exc()
            self._fail(500, 'the program failed; the terminal says more')

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = _answer

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            pass  # The browser has gone, as when a page is closed.

    def log_message(self, format, *args):
        pass  # The address with its token stays out of logs.

    def _check_sender(self):
        """Refuses what comes from another page than ours, or by another name of this machine."""
        server, hosts = self.server, self.headers.get_all('Host', [])
        if len(hosts) != 1 or hosts[0] not in server.hosts:
            raise _Problem(403, f'this page is at {server.hosts[0]} alone')
        origin = self.headers.get('Origin')
        if origin is not None and origin not in [f'http://{host}' for host in server.hosts]:
            raise _Problem(403, 'the request comes from another page')

    def _check_token(self):
        token = self.path[1:].partition('/')[0]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _Problem(404, 'there is no such page')

    def _body(self, size, exact=False):
        """Reads the body of a request: at most `size` bytes, or exactly so many."""
        length = self.headers.get('Content-Length', '')
        if not re.fullmatch('[0-9]{1,12}', length) or 'Transfer-Encoding' in self.headers:
            raise _Problem(411, 'the request must say the length of its body')
        if int(length) > size or (exact and int(length) != size):
            raise _Problem(413, f'the body has {length} bytes and not {size}')
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError
        return body

    def _frame(self, number):
        if number >= self.server.session.video.num_frames:
            raise _Problem(404, 'there is no such frame')
        return number

    def _page(self):
        session = self.server.session
        page = render.page(
            'annotate.html',
            title=session.video.name,
            script='annotate.js',
            setup={
                'numFrames': session.video.num_frames,
                'size': list(session.video.size),
                'rate': session.video.frames_per_second or 12,
                'palette': davis_palette().tolist(),
                'maxObject': MAX_OBJECT,
            },
            folder=str(session.folder.absolute()),
        )
        self._send(page.encode(errors='replace'), 'text/html; charset=utf-8')

    def _picture(self, number):
        body = self.server.pictures.jpeg(self._frame(number))
        self._send(body, 'image/jpeg', {'Cache-Control': 'private, max-age=86400, immutable'})

    def _mask(self, number):
        ids = self.server.session.mask(self._frame(number))
        if ids is None:
            raise _Problem(404, 'this frame has no mask')
        packed = gzip.compress(ids.tobytes(), 1)
        self._send(packed, 'application/octet-stream', {'Content-Encoding': 'gzip'})

    def _draw(self, number):
        height, width = self.server.session.video.size
        ids = np.frombuffer(self._body(height * width, exact=True), np.uint8)
        try:
            self.server.session.draw(self._frame(number), ids.reshape(height, width))
        except ValueError as error:
            raise _Problem(400, str(error)) from None
        self._changes()

    def _undraw(self, number):
        self.server.session.undraw(self._frame(number))
        self._changes()

    def _changes(self):
        since = re.search(r'\?since=([0-9]{1,15})$', self.path)
        self._json(self.server.session.changes(int(since[1]) if since else 0))

    def _propagate(self):
        try:
            wanted = json.loads(self._body(_MAX_JSON))
            number, until = wanted['frame'], wanted['until']
        except (ValueError, TypeError, KeyError, RecursionError):
            number = until = None
        if type(number) is not int or number < 0 or until not in ('end', 'next', 'all'):
            raise _Problem(400, 'a frame and an end are needed')
        self.server.session.propagate(self._frame(number), until)
        self._changes()

    def _cancel(self):
        self.server.session.cancel()
        self._changes()

    def _export(self):
        self._json(self.server.session.export())

    def _zip(self):
        disposition = {'Content-Disposition': 'attachment; filename="masks.zip"'}
        self._send(self.server.session.zipped(), 'application/zip', disposition)

    def _json(self, value):
        self._send(json.dumps(value).encode(), 'application/json')

    def _fail(self, status, message):
        # The body of the request may not have been read: it must not be taken for the next request.
        self.close_connection = True
        body = json.dumps({'error': str(message)}).encode()
        self._send(body, 'application/json', {'Connection': 'close'}, status)

    def _send(self, body, kind, headers=None, status=200):
        policy = render.policy('annotate.js', is_served=True)
        self.send_response(status)
        for name, value in {
            'Content-Type': kind,
            'Content-Length': str(len(body)),
            'Cache-Control': 'no-store',
            'Content-Security-Policy': f"{policy}; frame-ancestors 'none'",
            'Cross-Origin-Resource-Policy': 'same-origin',
            'Referrer-Policy': 'no-referrer',
            'X-Content-Type-Options': 'nosniff',
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)


_ROUTES = (
    ('GET', '', _Handler._page),
    ('GET', f'frames/{_NUMBER}', _Handler._picture),
    ('GET', f'masks/{_NUMBER}', _Handler._mask),
    ('PUT', f'masks/{_NUMBER}', _Handler._draw),
    ('DELETE', f'masks/{_NUMBER}', _Handler._undraw),
    ('GET', 'changes', _Handler._changes),
    ('POST', 'propagate', _Handler._propagate),
    ('POST', 'cancel', _Handler._cancel),
    ('POST', 'export', _Handler._export),
    ('GET', r'masks\.zip', _Handler._zip),
)
