"""Stratified splits and folds: everyone once, every stratum shared out, the same for any order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.cohort import Cohort, Scan, folds, split
from atypia.cohort.strata import STRATA, Strata
from atypia.errors import CohortError, SettingsError

ALL = ("site", "sex", "age")


def person(i: int, site: str, sex: str, age: float | None, visits: int = 1) -> list[Scan]:
    return [
        Scan(f"s{i}", {}, "d", f"v{v}", site=site, sex=sex, age=None if age is None else age + v)
        for v in range(visits)
    ]


people = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", ""]),
        st.sampled_from(["f", "m"]),
        st.one_of(st.none(), st.integers(20, 80).map(float)),
        st.integers(1, 3),
    ),
    min_size=6,
    max_size=40,
)


def cohort_of(rows: list[tuple[str, str, float | None, int]]) -> Cohort:
    return Cohort(tuple(s for i, row in enumerate(rows) for s in person(i, *row)), "here")


@given(people, st.integers(2, 5), st.integers(0, 20), st.data())
def test_folds_test_everyone_once_and_share_out_sites_and_sexes(
    rows: list[tuple[str, str, float | None, int]], number: int, seed: int, data: st.DataObject
) -> None:
    cohort = cohort_of(rows)
    made = folds(cohort, number, {"train": 0.5, "calibration": 0.5}, seed, ALL)
    tested = Counter(scan.id for fold in made for scan in fold["test"])
    assert tested == Counter(scan.id for scan in cohort)
    for fold in made:
        assert list(fold) == ["train", "calibration", "test"]
        groups = [{scan.person for scan in part} for part in fold.values()]
        assert sum(map(len, groups)) == len(rows) == len(set.union(*groups))
        for name, part in fold.items():
            assert {scan.split for scan in part} == {name}
    # People of one site stand together when folds are dealt, and so do those of one sex in it.
    for site in {row[0] for row in rows}:
        for sexes in ({"f"}, {"m"}, {"f", "m"}):
            sizes = [
                len({s.person for s in fold["test"] if s.site == site and s.sex in sexes})
                for fold in made
            ]
            assert max(sizes) - min(sizes) <= 1
    mixed = Cohort(tuple(data.draw(st.permutations(cohort.scans))), "here")
    again = folds(mixed, number, {"train": 0.5, "calibration": 0.5}, seed, ALL)
    for fold, other in zip(made, again, strict=True):
        for name, part in fold.items():
            assert {s.id for s in part} == {s.id for s in other[name]}


@given(people, st.integers(0, 20))
def test_parts_of_a_stratified_split_have_their_sizes(
    rows: list[tuple[str, str, float | None, int]], seed: int
) -> None:
    cohort = cohort_of(rows)
    shares = {"train": 0.6, "calibration": 0.2, "test": 0.2}
    plain, stratified = split(cohort, shares, seed), split(cohort, shares, seed, ALL)
    for name in shares:
        sizes = [len({s.person for s in parts[name]}) for parts in (plain, stratified)]
        assert sizes[0] == sizes[1]
    for site in {row[0] for row in rows}:
        everyone = sum(row[0] == site for row in rows)
        for name, share in shares.items():
            there = len({s.person for s in stratified[name] if s.site == site})
            assert abs(there - share * everyone) <= 2


def test_a_site_is_shared_out_where_chance_would_not() -> None:
    cohort = cohort_of([("A" if i < 30 else "B", "f", 50.0, 1) for i in range(40)])
    shares = {"train": 0.5, "test": 0.5}
    for seed in range(5):
        parts = split(cohort, shares, seed, ["site"])
        assert sum(s.site == "B" for s in parts["test"]) == 5
    drawn = {tuple(s.id for s in split(cohort, shares, n, ["site"])["test"]) for n in range(5)}
    assert len(drawn) == 5


def test_age_bins_hold_equal_numbers_and_the_first_visit_counts() -> None:
    rows = [("", "f", float(20 + i), 2) for i in range(16)] + [("", "f", None, 1)]
    strata = Strata.of(cohort_of(rows), ["age"])
    assert strata.bins == ("20-23.75", "23.75-27.5", "27.5-31.25", "31.25-35", "unknown")
    assert sorted(Counter(strata.labels.values()).values()) == [1, 4, 4, 4, 4]
    assert strata.small(4) == {("unknown",): 1}
    assert strata.order(0) != strata.order(1)
    parts = split(cohort_of(rows), {"a": 0.5, "b": 0.5}, 0, ["age"])
    assert strata.table(parts)["age 20-23.75"] == {"a": 2, "b": 2}


def test_one_age_makes_one_bin() -> None:
    strata = Strata.of(cohort_of([("", "", 30.0, 1)] * 3), STRATA)
    assert strata.bins == ("30-30", "unknown")
    assert set(strata.labels.values()) == {("unknown", "unknown", "30-30")}


def test_what_makes_no_sense_is_refused() -> None:
    cohort = cohort_of([("", "", None, 1)] * 4)
    with pytest.raises(SettingsError, match="'size': unknown. Did you mean 'site'"):
        split(cohort, {"a": 1.0}, 0, ["size"])
    with pytest.raises(SettingsError, match="two or more"):
        folds(cohort, 1, {"train": 1.0})
    with pytest.raises(SettingsError, match="no other part named test"):
        folds(cohort, 2, {"train": 0.5, "test": 0.5})
    with pytest.raises(CohortError, match="4 subjects for 5 parts"):
        folds(cohort, 5, {"train": 1.0})
