"""Splits: by subject, covering, disjoint, the same for any order; and the leakage check."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from atypia.cohort import Cohort, Scan, require_disjoint, split
from atypia.errors import CohortError, LeakageError, SettingsError


def cohort_of(visits: list[int]) -> Cohort:
    """Make a cohort with the given number of visits of each subject."""
    scans = [Scan(f"s{i}", {}, "d", f"v{v}") for i, n in enumerate(visits) for v in range(n)]
    return Cohort(tuple(scans), "here")


weights = st.lists(st.integers(1, 20), min_size=1, max_size=4)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), weights, st.integers(0, 99), st.data())
def test_parts_cover_and_are_disjoint_whatever_the_order(
    visits: list[int], weight: list[int], seed: int, data: st.DataObject
) -> None:
    assume(len(visits) >= len(weight))
    cohort = cohort_of(visits)
    shares = {f"part{i}": w / sum(weight) for i, w in enumerate(weight)}
    parts = split(cohort, shares, seed)
    assert list(parts) == list(shares)
    found = sorted(scan.id for part in parts.values() for scan in part)
    assert found == sorted(scan.id for scan in cohort)
    people = {name: {scan.person for scan in part} for name, part in parts.items()}
    assert sum(map(len, people.values())) == len(visits)
    for name, part in parts.items():
        assert {scan.split for scan in part} == {name}
        # Rounding, and what keeps the other parts from starving.
        assert len(people[name]) >= 1
        assert abs(len(people[name]) - shares[name] * len(visits)) <= len(shares)
    mixed = Cohort(tuple(data.draw(st.permutations(cohort.scans))))
    again = split(mixed, shares, seed)
    for name, part in parts.items():
        assert {s.id for s in again[name]} == {s.id for s in part}
        others = [person for other in parts if other != name for person in people[other]]
        require_disjoint(part, others, name, "the rest")


def test_shares_are_met_and_the_seed_matters() -> None:
    cohort = cohort_of([2] * 20)
    shares = {"train": 0.75, "calibration": 0.25}
    parts = split(cohort, shares, 0)
    assert [len(part) for part in parts.values()] == [30, 10]
    assert parts["train"].name == "here/train"
    drawn = {tuple(s.id for s in split(cohort, shares, seed)["calibration"]) for seed in range(5)}
    assert len(drawn) == 5
    assert all(scan.split == "" for scan in cohort)


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"a": 0.5},
        {"a": 1.5, "b": -0.5},
        {"a": 1.0, "b": 0.0},
        {"a": 75.0, "b": 25.0},
        {"a": math.nan, "b": 0.5},
        {"a": 0.5, "b": math.nan},
    ],
)
def test_shares_that_make_no_sense(shares: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="sum to 1"):
        split(cohort_of([1] * 4), shares)


def test_too_few_subjects() -> None:
    with pytest.raises(CohortError, match="here: has 1 subjects for 2 parts"):
        split(cohort_of([5]), {"a": 0.5, "b": 0.5})


def test_leakage_is_told_by_scan() -> None:
    cohort = cohort_of([1] * 6)
    used = [scan.person for scan in cohort.take([0, 1, 2, 3])]
    require_disjoint(cohort.take([4, 5]), used, "calibration", "training")
    require_disjoint(cohort, [], "calibration", "training")
    with pytest.raises(
        LeakageError, match="calibration cohort: .*training: s0_v0, s1_v0, s2_v0"
    ) as e:
        require_disjoint(cohort, used, "calibration", "training")
    assert "and 1 more" in str(e.value)
    assert "Split by subject" in e.value.remedy
    # Another visit of the same person leaks as well.
    with pytest.raises(LeakageError, match="s0_v9"):
        require_disjoint([Scan("s0", {}, "d", "v9")], used, "calibration", "training")
    require_disjoint([Scan("s0", {}, "another set")], used, "calibration", "training")
