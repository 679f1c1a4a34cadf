"""What several tests need: the one way to the shared real data."""

import os
import pathlib

import pytest

SHARED = pathlib.Path(
    os.environ.get('JAXPROP_SHARED', pathlib.Path(__file__).resolve().parents[2] / 'shared')
)


def shared(*parts: str) -> pathlib.Path:
    """The path of shared material; skips the calling test, saying so, where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'shared data not found: {path} (set JAXPROP_SHARED to the folder)')
    return path
