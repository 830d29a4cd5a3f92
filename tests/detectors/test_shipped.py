"""Weights that come with the package: packed in half precision, found by name, calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from atypia import files
from atypia.calibration import Calibration
from atypia.cohort import Cohort
from atypia.cohort.simulated import write_simulated
from atypia.detectors import shipped
from atypia.detectors.base import Detector
from atypia.detectors.ensemble import Ensemble
from atypia.detectors.model_folder import load_detector, save_calibration, save_detector
from atypia.errors import ModelError, SettingsError
from atypia.preprocessing import prepare
from atypia.registry import detector_class
from atypia.simulation import SimulationSettings

METHODS = ("synthetic_restoration", "denoising_autoencoder")


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cohort]:
    folder = tmp_path_factory.mktemp("brains")

    def made(name: str, first: int, number: int, **settings: object) -> Cohort:
        simulation = SimulationSettings.make({"spacing_mm": 6.0, **settings})
        return write_simulated([(simulation, range(first, first + number))], folder / name)

    return {
        "learning": made("learning", 0, 4, modality="any"),
        "scale": made("scale", 100, 3, modality="any"),
        **{m: made(m, 200, 4, modality=m) for m in ("T1w", "T2w", "FLAIR")},
    }


@pytest.fixture(scope="module")
def packed(
    brains: dict[str, Cohort], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Detector]]:
    """Two tiny weight sets and their ensemble, as `python -m benchmarks weights` packs them."""
    folder = tmp_path_factory.mktemp("weights")
    fitted: dict[str, Detector] = {}
    for method in METHODS:
        kind = detector_class(method)
        settings = kind.settings_class.make({"modality": "any"}, "tiny")
        fitted[method] = kind(settings).fit(brains["learning"])
        (folder / method).mkdir()
        save_detector(fitted[method], folder / method, half=True)
    members = {name: load_detector(folder / name) for name in METHODS}
    ensemble = Ensemble.of(members, brains["scale"])
    (folder / "ensemble").mkdir()
    save_detector(ensemble, folder / "ensemble", members={n: folder / n for n in METHODS})
    for name in (*METHODS, "ensemble"):
        detector = load_detector(folder / name)
        for contrast in ("T1w", "T2w"):
            calibration = detector.calibrate(brains[contrast], voxel_fpr=0.01)
            calibration.save(folder / name / shipped.CALIBRATIONS / f"{contrast}.json")
        detector.calibrate(brains["FLAIR"], voxel_fpr=0.01)
        save_calibration(detector, folder / name)
        files.write_json(folder / name / shipped.CARD, {"summary": f"tiny {name}"})
    return folder, fitted


@pytest.fixture
def installed(packed: tuple[Path, dict[str, Detector]], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "FOLDER", packed[0])
    return packed[0]


def test_half_precision_halves_the_file_and_hardly_changes_scores(
    packed: tuple[Path, dict[str, Detector]], brains: dict[str, Cohort], tmp_path: Path
) -> None:
    folder, fitted = packed
    for name, whole in fitted.items():
        save_detector(whole, tmp_path / name)
        sizes = [
            (place / name / "weights.safetensors").stat().st_size for place in (folder, tmp_path)
        ]
        assert sizes[0] < 0.75 * sizes[1]
        scan = brains["T2w"][0]
        ours, theirs = load_detector(folder / name).score_map(scan), whole.score_map(scan)
        inside = theirs.data > 0
        assert np.corrcoef(ours.data[inside], theirs.data[inside])[0, 1] > 0.999


def test_an_ensemble_names_its_members_instead_of_holding_them(
    packed: tuple[Path, dict[str, Detector]], brains: dict[str, Cohort], tmp_path: Path
) -> None:
    folder, _ = packed
    told = files.read_json(folder / "ensemble" / "detector.json")
    assert {m: told["members"][m]["folder"] for m in METHODS} == {m: f"../{m}" for m in METHODS}
    held = load_file(folder / "ensemble" / "weights.safetensors")
    assert set(held) == {"healthy_"}
    # What is loaded so is what is loaded from a folder that holds everything.
    ensemble = load_detector(folder / "ensemble")
    save_detector(ensemble, tmp_path / "whole")
    scan = brains["T1w"][0]
    np.testing.assert_array_equal(
        ensemble.score_map(scan).data, load_detector(tmp_path / "whole").score_map(scan).data
    )


def test_a_member_that_was_changed_is_refused(
    packed: tuple[Path, dict[str, Detector]], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(packed[0], tmp_path / "weights")
    place = tmp_path / "weights" / METHODS[0] / "detector.json"
    told = files.read_json(place)
    files.write_json(place, told | {"weights_sha256": "0" * 64})
    with pytest.raises(ModelError, match="is not the member"):
        load_detector(tmp_path / "weights" / "ensemble")


def test_weights_are_found_by_name_and_by_path(installed: Path) -> None:
    assert set(shipped.shipped()) == {*METHODS, "ensemble"}
    assert shipped.folder_of("ensemble") == installed / "ensemble"
    assert shipped.folder_of(installed / METHODS[0]) == installed / METHODS[0]
    with pytest.raises(SettingsError, match="Known: .*ensemble"):
        shipped.folder_of("ensembel")
    with pytest.raises(SettingsError, match="contrast .T1.: unknown"):
        shipped.load_weights("ensemble", "T1")
    assert shipped.shipped()["ensemble"].size_mb > 0


def test_each_contrast_has_its_calibration(installed: Path, brains: dict[str, Cohort]) -> None:
    by_contrast = {c: shipped.load_weights("ensemble", c).calibration for c in ("T1w", "T2w")}
    assert len({c.voxel_threshold for c in by_contrast.values() if c is not None}) == 2
    for contrast, calibration in by_contrast.items():
        assert calibration is not None
        assert set(calibration.people) == {scan.person for scan in brains[contrast]}
    # A contrast without one of its own is judged by the model's.
    other = shipped.load_weights("ensemble", "other").calibration
    assert other == load_detector(installed / "ensemble").calibration


def test_a_calibration_of_another_fit_is_refused(installed: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(installed, tmp_path / "weights")
    place = tmp_path / "weights" / METHODS[0] / shipped.CALIBRATIONS / "T1w.json"
    files.write_json(place, files.read_json(place) | {"detector": "another"})
    with pytest.raises(ModelError, match="another fit"):
        shipped.load_weights(tmp_path / "weights" / METHODS[0], "T1w")


def test_contrast_comes_from_the_cohort_or_from_the_image(
    installed: Path, brains: dict[str, Cohort]
) -> None:
    detector = shipped.load_weights("ensemble")
    for contrast in ("T1w", "T2w", "FLAIR"):
        scan = brains[contrast][0]
        assert shipped.contrast_of_scan(detector, scan) == contrast
        shown = shipped.contrast_shown(prepare(scan, detector._fitted_plan(), contrast))
        assert shown == contrast
        from dataclasses import replace

        bare = replace(scan, images={"image": scan.images[contrast]})
        assert shipped.contrast_of_scan(detector, bare) == contrast


def test_only_real_healthy_scans_give_verdicts() -> None:
    """Beside simulated images every real one would be called an artefact."""
    calibrations = [
        one
        for set_ in shipped.shipped().values()
        for one in (set_.folder / shipped.CALIBRATIONS).glob("*.json")
    ]
    assert calibrations
    for path in calibrations:
        there = Calibration.load(path)
        assert bool(there.figures) == (there.cohort != "simulated"), path
