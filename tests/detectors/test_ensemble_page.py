"""The page on ensembles: its example runs and prints what it says, its settings can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from atypia.detectors.members import EnsembleSettings

PAGE = (Path(__file__).parents[2] / "docs" / "ensembles.md").read_text(encoding="utf-8")


def test_the_example_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    said = re.findall(r"print\(.*\)  # (.*)", program)
    assert capsys.readouterr().out.splitlines() == said


def test_the_settings_are_settings() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    settings = EnsembleSettings.make(tomllib.loads(text))
    assert [member.name for member in settings.members] == ["memory_bank", "bright"]
