"""Lets a benchmark import the package of its own checkout, installed or not."""

import pathlib
import sys

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
