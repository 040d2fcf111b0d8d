"""Fixtures of the whole suite."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets ``bccd`` and ``coco-mini``; the test is skipped where it is absent."""
    folder = Path(os.environ.get("BOXCYCLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets in {folder} (or name their folder in BOXCYCLE_DATA)")
    return folder
