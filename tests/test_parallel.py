"""Processes join, and if one dies the others end; a thread calls functions beside others."""

import os
import socket
import subprocess
import sys
import threading

import jax
import pytest

from jaxprop import files, parallel


def _free_port():
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((None, 2, 0), 'there is no coordinator'),
        (('host', 2, 0), 'HOST:PORT'),
        (('host:port', 2, 0), 'HOST:PORT'),
        (('localhost:1', 2, 2), 'process_id is 2; it must be from 0 to 1'),
        (('localhost:1', 2, -1), 'process_id is -1'),
        (('auto', 2, None), "with coordinator 'auto' the environment gives both"),
    ],
)
def test_processes_that_cannot_join(arguments, message, monkeypatch):
    for name in ('COORDINATOR_ADDRESS', 'NUM_PROCESSES', 'PROCESS_ID'):
        monkeypatch.delenv(f'JAX_{name}', raising=False)
    with pytest.raises(ValueError, match=message):
        parallel.initialize(*arguments)
    monkeypatch.setenv('JAX_NUM_PROCESSES', 'two')
    with pytest.raises(ValueError, match='JAX_NUM_PROCESSES is .two'):
        parallel.initialize('localhost:1')


def test_no_cluster_is_found():
    of_clusters = ('JAX_', 'SLURM_', 'OMPI_', 'KUBERNETES_')
    environment = {k: v for k, v in os.environ.items() if not k.startswith(of_clusters)}
    done = subprocess.run(
        [sys.executable, '-c', "from jaxprop import parallel; parallel.initialize('auto')"],
        capture_output=True,
        text=True,
        env={**environment, 'JAX_PLATFORMS': 'cpu'},
    )
    assert done.returncode == 1 and 'JAX knows no cluster by this environment' in done.stderr


@pytest.mark.slow
def test_processes_join_by_what_slurm_sets():
    code = """import jax
from jaxprop import parallel
parallel.initialize('auto')
print(jax.process_index(), jax.process_count())
"""
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JAX_COORDINATOR_PORT': str(_free_port()),
        'SLURM_JOB_ID': '1',
        'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_NTASKS': '2',
    }
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', code],
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, 'SLURM_PROCID': str(index), 'SLURM_LOCALID': str(index)},
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert said == ['0 2\n', '1 2\n']


def test_a_silent_process_is_given_up_within_a_minute():
    assert parallel._HEARTBEAT_SECONDS <= 45


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_when_a_process_dies_the_other_ends_in_words(victim):
    code = """import sys, time
from jaxprop import parallel
parallel._HEARTBEAT_SECONDS = 8
parallel.initialize(sys.argv[1], 2, int(sys.argv[2]))
print('joined', flush=True)
time.sleep(300)
"""
    coordinator = f'localhost:{_free_port()}'
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', code, coordinator, str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        )
        for index in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == 'joined\n'
    processes[victim].kill()
    processes[victim].communicate()
    _, said = processes[1 - victim].communicate(timeout=60)
    assert processes[1 - victim].returncode != 0
    assert f'process {1 - victim} of 2: should another one die' in said
    assert 'another task died' in said


@pytest.mark.slow
def test_when_a_process_refuses_the_other_ends_too(tmp_path):
    coordinator = f'localhost:{_free_port()}'
    with files.locked(tmp_path):
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, '-m', 'jaxprop', 'evaluate', f'--output={tmp_path}'),
                    *(f'--coordinator={coordinator}', '--num_processes=2', f'--process_id={index}'),
                ],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
            )
            for index in range(2)
        ]
        said = [process.communicate(timeout=120)[1] for process in processes]
    assert 'is being written by process' in said[0]
    assert processes[0].returncode == 1 and processes[1].returncode != 0


def test_a_function_is_called_beside_unless_settings_of_a_block_would_be_lost():
    def seen(value, *, fail=False):
        if fail:
            raise ValueError('no such value')
        return value, threading.current_thread(), jax.config.jax_default_matmul_precision

    call, here = parallel.beside(seen), threading.current_thread()
    value, thread, precision = call(1)
    assert (value, precision) == (1, None) and thread is not here
    assert call(2)[1] is thread
    with jax.default_matmul_precision('highest'):
        assert call(3) == (3, here, 'highest')
    assert call(4)[1:] == (thread, None)
    with pytest.raises(ValueError, match='no such value'):
        call(5, fail=True)
