"""Tests compile every program anew: what the cache of the user holds does not matter."""

import os

os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
