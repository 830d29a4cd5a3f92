"""Bad input on the command line: one line that names it and the remedy, exit code 2, no traces."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from atypia import io
from atypia.cli import main
from tests.phantoms import phantom


def write_phantoms(folder: Path, seeds: range, lesion: bool = False) -> Path:
    for seed in seeds:
        image, brain, mask = phantom(seed, lesion=lesion)
        io.write(image, folder / f"p{seed:03d}_T2w.nii.gz")
        io.write(brain, folder / f"p{seed:03d}_brain_mask.nii.gz")
        if lesion:
            io.write(mask, folder / f"p{seed:03d}_lesion_mask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with healthy and sick phantoms, and a small fitted, calibrated model."""
    root = tmp_path_factory.mktemp("place")
    write_phantoms(root / "healthy", range(4))
    write_phantoms(root / "others", range(50, 53))
    write_phantoms(root / "sick", range(100, 102), lesion=True)
    fit = ["fit", "zscore", str(root / "healthy"), "-o", str(root / "model"), "--preset", "tiny"]
    assert main.run([*fit, "--workers", "1"]) == 0
    assert main.run(["calibrate", str(root / "model"), str(root / "others")]) == 0
    return root


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail; give its one line."""
    with pytest.raises(SystemExit) as stop:
        main.main(arguments)
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line]
    assert len(lines) == 1, shown
    assert "Traceback" not in shown
    assert lines[0].startswith("atypia: ")
    return lines[0]


def scan(folder: Path, name: str, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path = folder / name
    image = nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine)
    if affine is not None:
        image.header.set_sform(affine, 1)
    nibabel.save(image, path)
    return path


def bad_scan(kind: str, folder: Path) -> Path:
    good = phantom(0)[0]
    if kind == "missing":
        return folder / "missing.nii.gz"
    if kind == "truncated":
        path = folder / "truncated.nii.gz"
        io.write(good, path)
        path.write_bytes(path.read_bytes()[:3000])
        return path
    if kind == "no gzip":
        path = folder / "text.nii.gz"
        path.write_text("this is no image")
        return path
    if kind == "gzip of text":
        path = folder / "zipped.nii.gz"
        path.write_bytes(gzip.compress(b"this is no image"))
        return path
    if kind == "4D":
        return scan(folder, "four.nii.gz", np.ones((4, 4, 4, 3), np.float32))
    if kind == "nan":
        data = good.data.copy()
        data[2, 2, 2] = np.nan
        return scan(folder, "nan.nii.gz", data)
    if kind == "all zero":
        return scan(folder, "zero.nii.gz", np.zeros((8, 8, 8), np.float32))
    if kind == "skull":
        rng = np.random.default_rng(0)
        return scan(
            folder, "head.nii.gz", rng.random((40, 40, 40), np.float32), np.diag([6, 6, 6, 1])
        )
    raise AssertionError(kind)


EXPECTED = {
    "missing": ("missing.nii.gz", "no such file"),
    "truncated": ("truncated.nii.gz", "damaged, truncated"),
    "no gzip": ("text.nii.gz", "damaged, truncated"),
    "gzip of text": ("zipped.nii.gz", "damaged, truncated"),
    "4D": ("four.nii.gz", "4D with 3 volumes"),
    "nan": ("nan.nii.gz", "NaN"),
    "all zero": ("zero.nii.gz", "brain is empty"),
    "skull": ("head.nii.gz", "skull"),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_bad_training_scan(
    kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bad_scan(kind, tmp_path)
    manifest = tmp_path / "manifest.csv"
    good = place / "healthy" / "p000_T2w.nii.gz"
    manifest.write_text(f"subject,T2w\na,{good}\nb,{path}\n")
    model = tmp_path / "model"
    words = ["fit", "zscore", str(manifest), "-o", str(model), "--preset", "tiny", "--workers", "1"]
    line = failing(words, capsys)
    for part in EXPECTED[kind]:
        assert part in line
    assert not (model / "detector.json").exists()


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_bad_scan_among_good_ones_is_listed_and_passed(
    kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bad_scan(kind, tmp_path)
    manifest = tmp_path / "manifest.csv"
    good = place / "healthy" / "p001_T2w.nii.gz"
    manifest.write_text(f"subject,T2w\nbad,{path}\ngood,{good}\n")
    words = ["predict", str(place / "model"), str(manifest), "-o", str(tmp_path / "out")]
    assert main.run(words) == 1
    shown = capsys.readouterr().err
    assert "1 of 2 scans failed" in shown
    for part in EXPECTED[kind]:
        assert part in shown
    assert (tmp_path / "out" / "scans" / "good" / "mask.nii.gz").exists()
    assert not (tmp_path / "out" / "scans" / "bad").exists()


def test_a_mask_of_another_shape(place: Path, tmp_path: Path, capsys) -> None:
    image, brain, _ = phantom(0)
    io.write(image, tmp_path / "a_T2w.nii.gz")
    cut = brain.data[:-3]
    scan(tmp_path, "a_brain_mask.nii.gz", cut.astype(np.uint8), np.array(brain.affine))
    assert (
        main.run(["predict", str(place / "model"), str(tmp_path), "-o", str(tmp_path / "o")]) == 1
    )
    shown = capsys.readouterr().err
    assert "a_brain_mask.nii.gz" in shown
    assert "differs from" in shown


def test_a_singular_affine(place: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "flat.nii.gz"
    image = nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = [0, 0, 1, 0]
    nibabel.save(image, path)
    assert main.run(["predict", str(place / "model"), str(path), "-o", str(tmp_path / "o")]) == 1
    shown = capsys.readouterr().err
    assert "flat.nii.gz" in shown
    assert "singular affine" in shown


def test_a_lesion_in_the_healthy_cohort(place: Path, tmp_path: Path, capsys) -> None:
    words = ["fit", "zscore", str(place / "sick"), "-o", str(tmp_path / "m"), "--preset", "tiny"]
    line = failing(words, capsys)
    assert "p100" in line
    assert "needs healthy scans" in line
    assert not (tmp_path / "m" / "detector.json").exists()
    line = failing(["calibrate", str(place / "model"), str(place / "sick")], capsys)
    assert "needs healthy scans" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "zscor", "COHORT", "-o", "x"], "zscore"),
        (["fit", "zscore", "COHORT", "-o", "x", "--florr", "1"], "--floor"),
        (["fit", "zscore", "COHORT", "-o", "x", "--floor", "-1"], "greater than or equal to 0"),
        (["fit", "zscore", "COHORT", "-o", "x", "--preset", "tinny"], "tiny"),
        (["fit", "zscore", "nowhere", "-o", "x"], "no such file or folder"),
        (["fit", "zscore", "COHORT", "-o", "x", "--layout", "bidz"], "bids"),
        (["fit", "zscore", "COHORT", "-o", "x", "--where", "sex"], "KEY=VALUE"),
        (["fit", "zscore", "COHORT", "-o", "x", "--where", "condition=none"], "has no scan"),
        (["predikt"], "predict"),
        (["predict", "nowhere", "COHORT", "-o", "x"], "is no model folder"),
        (["predict", "COHORT", "COHORT", "-o", "x"], "detector.json"),
        (["calibrate", "MODEL", "COHORT"], "used for training"),
        (["evaluate", "COHORT", "COHORT"], "neither a model nor results"),
        (["report", "COHORT"], "run.json"),
        (["simulate", "x", "--lesion", "tumor"], "tumour"),
        (["simulate", "x", "--artefact", "rings"], "ring"),
        (["simulate", "x", "--n", "0"], "n >= 1"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_a_wrong_word(
    words: list[str], expected: str, place: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"COHORT": str(place / "healthy"), "MODEL": str(place / "model")}
    line = failing([places.get(word, word) for word in words], capsys)
    assert expected in line
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_an_unwritable_output(place: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    healthy, model = str(place / "healthy"), str(place / "model")
    words = ["fit", "zscore", healthy, "--preset", "tiny", "--workers", "1", "-o"]
    assert "file" in failing([*words, str(file)], capsys)
    assert "cannot be written" in failing([*words, str(file / "below")], capsys)
    assert "is a file" in failing(["predict", model, healthy, "-o", str(file)], capsys)
    assert "is a file" in failing(["simulate", str(file), "--n", "1"], capsys)
    assert file.read_text() == "in the way"


def test_a_folder_of_something_else_is_not_taken_for_a_model(place: Path, tmp_path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    words = ["fit", "zscore", str(place / "healthy"), "-o", str(tmp_path), "--preset", "tiny"]
    assert "holds files that are no model" in failing(words, capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("name", "spoil", "expected"),
    [
        ("weights.safetensors", lambda raw: raw[:-8] + b"\1" * 8, "damaged"),
        ("weights.safetensors", lambda raw: raw[: len(raw) // 2], "damaged"),
        (
            "detector.json",
            lambda raw: raw.replace(b'"format": 1', b'"format": 99'),
            "another version",
        ),
        ("detector.json", lambda raw: raw[: len(raw) // 2], "damaged"),
        ("plan.json", lambda raw: raw.replace(b"find_brain", b"lose_brain"), "does not fit"),
        ("calibration.json", lambda raw: raw[: len(raw) // 2], "calibration.json"),
    ],
)
def test_a_spoilt_model(name, spoil, expected, place: Path, tmp_path: Path, capsys) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    raw = (model / name).read_bytes()
    assert spoil(raw) != raw
    (model / name).write_bytes(spoil(raw))
    words = ["predict", str(model), str(place / "healthy"), "-o", str(tmp_path / "out")]
    line = failing(words, capsys)
    assert expected in line
    assert str(model) in line
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback() -> None:
    from atypia.errors import ModelError

    with pytest.raises(ModelError):
        main.main(["predict", "nowhere", "nowhere", "-o", "x", "--debug"])
