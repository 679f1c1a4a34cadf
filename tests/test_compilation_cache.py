"""Compiled programs are kept for the next start, and change no result."""

import os
import pathlib

import jax
import pytest

from jaxprop import cli, compilation_cache
from tests.test_cli import run
from tests.test_scripts import SMALL

ON = {'JAX_ENABLE_COMPILATION_CACHE': 'true'}


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file()}


def evaluate(folder, output, cache):
    """Evaluates, and returns the bytes of the masks."""
    few = '--config.dataset.num_sequences=1', '--config.dataset.num_frames=3'
    arguments = *few, *SMALL, '--config.network.name=untrained'
    environment = {**ON, 'XDG_CACHE_HOME': str(cache)}
    done = run('evaluate', *arguments, f'--output={output}', cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    assert 'cache' not in done.stderr
    return {path.name: path.read_bytes() for path in (folder / output).rglob('masks/*/*.png')}


def test_a_second_start_reads_the_programs_of_the_first(tmp_path):
    cache = tmp_path / 'cache'
    first = evaluate(tmp_path, 'first', cache=cache)
    made = files(cache)
    [folder] = (cache / 'jaxprop').iterdir()
    assert len(made) > 5 and (os.name == 'nt' or folder.stat().st_mode & 0o77 == 0)
    assert len(first) == 3 and evaluate(tmp_path, 'second', cache=cache) == first
    assert files(cache) == made  # Nothing was compiled but what is there.


@pytest.mark.parametrize(('flags', 'calls'), [((), 1), (('--cache=false',), 0)])
def test_commands_that_compile_use_it(flags, calls, monkeypatch):
    called = []
    monkeypatch.setattr(compilation_cache, 'enable', lambda: called.append(1))
    for name in ('evaluate', 'propagate', 'train', 'export-features'):
        command = cli.COMMANDS[name]._replace(run=lambda options, arguments, root: None)
        monkeypatch.setitem(cli.COMMANDS, name, command)
        called.clear()
        assert cli.main([name, *flags]) == 0 and len(called) == calls


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert compilation_cache.writable_folder() is None
    jax.config.update('jax_enable_compilation_cache', True)
    try:
        assert compilation_cache.enable() is None
    finally:
        jax.config.update('jax_enable_compilation_cache', False)
    assert jax.config.jax_compilation_cache_dir is None


def test_what_the_user_told_jax_stays(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert not jax.config.jax_enable_compilation_cache  # By conftest.py.
    assert compilation_cache.enable() is None and not list(tmp_path.iterdir())


def test_the_oldest_programs_go_first(tmp_path):
    for number in range(4):
        path: pathlib.Path = tmp_path / f'{number}-cache'
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    compilation_cache.remove_oldest(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['2-cache', '3-cache']
    compilation_cache.remove_oldest(tmp_path / 'none', 1)
