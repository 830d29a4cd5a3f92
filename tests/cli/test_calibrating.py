"""`atypia calibrate` with a rate a scan, strata and tails; `atypia drift`; on phantoms."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atypia import files, io
from atypia.cli import main
from atypia.cohort import open_cohort
from atypia.cohort.manifest import write_manifest
from atypia.cohort.scan import Cohort
from tests.cli.test_errors import failing, write_phantoms
from tests.phantoms import phantom


def run(*words: object) -> int:
    return main.run([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("calibrating")
    write_phantoms(root / "healthy", range(4))
    write_phantoms(root / "others", range(50, 70))
    write_phantoms(root / "new", range(80, 92))
    write_phantoms(root / "sick", range(100, 101), lesion=True)
    for seed in range(80, 92):  # another scanner, with noise that flattens the equalised histogram
        image, brain, _ = phantom(seed)
        noise = np.random.default_rng(seed).normal(0, 25, image.shape)
        noisy = image.with_data((image.data + noise * brain.data).astype(np.float32))
        io.write(noisy, root / "noisy" / f"q{seed}_T2w.nii.gz")
        io.write(brain, root / "noisy" / f"q{seed}_brain_mask.nii.gz")
    sites = [
        replace(scan, site="A" if i < 15 else "B")
        for i, scan in enumerate(open_cohort(root / "others"))
    ]
    write_manifest(Cohort(tuple(sites), "sites"), root / "sites.tsv")
    fit = ["fit", "intensity", root / "healthy", "-o", root / "m", "--preset", "tiny"]
    assert run(*fit, "--workers", 1) == 0
    shutil.rmtree(root / "m" / "baselines", ignore_errors=True)
    return root


def stored(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = files.read_json(place / "m" / "calibration.json")
    return found


def weights(place: Path) -> dict[str, bytes]:
    names = ("detector.json", "weights.safetensors", "plan.json")
    return {name: (place / "m" / name).read_bytes() for name in names}


def test_a_rate_a_scan_is_kept_and_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("calibrate", place / "m", place / "others", "--scan-fpr", 0.05) == 0
    shown = capsys.readouterr().out
    assert "healthy n=20, voxel FPR 0.50%, scan FPR 5.00% (clusters above " in shown
    assert "Lowest p-value, but for extrapolated ones: 0.048" in shown
    made = stored(place)
    assert made["scan_fpr"] == 0.05
    assert made["cluster_mm3"] == sorted(made["largest_mm3"])[-1]  # rank ceil(0.95 * 21) = 20
    assert len(made["highest_scores"]) == 20
    out = place / "out"
    assert run("predict", place / "m", place / "new", "-o", out, "--workers", 1) == 0
    told = [json.loads(p.read_text()) for p in sorted(out.glob("scans/*/scan.json"))]
    assert len(told) == 12
    for one in told:
        assert one["p_value_among"] == "all 20 healthy scans"
        assert one["p_value_extrapolated"] is False
        assert "scan FPR 5.00%" in one["threshold"]["provenance"]
        for lesion in one["lesions"]:
            assert lesion["size_mm3"] > made["cluster_mm3"]
            assert lesion["p_value"] == 1 / 21
            assert lesion["extrapolated"] is False


def test_another_calibration_needs_no_other_fit(place: Path) -> None:
    before = weights(place)
    assert run("calibrate", place / "m", place / "others", "--voxel-fpr", 0.05) == 0
    first = stored(place)
    assert first["cluster_mm3"] is None
    assert run("calibrate", place / "m", place / "new", "--voxel-fpr", 0.01) == 0
    second = stored(place)
    assert len(second["subject_scores"]) == 12
    assert second["voxel_threshold"] != first["voxel_threshold"]
    assert weights(place) == before


def test_strata_and_who_was_compared(place: Path, tmp_path: Path) -> None:
    words = ["calibrate", place / "m", place / "sites.tsv", "--stratify", "site"]
    assert run(*words, "--stratum-least", 10) == 0
    labels = stored(place)["strata"]["labels"]
    assert labels == ["site A"] * 15 + ["site B"] * 5
    (scan,) = open_cohort(place / "sick")
    for site, told in (("A", "15 healthy scans of site A"), ("B", "only 5 of site B")):
        path = tmp_path / f"{site}.tsv"
        write_manifest(Cohort((replace(scan, site=site),), site), path)
        assert run("predict", place / "m", path, "-o", tmp_path / site, "--workers", 1) == 0
        (found,) = (tmp_path / site).glob("scans/*/scan.json")
        assert told in json.loads(found.read_text())["p_value_among"]
        run_json = files.read_json(tmp_path / site / "run.json")
        assert "labels" not in run_json["calibration"]["strata"]
        assert run("report", tmp_path / site) == 0
        page = (tmp_path / site / "report.html").read_text()
        assert told in page
        assert "Share of healthy scans with a cluster at least this large" in page


def test_drift_is_found_where_there_is_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("calibrate", place / "m", place / "others") == 0
    capsys.readouterr()
    assert run("drift", place / "m", place / "new") == 0
    assert capsys.readouterr().out.startswith("No drift found")
    assert run("drift", place / "m", place / "noisy") == 3
    shown = capsys.readouterr().out
    assert shown.startswith("Drift found: the new scans score lower")
    assert "12 new scans, 20 of the calibration" in shown


def test_what_cannot_be_told_is_refused_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, others = str(place / "m"), str(place / "others")
    assert run("calibrate", model, others) == 0
    before = stored(place)
    line = failing(["calibrate", model, others, "--scan-fpr", "0.01"], capsys)
    assert "needs at least 99 healthy scans, there are 20" in line
    assert "--extrapolate" in line
    line = failing(["calibrate", model, others, "--extrapolate"], capsys)
    assert "needs at least 50 healthy scans" in line
    assert "Known: age, sex, site" in failing(
        ["calibrate", model, others, "--stratify", "scanner"], capsys
    )
    assert stored(place) == before
    assert "used for calibration" in failing(["drift", model, others], capsys)
    assert "too few to show a drift" in failing(["drift", model, str(place / "sick")], capsys)
    (place / "m" / "calibration.json").unlink()
    assert "not calibrated" in failing(["drift", model, str(place / "new")], capsys)
