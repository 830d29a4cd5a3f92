"""Every registered detector passes every check; a toy detector shows what a new method costs."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from atypia import registry
from atypia.detectors import Detector, DetectorSettings, Finding
from tests.conformance.detector_checks import CHECKS, TRAIN, tiny
from tests.phantoms import phantom_cohort

Check = Callable[[str, Detector, Path], None]


@cache
def fitted(name: str) -> Detector:
    return tiny(name).fit(phantom_cohort(TRAIN))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", registry.METHODS)
def test_detector(name: str, check: Check, tmp_path: Path) -> None:
    check(name, fitted(name), tmp_path)


def test_every_alias_leads_to_its_method() -> None:
    for name, line in registry.METHODS.items():
        assert all(registry.method_named(alias.upper()) == name for alias in line.aliases)
        assert registry.detector_class(name).method == name


class ToySettings(DetectorSettings):
    """Settings of `Toy`."""

    presets = {"tiny": {"spacing_mm": 6.0, "align": "none"}}

    power: float = 1.0
    """Exponent of the deviation."""


class Toy(Detector):
    """Deviation from the mean scan: a whole detector in a dozen lines."""

    method = "toy"
    settings_class = ToySettings
    settings: ToySettings

    def _fit(self, training) -> None:
        self.mean_ = training.mean()

    def _score(self, prepared) -> Finding:
        return Finding(np.abs(prepared.image.data - self.mean_) ** self.settings.power)


# A fresh process must be able to import the toy, so that one check needs a real module.
TOY_CHECKS = [c for c in CHECKS if c.__name__ != "check_saved_and_loaded_in_a_fresh_process"]


@pytest.mark.parametrize("check", TOY_CHECKS, ids=lambda check: check.__name__)
def test_one_file_and_one_line_make_a_detector(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("toy_detector")
    module.Toy = Toy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_detector", module)
    monkeypatch.setitem(registry.METHODS, "toy", registry.Method("toy_detector:Toy", "A toy"))
    check("toy", tiny("toy").fit(phantom_cohort(TRAIN)), tmp_path)


def test_the_command_line_knows_a_registered_toy(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from atypia.cli import main

    module = types.ModuleType("toy_detector")
    module.Toy = Toy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_detector", module)
    monkeypatch.setitem(registry.METHODS, "toy", registry.Method("toy_detector:Toy", "A toy"))
    main.run(["fit", "toy", "--help"])
    shown = capsys.readouterr().out
    assert "--power" in shown
    assert "Exponent of the deviation" in shown
