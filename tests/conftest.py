"""Shared by all tests: one thread a process, phantoms, and the place of the real scans."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Times vary too much on shared machines for a limit on single examples.
hypothesis.settings.register_profile("atypia", deadline=None, max_examples=50)
hypothesis.settings.load_profile("atypia")

# Two test processes with two threads each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Give the folder of real scans, or skip loudly."""
    folder = Path(os.environ.get("ATYPIA_DATA", "../shared/data"))
    if not (folder / "ds002748").is_dir():
        pytest.skip(f"NO REAL SCANS in {folder.resolve()}: set ATYPIA_DATA to run this test")
    return folder
