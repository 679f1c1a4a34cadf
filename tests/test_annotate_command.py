"""`jaxprop annotate`: it serves a page until it is stopped, and wrong input ends in a line."""

import http.client
import os
import re
import signal
import subprocess
import sys
import urllib.parse

import pytest

from jaxprop import cli
from tests.annotation.standin import write_clip
from tests.test_scripts import ROOT


def test_it_serves_the_page_until_it_is_stopped(tmp_path):
    clip, output = write_clip(tmp_path / 'clip'), tmp_path / 'out'
    process = subprocess.Popen(
        [sys.executable, '-m', 'jaxprop', 'annotate', clip, f'--output={output}', '--no-browser'],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    lines = iter(process.stdout.readline, '')
    address = urllib.parse.urlsplit(next(filter(None, (re.search('http.*', x) for x in lines)))[0])
    connection = http.client.HTTPConnection(address.netloc, timeout=20)
    for path, status in (('/', 404), (address.path, 200), (f'{address.path}frames/5', 200)):
        connection.request('GET', path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and f'the work is in {output}' in said
    assert {path.name for path in output.iterdir()} == {'annotation.json'}


@pytest.mark.parametrize(
    ('arguments', 'code', 'expected'),
    [
        ('--output={out}', 2, 'one argument is needed'),
        ('{clip}', 2, '--output=DIR is needed'),
        ('{clip} --output={out} --port=many', 2, 'many'),
        ('{clip}/nothing --output={out}', 1, 'no such folder or file'),
    ],
)
def test_wrong_input_ends_in_a_line(arguments, code, expected, tmp_path, capsys):
    clip = write_clip(tmp_path / 'clip')
    arguments = arguments.format(clip=clip, out=tmp_path / 'out').split()
    assert cli.main(['annotate', '--config.network.name=untrained', *arguments]) == code
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1
