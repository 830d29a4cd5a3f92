"""The wheel: whole, small enough, with the weights inside, and fit for an index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST_SET_MB, LARGEST_TOGETHER_MB = 10.0, 20.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it from a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    program = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "dist" / done.stdout.strip().splitlines()[-1]


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    package = ROOT / "src" / "atypia"
    here = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
    assert not here - there


def test_the_weights_are_in_it_and_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = [info for info in archive.infolist() if info.filename.startswith("atypia/weights/")]
    sizes: dict[str, float] = {}
    for info in files:
        name = info.filename.split("/")[2]
        sizes[name] = sizes.get(name, 0.0) + info.file_size / 1e6
        assert info.filename.endswith((".json", ".toml", ".safetensors")), info.filename
    assert "ensemble" in sizes
    assert max(sizes.values()) <= LARGEST_SET_MB
    assert sum(sizes.values()) < LARGEST_TOGETHER_MB


def test_an_index_would_take_it(wheel: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout
