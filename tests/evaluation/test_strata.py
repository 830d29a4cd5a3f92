"""Strata: which scans and lesions stand in which row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atypia.errors import SettingsError
from atypia.evaluation.lesion_figures import LesionCounts
from atypia.evaluation.strata import age_bin, strata_rows


def row(scan: str, **values: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"scan": scan, "condition": "tumour", "method": "m", "person": scan}
    made |= {"site": "", "sex": "", "age": None, "score": 1.0, "flagged": None}
    return made | values


@pytest.mark.parametrize(
    ("age", "name"),
    [
        (None, ""),
        (float("nan"), ""),
        (-1, ""),
        (0, "under 20 years"),
        (19.9, "under 20 years"),
        (20, "20 to 40 years"),
        (80, "80 years and more"),
        (101, "80 years and more"),
    ],
)
def test_age_bins(age: float | None, name: str) -> None:
    assert age_bin(age) == name


def test_age_bins_of_ones_own() -> None:
    assert age_bin(5, (0, 6, 18)) == "under 6 years"
    assert age_bin(18, (0, 6, 18)) == ""
    with pytest.raises(SettingsError, match="age edges"):
        age_bin(5, (6, 0))


def test_scans_stand_in_the_rows_of_their_strata() -> None:
    scans = [
        row("a", sex="F", age=30.0, dice=0.2, site="X"),
        row("b", sex="F", age=70.0, dice=0.4, site="X"),
        row("c", sex="M", age=70.0, dice=0.9, site="X", method="other"),
        row("d", age=70.0, condition="healthy", site="X", flagged=0.1),
    ]
    rows = strata_rows(scans, lambda name: f"<{name}>")
    # All scans are of one site, which is no stratum.
    assert {r["by"] for r in rows} == {"sex", "age"}
    found = {(r["condition"], r["method"], r["stratum"]): r for r in rows}
    assert len(found) == len(rows) == 6
    women = found["tumour", "<m>", "F"]
    assert (women["scans"], women["subjects"]) == (2, 2)
    assert women["dice"]["mean"] == pytest.approx(0.3)
    assert women["ap"] == {"mean": None, "interval": None}
    assert found["tumour", "<other>", "M"]["dice"]["mean"] == 0.9
    assert found["tumour", "<m>", "60 to 80 years"]["dice"]["mean"] == 0.4
    assert found["healthy", "<m>", "60 to 80 years"]["flagged"]["mean"] == 0.1
    # The scan without a sex is in none of its rows.
    assert not [key for key in found if key[0] == "healthy" and key[2] in "FM"]


def test_lesions_by_size_are_those_of_all_scans() -> None:
    def lesion_wise(small: LesionCounts, large: LesionCounts) -> dict[str, Any]:
        sizes = {"small": small.to_json(), "large": large.to_json()}
        return {"calibrated": {"by_size": sizes}}

    scans = [
        row("a", lesion_wise=lesion_wise(LesionCounts(3, 1, 2, 1), LesionCounts(1, 1, 1, 1))),
        row("b", lesion_wise=lesion_wise(LesionCounts(1, 1, 4, 1), LesionCounts())),
        row("c"),
    ]
    small, large = strata_rows(scans, str)
    assert (small["by"], small["mask"], small["stratum"]) == ("size", "calibrated", "small")
    assert (small["scans"], small["lesions"], small["detected"]) == (2, 4, 2)
    assert small["recall"]["mean"] == 0.5
    assert small["precision"]["mean"] == pytest.approx(2 / 6)
    assert small["false_positives"]["mean"] == 2
    assert large["recall"]["mean"] == 1
    assert large["recall"]["interval"] is None  # a resample may hold no large lesion
    assert np.isclose(small["f1"]["mean"], 2 * 0.5 / 3 / (0.5 + 1 / 3))
