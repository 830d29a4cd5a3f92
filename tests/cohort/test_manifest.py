"""Manifests: round trips with relative paths, and tables that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atypia import io
from atypia.cohort import Cohort, Scan
from atypia.cohort.manifest import read_manifest, write_manifest
from atypia.cohort.scan import METADATA, Labels
from atypia.errors import CohortError, OutputError
from atypia.volume import Volume
from tests.cohort.conftest import Place


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["manifest.tsv", "list.csv"])
def test_a_cohort_comes_back_whole(tmp_path: Path, name: str) -> None:
    inside, outside = tmp_path / "data", tmp_path / "elsewhere"
    cohort = Cohort(
        (
            Scan(
                "a, the first",
                {"T1w": inside / "a b.nii.gz", "FLAIR": inside / "f" / "a.nii"},
                dataset="clinic\t1",
                session="ses-1",
                run="run-2",
                brain_mask=inside / "m.nii.gz",
                lesion_mask=outside / "l.nii.gz",
                condition='a "quoted" one',
                split="train",
                site="Zürich",
                age=30.5,
                sex="f",
            ),
            Scan("b", {"T1w": inside / "b.npz"}, dataset="clinic"),
        )
    )
    write_manifest(cohort, inside / name)
    again = read_manifest(inside / name)
    assert len(again) == 2
    for one, other in zip(cohort, again, strict=True):
        assert [getattr(one, f) for f in METADATA] == [getattr(other, f) for f in METADATA]
        assert dict(one.images) == dict(other.images)
        assert (one.brain_mask, one.lesion_mask) == (other.brain_mask, other.lesion_mask)
        assert one.person == other.person
    text = (inside / name).read_text(encoding="utf-8")
    assert str(outside / "l.nii.gz") in text
    assert str(inside) not in text


text_cells = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), max_size=8
)


@given(
    subject=text_cells.filter(bool),
    site=text_cells,
    condition=text_cells,
    age=st.none() | st.floats(0, 120),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(
    subject: str, site: str, condition: str, age: float | None, suffix: str, tmp_path: Path
) -> None:
    scan = Scan(
        subject,
        {"T1w": tmp_path / "x.nii"},
        dataset="d",
        site=site,
        condition=condition,
        age=age,
    )
    write_manifest(Cohort((scan,)), tmp_path / f"m{suffix}")
    (again,) = read_manifest(tmp_path / f"m{suffix}")
    assert [getattr(scan, f) for f in METADATA] == [getattr(again, f) for f in METADATA]


def test_a_moved_folder_still_works(tmp_path: Path, place: Place) -> None:
    image = place("old/images/a.nii.gz", 7)
    write_manifest(Cohort((Scan("a", {"T1w": image}),)), tmp_path / "old" / "manifest.tsv")
    (tmp_path / "old").rename(tmp_path / "new")
    (scan,) = read_manifest(tmp_path / "new")
    assert (scan.image().data == 7).all()


def test_columns_in_any_spelling_and_others_ignored(tmp_path: Path) -> None:
    path = table(
        tmp_path / "m.csv", "\ufeffSubject,Age, T1 ,flair,note", "a,n/a,a.nii,,x", "b,41,,b.nii,y"
    )
    first, second = read_manifest(path)
    assert (first.subject, first.age, dict(first.images)) == (
        "a",
        None,
        {"T1w": tmp_path / "a.nii"},
    )
    assert (second.age, dict(second.images)) == (41.0, {"FLAIR": tmp_path / "b.nii"})
    assert first.dataset == tmp_path.name
    assert [s.subject for s in read_manifest(path, "FLAIR")] == ["b"]


@pytest.mark.parametrize("age", ["", "n/a", "N/A", "NA", "nan", "None"])
def test_ages_that_are_not_known(tmp_path: Path, age: str) -> None:
    path = table(tmp_path / "m.csv", "subject,age,T1w", f"a,{age},a.nii")
    assert read_manifest(path)[0].age is None


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["name,T1w", "a,a.nii"], r"m\.csv: has no column 'subject'.*pseudonym"),
        (["subject,age", "a,3"], r"m\.csv: has no image column.*T1w"),
        ([""], "has no column 'subject'"),
        (["subject,T1w", "a,a.nii", ",b.nii"], r"m\.csv, line 3: has no subject"),
        (["subject,age,T1w", "a,old,a.nii"], r"m\.csv, line 2: age 'old'.*Give years"),
        (["subject,age,T1w", "a,-3,a.nii"], "line 2: age '-3'"),
        (["subject,age,T1w", "a,inf,a.nii"], "line 2: age 'inf'"),
        (["subject,T1w", "a,a.dcm"], r"line 2: a\.dcm is no image file"),
        (["subject,T1w,brain_mask", "a,a.nii,m.txt"], r"line 2: m\.txt is no image file"),
        (["subject,T1w,t1", "a,a.nii,"], "two columns for T1w"),
        (["subject,T1w", "a,a.nii", "a,b.nii"], "several scans named a"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, rows: list[str], problem: str) -> None:
    with pytest.raises(CohortError, match=problem):
        read_manifest(table(tmp_path / "m.csv", *rows))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"subject,T1w\n\xff\xfe,a.nii\n")
    with pytest.raises(CohortError, match=r"m\.csv: cannot be read.*UTF-8"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(CohortError, match=r"manifest\.tsv: cannot be read"):
        read_manifest(tmp_path)


def test_scans_in_memory_cannot_be_listed(tmp_path: Path) -> None:
    scan = Scan("a", {"T1w": Volume(np.zeros((2, 2, 2)))})
    with pytest.raises(CohortError, match="scan a: is not a file. Write its images first"):
        write_manifest(Cohort((scan,)), tmp_path / "m.tsv")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"m\.tsv: cannot be written"):
        write_manifest(Cohort(()), tmp_path / "file" / "m.tsv")


def test_a_column_of_images_is_of_the_modality_that_is_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path / "m.csv", "subject,image,T1w", "a,a.nii,", "b,b.nii,t.nii", "c,,c.nii")
    assert [list(s.images) for s in read_manifest(path)] == [["image"], ["image", "T1w"], ["T1w"]]
    flair = read_manifest(path, "FLAIR")
    assert [(s.subject, s.images["FLAIR"]) for s in flair] == [
        ("a", tmp_path / "a.nii"),
        ("b", tmp_path / "b.nii"),
    ]
    t1 = read_manifest(path, "T1w")
    assert [s.images["T1w"].name for s in t1] == ["a.nii", "t.nii", "c.nii"]  # type: ignore[union-attr]


def test_labels_of_a_lesion_mask_come_back(tmp_path: Path) -> None:
    mask = tmp_path / "m.nii"
    io.write(Volume(np.arange(8, dtype=np.uint8).reshape(2, 2, 2)), mask)
    scans = (
        Scan("a", {"T1w": tmp_path / "a.nii"}, "d", lesion_mask=Labels(mask, (1, 3))),
        Scan("b", {"T1w": tmp_path / "b.nii"}, "d", lesion_mask=mask),
    )
    write_manifest(Cohort(scans), tmp_path / "list.tsv")
    first, second = read_manifest(tmp_path / "list.tsv")
    assert (first.lesion_mask, second.lesion_mask) == (Labels(mask, (1, 3)), mask)
    assert [int(s.lesion().data.sum()) for s in (first, second)] == [2, 7]  # type: ignore[union-attr]
    path = table(tmp_path / "x.csv", "subject,T1w,lesion_labels", "a,a.nii,1")
    with pytest.raises(CohortError, match=r"line 2: has lesion_labels '1'\. Give a mask"):
        read_manifest(path)


def test_a_folder_of_dicom_may_be_listed(tmp_path: Path) -> None:
    (tmp_path / "p01").mkdir()
    path = table(tmp_path / "m.csv", "subject,T1w", "a,p01", "b,p01#12345678")
    assert [s.images["T1w"] for s in read_manifest(path)] == [
        tmp_path / "p01",
        tmp_path / "p01#12345678",
    ]
