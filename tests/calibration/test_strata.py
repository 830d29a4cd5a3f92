"""Strata: who is compared with whom, and when with everybody."""

from __future__ import annotations

import pytest

from atypia.calibration import HealthyStrata
from atypia.calibration.strata import NAMES
from atypia.cohort.scan import Scan
from atypia.cohort.strata import STRATA
from atypia.errors import SettingsError


def scan(site: str = "", sex: str = "", age: float | None = None) -> Scan:
    return Scan("x", {}, site=site, sex=sex, age=age)


def test_names_are_those_of_splits() -> None:
    assert NAMES == STRATA


def test_labels_tell_site_sex_and_age() -> None:
    healthy = [scan("A", "F", 20 + i) for i in range(5)] + [scan("B", "M", 25)]
    strata = HealthyStrata.of(healthy, ("age", "site", "sex"))
    assert strata.by == ("site", "sex", "age")
    assert strata.age_edges == (20, 21.25, 22.5, 23.75, 25)
    assert strata.labels[0] == "site A, sex F, age 20-21.25"
    assert strata.labels[-1] == "site B, sex M, age 23.75-25"
    assert strata.members(strata.label_of(scan("A", "F", 24.5))) == [4]
    assert strata.members(strata.label_of(scan("C", "F", 24.5))) == []


@pytest.mark.parametrize(
    "one", [scan("A"), scan(age=22), scan("A", age=19.9), scan("A", age=25.1), scan()]
)
def test_what_is_unknown_or_out_of_range_has_no_stratum(one: Scan) -> None:
    healthy = [scan("A", age=20), scan("A", age=25), scan(age=21)]
    strata = HealthyStrata.of(healthy, ("site", "age"))
    assert strata.labels[2] == ""
    assert strata.label_of(one) == ""
    assert strata.members("") == []


def test_one_age_is_one_bin() -> None:
    strata = HealthyStrata.of([scan(age=30), scan(age=30)], ("age",))
    assert strata.labels == ("age 30-30",) * 2
    assert strata.label_of(scan(age=31)) == ""
    assert HealthyStrata.of([scan(), scan()], ("age",)).labels == ("", "")


def test_values_that_make_no_sense() -> None:
    with pytest.raises(SettingsError, match=r"stratum 'sight'.*'site'"):
        HealthyStrata.of([scan("A")], ("sight",))
    with pytest.raises(SettingsError, match="least"):
        HealthyStrata.of([scan("A")], ("site",), least=0)
