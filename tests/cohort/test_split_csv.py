"""CSV files of splits: paths with and without `Data`, other modalities, folds that overlap."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia.cohort import Cohort, open_cohort, require_disjoint
from atypia.errors import CohortError, LeakageError

HEADER = ",img_name,age,label,img_path,mask_path,seg_path\n"
IXI = "/Train/ixi/{}/IXI002-Guys-0828_{}.nii.gz"
TUMOUR = "/Test/Brats21/{}/BraTS2021_00007_{}.nii.gz"
T1 = "t1/t1.nii.gz"


def row(place: str, name: str, age: str, label: int, seg: bool, prefix: str = "") -> str:
    paths = [prefix + place.format(kind, kind) for kind in ("t1", "mask", "seg")]
    return f"0,{name},{age},{label},{paths[0]},{paths[1]},{paths[2] if seg else ''}\n"


def grow(root: Path, prefix: str = "") -> None:
    """Make a tree with a T1w and a T2w of IXI and only the T2w of a tumour."""
    splits = root / "splits"
    splits.mkdir(parents=True)
    healthy = row(IXI, "IXI002-Guys-0828_t1.nii.gz", "35.8", 0, False, prefix)
    (splits / "IXI_train_fold0.csv").write_text(HEADER + healthy)
    (splits / "IXI_test.csv").write_text(HEADER + healthy)
    ill = row(TUMOUR, "BraTS2021_00007", "", 1, True, prefix)
    (splits / "Brats21_test.csv").write_text(HEADER + ill)
    (splits / "avail_t2.csv").write_text(",0\n0,IXI002-Guys-0828_t2.nii.gz\n")
    for place, kind in ((IXI, "t1"), (IXI, "t2"), (TUMOUR, "t2"), (IXI, "mask"), (TUMOUR, "seg")):
        path = root / place.format(kind, kind).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("prefix", ["", "/Data"])
@pytest.mark.parametrize("opened", ["", "Data", "Data/splits"])
def test_a_data_dir(tmp_path: Path, opened: str, prefix: str) -> None:
    # A `t1` in the names of folders above must stay as it is.
    top = tmp_path / "t1_of_t1"
    data = top / "Data" if opened else top
    grow(data, prefix)
    cohort = open_cohort(top / opened)
    assert [(s.subject, s.split, sorted(s.images)) for s in cohort] == [
        ("BraTS2021_00007", "Brats21_test", ["T2w"]),
        ("IXI002-Guys-0828", "IXI_test", ["T1w", "T2w"]),
        ("IXI002-Guys-0828", "IXI_train_fold0", ["T1w", "T2w"]),
    ]
    ill, well, again = cohort
    assert ill.images["T2w"] == data / TUMOUR.format("t2", "t2").lstrip("/")
    assert ill.lesion_mask == data / TUMOUR.format("seg", "seg").lstrip("/")
    assert (ill.condition, ill.age, ill.dataset) == ("lesion", None, "Brats21")
    assert well.images["T1w"] == data / IXI.format("t1", "t1").lstrip("/")
    assert well.brain_mask == data / IXI.format("mask", "mask").lstrip("/")
    assert (well.condition, well.age, well.lesion_mask) == ("healthy", 35.8, None)
    assert [s.split for s in open_cohort(top / opened, modality="T1w")] == [
        "IXI_test",
        "IXI_train_fold0",
    ]
    with pytest.raises(LeakageError):
        require_disjoint(Cohort((well,)), [again.person], "test", "training")


def test_one_table(tmp_path: Path) -> None:
    grow(tmp_path)
    (scan,) = open_cohort(tmp_path / "splits" / "IXI_test.csv", modality="t2")
    assert list(scan.images) == ["T2w"]
    assert scan.id == "IXI002-Guys-0828_IXI_test"


def test_files_that_are_not_there_are_named_when_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    table = tmp_path / "splits" / "x.csv"
    table.write_text(HEADER + row(IXI, "IXI002-Guys-0828_t1.nii.gz", "", 0, False))
    (scan,) = open_cohort(table)
    assert scan.images == {"T1w": tmp_path / IXI.format("t1", "t1").lstrip("/")}


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("img_name,img_path\na,a.nii.gz\n")
    with pytest.raises(CohortError, match=r"x\.csv, line 2: img_path is no"):
        open_cohort(table)
    table.write_text("a,b\n")
    with pytest.raises(CohortError, match=r"x\.csv: has no table with columns img_name and img_pa"):
        open_cohort(table, layout="split_csv")


def test_a_scan_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    grow(tmp_path)
    table = tmp_path / "splits" / "IXI_test.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    assert len(open_cohort(table)) == 1
