"""Knows the devices and processes of a run, and moves arrays to and from devices.

Arrays that are mapped over devices have the axis 'device' in front, with one entry for each device
of this process.
"""

import collections
import concurrent.futures
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

AXIS = 'device'
_WAIT_MILLISECONDS = 7 * 24 * 3600 * 1000
# A process that is silent for so long counts as dead. With JAX's own 100 seconds all devices of the
# other processes would wait that long.
_HEARTBEAT_SECONDS = 40
_num_waits = itertools.count()


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a run. Without a coordinator the run has this process alone.

    Call it before anything else of JAX. When one of the processes dies, JAX aborts the others
    within a minute.

    Args:
      coordinator: HOST:PORT of process 0; the environment's JAX_COORDINATOR_ADDRESS where None. By
        'auto' `jax.distributed` finds all three in the environment of the cluster, such as Slurm.
        Where it finds them, it gives each process of a machine one of its GPUs.
      num_processes: the environment's JAX_NUM_PROCESSES where None.
      process_id: 0 to num_processes - 1; the environment's JAX_PROCESS_ID where None.

    Raises:
      ValueError: the three don't fit each other, an environment variable is no number, or there is
        no cluster for 'auto'.
    """
    if coordinator == 'auto':
        if num_processes is not None or process_id is not None:
            raise ValueError(
                f'num_processes is {num_processes}, process_id {process_id}; with coordinator '
                "'auto' the environment gives both"
            )
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
        except ValueError as error:
            raise ValueError(
                "the coordinator is 'auto', but JAX knows no cluster by this environment "
                f'({error}); give HOST:PORT of process 0'
            ) from None
    else:
        coordinator = coordinator or os.environ.get('JAX_COORDINATOR_ADDRESS')
        if coordinator is None:
            if num_processes is not None or process_id is not None:
                raise ValueError(
                    f'num_processes is {num_processes}, process_id {process_id}, but there is no '
                    'coordinator: give HOST:PORT of process 0'
                )
            return
        _join(coordinator, num_processes, process_id)
    # JAX ends a process in C++, where this package can't print anything. So say it beforehand.
    print(
        f'process {jax.process_index()} of {jax.process_count()}: should another one die, this one '
        f'aborts within a minute ("another task died"); start all of them again to go on',
        file=sys.stderr,
    )


def _join(coordinator, num_processes, process_id):
    """Joins the processes by numbers that are given, or by those of the environment."""
    if not re.fullmatch(r'.+:\d{1,5}', coordinator):
        raise ValueError(f'the coordinator is {coordinator!r}; it must be HOST:PORT of process 0')

    def number(value, name):
        if value is not None or name not in os.environ:
            return value
        if not os.environ[name].isdecimal():
            raise ValueError(f'{name} is {os.environ[name]!r}; it must be a whole number')
        return int(os.environ[name])

    num_processes = number(num_processes, 'JAX_NUM_PROCESSES')
    process_id = number(process_id, 'JAX_PROCESS_ID')
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise ValueError(f'process_id is {process_id}; it must be from 0 to {num_processes - 1}')
    jax.distributed.initialize(
        coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
    )


def is_writer() -> bool:
    """Whether this is the one process that writes files and talks to the user."""
    return jax.process_index() == 0


def own_part(values: Sequence[Any]) -> Sequence[Any]:
    """Takes this process's share of the values: one of every `process_count`."""
    return values[jax.process_index() :: jax.process_count()]


def stop_requested(step: int) -> bool:
    """Whether SIGTERM reached one of several processes. All of them see it at the same `step`."""
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def wait_for_all() -> None:
    """Waits, however long it takes, until every process of the run has called this as often.

    A barrier on the devices, `sync_global_devices`, would give up on CPUs after 30 seconds.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost  # Its import takes seconds.

    multihost.get_barrier_sync_fn()(
        key=f'jaxprop.{next(_num_waits)}', timeout_ms=_WAIT_MILLISECONDS
    )


@functools.cache
def local_map(
    function: Callable[..., Any],
    num_devices: int,
    static: tuple[int, ...] = (),
    donate: tuple[int, ...] = (),
    first: int = 0,
) -> Callable[..., Any]:
    """Maps a function over some devices of this process by `jax.pmap`, without other processes.

    Args:
      function: runs on one device. The mapped function takes arguments `[num_devices, ...]`.
      num_devices: how many of this process's devices.
      static, donate: numbers of arguments that are not mapped, and of arguments whose memory may be
        used again.
      first: the number of the first device.
    """
    return jax.pmap(
        function,
        AXIS,
        devices=jax.local_devices()[first : first + num_devices],
        static_broadcasted_argnums=static,
        donate_argnums=donate,
    )


def beside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function whose programs run beside those that the calling thread has started.

    On CPUs JAX runs the programs that one thread starts one after another, and each of them leaves
    cores without work now and then. So a thread of its own calls the function. JAX's settings of a
    `with` block, as `with jax.default_matmul_precision(...)`, hold in their thread alone: inside
    such a block the calling thread itself calls the function. So it does on other devices, which
    do not need the thread.
    """
    pool = concurrent.futures.ThreadPoolExecutor(1)

    @functools.wraps(function)
    def call(*arguments, **named):
        if jax.default_backend() != 'cpu' or pool.submit(_jax_settings).result() != _jax_settings():
            return function(*arguments, **named)
        return pool.submit(function, *arguments, **named).result()

    return call


def _jax_settings():
    """The values of all of JAX's settings in this thread."""
    return {name: getattr(jax.config, name, None) for name in jax.config.values}


def replicate(tree: Any) -> Any:
    """Copies every array to each device of this process: `[...]` -> `[devices, ...]`."""
    copy = jax.pmap(lambda _, values: values, axis_name=AXIS, in_axes=(0, None))
    return copy(np.arange(jax.local_device_count()), tree)


def unreplicate(tree: Any) -> Any:
    """Takes the first device's copy, as NumPy arrays: `[devices, ...]` -> `[...]`."""
    # Indexing would move arrays between devices; addressable_data does not.
    return jax.tree.map(
        lambda value: value[0],
        jax.device_get(jax.tree.map(lambda value: value.addressable_data(0), tree)),
    )


def split(batch: Any) -> Any:
    """Splits a batch of this process in equal parts: `[B, ...]` -> `[devices, B / devices, ...]`.

    Raises:
      ValueError: B is no multiple of the number of this process's devices.
    """
    devices = jax.local_device_count()

    def reshape(values):
        if len(values) % devices:
            raise ValueError(
                f'a batch of {len(values)} examples in a process; it must be a multiple of its '
                f'{devices} devices'
            )
        return values.reshape(devices, -1, *values.shape[1:])

    return jax.tree.map(reshape, batch)


def put(tree: Any, first: int = 0) -> Any:
    """Puts the entries of arrays `[D, ...]` on D of this process's devices, one on each."""
    devices = jax.local_devices()[first : first + len(jax.tree.leaves(tree)[0])]
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
    return jax.device_put(tree, sharding)


def shard(batch: Any) -> Any:
    """Splits a batch as `split` does, and puts each part on its device."""
    return put(split(batch))


class ResumableIterator(Protocol):
    """An iterator of batches that can say where it is among them."""

    def __next__(self) -> Any: ...

    def get_state(self) -> Any: ...


def prefetch(iterator: ResumableIterator, size: int = 2) -> Iterator[tuple[Any, Any]]:
    """Puts batches on the devices ahead of their use, in a thread.

    Args:
      iterator: gives batches as `shard` takes them.
      size: how many batches the thread is ahead.

    Yields:
      A sharded batch, and the iterator's state just after it.
    """

    def load():
        batch = shard(next(iterator))
        return batch, iterator.get_state()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = collections.deque(pool.submit(load) for _ in range(size))
        while True:
            result = pending.popleft().result()
            pending.append(pool.submit(load))
            yield result
