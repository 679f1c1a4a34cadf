"""Runs the console command: `python -m jaxprop` is `jaxprop`."""

import sys

from jaxprop.cli import main

sys.exit(main())
