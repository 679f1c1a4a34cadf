"""How many devices and hosts there are, and moving arrays to and from them.

Everything mapped has the axis 'device' in front: one entry for each device of this process.
"""

import collections
import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

AXIS = 'device'
_WAIT_MILLISECONDS = 7 * 24 * 3600 * 1000
_num_waits = itertools.count()


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a run; of a single one where nothing says otherwise.

    To be called before anything else of JAX. On a cluster that `jax.distributed` knows, set
    JAX_COORDINATOR_ADDRESS alone.

    Args:
      coordinator: HOST:PORT of process 0; the environment's JAX_COORDINATOR_ADDRESS where None.
      num_processes: the environment's JAX_NUM_PROCESSES where None.
      process_id: 0 to num_processes - 1; the environment's JAX_PROCESS_ID where None.
    """
    coordinator = coordinator or os.environ.get('JAX_COORDINATOR_ADDRESS')
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise ValueError(
                f'num_processes is {num_processes}, process_id {process_id}, but there is no '
                'coordinator: give HOST:PORT of process 0'
            )
        return

    def number(value, name):
        return int(os.environ[name]) if value is None and name in os.environ else value

    jax.distributed.initialize(
        coordinator,
        number(num_processes, 'JAX_NUM_PROCESSES'),
        number(process_id, 'JAX_PROCESS_ID'),
    )


def is_writer() -> bool:
    """Is this the one process that writes files and talks to the user?"""
    return jax.process_index() == 0


def own_part(values: Sequence[Any]) -> Sequence[Any]:
    """Those of the values that fall to this process of the run."""
    return values[jax.process_index() :: jax.process_count()]


def stop_requested(step: int) -> bool:
    """Did SIGTERM reach one of several processes? True in all of them at the same step."""
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def wait_for_all() -> None:
    """Returns when every process of the run has called this as often.

    However long it takes: a barrier on the devices, `sync_global_devices`, gives up on CPUs after
    30 seconds.
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
    """`jax.pmap` over some devices of this process, whatever the other processes do.

    Args:
      function: of one device; called with arguments `[num_devices, ...]`.
      num_devices: how many, of `jax.local_device_count()`.
      static, donate: numbers of arguments that are not mapped, and of those that are given up.
      first: the first one of the devices.
    """
    return jax.pmap(
        function,
        AXIS,
        devices=jax.local_devices()[first : first + num_devices],
        static_broadcasted_argnums=static,
        donate_argnums=donate,
    )


def replicate(tree: Any) -> Any:
    """A copy of every array for each device of this process: `[...]` -> `[devices, ...]`."""
    copy = jax.pmap(lambda _, values: values, axis_name=AXIS, in_axes=(0, None))
    return copy(np.arange(jax.local_device_count()), tree)


def unreplicate(tree: Any) -> Any:
    """The first device's copy, as NumPy arrays: `[devices, ...]` -> `[...]`."""
    # addressable_data moves no array between devices, as indexing does.
    return jax.tree.map(
        lambda value: value[0],
        jax.device_get(jax.tree.map(lambda value: value.addressable_data(0), tree)),
    )


def split(batch: Any) -> Any:
    """A batch of this process in equal parts: `[B, ...]` -> `[devices, B / devices, ...]`.

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
    """`split`, with each part put on its device."""
    return put(split(batch))


class ResumableIterator(Protocol):
    """Batches, and where it is among them."""

    def __next__(self) -> Any: ...

    def get_state(self) -> Any: ...


def prefetch(iterator: ResumableIterator, size: int = 2) -> Iterator[tuple[Any, Any]]:
    """Puts batches on the devices ahead of their use, in a thread.

    Args:
      iterator: of batches as `shard` takes them.
      size: how many batches to be ahead.

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
