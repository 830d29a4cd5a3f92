"""The pages: examples run, and no layout is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atypia.cohort import LAYOUTS
from atypia.io import FORMATS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["cohorts", "preparing"])
def test_an_example_runs_and_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    said = re.findall(r"print\(.*\)  # (.*)", program)
    assert capsys.readouterr().out.splitlines() == said


def test_every_layout_and_format_has_its_words() -> None:
    page = (DOCS / "cohorts.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(LAYOUTS)
    for suffix in FORMATS:
        assert f"`{suffix}`" in page
