"""The commands end to end on phantoms and small simulated brains."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from atypia import io
from atypia.cli import main
from atypia.errors import SettingsError
from tests.cli.test_errors import write_phantoms


def run(*words: object) -> int:
    return main.run([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commands")
    write_phantoms(root / "healthy", range(5))
    write_phantoms(root / "others", range(50, 54))
    write_phantoms(root / "sick", range(100, 102), lesion=True)
    tiny = ["--preset", "tiny", "--training.steps", "12", "--training.validate-every", "6"]
    assert run("fit", "itermask3d", root / "healthy", "-o", root / "m", "--workers", 1, *tiny) == 0
    assert run("calibrate", root / "m", root / "others", "--voxel-fpr", 0.02) == 0
    assert run("predict", root / "m", root / "sick", "-o", root / "out", "--workers", 1) == 0
    assert run("evaluate", root / "out", root / "sick") == 0
    assert run("report", root / "out") == 0
    return root


def test_flags_override_the_preset_and_are_saved(place: Path) -> None:
    saved = tomllib.loads((place / "m" / "settings.toml").read_text())
    assert saved["training"]["steps"] == 12  # the flag
    assert saved["spacing_mm"] == 6.0  # the preset
    assert saved["stop_ratio"] == 0.01  # the default
    log = (place / "m" / "training.jsonl").read_text().splitlines()
    assert len(log) == 12
    assert "validation" in json.loads(log[-1])


def test_saved_settings_can_be_fed_back_and_flags_win(place: Path, tmp_path: Path) -> None:
    config = place / "m" / "settings.toml"
    words = ["fit", "mask_refinement", place / "healthy", "-o", tmp_path / "m", "--workers", 1]
    assert run(*words, "--config", config, "--training.steps", 3) == 0
    before = tomllib.loads(config.read_text())
    after = tomllib.loads((tmp_path / "m" / "settings.toml").read_text())
    assert after["training"].pop("steps") == 3
    before["training"].pop("steps")
    assert after == before


def test_a_config_with_an_unknown_key_is_refused(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "c.toml").write_text("stop_ration = 0.1\n")
    with pytest.raises(SystemExit) as stop:
        words = ["fit", "mask_refinement", str(place / "healthy"), "-o", str(tmp_path / "m")]
        main.main([*words, "--config", str(tmp_path / "c.toml")])
    assert stop.value.code == 2
    assert "stop_ration" in capsys.readouterr().err


def test_outputs_lie_on_the_grid_of_the_scan(place: Path) -> None:
    scan = io.read(place / "sick" / "p100_T2w.nii.gz")
    folder = place / "out" / "scans" / "p100"
    for name in ("score_map", "mask", "own_mask", "restoration", "brain_mask"):
        assert io.read(folder / f"{name}.nii.gz").geometry.matches(scan.geometry)
    told = json.loads((folder / "scan.json").read_text())
    assert told["threshold"]["provenance"] == "healthy n=4, voxel FPR 2.00%"
    assert told["details"]["threshold_curve"]["percent"][-1] == 100
    assert np.isclose(told["mask_ml"], sum(x["size_mm3"] for x in told["lesions"]) / 1000)


def test_evaluation_has_all_baselines_and_their_provenance(place: Path) -> None:
    found = json.loads((place / "out" / "evaluation.json").read_text())
    methods = {row["method"] for row in found["lesions"]}
    assert methods == {"mask_refinement", "intensity *", "zscore *", "prior_residual *"}
    assert all("healthy n=4" in row["provenance"] for row in found["lesions"])


def test_evaluating_the_model_prints_the_table(place: Path, capsys) -> None:
    assert run("evaluate", place / "m", place / "sick") == 0
    shown = capsys.readouterr().out
    assert "oracle Dice" in shown
    assert "zscore *" in shown


def test_the_report_is_one_offline_page(place: Path) -> None:
    page = (place / "out" / "report.html").read_text()
    assert "p100" in page
    assert "healthy n=4" in page
    for outside in ('src="http', "src='http", 'href="http', "url(http", '<link rel="stylesheet"'):
        assert outside not in page


def test_simulate_split_and_reopen(tmp_path: Path, capsys) -> None:
    words = ["simulate", tmp_path / "sim", "--n", 2, "--spacing-mm", 6, "--workers", 1]
    assert run(*words, "--modality", "FLAIR", "--lesion", "stroke", "--seed", 7) == 0
    image = tmp_path / "sim" / "sim-00007_stroke"
    made = sorted(p.name for p in next((tmp_path / "sim").glob("sim-00007*")).iterdir())
    assert made == ["FLAIR.nii.gz", "brain_mask.nii.gz", "lesion_mask.nii.gz"], image
    parts = ["--parts", "train=0.5", "--parts", "calibration=0.5"]
    assert run("split", tmp_path / "sim", "-o", tmp_path / "split.tsv", *parts) == 0
    from atypia.cohort import open_cohort

    cohort = open_cohort(tmp_path / "split.tsv")
    assert sorted(scan.split for scan in cohort) == ["calibration", "train"]
    lesion = cohort[0].lesion()
    assert lesion is not None
    assert lesion.data.any()


def test_methods_and_doctor_tell(capsys) -> None:
    assert run("methods") == 0
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    for expected in ("mask_refinement", "itermask3d", "torch", "cpu:", "Template MNI152:"):
        assert expected in shown


def test_help_is_quick_and_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from atypia.cli import main\n"
        "for words in (['--help'], ['fit', '--help'], ['published', '--help'], ['methods']):\n"
        "    main.run(words)\n"
        "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "mask_refinement" in done.stdout


def test_tiny_demo_runs_to_the_page(tmp_path: Path, capsys) -> None:
    assert run("demo", tmp_path / "demo", "--tiny", "--workers", 1) == 0
    shown = capsys.readouterr().out
    for expected in ("tumour", "ghosting", "zscore *", "oracle", "report.html"):
        assert expected in shown
    assert (tmp_path / "demo" / "results" / "report.html").stat().st_size > 50_000


def test_a_real_scan_comes_back_on_its_own_grid(real_data: Path, tmp_path: Path) -> None:
    """Train a baseline on a few real scans; the full-resolution raw scan gets its own grid back."""
    subjects = sorted((real_data / "ds002748").glob("sub-5*/anat/*_T1w.nii.gz"))[2:5]
    rows = [f"{p.name.split('_')[0]}\t{p.resolve()}" for p in subjects]
    (tmp_path / "few.tsv").write_text("subject\tT1w\n" + "\n".join(rows) + "\n")
    words = ["fit", "zscore", tmp_path / "few.tsv", "-o", tmp_path / "m", "--workers", 1]
    assert run(*words, "--spacing-mm", 6) == 0
    scan = real_data / "raw" / "ds002748" / "sub-01_T1w.nii.gz"
    assert run("predict", tmp_path / "m", scan, "-o", tmp_path / "out") == 0
    import nibabel

    raw = nibabel.load(scan)
    back = nibabel.load(tmp_path / "out" / "scans" / "sub-01_T1w" / "score_map.nii.gz")
    assert back.shape == raw.shape
    np.testing.assert_allclose(back.affine, raw.affine, atol=1e-4)
    assert back.get_fdata().max() > 0


def test_evaluation_on_artefacts_and_on_a_second_cohort(place: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "clean", range(70, 74))
    words = ["evaluate", place / "m", tmp_path / "clean"]
    out = tmp_path / "artefacts"
    assert run(*words, "--artefact", "spike", "--artefact", "folding", "-o", out) == 0
    found = json.loads((out / "evaluation.json").read_text())
    rows = [r for r in found["detection"] if r["method"] == "mask_refinement"]
    assert {row["condition"] for row in rows} == {"spike", "folding"}
    names = {"top_mean", "mean", "mean_error", "fine_error", "deviation"}
    names |= {"final_mask_share", "final_mask_ml"}
    assert {row["score_name"] for row in rows} == names
    for row in rows:
        assert 0 <= row["auroc"]["mean"] <= 1
        assert row["fpr90"] >= row["fpr80"]
        assert row["fnr90"] >= row["fnr80"]
    out = tmp_path / "second"
    assert run(*words, "--positives", place / "sick", "-o", out) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert [row["healthy"] for row in found["subjects"]] == [4] * len(found["subjects"])
    masks = {row["mask"] for row in found["masks"] if row["method"] == "mask_refinement"}
    assert masks == {"own", "calibrated", "oracle"}


def test_artefacts_need_a_model(place: Path) -> None:
    with pytest.raises(SettingsError, match="need a model"):
        run("evaluate", place / "out", place / "sick", "--artefact", "spike")
