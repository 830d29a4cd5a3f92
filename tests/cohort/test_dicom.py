"""Folders of DICOM: subjects, series chosen by what their descriptions say, manifests of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atypia.cohort import Cohort, open_cohort
from atypia.cohort.manifest import read_manifest, write_manifest
from atypia.cohort.scan import Scan, modality_in
from atypia.errors import CohortError, InputError
from atypia.volume import Volume
from tests.dicom import PATIENT, SERIES, write_slices


def series(folder: Path, description: str, value: int = 1, localiser: bool = False) -> list[Path]:
    volume = Volume(np.full((4, 4, 5), value, np.int16))
    tags = {
        "SeriesDescription": description,
        "SeriesNumber": value,
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER" if localiser else "M"],
    }
    uid = f"{SERIES}.{value}"
    return write_slices(volume, folder, series=uid, prefix=f"{value}-", tags=tags)


@pytest.mark.parametrize(
    ("description", "modality"),
    [
        ("t1_mprage_sag_p2_iso", "T1w"),
        ("MPR__GradWarp__B1_Correction", "T1w"),
        ("Accelerated Sag IR-SPGR", "T1w"),
        ("t1_mprage_tra_KM", "T1c"),
        ("AX T1 POST", "T1c"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("Sagittal 3D FLAIR", "FLAIR"),
        ("Ax T1 FLAIR", "T1w"),
        ("t2_tse_tra", "T2w"),
        ("AX T2* GRE", "T2starw"),
        ("SWI_Images", "T2starw"),
        ("ep2d_diff_3scan_trace_ADC", "adc"),
        ("ep2d_diff_b1000", "dwi"),
        ("Axial PD/T2 FSE", "PDw"),
        ("HighResHippo", None),
        ("", None),
    ],
)
def test_what_descriptions_say(description: str, modality: str | None) -> None:
    assert modality_in(description) == modality


def test_one_series_a_subject(tmp_path: Path) -> None:
    series(tmp_path / "set" / "p01" / "deeper", "t1_mprage", 3)
    series(tmp_path / "set" / "p02", "whatever", 4)
    (tmp_path / "set" / "p03").mkdir()
    (tmp_path / "set" / "notes.txt").touch()
    cohort = open_cohort(tmp_path / "set")
    assert [(s.id, list(s.images)) for s in cohort] == [("p01", ["T1w"]), ("p02", ["image"])]
    assert [int(s.image().data[0, 0, 0]) for s in cohort] == [3, 4]
    assert {s.dataset for s in cohort} == {"set"}
    assert [s.id for s in open_cohort(tmp_path / "set", modality="T1w")] == ["p01", "p02"]
    assert [s.id for s in open_cohort(tmp_path / "set", modality="FLAIR")] == ["p02"]


def test_the_folder_of_one_subject_and_one_slice(tmp_path: Path) -> None:
    files = series(tmp_path / "p01", "t1_mprage")
    for cohort in (
        open_cohort(tmp_path / "p01"),
        open_cohort(files[0], modality="t1"),
        Cohort((Scan.of(tmp_path / "p01", "T1w"),)),
    ):
        (scan,) = cohort
        assert (scan.id, list(scan.images)) == ("p01", ["T1w"])
        assert scan.image().shape == (4, 4, 5)


@pytest.mark.parametrize("mixed", [True, False])
def test_several_series_are_chosen_by_modality(tmp_path: Path, mixed: bool) -> None:
    place = tmp_path / "set" / "p01"
    names = ("localizer", "t1_mprage", "t2_flair")
    for number, name in enumerate(names, start=1):
        series(place if mixed else place / name, name, number, name == "localizer")
    (scan,) = cohort = open_cohort(tmp_path / "set")
    assert sorted(scan.images) == ["FLAIR", "T1w"]
    assert [int(scan.image(m).data[0, 0, 0]) for m in ("T1w", "FLAIR")] == [2, 3]
    (flair,) = open_cohort(tmp_path / "set", modality="FLAIR")
    assert list(flair.images) == ["FLAIR"]
    write_manifest(cohort, tmp_path / "list.tsv")
    (again,) = read_manifest(tmp_path / "list.tsv")
    assert dict(again.images) == dict(scan.images)
    assert int(again.image("FLAIR").data[0, 0, 0]) == 3
    assert PATIENT not in (tmp_path / "list.tsv").read_text()
    assert open_cohort(scan.images["FLAIR"])[0].id in ("p01", "t2_flair")  # type: ignore[arg-type]


def test_series_that_cannot_be_told_apart_are_listed(tmp_path: Path) -> None:
    place = tmp_path / "set" / "p01"
    series(place, "t1_mprage", 1)
    series(place, "t1_mprage again", 2)
    series(place, "t2_tse", 3)
    for modality in (None, "T1w"):
        with pytest.raises(
            CohortError, match=r"p01: holds 3 series: p01#\w+ \(t1_mprage, 5 slices"
        ):
            open_cohort(tmp_path / "set", modality=modality)
    assert len(open_cohort(tmp_path / "set", modality="T2w")) == 1


def test_a_damaged_subject_fails_when_it_is_read(tmp_path: Path) -> None:
    files = series(tmp_path / "set" / "p01", "t1_mprage", 1)
    series(tmp_path / "set" / "p02", "t1_mprage", 2)
    files[0].write_bytes(files[0].read_bytes()[:300])
    first, second = open_cohort(tmp_path / "set")
    assert second.image().shape == (4, 4, 5)
    with pytest.raises(InputError, match="p01: DICOM file .* is damaged"):
        first.image()


def test_the_fingerprint_changes_with_a_slice(tmp_path: Path) -> None:
    files = series(tmp_path / "p01", "t1_mprage")
    (scan,) = open_cohort(tmp_path / "p01")
    before = scan.fingerprint()
    assert scan.fingerprint() == before
    files[2].unlink()
    assert scan.fingerprint() != before
