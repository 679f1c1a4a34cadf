"""Carries the mask of a first frame through any video: `jaxprop propagate`, from a checkout.

python propagate.py VIDEO_OR_FOLDER FIRST_MASK --output=DIR
python propagate.py --help
"""

import pathlib
import sys

from jaxprop.cli import main

if __name__ == '__main__':
    sys.exit(main(['propagate', *sys.argv[1:]], root=pathlib.Path(__file__).resolve().parent))
