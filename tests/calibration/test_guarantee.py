"""The guarantee, by simulation: how often healthy scans are flagged, against what was promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from atypia.calibration import cluster_limit
from atypia.calibration.conformal import conformal_limit, conformal_p_value, scans_needed
from atypia.errors import SettingsError
from atypia.scoring.components import ROUNDING

DRAWS, NEW = 200, 100
RATES = (0.01, 0.05, 0.1)
N = {0.01: 99, 0.05: 39, 0.1: 29}
"""Healthy scans of a draw: the quantile exists, and is reached exactly for scores without ties."""

Values = NDArray[np.float64]


def band(rate: float, n: int) -> float:
    """Four standard deviations of the mean rate over all draws: its share of a draw is a Beta."""
    k = math.ceil((1 - rate) * (n + 1) - 1e-9)
    variance = stats.betabinom(NEW, n + 1 - k, k).var() / NEW**2
    return float(4 * math.sqrt(variance / DRAWS))


def drawn(rate: float, kind: str) -> list[tuple[list[float], list[float]]]:
    """Make healthy values of a calibration and of new scans, draw by draw."""
    rng = np.random.default_rng(round(1000 * rate))

    def values(count: int) -> list[float]:
        if kind == "scores":
            return [float(v) for v in rng.lognormal(1.0, 0.4, count)]
        # Sizes are whole voxels of 8 mm3, often equal, and nothing in a third of the scans.
        sizes = rng.geometric(0.05, count) * (rng.random(count) > 1 / 3)
        return [float(8 * v) for v in sizes]

    return [(values(N[rate]), values(NEW)) for _ in range(DRAWS)]


@pytest.mark.parametrize("rate", RATES)
def test_subject_scores_are_flagged_at_the_promised_rate(rate: float) -> None:
    flagged = [
        [conformal_p_value(value, healthy) <= rate for value in new]
        for healthy, new in drawn(rate, "scores")
    ]
    assert np.mean(flagged) == pytest.approx(rate, abs=band(rate, N[rate]))
    # One new scan a draw: these are independent, so that their number is plainly binomial.
    first = sum(draw[0] for draw in flagged)
    low, high = stats.binom(DRAWS, rate).ppf([0.0005, 0.9995])
    assert low <= first <= high


@pytest.mark.parametrize("rate", RATES)
def test_a_limit_flags_what_the_p_value_flags(rate: float) -> None:
    for healthy, new in drawn(rate, "scores")[:5]:
        limit = conformal_limit(healthy, rate)
        assert [v > limit for v in new] == [conformal_p_value(v, healthy) <= rate for v in new]


@pytest.mark.parametrize("rate", RATES)
def test_scans_with_any_cluster_left_stay_below_the_promised_rate(rate: float) -> None:
    n = N[rate]
    found, p_values = [], []
    for sizes, new in drawn(rate, "sizes"):
        limit, extrapolated = cluster_limit(sizes, rate)
        assert not extrapolated
        found.append([size * ROUNDING > limit for size in new])
        p_values.append([conformal_p_value(size * ROUNDING, sizes) for size in new])
    # Equal sizes are dropped together: ties can only make the rate smaller.
    assert 0 < np.mean(found) <= rate + band(rate, n)
    assert all(p <= rate for row, p_row in zip(found, p_values, strict=True)
               for hit, p in zip(row, p_row, strict=True) if hit)  # fmt: skip


def test_the_limit_is_the_asked_order_statistic() -> None:
    values = [float(v) for v in range(1, 100)]  # n = 99
    assert conformal_limit(values, 0.01) == 99
    assert conformal_limit(values, 0.05) == 95
    assert conformal_limit(values, 0.1) == 90


@pytest.mark.parametrize(("rate", "scans"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1), (0.3, 3)])
def test_the_number_of_scans_that_a_rate_needs(rate: float, scans: int) -> None:
    assert scans_needed(rate) == scans
    values = [float(v) for v in range(scans)]
    assert conformal_limit(values, rate) == values[-1]
    if scans > 1:
        told = f"needs at least {scans} healthy scans, there are {scans - 1}.*--extrapolate"
        with pytest.raises(SettingsError, match=told):
            conformal_limit(values[:-1], rate)
