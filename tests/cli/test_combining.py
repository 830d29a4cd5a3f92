"""`atypia combine`, and an ensemble from the command line to predictions; on phantoms."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from atypia import files, io
from atypia.cli import main
from atypia.cohort import open_cohort
from atypia.detectors import load_detector
from atypia.detectors.ensemble import Ensemble
from tests.cli.test_errors import failing, write_phantoms


def run(*words: object) -> int:
    return main.run([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("combining")
    write_phantoms(root / "train", range(4))
    write_phantoms(root / "scale", range(50, 53))
    write_phantoms(root / "others", range(60, 64))
    write_phantoms(root / "sick", range(100, 101), lesion=True)
    for method in ("prior_residual", "intensity"):
        fit = ["fit", method, root / "train", "-o", root / method, "--preset", "tiny"]
        assert run(*fit, "--workers", 1) == 0
    assert run("calibrate", root / "prior_residual", root / "scale") == 0
    return root


def combine(place: Path, output: Path, *more: object, healthy: str = "scale") -> list[str]:
    models = [place / "prior_residual", place / "intensity"]
    words = ["combine", *models, "--healthy", place / healthy, "-o", output, *more]
    return [str(word) for word in words]


def test_models_become_one_that_calibrates_and_predicts(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "ensemble"
    before = {path: path.read_bytes() for path in (place / "intensity").glob("*.*")}
    assert run(*combine(place, model, "--how", "max")) == 0
    said = capsys.readouterr().out
    assert "ensemble of prior_residual, intensity, on the scale of 3 scans of scale" in said
    assert f"atypia calibrate {model} HEALTHY" in said
    assert {path: path.read_bytes() for path in before} == before
    names = {path.name for path in model.iterdir()}
    assert names == {
        "baselines", "detector.json", "plan.json", "settings.toml", "weights.safetensors"
    }  # fmt: skip
    # The first model's baselines, without calibrations by people who are learnt from here.
    there = {path.name for path in (model / "baselines").iterdir()}
    assert there == {path.name for path in (place / "prior_residual" / "baselines").iterdir()}
    assert (place / "prior_residual" / "baselines" / "zscore" / "calibration.json").exists()
    assert not list(model.rglob("calibration.json"))

    loaded = load_detector(model)
    assert isinstance(loaded, Ensemble)
    members = {name: load_detector(place / name) for name in ("prior_residual", "intensity")}
    same = Ensemble.of(members, open_cohort(place / "scale"), how="max")
    assert loaded.trained_on == same.trained_on

    line = failing(["calibrate", str(model), str(place / "scale")], capsys)
    assert "used for training" in line
    assert run("calibrate", model, place / "others") == 0
    assert run("predict", model, place / "sick", "-o", tmp_path / "out", "--workers", 1) == 0
    (written,) = (tmp_path / "out").rglob("*score*.nii.gz")
    scan = open_cohort(place / "sick")[0]
    np.testing.assert_array_equal(io.read(written).data, loaded.score_map(scan).data)
    people = loaded.trained_on["people"]
    run_told = (tmp_path / "out" / "run.json").read_text(encoding="utf-8")
    assert not [person for person in people if person in run_told]


def test_what_cannot_be_combined_is_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "used for training" in failing(combine(place, tmp_path / "m", healthy="train"), capsys)
    unknown = combine(place, tmp_path / "m", "--how", "median")
    assert "'geometric' or 'voting'" in failing(unknown, capsys)
    assert "overlaps" in failing(combine(place, place / "intensity", "--overwrite"), capsys)
    assert "overlaps" in failing(combine(place, place, "--overwrite"), capsys)
    one = ["combine", str(place / "intensity"), "--healthy", str(place / "scale")]
    assert "two at least" in failing([*one, "-o", str(tmp_path / "m")], capsys)
    assert not (tmp_path / "m").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine", encoding="utf-8")
    assert "no model" in failing(combine(place, tmp_path / "notes"), capsys)


def test_a_finished_ensemble_is_overwritten_only_when_asked(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(place / "prior_residual", model)
    assert "--overwrite" in failing(combine(place, model), capsys)
    assert run(*combine(place, model, "--overwrite")) == 0
    assert load_detector(model).method == "ensemble"
    assert not list(model.rglob("calibration.json"))
    # An interrupted one may be written again without asking.
    (model / "detector.json").unlink()
    (model / "training").mkdir()
    assert run(*combine(place, model)) == 0
    assert not (model / "training").exists()


def test_models_of_one_method_are_numbered(place: Path, tmp_path: Path) -> None:
    models = [place / "prior_residual", place / "prior_residual"]
    assert run("combine", *models, "--healthy", place / "scale", "-o", tmp_path / "m") == 0
    told = files.read_json(tmp_path / "m" / "detector.json")["trained_on"]["members"]
    assert list(told) == ["prior_residual-1", "prior_residual-2"]


def test_an_ensemble_is_fitted_by_a_file_or_flags(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "ensemble.toml"
    config.write_text(
        'how = "geometric"\n[[members]]\nmethod = "zscore"\nsettings = {sign = "bright"}\n'
        '[[members]]\nmethod = "intensity"\n',
        encoding="utf-8",
    )
    fit = ["fit", "ensemble", place / "train", "--preset", "tiny", "--workers", 1]
    flags = ["--members", '{"method": "zscore", "settings": {"sign": "bright"}}']
    flags += ["--members", '{"method": "intensity"}', "--how", "geometric"]
    assert run(*fit, "-o", tmp_path / "a", "--config", config) == 0
    assert run(*fit, "-o", tmp_path / "b", *flags) == 0
    one, other = load_detector(tmp_path / "a"), load_detector(tmp_path / "b")
    assert one.digest() == other.digest()
    assert isinstance(one, Ensemble)
    assert one.members_["zscore"].settings.sign == "bright"  # type: ignore[attr-defined]
    # The settings that were written feed the same fit, which is known to be finished.
    again = ["--config", tmp_path / "a" / "settings.toml", "-o", tmp_path / "a"]
    assert run(*fit, *again) == 0
