"""A protocol from its TOML text to the table, twice, in folds, and with mistakes."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atypia import io
from atypia.cohort import Scan
from atypia.detectors.base import Detector
from atypia.errors import InputError, LeakageError, SettingsError
from atypia.report import write_comparison
from atypia.runs.comparing import _scan_told, compare_methods
from atypia.runs.fitting import calibrate_model
from atypia.runs.protocol import Protocol, ready_made
from atypia.volume import Volume
from benchmarks import real_t1

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

SMALL = """
summary = "The baselines"
modality = "T2w"
smallest_mm3 = 0.0

[settings]
spacing_mm = 6.0
align = "none"

[[methods]]
method = "zscore"

[[train]]
simulate = { spacing_mm = 6.0 }
count = 3

[[calibration]]
simulate = { spacing_mm = 6.0 }
first = 5000
count = 2

[[test]]
simulate = { spacing_mm = 6.0, lesion = "tumour" }
first = 10000
count = 1
"""


def small(folder: Path, *changes: tuple[str, str]) -> dict[str, Any]:
    """Compare the baselines in a folder, with changes to the protocol; give the results."""
    text = SMALL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    folder.mkdir(exist_ok=True)
    (folder / "small.toml").write_text(text)
    return compare_methods(Protocol.read(folder / "small.toml"), folder, workers=1).results


def never(*_: object, **__: object) -> None:
    raise AssertionError("must not be called")


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
        assert away not in page.replace("http://www.w3.org", "").replace('src="data:', "")
    assert str(tmp_path) not in page


def test_folds_test_every_healthy_person_once(tmp_path: Path) -> None:
    parts = "[[healthy]]\nsimulate = { spacing_mm = 6.0 }\ncount = 6\nfirst = 100\n"
    parts += '[[test]]\nscans = [{ subject = "broken", image = "broken.nii.gz" }]\n'
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    mine = protocol(tmp_path, parts, head="folds = 2\ncalibration_share = 0.34\n")
    folds = mine.parts(tmp_path / "scans", tmp_path, workers=1)
    tested = [s.person for parts in folds for s in parts["test"] if s.subject.startswith("sim-001")]
    assert len(tested) == len(set(tested)) == 6
    run = compare_methods(mine, tmp_path, data=tmp_path, workers=1)
    assert run.results["failed"] == [failure.scan.id for failure in run.failures] == ["broken"]
    evaluation = run.results["evaluation"]
    padim = [row for row in evaluation["scans"] if row["method"] == "padim"]
    assert len(padim) == 6 + 2 * 4
    # Every fold has a threshold of its own, so there is none for all voxels together.
    (row,) = [r for r in evaluation["lesions"] if r["method"] == "padim"]
    assert row["threshold"] is None
    assert row["pooled_dice"] is None
    assert row["pooled_ap"] > 0
    for row in evaluation["healthy"]:
        assert row["threshold"] is None
        assert row["provenance"] == "healthy n=1, voxel FPR 0.50%; one threshold a fold"


def test_nobody_may_stand_on_two_sides(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakageError, match="test"):
        compare_methods(protocol(tmp_path, healthy=1), scans, workers=1)


@pytest.mark.parametrize(
    ("parts", "head", "sides"),
    [
        (PARTS.replace("5000", "3"), "", "calibration cohort.*training"),
        (PARTS.replace("5000", "10001"), "", "test cohort.*calibration"),
        (
            "[[healthy]]\nsimulate = { spacing_mm = 6.0 }\nfirst = 9001\ncount = 6\n",
            "folds = 2\n",
            "test cohort",
        ),
    ],
)
def test_leakage_is_found_before_anything_is_fitted(
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: str,
    head: str,
    sides: str,
) -> None:
    monkeypatch.setattr("atypia.runs.comparing._ready", never)
    with pytest.raises(LeakageError, match=sides):
        compare_methods(protocol(tmp_path, parts, head=head), scans, workers=1)


def test_changed_labels_are_evaluated_again(tmp_path: Path) -> None:
    before = small(tmp_path)["evaluation"]["scans"][0]
    (place,) = (tmp_path / "scans" / "test").rglob("lesion_mask.nii.gz")
    lesion = io.read(place, "mask")
    io.write(lesion.with_data(np.roll(lesion.data, 1, 0) | lesion.data), place)
    after = small(tmp_path)["evaluation"]["scans"][0]
    assert after["lesion_share"] > before["lesion_share"]
    other = small(tmp_path, ("count = 1", 'count = 1\ncondition = "glioma"'))
    assert {row["condition"] for row in other["evaluation"]["scans"]} == {"glioma"}


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "b"},
        {"dataset": "b"},
        {"session": "b"},
        {"condition": "stroke"},
        {"site": "b"},
        {"sex": "F"},
        {"age": 30.0},
        {"lesion_mask": None},
        {"lesion_mask": np.ones((2, 2, 2), bool)},
        {"lesion_mask": Path("missing.nii.gz")},
    ],
)
def test_whatever_is_told_of_a_scan_makes_it_another(change: dict[str, Any]) -> None:
    def volume(data: np.ndarray) -> Volume:
        return Volume(data, np.eye(4), "mask")

    empty = volume(np.zeros((2, 2, 2), bool))
    scan = Scan("a", {"T1w": empty}, dataset="d", condition="glioma", lesion_mask=empty)
    if isinstance(change.get("lesion_mask"), np.ndarray):
        change = {"lesion_mask": volume(change["lesion_mask"])}
    assert _scan_told(scan, ["T1w"]) == _scan_told(replace(scan), ["T1w"])
    assert _scan_told(scan, ["T1w"]) != _scan_told(replace(scan, **change), ["T1w"])


def test_a_calibration_of_other_scans_or_rules_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    calibrate = Detector.calibrate

    def counted(self: Detector, *args: Any, **rules: Any) -> Any:
        made.append(self.method)
        return calibrate(self, *args, **rules)

    monkeypatch.setattr(Detector, "calibrate", counted)

    def calibrations(*changes: tuple[str, str]) -> int:
        made.clear()
        small(tmp_path, *changes)
        return len(made)

    assert calibrations() == 3
    assert calibrations() == 0
    smallest = "smallest_mm3 = 0.0", "smallest_mm3 = 500.0"
    assert calibrations(smallest) == 3
    assert calibrations(smallest) == 0
    # The same people, other images of them.
    image = next((tmp_path / "scans" / "calibration").rglob("T2w.nii.gz"))
    os.utime(image, ns=(1, 1))
    assert calibrations(smallest) == 3
    # Somebody has calibrated one by hand.
    model = next((tmp_path / "fold-0" / "models").glob("zscore-*"))
    scans = Protocol.read(tmp_path / "small.toml").parts(tmp_path / "scans", tmp_path, workers=1)
    calibrate_model(model, scans[0]["calibration"], voxel_fpr=0.1, smallest_mm3=500.0)
    assert calibrations(smallest) == 1
    (model / "calibrated.json").write_text("{")
    assert calibrations(smallest) == 1


def test_other_training_scans_and_damaged_models_are_in_nobodys_way(tmp_path: Path) -> None:
    small(tmp_path)
    first = {place.name for place in (tmp_path / "fold-0" / "models").iterdir()}
    more = small(tmp_path, ("count = 3", "count = 4"))
    assert more["scans"][0]["train"] == 4
    second = {place.name for place in (tmp_path / "fold-0" / "models").iterdir()}
    assert (len(first), len(second)) == (3, 6)
    for weights in (tmp_path / "fold-0" / "models").glob("*/weights.safetensors"):
        weights.write_bytes(b"damaged")
    assert small(tmp_path)["scans"][0]["train"] == 3


def test_a_scan_has_one_name_in_all_folds(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.nii.gz").touch()
    healthy = ", ".join(f'{{ subject = "s{i}", image = "{i}.nii.gz" }}' for i in range(4))
    (tmp_path / "mine.toml").write_text(f"""
summary = "A patient is called like a healthy person"
modality = "T2w"
folds = 2
methods = [{{ method = "zscore" }}]
healthy = [{{ scans = [{healthy}] }}]
test = [{{ scans = [{{ subject = "s1", dataset = "ill", image = "0.nii.gz" }}] }}]
""")
    folds = Protocol.read(tmp_path / "mine.toml").parts(tmp_path, tmp_path, workers=1)
    ill = [scan for parts in folds for scan in parts["test"] if scan.dataset == "ill"]
    assert len(ill) == 2
    assert ill[0].id == ill[1].id


def test_two_visits_are_of_one_person(tmp_path: Path) -> None:
    mine = Protocol.read("real_t1")
    images = [scan.image for source in mine.test for scan in source.scans]
    healthy = [Path(f"ds002748/sub-0{i}/anat/sub-0{i}_T1w.nii.gz") for i in range(4)]
    for image in (*images, *healthy):
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).touch()
    (parts,) = mine.parts(tmp_path / "out", tmp_path, workers=1)
    visits = {scan.id: scan.person for scan in parts["test"]}
    assert visits["P14_T1"] == visits["P14_T2"] != visits["P18_T1"]
    # The older benchmark tells the same scans and people.
    assert {
        scan.id: scan.person for scan in real_t1.lesion_scans(tmp_path)
    }.items() < visits.items()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("padim", "padam"), "padam"),
        (('"bank of patches"', '"padim"'), "one name"),
        (("count = 4", "count = 0"), "count"),
        (("first = 5000", "frist = 5000"), "frist"),
        (("[[calibration]]", "[[test]]"), "calibration"),
        (("first = 5000", "first = -1"), "first"),
        (("count = 4", 'count = 4\nwhere = { site = "x" }'), "belong to path"),
        (("count = 4", 'count = 4\nlayout = "bids"'), "belong to path"),
        (
            ("[[calibration]]\nsimulate = { spacing_mm = 6.0 }", '[[calibration]]\npath = "x"'),
            "belong to simulate",
        ),
        (("bank of patches", "zscore"), "zscore is a baseline"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.format(healthy_parts=PARTS, healthy=9000).replace(*change, 1))
    with pytest.raises(SettingsError, match=problem) as caught:
        Protocol.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("mistake", ["settings = { frist = 1 }", 'preset = "frist"'])
def test_mistakes_in_the_settings_of_a_method_are_placed(tmp_path: Path, mistake: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL.replace('"zscore"', f'"zscore"\n{mistake}'))
    with pytest.raises(SettingsError, match="'The baselines', method zscore: .*frist"):
        Protocol.read(path).contestants()


def test_mistakes_in_the_settings_of_the_simulator_are_placed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL.replace('"tumour"', '"tumuor"'))
    with pytest.raises(SettingsError, match="'The baselines', test 0: .*tumuor"):
        Protocol.read(path).parts(tmp_path, tmp_path, workers=1)


def test_a_file_that_is_no_protocol(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Protocol.read(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("summary = ")
    with pytest.raises(InputError, match="broken.toml: is not TOML"):
        Protocol.read(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes('summary = "Läsionen"'.encode("latin-1"))
    with pytest.raises(InputError, match="latin.toml: is not TOML"):
        Protocol.read(tmp_path / "latin.toml")
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
