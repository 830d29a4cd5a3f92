"""A protocol from its TOML text to the table, twice, in folds, and with mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from atypia.detectors.base import Detector
from atypia.errors import InputError, LeakageError, SettingsError
from atypia.report import write_comparison
from atypia.runs.comparing import compare_methods
from atypia.runs.protocol import Protocol, ready_made

TEXT = """
summary = "Two methods"
modality = "T2w"

[settings]
spacing_mm = 6.0
align = "none"

[[methods]]
method = "padim"
preset = "tiny"

[[methods]]
method = "patchcore"
name = "bank of patches"
preset = "tiny"

[[test]]
simulate = {{ spacing_mm = 6.0 }}
first = {healthy}
count = 2

[[test]]
simulate = {{ spacing_mm = 6.0, lesion = "tumour" }}
first = 10000
count = 2

{healthy_parts}
"""

PARTS = """
[[train]]
simulate = { spacing_mm = 6.0 }
count = 4

[[calibration]]
simulate = { spacing_mm = 6.0 }
first = 5000
count = 2
"""


def protocol(tmp_path: Path, parts: str = PARTS, healthy: int = 9000, head: str = "") -> Protocol:
    path = tmp_path / "mine.toml"
    path.write_text(head + TEXT.format(healthy_parts=parts, healthy=healthy))
    return Protocol.read(path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder for all, so that nothing is simulated or prepared twice."""
    return tmp_path_factory.mktemp("benchmark")


def test_a_comparison_has_everything_and_is_not_run_twice(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = protocol(tmp_path)
    run = compare_methods(mine, scans, workers=1)
    assert not run.failures
    methods = {row["method"] for row in run.results["evaluation"]["lesions"]}
    assert methods == {"padim", "bank of patches", "zscore *", "intensity *", "prior_residual *"}
    assert run.results["scans"] == [{"train": 4, "calibration": 2, "test": 4}]
    for row in run.results["evaluation"]["healthy"]:
        assert row["provenance"].startswith("healthy n=2")
    assert [row["mean_rank"] for row in run.results["ranks"]] == sorted(
        row["mean_rank"] for row in run.results["ranks"]
    )
    best = run.results["ranks"][0]["method"]
    assert {row["method"] for row in run.results["comparisons"]} == {best}
    assert len({row["other"] for row in run.results["comparisons"]}) == 4
    lines = list(csv.DictReader((scans / "benchmark.csv").read_text().splitlines()))
    assert {line["method"] for line in lines} == methods
    assert float(lines[0]["ap_low"]) <= float(lines[0]["ap"]) <= float(lines[0]["ap_high"])
    text = (scans / "benchmark.md").read_text()
    assert "Ranks" in text
    assert "healthy n=2" in text

    def never(*_: object, **__: object) -> None:
        raise AssertionError("done already")

    for name in ("fit", "predict", "calibrate"):
        monkeypatch.setattr(Detector, name, never)
    again = compare_methods(mine, scans, workers=1)
    assert json.dumps(again.results["evaluation"]) == json.dumps(run.results["evaluation"])


def test_the_page_needs_nothing_else(scans: Path, tmp_path: Path) -> None:
    compare_methods(protocol(tmp_path), scans, workers=1)
    page = write_comparison(scans).read_text()
    assert "bank of patches" in page
    assert "Paired comparisons" in page
    assert page.count("<svg") >= 2
    for away in ("http://", "https://", "src="):
        assert away not in page.replace("http://www.w3.org", "")
    assert str(tmp_path) not in page


def test_folds_test_every_healthy_person_once(tmp_path: Path) -> None:
    parts = '[[healthy]]\nsimulate = { spacing_mm = 6.0 }\ncount = 6\nfirst = 100\n'
    mine = protocol(tmp_path, parts, head="folds = 2\ncalibration_share = 0.34\n")
    folds = mine.parts(tmp_path / "scans", tmp_path, workers=1)
    tested = [
        scan.person for parts in folds for scan in parts["test"] if scan.subject < "sim-09000"
    ]
    assert len(tested) == len(set(tested)) == 6
    run = compare_methods(mine, tmp_path, workers=1)
    evaluation = run.results["evaluation"]
    padim = [row for row in evaluation["scans"] if row["method"] == "padim"]
    assert len(padim) == 6 + 2 * 4
    # Every fold has a threshold of its own, so there is none for all voxels together.
    (row,) = [r for r in evaluation["lesions"] if r["method"] == "padim"]
    assert row["threshold"] is None
    assert row["pooled_dice"] is None
    assert row["pooled_ap"] > 0


def test_nobody_may_stand_on_two_sides(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakageError, match="test"):
        compare_methods(protocol(tmp_path, healthy=1), scans, workers=1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("padim", "padam"), "padam"),
        (('"bank of patches"', '"padim"'), "one name"),
        (("count = 4", "count = 0"), "count"),
        (("first = 5000", "frist = 5000"), "frist"),
        (("[[calibration]]", "[[test]]"), "calibration"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.format(healthy_parts=PARTS, healthy=9000).replace(*change, 1))
    with pytest.raises(SettingsError, match=problem):
        Protocol.read(path).contestants()


def test_a_file_that_is_no_protocol(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Protocol.read(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("summary = ")
    with pytest.raises(InputError, match="no TOML"):
        Protocol.read(tmp_path / "broken.toml")
    with pytest.raises(SettingsError, match="quick"):
        Protocol.read("quik")


@pytest.mark.parametrize("name", ready_made())
def test_ready_made_protocols_can_be_read(name: str) -> None:
    mine = Protocol.read(name)
    assert mine.summary
    assert {"zscore", "intensity"} <= set(mine.contestants())


def test_listed_files_must_be_there(tmp_path: Path) -> None:
    text = TEXT.format(healthy_parts=PARTS, healthy=9000)
    text += '\n[[test]]\ncondition = "glioma"\nscans = [{ subject = "a", image = "a.nii.gz" }]\n'
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match="--data"):
        Protocol.read(tmp_path / "mine.toml").parts(tmp_path, tmp_path / "data", workers=1)
