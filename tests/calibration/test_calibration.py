"""Calibration: conformal p-values, provenance, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.calibration import Calibration
from atypia.errors import InputError, ModelError, OutputError, SettingsError

VALUES: dict[str, Any] = {
    "voxel_threshold": 2.5,
    "voxel_fpr": 0.01,
    "subject_scores": (1.0, 2.0, 2.0, 4.0),
    "flagged_share": (0.0, 0.01, 0.02, 0.01),
    "people": ("a", "b", "c", "d"),
    "cohort": "healthy ones",
    "detector": "0123",
}


def calibration(**values: Any) -> Calibration:
    return Calibration.make({**VALUES, **values})


@pytest.mark.parametrize(("score", "above"), [(0.0, 4), (1.0, 4), (1.5, 3), (2.0, 3), (4.1, 0)])
def test_p_values_count_the_healthy_scores_at_or_above(score: float, above: int) -> None:
    assert calibration().p_value(score) == (1 + above) / 5


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(0, 20), st.integers(0, 20)
)
def test_p_values_are_valid_and_fall_with_the_score(scores: list[int], a: int, b: int) -> None:
    low, high = sorted((a, b))
    made = calibration(subject_scores=scores)
    assert 1 / (1 + len(scores)) <= made.p_value(high) <= made.p_value(low) <= 1
    # Exchangeable scores: at most a share alpha of them has a p-value up to alpha.
    ranks = [
        calibration(subject_scores=scores[:i] + scores[i + 1 :])
        for i in range(len(scores))
        if len(scores) > 1
    ]
    for alpha in (0.1, 0.25, 0.5):
        hits = sum(c.p_value(s) <= alpha for c, s in zip(ranks, scores, strict=False))
        assert hits <= alpha * len(scores) + 1e-9


def test_the_threshold_tells_where_it_came_from() -> None:
    threshold = calibration().threshold
    assert threshold.value == 2.5
    assert threshold.provenance == "healthy n=4, voxel FPR 1.00%"


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    made = calibration(smallest_mm3=30)
    made.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    assert again == made
    assert again.digest() == made.digest()


@pytest.mark.parametrize(
    "values", [{"voxel_fpr": 0}, {"voxel_fpr": 1}, {"subject_scores": ()}, {"smallest_mm3": -1}]
)
def test_values_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(values))):
        calibration(**values)


def test_files_that_are_no_calibration(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    with pytest.raises(InputError, match=r"calibration\.json: no such file"):
        Calibration.load(path)
    for text in ("[]", '{"voxel_threshold": 1}', '{"voxel_thresh'):
        path.write_text(text)
        with pytest.raises(ModelError, match=r"calibration\.json: is no.*atypia calibrate"):
            Calibration.load(path)


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        calibration().save(tmp_path / "file" / "calibration.json")
