"""Common parts of tests: the reference numbers, and the paths of shared real data."""

import os
import pathlib

import pytest

SHARED = pathlib.Path(
    os.environ.get('JAXPROP_SHARED', pathlib.Path(__file__).resolve().parents[2] / 'shared')
)


# Numbers that released code gave for inputs stored beside them.
REFERENCE = pathlib.Path(__file__).resolve().parent / 'reference'


def shared(*parts: str) -> pathlib.Path:
    """Finds shared material; skips the calling test with a reason if it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'shared data not found: {path} (set JAXPROP_SHARED to the folder)')
    return path
