"""Trains a backbone on videos or images: `jaxprop train`, from a checkout.

python train.py --config=rotation --config.data.root=IMAGENET/train
python train.py --config=small_rotation --config.data.root=FRAMES --workdir=RUN
python train.py --help
"""

import pathlib
import sys

from jaxprop.cli import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]], root=pathlib.Path(__file__).resolve().parent))
