"""Tail: estimates on known distributions, the careful side, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from atypia.calibration.tail import (
    FURTHEST,
    LEAST_SCANS,
    fitted_tail,
    lowest_told,
    require_tail,
    tail_of_clusters,
)
from atypia.errors import InputError, SettingsError

KNOWN = {
    "exponential": stats.expon(),
    "gamma": stats.gamma(3),
    "lognormal": stats.lognorm(0.5),
    "Student": stats.t(5),
}


@pytest.mark.parametrize("name", KNOWN)
def test_estimates_beyond_the_data_are_within_the_stated_factor(name: str) -> None:
    known, n, repeats = KNOWN[name], 100, 40
    rng = np.random.default_rng(3)
    for times in (2, 5):
        truth = 1 / (times * (n + 1))
        value = float(known.isf(truth))
        ratios = []
        for _ in range(repeats):
            tail = fitted_tail(tuple(known.rvs(n, random_state=rng)))
            assert tail is not None
            ratios.append(tail.p_value(value) / truth)
        # docs/calibration.md: right within a factor of 2 in the middle, of 5 in nine of ten cases.
        assert 1 / 2 <= np.median(ratios) <= 2
        assert np.mean([1 / 5 <= ratio <= 5 for ratio in ratios]) >= 0.85


def test_a_tail_that_seems_to_end_is_taken_for_an_exponential_one() -> None:
    rng = np.random.default_rng(0)
    healthy = tuple(rng.uniform(0, 1, 200))
    tail = fitted_tail(healthy)
    assert tail is not None
    assert tail.shape == 0
    exceedances = [v - tail.above for v in healthy if v > tail.above]
    assert len(exceedances) == 40
    assert tail.share == 0.2
    assert tail.scale == pytest.approx(np.mean(exceedances))
    # No uniform number exceeds 1, but that is not what these scans can tell.
    assert tail.p_value(1.2) > 0
    assert tail.p_value(1.1) == pytest.approx(0.2 * np.exp(-(1.1 - tail.above) / tail.scale))


def test_p_values_fall_and_end_at_the_lowest_that_is_told() -> None:
    healthy = tuple(np.random.default_rng(0).exponential(1, 60))
    tail = fitted_tail(healthy)
    assert tail is not None
    values = [tail.p_value(v) for v in (max(healthy), 8.0, 10.0, 1e3, 1e9)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == lowest_told(60) == 1 / (FURTHEST * 61)


def test_a_limit_undoes_the_p_value() -> None:
    tail = fitted_tail(tuple(np.random.default_rng(1).gamma(2, 3, 80)))
    assert tail is not None
    for rate in (0.1, 0.01, 0.002):
        assert tail.p_value(tail.limit(rate)) == pytest.approx(rate)
    with pytest.raises(SettingsError, match=r"FPR of 0\.0001: cannot be extrapolated from 80"):
        tail.limit(0.0001)


def test_too_few_or_equal_values_have_no_tail() -> None:
    values = tuple(np.random.default_rng(0).exponential(1, LEAST_SCANS))
    assert fitted_tail(values) is not None
    assert fitted_tail(values[1:]) is None
    assert fitted_tail((0.0,) * 95 + (8.0,) * 5) is None
    with pytest.raises(InputError, match="too often equal"):
        tail_of_clusters((8.0,) * 100)
    assert fitted_tail((0.0,) * 80 + (8.0,) * 20) is not None  # equal, but not too few


def test_what_is_refused_before_anything_is_scored() -> None:
    require_tail(50)
    require_tail(50, 0.002)
    with pytest.raises(SettingsError, match="needs at least 50 healthy scans, there are 49"):
        require_tail(49)
    with pytest.raises(SettingsError, match=r"Give a rate of 0\.002 or more"):
        require_tail(50, 0.0019)
