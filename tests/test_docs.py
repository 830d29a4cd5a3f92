"""The pages: examples run, and no layout is forgotten."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from atypia.cohort import LAYOUTS
from atypia.io import FORMATS
from atypia.preprocessing import PRESETS, Plan
from atypia.preprocessing.brain import FindBrain

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["cohorts", "preparing", "preprocessing"])
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


def test_every_preset_and_step_of_preprocessing_has_its_words() -> None:
    page = (DOCS / "preprocessing.md").read_text(encoding="utf-8")
    steps = Plan.model_json_schema()["$defs"].values()
    names = {step["properties"]["step"]["const"] for step in steps}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {*PRESETS, *names}


def test_every_plan_in_the_page_of_preprocessing_is_one() -> None:
    page = (DOCS / "preprocessing.md").read_text(encoding="utf-8")
    for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        FindBrain.make(json.loads(text))
