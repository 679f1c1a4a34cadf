"""`python -m jaxprop`: the console command."""

import sys

from jaxprop.cli import main

sys.exit(main())
