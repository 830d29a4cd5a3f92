"""Power reports: what is found, what does not count, resuming, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atypia import files
from atypia.cohort import Cohort
from atypia.detectors.base import Detector
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.errors import CohortError, InputError, LeakageError, ModelError, SettingsError
from atypia.evaluation.lesion_figures import lesion_figures
from atypia.evaluation.power import Cell, Design, Power
from atypia.report.power import write_power
from atypia.runs.power import examples, power_of
from atypia.volume import Volume
from tests.phantoms import phantom_cohort

NEW = range(60, 63)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Fitted and calibrated on phantoms."""
    settings = ZScoreSettings.make({"spacing_mm": 6, "align": "none"})
    found = ZScore(settings).fit(phantom_cohort(range(6)))
    found.calibrate(phantom_cohort(range(30, 36)), voxel_fpr=0.002)
    return found


def predictions(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[int]:
    """Count predictions, and break off after so many as if the run were killed."""
    made: list[int] = []
    scored = ZScore._scored

    def counting(self: ZScore, *arguments: object) -> object:
        if stop_after is not None and len(made) == stop_after:
            raise KeyboardInterrupt
        made.append(1)
        return scored(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ZScore, "_scored", counting)
    return made


def test_large_strong_lesions_are_found_and_none_without_contrast(detector: Detector) -> None:
    power = power_of(detector, phantom_cohort(NEW), diameters_mm=(8, 36), contrasts=(0, 0.8))
    assert power.scans == tuple(scan.id for scan in phantom_cohort(NEW))
    strong = power.cell(36, 0.8)
    assert strong.judged > 0
    assert strong.share == 1
    for diameter in (8, 36):
        # What is flagged there is flagged in the clean scan too.
        assert power.cell(diameter, 0).found == 0
        assert power.cell(diameter, 0).planted == power.cell(diameter, 0.8).planted > 0
    assert power.cell(8, 0.8).found < power.cell(8, 0.8).judged
    assert power.calibrated == 0
    with pytest.raises(SettingsError, match="7 mm"):
        power.cell(7, 0.8)


def test_what_the_clean_scan_has_already_does_not_count(detector: Detector) -> None:
    sloppy = ZScore(detector.settings).fit(phantom_cohort(range(6)))  # type: ignore[arg-type]
    sloppy.calibrate(phantom_cohort(range(30, 36)), voxel_fpr=0.3)
    cell = power_of(sloppy, phantom_cohort(NEW), diameters_mm=(36,), contrasts=(0.8,)).cells[0]
    assert cell.found_before == cell.planted > 0
    assert (cell.judged, cell.share, cell.interval) == (0, None, None)


def test_found_means_what_it_means_in_an_evaluation(detector: Detector) -> None:
    from atypia.cohort.planted import with_planted

    clean = phantom_cohort(range(60, 62))
    for least in (0.0, 0.5):
        power = power_of(detector, clean, diameters_mm=(30,), contrasts=(0.4,), least_overlap=least)
        expected = before = 0
        brain_of = {scan.id: detector.predict(scan).brain for scan in clean}
        planted = with_planted(clean, 30, 0.4, brain=lambda scan: brain_of[scan.id])  # noqa: B023
        for scan, healthy in zip(planted, clean, strict=True):
            lesion = scan.lesion()
            assert lesion is not None
            for found, name in ((scan, "planted"), (healthy, "clean")):
                mask = detector.predict(found).mask
                assert mask is not None
                counts = lesion_figures(
                    mask.data, lesion.data, mask.spacing_mm, least_overlap=least
                ).every
                expected += counts.detected if name == "planted" else 0
                before += counts.detected if name == "clean" else 0
        assert power.cells[0].found_before == before == 0
        assert power.cells[0].found == expected
        assert "50% of it" in power.sentences[-1] or not least


def test_a_killed_run_goes_on_where_it_was(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"diameters_mm": (12, 30), "contrasts": (0.4,), "work": tmp_path}
    new = phantom_cohort(range(60, 62))
    with monkeypatch.context() as killed:
        predictions(killed, stop_after=5)
        with pytest.raises(KeyboardInterrupt):
            power_of(detector, new, **asked)
    made = predictions(monkeypatch)
    power = power_of(detector, new, **asked)
    assert len(made) == 2  # the second scan without a lesion, and its last cell
    assert power == power_of(detector, new, **{**asked, "work": None})
    made.clear()
    assert power_of(detector, new, **asked) == power
    assert not made
    power_of(detector, new, **{**asked, "diameters_mm": (12, 20, 30)})
    assert len(made) == 4  # only the new diameter
    (tmp_path / f"{new[0].id}.json").write_text("{", encoding="utf-8")
    made.clear()
    power_of(detector, new, seed=0, **asked)
    assert len(made) == 3  # what is damaged is made anew
    made.clear()
    power_of(detector, new, seed=1, **asked)
    assert len(made) == 6  # other lesions


def test_a_scan_that_fails_counts_nowhere_and_the_others_go_on(detector: Detector) -> None:
    def broken() -> Volume:
        raise InputError("scan.nii", "is damaged", "Copy it again")

    new = phantom_cohort(range(60, 62))
    bad = replace(new[0], images={"T2w": broken})
    power = power_of(
        detector, Cohort((bad, *new.scans[1:]), "two"), diameters_mm=(30,), contrasts=(0.4,)
    )
    assert list(power.failed) == [new[0].id]
    assert "is damaged" in power.failed[new[0].id]
    good = power_of(detector, new.take([1]), diameters_mm=(30,), contrasts=(0.4,))
    assert power.cells == good.cells
    assert power.scans == good.scans


def test_people_trained_on_are_refused_and_calibrating_ones_counted(detector: Detector) -> None:
    with pytest.raises(LeakageError, match="training"):
        power_of(detector, phantom_cohort(range(5, 7)))
    mixed = phantom_cohort(range(35, 37))
    power = power_of(detector, mixed, diameters_mm=(20,), contrasts=(0.4,))
    assert power.calibrated == 1
    assert "1 of 2 scans also calibrated" in power.sentences[1]


def test_what_cannot_be_is_refused(detector: Detector) -> None:
    new = phantom_cohort(NEW)
    with pytest.raises(ModelError, match="not calibrated"):
        power_of(detector.but(), new)
    with pytest.raises(CohortError, match="no scans"):
        power_of(detector, Cohort((), "nobody"))
    with pytest.raises(CohortError, match="blob"):
        power_of(detector, phantom_cohort(NEW, lesion=True))
    for wrong in (
        {"diameters_mm": ()},
        {"contrasts": (math.nan,)},
        {"lesions_per_scan": 0},
        {"least_overlap": 2.0},
        {"most_scans": 0},
        {"seed": -1},
    ):
        with pytest.raises(SettingsError):
            power_of(detector, new, **wrong)  # type: ignore[arg-type]


def test_the_seed_draws_the_scans(detector: Detector) -> None:
    new = phantom_cohort(range(60, 70))
    drawn = {
        power_of(detector, new, diameters_mm=(200,), most_scans=2, seed=seed).scans
        for seed in range(4)
    }
    assert all(len(scans) == 2 for scans in drawn)
    assert len(drawn) > 1


def test_lesions_that_fit_nowhere_leave_an_empty_cell(detector: Detector) -> None:
    power = power_of(detector, phantom_cohort(range(60, 61)), diameters_mm=(200,), contrasts=(1,))
    assert power.cells == (Cell(200, 1),)
    assert power.rows()[0]["planted"] == "0/3"


def test_the_interval_is_wilsons() -> None:
    low, high = Cell(10, 0.3, planted=12, found_before=2, found=7).interval or (0, 0)
    z, share, n = 1.959963984540054, 0.7, 10
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx((middle - half, middle + half))


def test_everything_written_says_the_same(detector: Detector, tmp_path: Path) -> None:
    new = phantom_cohort(range(60, 62))
    power = power_of(detector, new, diameters_mm=(12, 30), contrasts=(-0.4, 0.4))
    power = replace(power, failed={"sub-<b>": "is damaged"})
    page = write_power(power, tmp_path, examples(detector, new, power)).read_text("utf-8")
    told = files.read_json(tmp_path / "power.json")
    assert Power.from_json(told) == power
    assert Power.from_json(json.loads(json.dumps(power.to_json()))) == power
    with pytest.raises(InputError, match="no power report"):
        Power.from_json({**told, "scans": None, "colour": 1})
    cell = power.cell(30, 0.4)
    counts = f"{cell.found}/{cell.judged}"
    text = (tmp_path / "power.md").read_text("utf-8")
    for written in (text, page):
        assert counts in written
        assert power.threshold.provenance in written
        assert "0 of 2 scans also calibrated" in written
    assert "sub-&lt;b&gt;" in page
    assert page.count("data:image/webp") == 2
    assert 'title="30 mm at +40 %:' in page
    assert "://" not in page.replace("http://www.w3.org", "")
    with (tmp_path / "power.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["found"]) for row in rows] == [c.found for c in power.cells]
    assert float(rows[-1]["diameter_mm"]) == 30


def test_a_design_names_every_cell_once() -> None:
    design = Design((6, 6.0, 10), (0.3,))
    assert design.cells == (Cell(6, 0.3), Cell(10, 0.3))
    assert np.isclose(design.least_overlap, 0)
