"""Runs: fitting with baselines, predicting with resume, evaluating models and results."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from atypia import files, io
from atypia.cohort import Cohort, open_cohort
from atypia.detectors import load_detector
from atypia.detectors.model_folder import load_baselines
from atypia.detectors.zscore import ZScoreSettings
from atypia.errors import LeakageError, OutputError
from atypia.registry import detector_class
from atypia.runs.evaluating import evaluate_detectors, evaluate_output
from atypia.runs.fitting import calibrate_model, fit_model
from atypia.runs.predicting import finished_scans, predict_cohort, read_prediction
from atypia.volume import Volume
from tests.phantoms import phantom_cohort, phantom_scan

HEALTHY, SICK = range(60, 63), range(70, 73)


def test_cohort() -> Cohort:
    healthy, sick = phantom_cohort(HEALTHY), phantom_cohort(SICK, lesion=True)
    return Cohort((*healthy, *sick), "test")


test_cohort.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "model"
    fit_model("zscore", ZScoreSettings.tiny(), phantom_cohort(range(6)), folder, workers=1)
    calibrate_model(folder, phantom_cohort(range(20, 24)), voxel_fpr=0.02, smallest_mm3=0.0)
    return folder


def test_baselines_are_fitted_and_calibrated_beside_the_method(model: Path) -> None:
    baselines = load_baselines(model)
    assert set(baselines) == {"intensity", "prior_residual"}
    for detector in (load_detector(model), *baselines.values()):
        assert detector.calibration is not None
        assert "healthy n=4" in detector.calibration.provenance
        assert detector.plan == load_detector(model).plan
    assert not (model / "training").exists()
    assert "phantom-0" not in (model / "detector.json").read_text()


def test_the_same_fit_again_is_kept_and_another_is_refused(model: Path) -> None:
    before = (model / "detector.json").stat().st_mtime_ns
    again = fit_model("zscore", ZScoreSettings.tiny(), phantom_cohort(range(6)), model, workers=1)
    assert again.calibration is not None
    assert (model / "detector.json").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="--overwrite"):
        fit_model("zscore", ZScoreSettings.tiny(), phantom_cohort(range(5)), model, workers=1)


def test_overwriting_drops_the_old_calibration(tmp_path: Path) -> None:
    settings = detector_class("intensity").settings_class.tiny()
    fit_model("intensity", settings, phantom_cohort(range(2)), tmp_path / "m", workers=1)
    calibrate_model(tmp_path / "m", phantom_cohort(range(5, 7)), voxel_fpr=0.1, smallest_mm3=0)
    fit_model(
        "intensity", settings, phantom_cohort(range(3)), tmp_path / "m", workers=1, overwrite=True
    )
    assert load_detector(tmp_path / "m").calibration is None


def test_results_are_written_resumed_and_read_back(model: Path, tmp_path: Path) -> None:
    detector, cohort, out = load_detector(model), test_cohort(), tmp_path / "out"
    first = predict_cohort(detector, cohort, out)
    assert (first.done, first.kept, first.failures) == (6, 0, ())
    stamps = {p: p.stat().st_mtime_ns for p, _ in finished_scans(out)}
    second = predict_cohort(detector, cohort, out)
    assert (second.done, second.kept) == (0, 6)
    assert {p: p.stat().st_mtime_ns for p, _ in finished_scans(out)} == stamps
    scan = cohort[4]
    direct, back = detector.predict(scan), read_prediction(out / "scans" / scan.id, scan)
    np.testing.assert_array_equal(back.score_map.data, direct.score_map.data)
    np.testing.assert_array_equal(back.mask.data, direct.mask.data)
    assert back.score == direct.score
    assert back.lesions == direct.lesions
    assert back.threshold == direct.threshold


def test_another_calibration_predicts_anew(model: Path, tmp_path: Path) -> None:
    detector, cohort = load_detector(model), test_cohort().take([0])
    predict_cohort(detector, cohort, tmp_path / "out")
    detector.calibrate(phantom_cohort(range(30, 33)), voxel_fpr=0.05)
    assert predict_cohort(detector, cohort, tmp_path / "out").done == 1


def test_a_scan_that_was_cut_off_is_done_again(model: Path, tmp_path: Path) -> None:
    detector, cohort, out = load_detector(model), test_cohort().take([0, 1]), tmp_path / "out"
    predict_cohort(detector, cohort, out)
    (out / "scans" / cohort[1].id / "scan.json").unlink()
    again = predict_cohort(detector, cohort, out)
    assert (again.done, again.kept) == (1, 1)


def test_evaluating_a_model_and_its_results_agree(model: Path, tmp_path: Path) -> None:
    detector, cohort = load_detector(model), test_cohort()
    everyone = {detector.method: detector} | load_baselines(model)
    direct = evaluate_detectors(everyone, cohort).evaluation.to_json()
    predict_cohort(detector, cohort, tmp_path / "out", model=str(model))
    stored = evaluate_output(tmp_path / "out", cohort).evaluation.to_json()
    assert direct == stored
    files.write_json(tmp_path / "evaluation.json", direct)
    by_method = {row["method"]: row for row in direct["lesions"]}
    assert set(by_method) == {"zscore *", "intensity *", "prior_residual *"}
    row = by_method["zscore *"]
    assert row["scans"] == 3
    assert 0 < row["dice"]["mean"] <= row["oracle_dice"]["mean"] + 1e-3
    assert row["provenance"].startswith("healthy n=4")
    healthy = {row["method"]: row for row in direct["healthy"]}
    assert healthy["zscore *"]["scans"] == 3
    assert healthy["zscore *"]["asked"] == 0.02


def test_training_subjects_may_not_be_tested(model: Path) -> None:
    detector = load_detector(model)
    for subject, used in ((2, "training"), (21, "calibrating")):
        with pytest.raises(LeakageError, match=used):
            evaluate_detectors({"zscore": detector}, Cohort((phantom_scan(subject),), "leak"))


def test_results_of_training_subjects_may_not_be_evaluated(model: Path, tmp_path: Path) -> None:
    # Their own model is asked, not only its baselines.
    alone = Path(shutil.copytree(model, tmp_path / "model"))
    shutil.rmtree(alone / "baselines")
    for subject, used in ((2, "training"), (21, "calibrating")):
        cohort = Cohort((phantom_scan(subject),), "leak")
        predict_cohort(load_detector(alone), cohort, tmp_path / used, model=str(alone))
        with pytest.raises(LeakageError, match=used):
            evaluate_output(tmp_path / used, cohort)


def test_what_a_cohort_tells_anew_reaches_kept_results(model: Path, tmp_path: Path) -> None:
    detector, cohort = load_detector(model), Cohort((phantom_scan(80),), "one")
    predict_cohort(detector, cohort, tmp_path)
    place = tmp_path / "scans" / cohort[0].id
    (place / "index.html").write_text("of these results")
    told = Cohort((replace(cohort[0], site="b", age=40.0, condition="tumour"),), "one")
    assert predict_cohort(detector, told, tmp_path).kept == 1
    description = files.read_json(place / "scan.json")
    assert [description[k] for k in ("site", "age", "condition")] == ["b", 40.0, "tumour"]
    assert (place / "index.html").exists()
    detector.calibrate(phantom_cohort(range(30, 33)), voxel_fpr=0.1)
    assert predict_cohort(detector, told, tmp_path).kept == 0
    assert not (place / "index.html").exists()  # it told of other results


def test_masks_come_back_on_the_grid_of_a_file(model: Path, tmp_path: Path) -> None:
    image = phantom_scan(80).image()
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [4, -3, 5], degrees=True).as_matrix()
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    turned = Volume(image.data.astype(np.int16)[::-1], turn @ image.affine @ flip)
    io.write(turned, tmp_path / "turned.nii.gz")
    cohort = open_cohort(tmp_path / "turned.nii.gz")
    assert not predict_cohort(load_detector(model), cohort, tmp_path / "out").failures
    for name in ("score_map", "mask", "brain_mask", "restoration"):
        found = io.read(tmp_path / "out" / "scans" / "turned" / f"{name}.nii.gz")
        assert found.geometry.matches(turned.geometry)
