"""BIDS trees: sessions, runs, derivatives, participants, and twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia.cohort.bids import entities, read_bids
from atypia.errors import CohortError
from tests.cohort.conftest import Place


def test_entities_keep_their_order() -> None:
    found = entities("sub-01_ses-pre_acq-highres_run-2_T1w")
    assert list(found.items()) == [
        ("sub", "01"),
        ("ses", "pre"),
        ("acq", "highres"),
        ("run", "2"),
    ]
    assert entities("sub-CC-001_ses-é_T1w") == {"sub": "CC-001", "ses": "é"}
    assert entities("T1w") == {}


def test_sessions_runs_and_modalities(tmp_path: Path, place: Place) -> None:
    place("sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz")
    place("sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz")
    place("sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz")
    flair = place("sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii")
    place("sub-02/anat/sub-02_T2w.nii.gz")
    place("sub-02/func/sub-02_bold.nii.gz")
    place("sub-02/anat/sub-02_angio.nii.gz")
    cohort = read_bids(tmp_path)
    assert {s.id: sorted(s.images) for s in cohort} == {
        "sub-01_ses-a_run-1": ["T1w"],
        "sub-01_ses-a_run-2": ["T1w"],
        "sub-01_ses-b": ["FLAIR", "T1w"],
        "sub-02": ["T2w"],
    }
    assert len({s.person for s in cohort}) == 2
    third = next(s for s in cohort if s.session == "ses-b")
    assert (third.subject, third.session, third.run) == ("sub-01", "ses-b", "")
    assert third.images["FLAIR"] == flair
    assert [s.id for s in read_bids(tmp_path, "T2w")] == ["sub-02"]


def test_masks_beside_the_image_and_in_derivatives(tmp_path: Path, place: Place) -> None:
    for name in ("sub-01", "sub-02", "sub-03"):
        place(f"{name}/anat/{name}_T1w.nii.gz")
    deep = "derivatives/tool/sub-01/anat/sub-01"
    brain = place(f"{deep}_desc-brain_mask.nii.gz")
    lesion = place(f"{deep}_space-orig_label-lesion_mask.nii.gz")
    place("derivatives/tool/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz")
    roi = place("sub-02/anat/sub-02_label-lesion_roi.nii.gz")
    first, second, third = read_bids(tmp_path)
    assert (first.brain_mask, first.lesion_mask) == (brain, lesion)
    assert (second.brain_mask, second.lesion_mask) == (None, roi)
    assert (third.brain_mask, third.lesion_mask) == (None, None)
    assert list(first.images) == ["T1w"]


def test_a_mask_belongs_to_its_own_session(tmp_path: Path, place: Place) -> None:
    for session in ("ses-a", "ses-b"):
        place(f"sub-01/{session}/anat/sub-01_{session}_T1w.nii.gz")
    mask = place("derivatives/t/sub-01/ses-b/anat/sub-01_ses-b_desc-lesion_mask.nii.gz")
    assert {s.session: s.lesion_mask for s in read_bids(tmp_path)} == {
        "ses-a": None,
        "ses-b": mask,
    }


def test_participants(tmp_path: Path, place: Place) -> None:
    for name in ("sub-01", "sub-02", "sub-03", "sub-04"):
        place(f"{name}/anat/{name}_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text(
        "\ufeffparticipant_id\tage\tsex\tsite\nsub-01\t33.5\tF\tX\nsub-02\tn/a\tM\tY\nsub-04\t89+\n",
        encoding="utf-8",
    )
    (tmp_path / "dataset_description.json").write_text('{"Name": "The Set"}')
    cohort = read_bids(tmp_path)
    assert [s.age for s in cohort] == [33.5, None, None, None]
    assert [s.sex for s in cohort] == ["F", "M", "", ""]
    assert [s.site for s in cohort] == ["X", "Y", "", ""]
    assert {s.dataset for s in cohort} == {"The Set"} == {cohort.name}


@pytest.mark.parametrize("description", [None, "{", "[]", "{}"])
def test_without_a_description_the_folder_names_the_set(
    tmp_path: Path, place: Place, description: str | None
) -> None:
    place("sub-01/anat/sub-01_T1w.nii.gz")
    if description is not None:
        (tmp_path / "dataset_description.json").write_text(description)
    assert read_bids(tmp_path).name == tmp_path.name


def test_twins_are_refused(tmp_path: Path, place: Place) -> None:
    place("sub-01/anat/sub-01_T1w.nii.gz")
    place("sub-01/anat/sub-01_T1w.nii")
    with pytest.raises(CohortError, match=r"sub-01_T1w\.nii.*twin.*Keep one"):
        read_bids(tmp_path)


def test_broken_names_and_tables_are_refused(tmp_path: Path, place: Place) -> None:
    place("sub-01/anat/sub-_T1w.nii.gz")
    with pytest.raises(CohortError, match="sub-_T1w.nii.gz: names no subject"):
        read_bids(tmp_path)
    (tmp_path / "participants.tsv").write_bytes(b"participant_id\n\xff\n")
    with pytest.raises(CohortError, match=r"participants\.tsv: cannot be read.*UTF-8"):
        read_bids(tmp_path)


def test_a_mask_in_another_space_is_on_another_grid(tmp_path: Path, place: Place) -> None:
    for name in ("sub-01", "sub-02", "sub-03"):
        place(f"{name}/anat/{name}_T1w.nii.gz")
    place("sub-03/anat/sub-03_space-MNI152_T1w.nii.gz")
    tool = "derivatives/tool"
    for name in ("sub-01", "sub-02", "sub-03"):
        place(f"{tool}/{name}/anat/{name}_space-MNI152_desc-brain_mask.nii.gz")
        place(f"{tool}/{name}/anat/{name}_space-FLAIR_label-lesion_mask.nii.gz")
        place(f"{tool}/{name}/anat/{name}_res-2_label-lesion_mask.nii.gz")
    own = place(f"{tool}/sub-02/anat/sub-02_space-T1w_desc-brain_mask.nii.gz")
    masks = {s.id: (s.brain_mask, s.lesion_mask) for s in read_bids(tmp_path)}
    template = tmp_path / tool / "sub-03/anat/sub-03_space-MNI152_desc-brain_mask.nii.gz"
    assert masks == {
        "sub-01": (None, None),
        "sub-02": (own, None),
        "sub-03": (None, None),
        "sub-03_space-MNI152": (template, None),
    }


def test_a_mask_of_one_modality_serves_scans_that_have_it(tmp_path: Path, place: Place) -> None:
    place("sub-01/anat/sub-01_T1w.nii.gz")
    place("sub-01/anat/sub-01_FLAIR.nii.gz")
    mask = place("derivatives/sub-01/anat/sub-01_space-FLAIR_label-lesion_mask.nii.gz")
    assert [s.lesion_mask for s in read_bids(tmp_path, "FLAIR")] == [mask]
    assert [s.lesion_mask for s in read_bids(tmp_path, "T1w")] == [None]


def test_a_mask_belongs_to_its_own_run_and_acquisition(tmp_path: Path, place: Place) -> None:
    stems = ("sub-01_acq-a_run-1", "sub-01_acq-a_run-2", "sub-01_acq-b_run-1")
    for stem in stems:
        place(f"sub-01/anat/{stem}_T1w.nii.gz")
    mask = place("derivatives/t/sub-01/anat/sub-01_acq-a_run-2_desc-brain_mask.nii.gz")
    other = place("derivatives/t/sub-01/anat/sub-01_run-1_acq-b_desc-brain_mask.nii.gz")
    place("derivatives/t/sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    assert [s.brain_mask for s in read_bids(tmp_path)] == [None, mask, other]
