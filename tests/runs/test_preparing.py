"""Preparing cohorts: bad scans, killed runs, what is kept, and what comes out of the folder."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from atypia import files, io
from atypia.cli import main
from atypia.cohort import Cohort, Scan, open_cohort
from atypia.errors import CohortError, InputError, OutputError
from atypia.preprocessing import Plan, Prepared, make_plan, prepare
from atypia.runs.preparing import PreparationSettings, open_prepared, prepare_cohort
from atypia.volume import Volume
from tests.phantoms import phantom, phantom_cohort

SETTINGS = PreparationSettings(spacing_mm=8.0, align="none")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS tree of six phantoms, one of them truncated."""
    root = tmp_path_factory.mktemp("bids") / "tree"
    rows = ["participant_id\tage\tsex"]
    for seed in range(6):
        image, brain, _ = phantom(seed)
        anat = root / f"sub-{seed:02d}" / "anat"
        io.write(image, anat / f"sub-{seed:02d}_T2w.nii.gz")
        io.write(brain, anat / f"sub-{seed:02d}_desc-brain_mask.nii.gz")
        rows.append(f"sub-{seed:02d}\t{20 + seed}\tf")
    torn = root / "sub-03" / "anat" / "sub-03_T2w.nii.gz"
    torn.write_bytes(torn.read_bytes()[:3000])
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    files.write_json(root / "dataset_description.json", {"Name": "phantoms", "BIDSVersion": "1.10"})
    return root


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of all images that a plan is applied to."""
    applied: list[str] = []
    apply = Plan.apply

    def counting(self: Plan, image: Volume, brain: Volume | None = None) -> Prepared:
        applied.append(Path(image.source).name.split("_")[0])
        return apply(self, image, brain)

    monkeypatch.setattr(Plan, "apply", counting)
    return applied


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_a_bad_scan_is_listed_and_the_others_are_prepared(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = prepare_cohort(open_cohort(tree), out, SETTINGS)
    assert (report.done, report.kept) == (5, 0)
    assert [f.scan.id for f in report.failures] == ["sub-03"]
    assert "sub-03_T2w.nii.gz" in str(report.failures[0].error)
    items = files.read_json(out / "prepare.json")["items"]
    assert [item["status"] for item in items] == ["done"] * 3 + ["failed"] + ["done"] * 2
    rows = rows_of(out / "manifest.tsv")
    assert [row["id"] for row in rows] == ["sub-00", "sub-01", "sub-02", "sub-04", "sub-05"]
    for row in rows:
        assert (out / row["prepared"] / "image.npy").exists()
        assert 900 < float(row["brain_ml"]) < 1300
        assert row["overlap"] == ""  # not aligned to the template
    # The plan is the one that the good scans alone would have got.
    good = Cohort(tuple(s for s in open_cohort(tree) if s.id != "sub-03"))
    plan = make_plan(good, spacing_mm=8.0, align="none", modality="T2w")
    assert Plan.make(files.read_json(out / "plan.json")) == plan


def test_what_was_done_before_a_kill_is_not_done_again(
    tree: Path, tmp_path: Path, counted: list[str]
) -> None:
    def killer(task: str, done: int, total: int, note: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    cohort, out = open_cohort(tree), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare_cohort(cohort, out, SETTINGS, progress=killer)
    assert counted == ["sub-00", "sub-01"]
    with pytest.raises(CohortError, match="not prepared to its end"):
        open_prepared(out)
    report = prepare_cohort(cohort, out, SETTINGS)
    assert counted == ["sub-00", "sub-01", "sub-02", "sub-04", "sub-05"]
    assert (report.done, report.kept) == (3, 2)
    again = prepare_cohort(cohort, out, SETTINGS)
    assert (again.done, again.kept, len(again.failures)) == (0, 5, 1)
    assert len(counted) == 5
    # A changed file, and nothing else, is done anew.
    copy = Path(shutil.copytree(tree, tmp_path / "tree"))
    report = prepare_cohort(open_cohort(copy), out, SETTINGS, plan=open_prepared(out).plan)
    assert (report.done, report.kept) == (5, 0)


def test_killed_by_the_system(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    where = [str(tree), "-o", str(out), "--workers", "1"]
    words = [sys.executable, "-m", "atypia", "prepare", *where, "--spacing-mm", "6"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if len(list(out.glob("scans/*/quality.json"))) >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("scans/*/*.json")}
    assert 4 <= len(stamps) < 10
    assert main.run(["prepare", *where, "--spacing-mm", "6"]) == 1
    assert len(list(out.glob("scans/[!.]*/quality.json"))) == 5
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    overlaps = [float(row["overlap"]) for row in rows_of(out / "manifest.tsv")]
    assert min(overlaps) > 0.8


def test_the_folder_is_opened_without_reading_and_serves_as_cache(
    tree: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = tmp_path / "out"
    prepare_cohort(open_cohort(tree), out, SETTINGS)
    opened = open_prepared(out)
    assert len(opened) == 5
    assert isinstance(opened[0].image.data, np.memmap)
    assert [scan.age for scan in opened.cohort] == [20, 21, 22, 24, 25]
    direct = opened.plan.apply(opened.cohort[1].image(), opened.cohort[1].brain())
    np.testing.assert_array_equal(opened[1:2][0].image.data, direct.image.data)
    counted.clear()
    # The manifest is a cohort whose scans are found in the cache.
    for scan in open_cohort(out):
        prepare(scan, opened.plan, "T2w", out / "scans")
    assert counted == []
    words = ["fit", "zscore", str(out), "-o", str(tmp_path / "m"), "--cache", str(out / "scans")]
    assert main.run([*words, "--spacing-mm", "8", "--align", "none", "--workers", "1"]) == 0
    assert counted == []


def test_a_models_plan_is_used(tree: Path, tmp_path: Path) -> None:
    plan = make_plan(open_cohort(tree), spacing_mm=9.0, modality="T2w")
    files.write_json(tmp_path / "plan.json", plan.to_json())
    few = ["--where", "subject=sub-01", "--plan", str(tmp_path / "plan.json")]
    assert main.run(["prepare", str(tree), "-o", str(tmp_path / "out"), *few]) == 0
    assert open_prepared(tmp_path / "out").plan == plan


def test_damage_is_named(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_cohort(open_cohort(tree), out, SETTINGS)
    opened = open_prepared(out)
    image = opened.folders[0] / "image.npy"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(InputError, match="is a damaged prepared scan"):
        opened[0]


def test_what_cannot_be_prepared_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="is not a file"):
        prepare_cohort(phantom_cohort(range(2)), tmp_path / "out", SETTINGS)
    torn = Cohort((Scan("t", {"T2w": tree / "sub-03/anat/sub-03_T2w.nii.gz"}),), "torn")
    with pytest.raises(CohortError, match="no scan that can be prepared .*truncated"):
        prepare_cohort(torn, tmp_path / "out", SETTINGS)
    # With a plan that looks at no scan, the page tells it.
    aligned = prepare_cohort(torn, tmp_path / "aligned", SETTINGS.but(align="affine"))
    assert len(aligned.failures) == 1
    with pytest.raises(CohortError, match="holds no prepared scan"):
        open_prepared(tmp_path / "aligned")
    for name in ("detector.json", "run.json"):
        files.write_json(tmp_path / name[:3] / name, {})
        with pytest.raises(OutputError, match=r"is a .* folder"):
            prepare_cohort(torn, tmp_path / name[:3], SETTINGS)
    with pytest.raises(InputError, match="no such file"):
        open_prepared(tmp_path / "nowhere")
