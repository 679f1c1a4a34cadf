"""What XLA makes of a step of label propagation for an H100, compiled without one.

    python benchmarks/gpu_program.py --output=FOLDER [--quick]

It needs JAX with its CUDA plugin, `pip install "jax[cuda12]"`, and no GPU. For each path, CRW's
setting at 480x854 (a grid of 60x107, 256 channels, n=20 and frame 0, k=10, radius 12) is compiled
and its program is written to the folder. A line says what the program's text has: loops, and the
numbers of their rounds where XLA knows them; sorts; copies of all features of the context; calls of
libraries; and the memory beside the inputs. Nothing is timed, and XLA's autotuning, which needs a
GPU, is off. The flags of `gpu.py` other than these have no effect.
"""

import os

# Both are read when JAX starts: to load the plugin without a GPU, and to choose no kernel by time.
os.environ.setdefault('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_autotune_level=0'

import functools
import pathlib
import re

import checkout  # noqa: F401
import gpu
import jax
import jax.numpy as jnp
from absl import app, flags
from jax.experimental import topologies

from jaxprop import Execution, init_context, propagate_step

# How labels are computed, and how many videos are labelled in one program.
PROGRAMS = {
    'batched, float16x3': (Execution(implementation='batched', precision='float16x3'), 1),
    'batched, float32': (Execution(implementation='batched', precision='float32'), 1),
    'batched, 4 videos': (Execution(implementation='batched', precision='float16x3'), 4),
    'windowed': (Execution(implementation='windowed'), 1),
    'dense': (Execution(implementation='dense'), 1),
}
# An H100 SXM as XLA describes it.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
runtime_version { major: 12 minor: 8 }
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def compile_step(size, execution, num_videos, device):
    """A step of propagation for the device, with its context donated as an evaluation does."""
    method = size.method()
    step = functools.partial(propagate_step, method=method, execution=execution)
    features = jax.ShapeDtypeStruct((size.height, size.width, size.channels), jnp.float32)
    label = jax.ShapeDtypeStruct((size.height, size.width, size.labels), jnp.float32)
    context = jax.eval_shape(functools.partial(init_context, method=method), features, label)
    shapes = context, features
    if num_videos > 1:
        step = jax.vmap(step)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((num_videos, *x.shape), x.dtype), shapes
        )
    sharding = jax.sharding.SingleDeviceSharding(device)
    step = jax.jit(step, donate_argnums=0, in_shardings=sharding, out_shardings=sharding)
    return step.lower(*shapes).compile()


def main(_):
    size = gpu.QUICK_SIZE if gpu.QUICK.value else gpu.Size()
    topology = topologies.get_topology_desc('', 'cuda', target_config=H100, topology='1x1x1')
    folder = pathlib.Path(gpu.OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (execution, num_videos) in PROGRAMS.items():
        program = compile_step(size, execution, num_videos, topology.devices[0])
        text = program.as_text()
        (folder / f'{re.sub("[ ,]+", "_", name)}.txt').write_text(text)
        facts = gpu.program_facts(text, size)
        print(
            f'{name:20} loops {facts["while"]}, rounds {facts["rounds"]}, sorts {facts["sort"]}, '
            f'copies {facts["copies"]}, '
            f'{program.memory_analysis().temp_size_in_bytes / 2**20:.0f} MiB; '
            f'calls {facts["calls"]}',
            flush=True,
        )


if __name__ == '__main__':
    flags.mark_flag_as_required('output')
    app.run(main)
