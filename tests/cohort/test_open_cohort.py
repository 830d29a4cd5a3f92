"""Opening a cohort: the layout is recognised, and what is none is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia.cohort import LAYOUTS, open_cohort, read_names
from atypia.errors import CohortError, InputError, SettingsError
from tests.cohort.conftest import Place


def test_layouts_are_recognised(tmp_path: Path, place: Place) -> None:
    place("bids/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz")
    assert open_cohort(tmp_path / "bids")[0].session == "ses-1"
    place("plain/a_T1w.nii.gz")
    assert open_cohort(str(tmp_path / "plain"))[0].subject == "a"
    (tmp_path / "plain" / "manifest.csv").write_text("subject,T1w\nlisted,a_T1w.nii.gz\n")
    for path in (tmp_path / "plain", tmp_path / "plain" / "manifest.csv"):
        assert open_cohort(path)[0].subject == "listed"
    assert open_cohort(tmp_path / "plain", layout="folder")[0].subject == "a"


def test_one_image_is_a_cohort(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place("set/a.nii.gz")
    cohort = open_cohort(path, modality="flair")
    assert (len(cohort), cohort[0].subject, list(cohort[0].images)) == (1, "a", ["FLAIR"])
    # The same person however the file is reached.
    monkeypatch.chdir(tmp_path / "set")
    folder = open_cohort(tmp_path / "set")
    assert open_cohort("a.nii.gz")[0].person == cohort[0].person == folder[0].person


def test_what_is_no_cohort(tmp_path: Path, place: Place) -> None:
    with pytest.raises(InputError, match="absent: no such file or folder. Check the path"):
        open_cohort(tmp_path / "absent")
    (tmp_path / "x.txt").touch()
    with pytest.raises(CohortError, match=r"x\.txt: is neither an image nor"):
        open_cohort(tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match="empty: has no scan in layout folder"):
        open_cohort(tmp_path / "empty")
    place("full/a_T1w.nii.gz")
    with pytest.raises(CohortError, match="has no scan of modality T2w in layout folder"):
        open_cohort(tmp_path / "full", modality="t2")
    with pytest.raises(SettingsError, match="Did you mean 'bids'"):
        open_cohort(tmp_path / "full", layout="bid")
    with pytest.raises(SettingsError, match="modality 'T9'"):
        open_cohort(tmp_path / "full", modality="T9")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_does_not_fit_is_our_error(tmp_path: Path, place: Place, layout: str) -> None:
    file = place("a.nii.gz")
    (tmp_path / "none").mkdir()
    for path in (file, tmp_path / "none"):
        with pytest.raises(CohortError, match=str(path)):
            open_cohort(path, layout=layout)


def test_a_list_of_names_keeps_those_scans(tmp_path: Path, place: Place) -> None:
    for name in ("a_T1w", "b_T1w", "c_T1w"):
        place(f"set/{name}.nii.gz")
    cohort = open_cohort(tmp_path / "set")
    (tmp_path / "names.txt").write_text("\ufeffc_T1w.nii.gz\n\n a \n", encoding="utf-8")
    names = read_names(tmp_path / "names.txt")
    assert [s.id for s in cohort.listed(names)] == ["a", "c"]
    with pytest.raises(CohortError, match="has no scan named d_T1w.nii.gz. Mend"):
        cohort.listed([*names, "d_T1w.nii.gz"])
    with pytest.raises(CohortError, match="an empty list"):
        cohort.listed([])
    with pytest.raises(CohortError, match=r"absent\.txt: cannot be read"):
        read_names(tmp_path / "absent.txt")
