"""`atypia power`: files, figures on the terminal, resuming, and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia import files, io
from atypia.cli.main import main
from atypia.detectors.model_folder import save_detector
from atypia.detectors.zscore import ZScore, ZScoreSettings
from tests.phantoms import phantom, phantom_cohort


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model of phantoms."""
    detector = ZScore(ZScoreSettings.make({"spacing_mm": 6, "align": "none"}))
    detector.fit(phantom_cohort(range(6)))
    detector.calibrate(phantom_cohort(range(30, 36)), voxel_fpr=0.002)
    folder = tmp_path_factory.mktemp("power") / "model"
    save_detector(detector, folder)
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two healthy images, without masks."""
    folder = tmp_path_factory.mktemp("power") / "healthy"
    for seed in (60, 61):
        io.write(phantom(seed)[0], folder / f"new-{seed}.nii.gz")
    return folder


def code_of(*words: object) -> object:
    with pytest.raises(SystemExit) as caught:
        main(["power", *map(str, words)])
    return caught.value.code


def test_the_command_writes_and_prints_and_goes_on_past_a_bad_scan(
    model: Path, healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (model, healthy, "-o", out, "--diameter-mm", 12, 30, "--contrast", -0.5, 0.8)
    assert code_of(*words) == 0
    names = {"power.json", "power.csv", "power.md", "power.html", "scans"}
    assert {path.name for path in out.iterdir()} == names
    printed = capsys.readouterr().out
    assert (out / "power.md").read_text("utf-8") in printed
    assert "| 30          | " in printed
    told = files.read_json(out / "power.json")
    assert told["design"]["contrasts"] == [-0.5, 0.8]
    assert told["cells"][-1]["share"] == 1
    (healthy / "bad.nii.gz").write_bytes(b"nothing")
    assert code_of(*words) == 1
    (healthy / "bad.nii.gz").unlink()
    assert "1 of 3 scans failed:\n  bad: " in capsys.readouterr().err
    again = files.read_json(out / "power.json")
    assert again["cells"] == told["cells"]
    assert list(again["failed"]) == ["bad"]


def test_no_report_is_written_when_every_scan_fails(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.nii.gz").write_bytes(b"nothing")
    out = tmp_path / "out"
    assert code_of(model, tmp_path / "bad", "-o", out, "--diameter-mm", 12) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "1 of 1 scans failed:\n  one: " in said.err
    assert "no report was written" in said.err
    assert not list(tmp_path.glob("out/power.*"))


def test_an_uncalibrated_model_is_an_error(
    model: Path, healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (model / "calibration.json").read_text("utf-8")
    (model / "calibration.json").unlink()
    try:
        assert code_of(model, healthy, "-o", tmp_path / "out") == 2
    finally:
        (model / "calibration.json").write_text(kept, encoding="utf-8")
    assert "is not calibrated" in capsys.readouterr().err
