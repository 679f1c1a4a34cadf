"""Evaluates a network's features by label propagation: `jaxprop evaluate`, from a checkout.

python evaluate.py                                    the embedded synthetic videos
python evaluate.py --config=davis_crw --config.dataset.root=DAVIS
python evaluate.py --compare=RUN_A --compare=RUN_B --output=DIR
python evaluate.py --help
"""

import pathlib
import sys

from jaxprop.cli import main

if __name__ == '__main__':
    sys.exit(main(['evaluate', *sys.argv[1:]], root=pathlib.Path(__file__).resolve().parent))
