"""Scan and Cohort: names, modalities, lazy loading, privacy and the demand for health."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from atypia.cohort import Cohort, Scan, modality_named
from atypia.errors import CohortError, InputError, SettingsError
from atypia.volume import Volume
from tests.cohort.conftest import Place

IMAGE = Volume(np.arange(27, dtype=np.float32).reshape(3, 3, 3), source="memory")
EMPTY = IMAGE.with_data(np.zeros(IMAGE.shape), "mask")


def scan(subject: str = "anna", **values: object) -> Scan:
    return Scan(subject, {"T1w": IMAGE}, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spelling", "modality"), [("t1", "T1w"), ("MPRAGE", "T1w"), ("flair", "FLAIR"), ("CT", "CT")]
)
def test_modalities_have_many_spellings(spelling: str, modality: str) -> None:
    assert modality_named(spelling) == modality


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'FLAIR'"):
        modality_named("flare")


def test_the_id_is_a_file_name() -> None:
    assert scan().id == "anna"
    assert scan(session="ses-1", run="run-2").id == "anna_ses-1_run-2"
    assert scan("../a b/c", run="x").id == "-a-b-c_x"
    assert "/" not in scan("a/b\\c:d").id


def test_a_person_is_known_by_digest_alone() -> None:
    person = scan("anna", dataset="clinic").person
    assert "anna" not in person
    assert "clinic" not in person
    assert person == scan("anna", dataset="clinic", session="2", run="b").person
    assert person != scan("anna", dataset="other").person
    assert person != scan("bert", dataset="clinic").person


def test_the_modality_is_the_wanted_or_the_only_one() -> None:
    both = Scan("a", {"T1w": IMAGE, "FLAIR": IMAGE})
    assert both.modality("FLAIR") == "FLAIR"
    assert scan().modality() == "T1w"
    with pytest.raises(CohortError, match=r"scan a: has T1w, FLAIR\. Name the modality"):
        both.modality()
    with pytest.raises(CohortError, match="scan anna: has T1w, not T2w"):
        scan().modality("T2w")
    with pytest.raises(CohortError, match="has no image"):
        Scan("a", {}).modality()
    # A bare file has no modality; whoever gave it says that it fits.
    assert Scan.of(IMAGE).modality("T2w") == "image"


def test_any_is_the_only_image_whatever_its_contrast() -> None:
    assert modality_named("Any") == "any"
    assert scan().modality("any") == "T1w"
    assert scan().image("any") is IMAGE
    assert scan().fingerprint("any") == scan().fingerprint("T1w")
    assert Scan.of(IMAGE).modality("any") == "image"
    both = {"T1w": IMAGE, "FLAIR": IMAGE}
    with pytest.raises(CohortError, match=r"has T1w, FLAIR, not any\. Name the modality"):
        Scan("a", both).modality("any")
    # An image that is called so is the one that is meant.
    assert Scan("a", {**both, "any": IMAGE}).modality("any") == "any"
    # But a scan of any contrast is not one of T1w.
    with pytest.raises(CohortError, match="has any, not T1w"):
        Scan("a", {"any": IMAGE}).modality("T1w")


def test_images_are_loaded_from_file_memory_or_function(place: Place) -> None:
    path = place("x.nii.gz", 5)
    calls = []

    def make() -> Volume:
        calls.append(1)
        return IMAGE

    made = Scan("a", {"T1w": make, "T2w": path}, brain_mask=path, lesion_mask=IMAGE)
    assert not calls
    assert made.image("T1w") is IMAGE
    assert (made.image("T2w").data == 5).all()
    brain, lesion = made.brain(), made.lesion()
    assert brain is not None
    assert brain.kind == "mask"
    assert brain.data.all()
    assert lesion is not None
    assert lesion.kind == "mask"
    assert lesion.data.sum() == 26
    assert scan().brain() is scan().lesion() is None
    with pytest.raises(InputError, match=r"absent\.nii: no such file"):
        Scan("a", {"T1w": Path("absent.nii")}).image()


def test_the_fingerprint_changes_with_the_files(place: Place) -> None:
    path, mask = place("x.nii.gz"), place("m.nii.gz")
    on_disk = Scan("a", {"T1w": path}, brain_mask=mask)
    first = on_disk.fingerprint()
    assert on_disk.fingerprint() == first
    assert Scan("a", {"T1w": path}).fingerprint() != first
    for changed in (path, mask):
        before = on_disk.fingerprint()
        os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
        assert on_disk.fingerprint() != before
    assert Scan("a", {"T1w": mask}, brain_mask=path).fingerprint() != on_disk.fingerprint()


def test_the_fingerprint_changes_with_voxels_in_memory() -> None:
    flat = np.zeros((2, 3, 4), np.float32)
    variants = [
        Volume(flat),
        Volume(flat + 1),
        Volume(flat, np.diag([2.0, 1, 1, 1])),
        Volume(flat.astype(np.int32)),
        Volume(flat.reshape(4, 3, 2)),
    ]
    assert len({Scan("a", {"T1w": v}).fingerprint() for v in variants}) == len(variants)
    again = Scan("b", {"T1w": lambda: Volume(flat.copy())})
    assert again.fingerprint() == Scan("a", {"T1w": variants[0]}).fingerprint()


def test_a_scan_of_one_bare_image() -> None:
    assert Scan.of("folder/anna_T1w.nii.gz").subject == "anna_T1w"
    assert Scan.of("x.nii", "T1w").images == {"T1w": Path("x.nii")}
    assert Scan.of(IMAGE).image() is IMAGE
    whole = scan()
    assert Scan.of(whole) is whole


def test_a_cohort_is_a_sequence() -> None:
    scans = tuple(scan(name) for name in "abc")
    cohort = Cohort(scans)
    assert len(cohort) == 3
    assert tuple(cohort) == scans
    assert cohort[1] is scans[1]
    assert tuple(cohort.take([2, 0])) == (scans[2], scans[0])


def test_two_scans_of_one_name_are_refused() -> None:
    with pytest.raises(CohortError, match="here: has several scans named a.*session or run"):
        Cohort((scan("a"), scan("b"), scan("a")), "here")
    Cohort((scan("a"), scan("a", session="2")))


def test_where_filters_by_metadata() -> None:
    cohort = Cohort((scan("a", site="X", age=30.0), scan("b", site="Y"), scan("c", site="X")))
    assert [s.id for s in cohort.where(site="X")] == ["a", "c"]
    assert [s.id for s in cohort.where(site="X", subject="c")] == ["c"]
    with pytest.raises(CohortError, match="no scan with site=Z"):
        cohort.where(site="Z")
    with pytest.raises(SettingsError, match="Did you mean 'site'"):
        cohort.where(sites="X")


def test_only_scans_without_finding_are_healthy() -> None:
    well = (scan("a"), scan("b", condition="healthy"), scan("c", lesion_mask=EMPTY))
    Cohort(well).require_healthy("training")
    for ill in (
        scan("ill", condition="tumour"),
        scan("ill", condition="healthy", lesion_mask=IMAGE),
        scan("ill", lesion_mask=IMAGE),
    ):
        with pytest.raises(CohortError, match="scan ill of here: .*training.*--where") as caught:
            Cohort((*well, ill), "here").require_healthy("training")
        assert "lesion mask" in caught.value.problem or "tumour" in caught.value.problem
