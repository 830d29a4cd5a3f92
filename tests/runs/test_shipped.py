"""Predicting without training: scans by contrast, a scanner's own calibration, nothing fetched."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from atypia import files
from atypia.cohort import Cohort
from atypia.cohort.scan import Scan
from atypia.detectors import shipped
from atypia.detectors.model_folder import load_detector
from atypia.errors import CohortError, LeakageError, OutputError
from atypia.runs.shipped import calibrate_site, predict_with_weights
from tests.weights import NAME, brains, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def installed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "FOLDER", weights)
    return weights


def bare(cohort: Cohort) -> list[Scan]:
    """Scans whose contrast nobody tells."""
    return [replace(s, images={"image": next(iter(s.images.values()))}) for s in cohort]


def test_scans_of_one_contrast_lie_in_the_output_itself(installed: Path, tmp_path: Path) -> None:
    cohort = brains(tmp_path / "scans", "T2w", 300, 2)
    (found,) = predict_with_weights(cohort, tmp_path / "out", weights=NAME)
    assert (found.contrast, found.folder, found.report.done) == ("T2w", tmp_path / "out", 2)
    run = files.read_json(tmp_path / "out" / "run.json")
    assert run["calibration"]["provenance"].startswith("healthy n=3")
    (again,) = predict_with_weights(cohort, tmp_path / "out", weights=NAME)
    assert (again.report.done, again.report.kept) == (0, 2)


def test_mixed_contrasts_are_told_apart_by_the_images(installed: Path, tmp_path: Path) -> None:
    scans = bare(brains(tmp_path / "a", "T1w", 300, 1)) + bare(
        brains(tmp_path / "b", "FLAIR", 310, 1)
    )
    found = predict_with_weights(Cohort(tuple(scans)), tmp_path / "out", weights=NAME)
    assert {part.contrast: part.folder.name for part in found} == {"T1w": "T1w", "FLAIR": "FLAIR"}
    thresholds = set()
    for part in found:
        (scan,) = (part.folder / "scans").iterdir()
        thresholds.add(files.read_json(scan / "scan.json")["threshold"]["value"])
    assert len(thresholds) == 2


def test_a_bad_scan_is_named_and_the_others_are_done(installed: Path, tmp_path: Path) -> None:
    good = bare(brains(tmp_path / "scans", "T2w", 300, 1))
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    scans = (Scan("broken", {"image": broken}), *good)
    (found,) = predict_with_weights(Cohort(scans), tmp_path / "out", weights=NAME)
    assert found.report.done == 1
    assert [failure.scan.subject for failure in found.report.failures] == ["broken"]


def test_only_a_bad_scan(installed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    cohort = Cohort((Scan("broken", {"image": broken}),))
    (found,) = predict_with_weights(cohort, tmp_path / "out", weights=NAME)
    assert len(found.report.failures) == 1


def test_a_named_contrast_overrules_the_image(installed: Path, tmp_path: Path) -> None:
    cohort = Cohort(tuple(bare(brains(tmp_path / "scans", "T2w", 300, 1))))
    (found,) = predict_with_weights(cohort, tmp_path / "out", weights=NAME, contrast="FLAIR")
    assert found.contrast == "FLAIR"


def test_nothing_is_fetched(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network call")

    cohort = brains(tmp_path / "scans", "T2w", 300, 1)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    (found,) = predict_with_weights(cohort, tmp_path / "out", weights=NAME)
    assert not found.report.failures


def test_a_scanner_gets_its_own_calibration(installed: Path, tmp_path: Path) -> None:
    healthy = brains(tmp_path / "healthy", "T1w", 400, 3)
    before, detector = calibrate_site(NAME, healthy, tmp_path / "site", None, {"voxel_fpr": 0.02})
    shipped_one = shipped.load_weights(NAME, "T1w")
    assert before == shipped_one.calibration
    stored = load_detector(tmp_path / "site")
    assert stored.calibration == detector.calibration
    assert stored.calibration is not None
    assert stored.calibration.people == tuple(sorted({scan.person for scan in healthy}))
    # The weights are the same: only what is made of the scores has changed.
    scan = brains(tmp_path / "scans", "T1w", 300, 1)[0]
    assert stored.score(scan) == shipped_one.score(scan)
    (found,) = predict_with_weights(Cohort((scan,)), tmp_path / "out", weights=tmp_path / "site")
    assert (found.contrast, found.report.done) == ("", 1)


def test_people_of_the_training_cannot_calibrate(installed: Path, tmp_path: Path) -> None:
    learnt_from = brains(installed / "learning", "any", 0, 3)
    with pytest.raises(LeakageError):
        calibrate_site(NAME, learnt_from, tmp_path / "site", "T1w", {})


def test_a_folder_with_something_in_it_is_left_alone(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        calibrate_site(NAME, Cohort(()), tmp_path, None, {})
    with pytest.raises(CohortError, match="no scans"):
        calibrate_site(NAME, Cohort(()), tmp_path / "site", None, {})
