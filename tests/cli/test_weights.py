"""`atypia predict SCAN`, `atypia weights` and `atypia calibrate --healthy`: no training."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia import files
from atypia.cli.main import run
from atypia.detectors import shipped
from atypia.errors import AtypiaError
from tests.weights import NAME, brains, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def installed(weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "FOLDER", weights)
    monkeypatch.chdir(tmp_path)


def image_of(folder: Path, modality: str = "T2w") -> Path:
    (scan,) = brains(folder, modality, 300, 1)
    image = scan.images[modality]
    assert isinstance(image, Path)
    return image


def test_one_scan_needs_nothing_but_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = image_of(tmp_path / "scans")
    assert run(["predict", str(image), "--weights", NAME, "--workers", "1"]) == 0
    told = capsys.readouterr().out
    results = tmp_path / "T2w_atypia"
    assert "p = " in told
    # A bare image: its contrast was read off it, and its page is the last thing that is named.
    page = Path(told.strip().splitlines()[-1])
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>") or page.exists()
    assert files.read_json(results / "run.json")["calibration"]["cohort"] == "T2w"
    assert (results / "report.html").exists()


def test_several_images_of_a_scan_need_a_modality(tmp_path: Path) -> None:
    manifest = tmp_path / "scans.tsv"
    first, second = image_of(tmp_path / "a"), image_of(tmp_path / "b", "FLAIR")
    manifest.write_text(f"subject\tT2w\tFLAIR\none\t{first}\t{second}\n")
    command = ["predict", str(manifest), "--weights", NAME, "-o", "out", "--workers", "1"]
    assert run([*command, "--modality", "FLAIR"]) == 0
    assert files.read_json(tmp_path / "out" / "run.json")["calibration"]["cohort"] == "FLAIR"


def test_options_of_both_ways_do_not_mix(tmp_path: Path) -> None:
    image = image_of(tmp_path / "scans")
    with pytest.raises(AtypiaError, match="without a model"):
        run(["predict", "model", str(image), "--weights", NAME, "-o", "out"])
    with pytest.raises(AtypiaError, match="--output"):
        run(["predict", "model", str(image)])
    with pytest.raises(AtypiaError, match="Known: denoising_autoencoder"):
        run(["predict", str(image), "--weights", "nobody"])


def test_weights_are_listed_with_their_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights"]) == 0
    assert f"{NAME}" in (told := capsys.readouterr().out)
    assert "tiny" in told
    assert run(["weights", NAME]) == 0
    assert "Known failures:\n  - all of them" in capsys.readouterr().out
    with pytest.raises(AtypiaError, match="Known: "):
        run(["weights", "nobody"])


def test_a_scanner_is_calibrated_and_the_change_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brains(tmp_path / "healthy", "T1w", 400, 3)
    manifest = str(tmp_path / "healthy" / "manifest.tsv")
    command = ["calibrate", "--healthy", manifest, "--weights", NAME, "--output", "site"]
    assert run(command) == 0
    told = capsys.readouterr().out
    assert "What changes for scans like these" in told
    assert "of 3 of these healthy scans before" in told
    image = image_of(tmp_path / "scans", "T1w")
    assert run(["predict", "site", str(image), "-o", "out"]) == 0
    assert files.read_json(tmp_path / "out" / "run.json")["calibration"]["cohort"] == "manifest.tsv"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(AtypiaError, match="--healthy"):
        run(["calibrate", "model"])
    with pytest.raises(AtypiaError, match="--weights and --contrast"):
        run(["calibrate", "model", "cohort", "--contrast", "T1w"])
    with pytest.raises(AtypiaError, match="--output SITE"):
        run(["calibrate", "--healthy", "cohort"])
