"""The names of the package: all there, and imported only when used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import atypia


@pytest.mark.parametrize("name", atypia.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(atypia, name) is not None
    assert name in dir(atypia)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = atypia.nothing


def test_light_imports_load_no_heavy_package() -> None:
    program = """
import sys
import atypia
assert not {"numpy", "torch"} & set(sys.modules), "import atypia"
import atypia.simulation, atypia.cohort, atypia.registry
from atypia import Cohort, METHODS, Volume, read, open_cohort, simulate_subject, split
heavy = {"torch", "SimpleITK", "nilearn", "matplotlib", "lightning_fabric", "rich"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
