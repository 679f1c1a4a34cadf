"""Chromium without a window, driven through its debugging pipe: keys, pointer, pictures."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

# The browser reads commands from descriptor 3 and answers on 4.
_START = (
    'import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);'
    'os.execvp(sys.argv[3], sys.argv[3:])'
)
_NAMES = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
_CODES = {'Enter': 13, 'Escape': 27, ' ': 32, 'End': 35, 'Home': 36, 'Tab': 9, 'Delete': 46}
_SHIFT, _CTRL = 8, 2
_SECONDS = 60


def find_chromium():
    """Finds the browser; skips the calling test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f'no browser found: {", ".join(_NAMES)}')
    return found


class Browser:
    """One page in a browser of its own.

    Attributes:
      errors: texts of errors that scripts raised, and of what the page's policy refused.
    """

    def __init__(self, size=(1280, 800)):
        chromium = find_chromium()
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # Numbers from 10 on, so that none is 3 or 4 already.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write)]
        flags = [
            '--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe',
            '--no-first-run', '--disable-dev-shm-usage', '--force-color-profile=srgb',
            f'--user-data-dir={self._profile.name}',
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, '-c', _START, *map(str, ends), chromium, *flags],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (read, write, *ends):
            os.close(end)
        self._number, self._buffer, self._session, self.errors = 0, b'', None, []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Log'):
            self.call(f'{domain}.enable')
        self.resize(size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(20)
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def call(self, method, **parameters):
        """Sends a command of the debugging protocol, and returns its result."""
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._write, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer
                return answer['result']
            if answer.get('method') == 'Runtime.exceptionThrown':
                details = answer['params']['exceptionDetails']
                self.errors.append(details.get('exception', details).get('description', details))
            elif answer.get('method') == 'Log.entryAdded':
                entry = answer['params']['entry']
                if entry['source'] in ('security', 'javascript'):
                    self.errors.append(entry['text'])

    def _receive(self):
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], _SECONDS)
            data = os.read(self._read, 1 << 20) if ready else b''
            assert data, 'the browser does not answer'
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)

    def open(self, address):
        """Opens a page, and waits until it is loaded."""
        self.call('Page.navigate', url=address)
        self.wait(f"location.href === '{address}' && document.readyState === 'complete'")

    def run(self, script):
        """Evaluates an expression in the page, and returns its value."""
        result = self.call(
            'Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True
        )
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def wait(self, script, seconds=_SECONDS):
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f'{script} is still not true; {self.errors}'
            time.sleep(0.02)

    def key(self, key, shift=False, ctrl=False):
        """Presses a key and lets it go."""
        code = _CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
        modifiers = _SHIFT * shift + _CTRL * ctrl
        named = {'key': key, 'windowsVirtualKeyCode': code, 'modifiers': modifiers}
        text = {'text': key} if len(key) == 1 and not ctrl else {}
        self.call('Input.dispatchKeyEvent', type='keyDown', **named, **text)
        self.call('Input.dispatchKeyEvent', type='keyUp', **named)

    def pointer(self, kind, point, button='left', pressed=False):
        """Moves the pointer to (x, y) of the window, presses or releases its button there."""
        self.call(
            'Input.dispatchMouseEvent',
            type=f'mouse{kind}',
            x=point[0],
            y=point[1],
            button=button if kind != 'Moved' or pressed else 'none',
            buttons={'left': 1, 'right': 2}[button] if pressed or kind == 'Pressed' else 0,
            clickCount=1,
        )

    def drag(self, points, button='left'):
        """Presses the button at the first of several points, moves through all, and releases it."""
        self.pointer('Moved', points[0])
        self.pointer('Pressed', points[0], button)
        for point in points[1:]:
            self.pointer('Moved', point, button, pressed=True)
        self.pointer('Released', points[-1], button)

    def click(self, selector):
        """Clicks on the middle of an element."""
        box = self.run(
            f'(e => {{ e.scrollIntoView({{block: "nearest"}}); const b = e.getBoundingClientRect();'
            f'return [b.x + b.width / 2, b.y + b.height / 2]; }})'
            f'(document.querySelector({json.dumps(selector)}))'
        )
        self.drag([box])

    def resize(self, size, scheme='light'):
        """Sets the window's (width, height), and the colours that the user prefers."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=False,
        )
        preference = {'name': 'prefers-color-scheme', 'value': scheme}
        self.call('Emulation.setEmulatedMedia', features=[preference])

    def picture(self, path):
        """Saves what the window shows as a PNG."""
        data = self.call('Page.captureScreenshot', format='png')['data']
        with open(path, 'wb') as file:
            file.write(base64.b64decode(data))
