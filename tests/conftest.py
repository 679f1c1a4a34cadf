"""Tests compile every program anew: what the cache of the user holds does not matter."""

import os

import pytest

os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'


@pytest.fixture
def quick_compilation():
    """Switches off optimisations: compiling takes most of the time, and sizes are small."""
    import jax

    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)
