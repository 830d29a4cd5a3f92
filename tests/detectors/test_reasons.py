"""Artefact or lesion: a detector's verdict on simulated brains, and the way of it into files."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia import files
from atypia.cohort import Cohort
from atypia.cohort.corrupted import with_artefact
from atypia.cohort.simulated import simulated_cohort
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.runs.predicting import predict_cohort, read_prediction
from atypia.scoring.reasons import FIGURES
from atypia.simulation import SimulationSettings

BRAINS = SimulationSettings(modality="T2w", spacing_mm=6.0)


@pytest.fixture(scope="module")
def detector() -> ZScore:
    made = ZScore(ZScoreSettings.tiny()).fit(simulated_cohort(BRAINS, range(6)))
    made.calibrate(simulated_cohort(BRAINS, range(100, 120)))
    return made


def test_a_calibration_keeps_every_figure_of_every_healthy_scan(detector: ZScore) -> None:
    assert detector.calibration is not None
    figures = detector.calibration.figures
    assert list(figures) == list(FIGURES)
    assert {len(values) for values in figures.values()} == {20}


@pytest.mark.parametrize(
    ("artefact", "code"),
    [
        ("gaussian_noise", "noise"),
        ("spike", "kspace_point"),
        ("ghosting", "kspace_lines_y"),
        ("middle_chunk", "slice_jump_z"),
        ("bias_field", "shading"),
    ],
)
def test_an_artefact_is_told_with_its_reason(detector: ZScore, artefact: str, code: str) -> None:
    (scan,) = with_artefact(simulated_cohort(BRAINS, [200]), artefact, 5.0)
    prediction = detector.predict(scan)
    assert prediction.verdict == "artefact"
    assert code in [reason.code for reason in prediction.reasons]
    assert all(reason.kind == "artefact" for reason in prediction.reasons)


def test_a_tumour_is_a_lesion_and_a_healthy_brain_neither(detector: ZScore) -> None:
    (tumour,) = simulated_cohort(BRAINS.but(lesion="tumour"), [300])
    prediction = detector.predict(tumour)
    assert prediction.verdict == "lesion"
    assert {reason.kind for reason in prediction.reasons} == {"lesion"}
    (healthy,) = simulated_cohort(BRAINS, [200])
    assert detector.predict(healthy).verdict == "nothing unusual"


def test_without_figures_there_is_no_verdict(detector: ZScore) -> None:
    assert detector.calibration is not None
    old = detector.calibration.model_copy(update={"figures": {}})
    (scan,) = simulated_cohort(BRAINS, [200])
    prediction = detector.predict(scan, calibration=old)
    assert prediction.p_value is not None
    assert prediction.verdict is None
    assert prediction.reasons == ()


def test_the_verdict_is_written_and_read_back(detector: ZScore, tmp_path: Path) -> None:
    (scan,) = with_artefact(simulated_cohort(BRAINS, [200]), "spike", 5.0)
    report = predict_cohort(detector, Cohort((scan,), "one"), tmp_path / "out")
    assert not report.failures
    place = tmp_path / "out" / "scans" / scan.id
    told = files.read_json(place / "scan.json")
    read = read_prediction(place, scan)
    assert read.verdict == told["verdict"] == "artefact"
    assert [reason.to_json() for reason in read.reasons] == told["reasons"]
    del told["verdict"], told["reasons"]
    files.write_json(place / "scan.json", told)
    assert read_prediction(place, scan).verdict is None
