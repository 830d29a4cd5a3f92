"""Pages of scans and the page that leads to them, and the command that writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atypia.cli.main import main, run
from atypia.errors import SettingsError
from atypia.report.pages import write_pages


def scans_with_pages(folder: Path) -> set[str]:
    return {place.parent.name for place in folder.glob("scans/*/index.html")}


def test_the_most_abnormal_scans_get_pages_and_links(results: Path) -> None:
    written = write_pages(results, most=2, static=True)
    assert len(written.scans) == 2
    assert not written.problems
    done = list(results.glob("scans/*/scan.json"))
    ranks = {p.parent.name: json.loads(p.read_text()) for p in done}
    lowest = sorted(ranks, key=lambda name: (ranks[name]["p_value"] or 1, -ranks[name]["score"]))
    assert scans_with_pages(results) == set(lowest[:2])
    text = written.page.read_text()
    for name in lowest[:2]:
        assert f"scans/{name}/index.html" in text


def test_a_damaged_scan_costs_its_own_page(results: Path) -> None:
    run = json.loads((results / "run.json").read_text())
    names = sorted(item["id"] for item in run["items"] if item["status"] == "done")
    (results / "scans" / names[0] / "score_map.nii.gz").write_bytes(b"damaged")
    written = write_pages(results, static=True)
    assert set(written.problems) == {names[0]}
    assert scans_with_pages(results) == set(names[1:])
    with pytest.raises(SettingsError, match="nobody"):
        write_pages(results, scans=["nobody"], static=True)


def test_the_command(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = min(p.parent.name for p in results.glob("scans/*/scan.json"))
    assert run(["report", str(results), "--scan", name, "--static", "--workers", "1"]) == 0
    assert scans_with_pages(results) == {name}
    assert "index.html" in capsys.readouterr().out
    (results / "scans" / name / "score_map.nii.gz").write_bytes(b"damaged")
    assert run(["report", str(results), "--pages", "-1", "--static", "--workers", "1"]) == 1
    assert f"No page for {name}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", str(results), "--pages", "-2"])
    assert "--pages" in capsys.readouterr().err


def test_a_model_gets_the_page_of_its_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "detector.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path), "--static"])
    assert "this is a model" in capsys.readouterr().err
