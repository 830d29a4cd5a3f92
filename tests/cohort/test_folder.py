"""Plain folders: subjects, modalities and masks by their endings."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia.cohort.folder import read_folder
from atypia.errors import CohortError
from tests.cohort.conftest import Place


def test_every_image_is_a_scan(tmp_path: Path, place: Place) -> None:
    place("a.nii.gz")
    place("b.npy")
    place("deeper/c.nii.gz")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._a.nii.gz").touch()
    cohort = read_folder(tmp_path)
    assert [(s.subject, list(s.images)) for s in cohort] == [("a", ["image"]), ("b", ["image"])]
    assert {s.dataset for s in cohort} == {tmp_path.name}
    assert [list(s.images) for s in read_folder(tmp_path, "T2w")] == [["T2w"], ["T2w"]]


def test_a_modality_in_the_name_is_no_part_of_the_subject(tmp_path: Path, place: Place) -> None:
    paths = {name: place(f"BraTS_001_{name}.nii.gz") for name in ("t1", "t1ce", "t2", "flair")}
    seg = place("BraTS_001_seg.nii.gz")
    (scan,) = read_folder(tmp_path)
    assert scan.subject == "BraTS_001"
    assert dict(scan.images) == {
        "T1w": paths["t1"],
        "T1c": paths["t1ce"],
        "T2w": paths["t2"],
        "FLAIR": paths["flair"],
    }
    assert (scan.lesion_mask, scan.brain_mask) == (seg, None)
    assert [list(s.images) for s in read_folder(tmp_path, "FLAIR")] == [["FLAIR"]]
    assert not len(read_folder(tmp_path, "CT"))


@pytest.mark.parametrize("ending", ["_lesion_mask", "_lesion", "_seg", "_label", "_ROI", "_mask"])
def test_lesion_masks(tmp_path: Path, place: Place, ending: str) -> None:
    place("a_T1w.nii.gz")
    mask, brain = place(f"a{ending}.nii.gz"), place("a_T1w_brain_mask.nii.gz")
    (scan,) = read_folder(tmp_path)
    assert (scan.lesion_mask, scan.brain_mask) == (mask, brain)


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        ("a.nii", "a.nii.gz", r"a\.nii\.gz: stands beside a twin"),
        ("a_T1w.nii", "a_t1.nii", r"a_t1\.nii: is a second T1w of a"),
    ],
)
def test_twins_are_refused(
    tmp_path: Path, place: Place, one: str, other: str, problem: str
) -> None:
    place(one)
    place(other)
    with pytest.raises(CohortError, match=f"{problem}.*Keep one"):
        read_folder(tmp_path)
