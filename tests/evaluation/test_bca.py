"""BCa intervals against scipy's, and against how often they hold the true value."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from atypia.errors import InputError, SettingsError
from atypia.evaluation import auroc, bootstrap_interval
from atypia.evaluation.bca import bca_interval

SKEWED = np.random.default_rng(0).exponential(size=25)


def scipys(
    *groups: np.ndarray, statistic: object, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    done = stats.bootstrap(
        groups, statistic, vectorized=False, confidence_level=level, n_resamples=resamples,
        method="BCa", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(done.confidence_interval.low), float(done.confidence_interval.high)


@pytest.mark.parametrize("statistic", [np.mean, np.std, np.median])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_one_group_is_scipys_interval(statistic: object, level: float) -> None:
    options = {"level": level, "resamples": 500, "seed": 3, "statistic": statistic}
    # Both draw the same resamples from the same seed, so that the ends agree exactly.
    assert bca_interval(SKEWED, **options) == pytest.approx(  # type: ignore[arg-type]
        scipys(SKEWED, **options),  # type: ignore[arg-type]
        abs=1e-12,
    )


def test_two_groups_are_scipys_interval() -> None:
    rng = np.random.default_rng(1)
    groups = rng.exponential(size=12), 2 * rng.exponential(size=30)

    def ratio(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.mean(second) / np.mean(first))

    # scipy draws in another order: it is given what is drawn here.
    rng = np.random.default_rng(0)
    drawn = [ratio(*(g[rng.integers(0, g.size, g.size)] for g in groups)) for _ in range(500)]
    expected = stats.bootstrap(
        groups, ratio, vectorized=False, confidence_level=0.9, n_resamples=0, method="BCa",
        bootstrap_result=SimpleNamespace(bootstrap_distribution=np.array(drawn)),
    ).confidence_interval  # fmt: skip
    options = {"statistic": ratio, "level": 0.9, "resamples": 500, "seed": 0}
    found = bca_interval(*groups, **options)  # type: ignore[arg-type]
    percentile = bootstrap_interval(*groups, **options)  # type: ignore[arg-type]
    assert found == pytest.approx(tuple(expected), abs=1e-12)
    assert percentile is not None
    assert abs(percentile[0] / expected.low - 1) > 0.05  # what the correction is for


def test_coverage_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    draws, level = 300, 0.9
    low, high = stats.binom.interval(0.999, draws, level)
    held = 0
    for _ in range(draws):
        ends = bca_interval(rng.normal(3, 2, 40), seed=0, level=level, resamples=200)
        assert ends is not None
        held += ends[0] <= 3 <= ends[1]
    assert low <= held <= high
    assert not low <= 0.8 * draws <= high  # the band can tell 80 % from 90 %


def test_ends_of_a_skewed_mean_are_missed_more_evenly_than_percentiles() -> None:
    rng = np.random.default_rng(1)
    missed = {bca_interval: [0, 0], bootstrap_interval: [0, 0]}
    for _ in range(150):
        sample = rng.exponential(size=20)
        for method, count in missed.items():
            ends = method(sample, seed=0, level=0.8, resamples=200)
            assert ends is not None
            count[0] += ends[0] > 1
            count[1] += ends[1] < 1
    uneven = {method: count[1] - count[0] for method, count in missed.items()}
    assert 0 < uneven[bca_interval] < uneven[bootstrap_interval]


def test_the_same_seed_gives_the_same_interval() -> None:
    first = bca_interval(SKEWED, seed=5, resamples=100)
    assert first == bca_interval(SKEWED, seed=5, resamples=100)
    assert first != bca_interval(SKEWED, seed=6, resamples=100)


def test_a_statistic_that_never_changes() -> None:
    assert bca_interval([2.0, 2.0, 2.0], seed=0, resamples=50) == (2.0, 2.0)
    # Perfect separation.
    perfect = bca_interval([0.0, 1.0, 2.0], [5.0, 6.0], seed=0, statistic=auroc, resamples=50)
    assert perfect == (1.0, 1.0)


@pytest.mark.parametrize("sign", [-1, 1])
def test_all_resamples_on_one_side_of_the_estimate(sign: int) -> None:
    # A resample never holds all thirty subjects; the skewness has either sign.
    sample = sign * np.random.default_rng(0).exponential(size=30)
    ends = bca_interval(
        sample, seed=0, statistic=lambda x: float(100 * np.unique(x).size + x.mean())
    )
    assert ends is not None
    assert 1000 < ends[0] <= ends[1] < 3000


def test_beyond_the_pole_an_end_is_that_of_all_resamples() -> None:
    # One subject carries nearly all of the statistic, so that the acceleration is near its largest
    # possible value of a sixth, and all resamples lie below the estimate.
    sample = np.append(np.linspace(0, 1e-3, 40), 1)
    ends = bca_interval(
        sample, seed=0, level=0.999,
        statistic=lambda x: float(x.max() > 0.5) + 1e-6 * np.unique(x).size,
    )  # fmt: skip
    assert ends is not None
    assert 1 < ends[0] <= ends[1]


def test_too_few_subjects_and_statistics_without_a_value() -> None:
    assert bca_interval([1.0], seed=0) is None
    assert bca_interval([1.0, 2.0], [1.0], seed=0, statistic=auroc) is None
    assert bca_interval([1.0, 2.0], seed=0, statistic=lambda _: None) is None
    # None only without one subject.
    few = bca_interval([1.0, 2.0], seed=0, statistic=lambda x: x.sum() if x.size > 1 else None)
    assert few is None
    # None only for one resample.
    same = bca_interval(
        [1.0, 2.0, 3.0], seed=0, statistic=lambda x: None if np.ptp(x) == 0 else x.mean()
    )
    assert same is None


def test_misuse_is_refused() -> None:
    with pytest.raises(SettingsError, match="level"):
        bca_interval([1.0, 2.0], seed=0, level=1.0)
    with pytest.raises(SettingsError, match="resamples"):
        bca_interval([1.0, 2.0], seed=0, resamples=0)
    for groups in ((), ([1.0], [2.0])):
        with pytest.raises(SettingsError, match="statistic"):
            bca_interval(*groups, seed=0)
    with pytest.raises(InputError, match="NaN"):
        bca_interval([1.0, np.nan], seed=0)
