"""A way to put small scans on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atypia import io
from atypia.volume import Volume

Place = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a function that writes a small image below `tmp_path` and gives its path."""

    def write(name: str, value: float = 1.0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        io.write(Volume(np.full((3, 3, 3), value, np.float32)), path)
        return path

    return write
