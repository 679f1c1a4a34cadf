"""Settings of JAX for all tests, and for the programs that they start.

Tests compile every program anew: what the cache of the user holds does not matter. Programs are
compiled with few optimisations: on small inputs compiling takes most of the time. With
JAX_DISABLE_MOST_OPTIMIZATIONS=false the suite runs the programs that users get.
"""

import os
import sys

import pytest

os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', 'true')


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
    """Frees a module's programs: a process must not hold the memory maps of thousands of them."""
    yield
    if 'jax' in sys.modules:
        sys.modules['jax'].clear_caches()


@pytest.fixture
def all_optimizations():
    """Compiles the programs that users get, for tests that compute much or are about them."""
    import jax

    before = jax.config.read('jax_disable_most_optimizations')
    # JAX would use programs again that it compiled with the other setting.
    jax.clear_caches()
    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', before)
    jax.clear_caches()
