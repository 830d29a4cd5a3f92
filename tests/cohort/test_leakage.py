"""Leakage between files: manifests, published tables, folds, and the same file by another name."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia.cli import main
from atypia.cohort import open_cohort
from atypia.cohort.leakage import Part, overlaps, parts_of

HEADER = ",img_name,age,label,img_path,mask_path,seg_path\n"


def table(path: Path, subjects: list[int]) -> Path:
    """Write a table as the published ones are; no image needs to be there."""
    rows = [
        f"{n},IXI{n:03d}-Guys_t1.nii.gz,30,0,/Train/ixi/t1/IXI{n:03d}-Guys_t1.nii.gz,,\n"
        for n in subjects
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(rows))
    return path


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Tables with the defects of the published ones: folds that share people with the test set."""
    folder = tmp_path / "Data" / "splits"
    table(folder / "IXI_train_fold0.csv", [1, 2, 3, 9])
    table(folder / "IXI_val_fold0.csv", [4, 5])
    table(folder / "IXI_train_fold1.csv", [4, 1, 2])
    table(folder / "IXI_val_fold1.csv", [3, 5, 2])
    table(folder / "IXI_test.csv", [8, 9])
    return folder


def shared(paths: list[Path], **options: bool) -> dict[tuple[str, str], tuple[str, ...]]:
    parts = [part for path in paths for part in parts_of(path, open_cohort(path))]
    return {(o.first, o.second): o.subjects for o in overlaps(parts, **options)}


def test_published_tables(splits: Path) -> None:
    expected = {
        ("IXI_test", "IXI_train_fold0"): ("IXI009-Guys",),  # the test set is of all folds
        ("IXI_train_fold1", "IXI_val_fold1"): ("IXI002-Guys",),
        ("IXI_val_fold0", "IXI_val_fold1"): ("IXI005-Guys",),  # no partition
    }
    assert shared([splits.parent]) == expected  # two folds may train on the same people
    assert shared(sorted(splits.glob("*.csv"))) == expected


def test_the_command(splits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, val, test = (str(splits / f"IXI_{n}.csv") for n in ("train_fold0", "val_fold0", "test"))
    assert main.run(["leakage", train, val]) == 0
    assert "2 parts with 6 scans: 0 overlaps" in capsys.readouterr().out
    assert main.run(["leakage", train, val, test]) == 1
    assert "IXI_train_fold0 and IXI_test share 1 subject\n" in capsys.readouterr().out
    assert main.run(["leakage", train, test, "--names"]) == 1
    assert "share 1 subject: IXI009-Guys" in capsys.readouterr().out


def manifest(path: Path, rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("subject\tdataset\tsplit\tT1w\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_parts_of_one_manifest(tmp_path: Path) -> None:
    rows = ["p1\td\ttrain\ta.nii", "p2\td\ttrain\tb.nii", "p3\td\ttest\tc.nii"]
    assert shared([manifest(tmp_path / "m.tsv", rows)]) == {}
    rows[2] = "p2\td\ttest\tc.nii"
    with pytest.raises(Exception, match="several scans named p2"):
        shared([manifest(tmp_path / "m.tsv", rows)])
    others = manifest(tmp_path / "n.tsv", ["p2\td\ttest\tc.nii"])
    assert shared([manifest(tmp_path / "m.tsv", rows[:2]), others]) == {
        ("m/train", "n/test"): ("p2",)
    }


def test_the_same_file_is_the_same_person(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")
    one = manifest(tmp_path / "one.tsv", ["p1\td\t\ta.nii"])
    assert shared([one, manifest(tmp_path / "two.tsv", ["x7\te\t\tlink.nii"])]) == {
        ("one", "two"): ("p1",)
    }


def test_other_data_sets_may_use_the_same_pseudonym(tmp_path: Path) -> None:
    paths = [manifest(tmp_path / f"{d}.tsv", [f"p1\t{d}\t\t{d}.nii"]) for d in ("d", "e")]
    assert shared(paths) == {}
    assert shared(paths, any_dataset=True) == {("d", "e"): ("p1",)}


def test_folds_that_were_made_here_do_not_leak(tmp_path: Path) -> None:
    cohort = manifest(tmp_path / "all.tsv", [f"p{n}\td\t\t{n}.nii" for n in range(9)])
    words = ["split", str(cohort), "-o", str(tmp_path / "cv.tsv"), "--folds", "3"]
    assert main.run(words) == 0
    made = sorted(tmp_path.glob("cv_fold*.tsv"))
    assert len(made) == 3
    assert shared(made) == {}
    tested = [s.subject for path in made for s in open_cohort(path).where(split="test")]
    assert sorted(tested) == [f"p{n}" for n in range(9)]


def test_the_role_is_told_by_the_part() -> None:
    assert Part("training_fold3/test", ()).is_held_out
    assert Part("training_fold3/test", ()).fold == "3"
    assert not Part("x/calibration", ()).is_held_out
