"""What several tests need: the reference numbers, and the one way to the shared real data."""

import os
import pathlib

import pytest

SHARED = pathlib.Path(
    os.environ.get('JAXPROP_SHARED', pathlib.Path(__file__).resolve().parents[2] / 'shared')
)


# Numbers that released code gave for inputs stored beside them.
REFERENCE = pathlib.Path(__file__).resolve().parent / 'reference'


def shared(*parts: str) -> pathlib.Path:
    """The path of shared material; skips the calling test, saying so, where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'shared data not found: {path} (set JAXPROP_SHARED to the folder)')
    return path
